package ipam

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"net/netip"
	"strings"

	"go4.org/netipx"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// maxProbes bounds the search in one pool. The taken addresses of a pool are far fewer, so that in a larger pool one of
// that many in a row is free; a pool of up to that size is searched to its end.
const maxProbes = 1 << 20

// span is the addresses of one family in a pool: ascending ranges that do not overlap, read as one sequence. Ranges may
// be as large as IPv6 allows, so it is never written out.
type span struct{ ranges []netipx.IPRange }

// spanOf is the span of a pool that can be used; of any other it is empty.
func spanOf(p nsx.IPPool, f nsx.Family) span {
	if p.Problem != "" {
		return span{}
	}
	var b netipx.IPSetBuilder
	for _, r := range p.Ranges {
		if r.IsValid() && nsx.FamilyOf(r.From()) == f {
			b.AddRange(netipx.IPRangeFrom(r.From().Unmap(), r.To().Unmap()))
		}
	}
	set, err := b.IPSet()
	if err != nil { // only valid ranges were added
		return span{}
	}
	return span{set.Ranges()}
}

func (s span) empty() bool { return len(s.ranges) == 0 }

func (s span) contains(a netip.Addr) bool {
	for _, r := range s.ranges {
		if r.Contains(a) {
			return true
		}
	}
	return false
}

// size is how many addresses there are: up to 2^128.
func (s span) size() *big.Int {
	n := new(big.Int)
	for _, r := range s.ranges {
		n.Add(n, sizeOf(r))
	}
	return n
}

func sizeOf(r netipx.IPRange) *big.Int {
	n := new(big.Int).Sub(number(r.To()), number(r.From()))
	return n.Add(n, big.NewInt(1))
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

// search walks the addresses once around, from the place that the seed gives, to the first that is free. Without one,
// why says so.
func (s span) search(r Request, free func(netip.Addr) bool) (found netip.Addr, why string) {
	if s.empty() {
		return netip.Addr{}, fmt.Sprintf("has no %s addresses", r.Family)
	}
	size := s.size()
	probes := maxProbes
	if size.IsInt64() {
		probes = int(min(size.Int64(), maxProbes))
	}
	in, a := s.at(offset(r.Seed, size))
	for range probes {
		if free(a) {
			return a, ""
		}
		if a == s.ranges[in].To() {
			in = (in + 1) % len(s.ranges)
			a = s.ranges[in].From()
		} else {
			a = a.Next()
		}
	}
	if size.Cmp(big.NewInt(int64(probes))) > 0 {
		return netip.Addr{}, fmt.Sprintf("none of %d addresses tried is free", probes)
	}
	if probes == 1 {
		return netip.Addr{}, "its only address is in use"
	}
	return netip.Addr{}, fmt.Sprintf("all %d addresses are in use", probes)
}

// offset is where in a sequence of that size the seed points to.
func offset(seed string, size *big.Int) *big.Int {
	sum := sha256.Sum256([]byte(seed))
	n := new(big.Int).SetBytes(sum[:])
	return n.Mod(n, size)
}

// at is the n-th address of the sequence and the range that it lies in, for n below size.
func (s span) at(n *big.Int) (in int, a netip.Addr) {
	for i, r := range s.ranges {
		if size := sizeOf(r); n.Cmp(size) >= 0 {
			n = new(big.Int).Sub(n, size)
			continue
		}
		raw := make([]byte, r.From().BitLen()/8)
		a, _ = netip.AddrFromSlice(new(big.Int).Add(number(r.From()), n).FillBytes(raw))
		return i, a
	}
	panic("ipam: offset beyond the end of the span")
}

// describe lists the addresses for a message: the first ranges alone, when there are many.
func (s span) describe(p nsx.IPPool, f nsx.Family) string {
	const shown = 4
	switch {
	case p.Problem != "":
		return p.Problem
	case s.empty():
		return fmt.Sprintf("has no %s addresses", f)
	}
	var parts []string
	for _, r := range s.ranges[:min(shown, len(s.ranges))] {
		parts = append(parts, r.String())
	}
	if len(s.ranges) > shown {
		parts = append(parts, fmt.Sprintf("and %d more ranges", len(s.ranges)-shown))
	}
	return strings.Join(parts, ", ")
}
