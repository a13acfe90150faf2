package lb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Frontend is what a Service should have in NSX, as far as the Service and its class decide: everything but the addresses
// and load-balancer services that it gets.
type Frontend struct {
	Owner nsx.Owner
	// Class is the load-balancer class that serves it.
	Class string
	// Families of its addresses, in the order in which its status lists them.
	Families []nsx.Family
	// FewerFamilies: a family without any pool in the class is left out, as long as one is left (PreferDualStack).
	FewerFamilies bool
	// Listeners, one for each protocol in use, TCP first.
	Listeners []Listener
	// Pool behind all listeners. Its Family is empty: see PoolOf.
	Pool nsx.Pool
	// Affinity is how long a client sticks to a node; 0 for none.
	Affinity time.Duration
	// Sources are the clients that are let in, by family; the zero Sources where everybody is.
	Sources map[nsx.Family]nsx.Sources
	// LBServices are the keys of the load-balancer services to choose from, the preferred one first.
	LBServices []string
	// IPPools are the names of the IP pools to choose from, the preferred one first.
	IPPools []string
	// Asked are the addresses that the user asked for, at most one of each family.
	Asked []netip.Addr
	// Published are the addresses that the Service's status shows, in its order.
	Published []netip.Addr
	// Ignored says what in the Service has no effect, and why, for people.
	Ignored []string
}

// Listener is one protocol of a Service with all its ports.
type Listener struct {
	Protocol nsx.Protocol
	// Ports in ascending order of Port.
	Ports []nsx.PortMap
	// ApplicationProfile is an NSX id or display name.
	ApplicationProfile string
}

// PoolOf is the pool for addresses of a family.
func (f Frontend) PoolOf(family nsx.Family) nsx.Pool {
	p := f.Pool
	p.Family = family
	return p
}

// AskedOf is the address of a family that the user asked for; the zero Addr for none.
func (f Frontend) AskedOf(family nsx.Family) netip.Addr {
	return firstOf(f.Asked, family)
}

// firstOf is the first address of a family; the zero Addr when there is none.
func firstOf(addrs []netip.Addr, family nsx.Family) netip.Addr {
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return nsx.FamilyOf(a) == family })
	if i < 0 {
		return netip.Addr{}
	}
	return addrs[i]
}

// String is for people: some lines, the first of which names the Service.
func (f Frontend) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "frontend %s: class %s", f.Owner, f.Class)
	if f.FewerFamilies {
		b.WriteString(", any of its families")
	}
	b.WriteByte('\n')
	for _, l := range f.Listeners {
		fmt.Fprintf(&b, "  %s %s, application profile %s\n", l.Protocol, joined(l.Ports, ","), l.ApplicationProfile)
	}
	for _, family := range f.Families {
		fmt.Fprintf(&b, "  %s\n", f.PoolOf(family))
	}
	if f.Affinity != 0 {
		fmt.Fprintf(&b, "  affinity %v\n", f.Affinity)
	}
	for _, family := range f.Families {
		if s := f.Sources[family]; s.Restricted {
			fmt.Fprintf(&b, "  %s %s\n", family, s)
		}
	}
	if len(f.Asked) > 0 {
		fmt.Fprintf(&b, "  asks for %s\n", joined(f.Asked, ", "))
	}
	if len(f.Published) > 0 {
		fmt.Fprintf(&b, "  published as %s\n", joined(f.Published, ", "))
	}
	fmt.Fprintf(&b, "  IP pools: %s\n", orNone(strings.Join(f.IPPools, ", ")))
	fmt.Fprintf(&b, "  load-balancer services: %s\n", orNone(strings.Join(f.LBServices, ", ")))
	for _, s := range f.Ignored {
		fmt.Fprintf(&b, "  ignored: %s\n", s)
	}
	return b.String()
}

func joined[T fmt.Stringer](items []T, sep string) string {
	parts := make([]string, len(items))
	for i, item := range items {
		parts[i] = item.String()
	}
	return strings.Join(parts, sep)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
