package lb

import (
	"net/netip"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/utils/net"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// sources are the clients that the Service lets in, by family: it has no entry for a family that lets everybody in, and one
// without ranges for a family of which the Service names no client.
//
// The ranges are read as GetLoadBalancerSourceRanges of k8s.io/cloud-provider reads them: the annotation counts only
// without the field, and numbers may have leading zeros. All clients of one family stand for those of a family that is not
// named.
func sources(svc *corev1.Service, families []nsx.Family, bad *faults) map[nsx.Family]nsx.Sources {
	where, texts := "spec.loadBalancerSourceRanges", svc.Spec.LoadBalancerSourceRanges
	if value := svc.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]; len(texts) == 0 && strings.TrimSpace(value) != "" {
		where, texts = "annotation "+corev1.AnnotationLoadBalancerSourceRangesKey, strings.Split(value, ",")
	}
	if len(texts) == 0 {
		return nil
	}
	ranges := map[nsx.Family][]netipx.IPRange{}
	for _, text := range texts {
		r, err := parseRange(text)
		if err != nil {
			bad.add("%s: %q is no IP range such as 192.0.2.0/24", where, text)
			continue
		}
		family := nsx.FamilyOf(r.From())
		ranges[family] = append(ranges[family], r)
	}
	named, open := map[nsx.Family]nsx.Sources{}, map[nsx.Family]bool{}
	for family, r := range ranges {
		s := nsx.Sources{Restricted: true, Ranges: nsx.Prefixes(r)}
		named[family] = s
		if len(s.Ranges) == 1 && s.Ranges[0].Bits() == 0 {
			open[family] = true
		}
	}
	out := map[nsx.Family]nsx.Sources{}
	for _, family := range families {
		s, ok := named[family]
		switch {
		case open[family], !ok && len(open) > 0:
		case len(s.Ranges) > nsx.MaxRanges:
			bad.add("%s has %d %s ranges that cannot be merged, and NSX takes %d: name larger ones", where, len(s.Ranges), family, nsx.MaxRanges)
		default:
			s.Restricted = true
			out[family] = s
		}
	}
	return out
}

// parseRange reads a CIDR. One of IPv4 in the form of IPv6 is IPv4.
func parseRange(text string) (netipx.IPRange, error) {
	_, cidr, err := utilnet.ParseCIDRSloppy(strings.TrimSpace(text))
	if err != nil {
		return netipx.IPRange{}, err
	}
	addr, _ := netip.AddrFromSlice(cidr.IP) // it has 4 or 16 bytes
	bits, _ := cidr.Mask.Size()
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	return netipx.RangeOfPrefix(netip.PrefixFrom(addr, bits)), nil
}

// admissible refuses to serve a family whose clients can't be told apart as the Service wants: a virtual server would let
// everybody in, and kube-proxy does not filter what comes to a node port.
func (d *differ) admissible(f nsx.Family) {
	s := d.want.Sources[f]
	switch version := d.inv.Version(); {
	case !s.Restricted:
	case !version.AccessLists():
		d.bad.add("its source ranges let only some clients in, which needs NSX 3.0 or later, and this one is %s: remove them, or restrict "+
			"clients on the way to the address and allow all here (0.0.0.0/0, ::/0)", version)
	case len(s.Ranges) == 0:
		d.bad.add("its source ranges let no %s client in: add a range (%s for all), or remove %[1]s from spec.ipFamilies", f, everybody(f))
	}
}

func everybody(f nsx.Family) string {
	if f == nsx.IPv6 {
		return "::/0"
	}
	return "0.0.0.0/0"
}
