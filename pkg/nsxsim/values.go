package nsxsim

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"go4.org/netipx"
)

// portRange is one item of a virtual server's ports: "80" or "1234-1236".
type portRange struct{ first, last uint16 }

func (r portRange) width() int { return int(r.last) - int(r.first) + 1 }

func (r portRange) overlaps(o portRange) bool { return r.first <= o.last && o.first <= r.last }

func (r portRange) String() string {
	if r.first == r.last {
		return strconv.Itoa(int(r.first))
	}
	return fmt.Sprintf("%d-%d", r.first, r.last)
}

func parsePortRange(s string) (portRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	lo, err := parsePort(first)
	if err != nil {
		return portRange{}, err
	}
	hi, err := parsePort(last)
	if err != nil {
		return portRange{}, err
	}
	if hi < lo {
		return portRange{}, fmt.Errorf("port range %s runs backwards", s)
	}
	return portRange{lo, hi}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port in [1, 65535]", s)
	}
	return uint16(n), nil
}

// parsePorts leaves out what does not parse: documents in the store are valid.
func parsePorts(ss []string) []portRange {
	var ranges []portRange
	for _, s := range ss {
		if r, err := parsePortRange(s); err == nil {
			ranges = append(ranges, r)
		}
	}
	return ranges
}

// parseAddressRange reads what an IP set holds: an address, a range of addresses
// ("192.168.1.1-192.168.1.9") or a CIDR.
func parseAddressRange(s string) (netipx.IPRange, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return netipx.IPRange{}, err
		}
		return netipx.RangeOfPrefix(p), nil
	}
	if strings.Contains(s, "-") {
		return netipx.ParseIPRange(strings.ReplaceAll(s, " ", ""))
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netipx.IPRange{}, err
	}
	if a.Zone() != "" {
		return netipx.IPRange{}, errors.New("an address with a zone")
	}
	return netipx.IPRangeFrom(a, a), nil
}

// canonicalAddress gives one spelling for an address: IPv6 has several.
func canonicalAddress(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().String()
	}
	return s
}

// Checks of single values for field.check: each says what is wrong, or "".

func checkAddress(v any) string {
	if a, err := netip.ParseAddr(v.(string)); err != nil || a.Zone() != "" {
		return fmt.Sprintf("must be an IP address, got %q", v)
	}
	return ""
}

func checkAddressRange(v any) string {
	if _, err := parseAddressRange(v.(string)); err != nil {
		return fmt.Sprintf("must be an address, a range or a CIDR, got %q", v)
	}
	return ""
}

func checkPrefix(v any) string {
	if _, err := netip.ParsePrefix(v.(string)); err != nil {
		return fmt.Sprintf("must be a CIDR, got %q", v)
	}
	return ""
}

func checkPort(v any) string {
	if _, err := parsePort(v.(string)); err != nil {
		return err.Error()
	}
	return ""
}

func checkPortRange(v any) string {
	if _, err := parsePortRange(v.(string)); err != nil {
		return err.Error()
	}
	return ""
}
