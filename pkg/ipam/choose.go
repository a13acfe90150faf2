package ipam

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Request is what a Service needs an address for.
type Request struct {
	// Class names the load-balancer class in errors.
	Class  string
	Family nsx.Family
	// Asked is the one address that the user accepts; the zero Addr when any will do.
	Asked netip.Addr
	// Previous is the address in the Service's status, which it gets again if it can; the zero Addr when there is none.
	Previous netip.Addr
	// Seed spreads Services over a pool: the UIDs of cluster and Service. The same seed prefers the same addresses.
	Seed string
}

// Free tells whether an address of the pool with that NSX id can be taken. It is asked about addresses in range alone.
type Free func(pool string, a netip.Addr) bool

// Choose picks a free address and the pool that it comes from: the one asked for or none, else the previous one, else
// one from the first pool that has room, searched from a place that the seed decides, never from its lowest address.
//
// The error wraps ErrNotInPools when the address asked for is in none of the pools, nsx.ErrAlreadyAllocated when it is
// not free, and nsx.ErrExhausted, naming each pool and why not, when no pool has a free address.
func Choose(pools []nsx.IPPool, r Request, free Free) (nsx.IPPool, netip.Addr, error) {
	spans := make([]span, len(pools))
	for i, p := range pools {
		spans[i] = spanOf(p, r.Family)
	}
	if r.Asked.IsValid() {
		return asked(pools, spans, r, free)
	}
	if a := r.Previous.Unmap(); a.IsValid() {
		if i := holding(spans, a); i >= 0 && free(pools[i].ID, a) {
			return pools[i], a, nil
		}
	}
	var tried []string
	for i, p := range pools {
		a, why := netip.Addr{}, p.Problem
		if why == "" {
			a, why = spans[i].search(r, func(a netip.Addr) bool { return free(p.ID, a) })
		}
		if why == "" {
			return p, a, nil
		}
		tried = append(tried, title(p)+": "+why)
	}
	return nsx.IPPool{}, netip.Addr{}, exhausted(r, tried)
}

// Serves tells whether one of the pools has addresses of the family, free or not.
func Serves(pools []nsx.IPPool, f nsx.Family) bool {
	for _, p := range pools {
		if !spanOf(p, f).empty() {
			return true
		}
	}
	return false
}

// Holding finds the first of the pools that an address belongs to.
func Holding(pools []nsx.IPPool, a netip.Addr) (nsx.IPPool, bool) {
	a = a.Unmap()
	for _, p := range pools {
		if spanOf(p, nsx.FamilyOf(a)).contains(a) {
			return p, true
		}
	}
	return nsx.IPPool{}, false
}

// asked takes the address that the user asked for, or explains why it can't be had.
func asked(pools []nsx.IPPool, spans []span, r Request, free Free) (nsx.IPPool, netip.Addr, error) {
	a := r.Asked.Unmap()
	i := holding(spans, a)
	if i < 0 {
		var known []string
		for i, p := range pools {
			known = append(known, title(p)+": "+spans[i].describe(p, r.Family))
		}
		if len(known) == 0 {
			known = []string{"it has none"}
		}
		return nsx.IPPool{}, netip.Addr{}, &failure{ErrNotInPools,
			fmt.Sprintf("address %s is in no IP pool of class %q (%s)", a, r.Class, strings.Join(known, "; "))}
	}
	if !free(pools[i].ID, a) {
		return nsx.IPPool{}, netip.Addr{}, &failure{nsx.ErrAlreadyAllocated,
			fmt.Sprintf("address %s of %s is already in use", a, title(pools[i]))}
	}
	return pools[i], a, nil
}

// holding is the index of the first span that contains the address, or -1.
func holding(spans []span, a netip.Addr) int {
	for i, s := range spans {
		if s.contains(a) {
			return i
		}
	}
	return -1
}
