package lb

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/ipam"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// home is where a Service lives in one IP family: an address, and the NSX id of its IP pool.
type home struct {
	addr netip.Addr
	pool string
}

// home decides the address of a family: the one asked for, else the one that the Service has already, else one from the
// class's pools.
func (d *differ) home(f nsx.Family, present []nsx.ObservedVirtualServer) (home, error) {
	if a := d.want.AskedOf(f); a.IsValid() {
		return d.askedHome(f, a, present)
	}
	if v, ok := preferred(present, d.want.Published, d.usable); ok {
		return home{v.Address, v.IPPool}, nil
	}
	return d.reserve(f, netip.Addr{})
}

// preferred is the virtual server whose address counts, of those that fit. Several of one family on different addresses,
// left by a create whose answer was lost or by two leaders at once, resolve in this order: the address that the status
// shows, what carries traffic, the lowest id.
func preferred(all []nsx.ObservedVirtualServer, published []netip.Addr, fit func(nsx.ObservedVirtualServer) bool) (v nsx.ObservedVirtualServer, ok bool) {
	shown := func(v nsx.ObservedVirtualServer) int {
		if i := slices.Index(published, v.Address); i >= 0 {
			return i
		}
		return len(published)
	}
	fits := slices.DeleteFunc(slices.Clone(all), func(v nsx.ObservedVirtualServer) bool { return !fit(v) })
	if len(fits) == 0 {
		return v, false
	}
	return slices.MinFunc(fits, func(v, w nsx.ObservedVirtualServer) int {
		return cmp.Or(cmp.Compare(shown(v), shown(w)), -compareBool(v.Attached(), w.Attached()), cmp.Compare(v.ID, w.ID))
	}), true
}

// usable tells whether the Service can live on a virtual server's address without being given it anew.
func (d *differ) usable(v nsx.ObservedVirtualServer) bool {
	if v.Attached() {
		return true
	}
	pool, known := d.inv.IPPool(v.IPPool)
	switch v.Claim {
	case nsx.Claimed:
		return true
	case nsx.Doubtful:
		return pool.Exclusive || d.published(v.Address)
	case nsx.Unclaimed:
		// As good as chosen just now, if it would still be chosen.
		_, inRange := ipam.Holding([]nsx.IPPool{pool}, v.Address)
		ofClass := slices.ContainsFunc(d.pools, func(p nsx.IPPool) bool { return p.ID == pool.ID })
		return known && inRange && (ofClass || d.published(v.Address)) && !d.carriedByOthers(v.Address)
	}
	return false
}

// movable tells whether an unfinished virtual server may be given another address: it must not be the record of an
// allocation that is the Service's own, for that has to be given back first.
func (d *differ) movable(v nsx.ObservedVirtualServer) bool {
	switch {
	case v.Attached():
		return false
	case v.Claim == nsx.Doubtful:
		return !d.usable(v)
	}
	return v.Claim != nsx.Claimed
}

// askedHome is the home on the address that the user asked for.
func (d *differ) askedHome(f nsx.Family, a netip.Addr, present []nsx.ObservedVirtualServer) (home, error) {
	for _, v := range present {
		switch {
		case v.Address != a:
		case v.Claim == nsx.Unclaimed && !v.Attached() && d.inv.NoChoice(v.IPPool):
			return home{}, d.noChoice(a, v.IPPool)
		case d.usable(v):
			return home{a, v.IPPool}, nil
		case v.Claim == nsx.Doubtful:
			return home{}, &failure{nsx.ErrAlreadyAllocated, fmt.Sprintf("address %s is allocated in IP pool %s, and nothing tells whether "+
				"for this Service: release it in NSX if nobody uses it", a, poolName(d.inv, v.IPPool))}
		case v.Claim == nsx.Refused:
			return home{}, &failure{nsx.ErrAlreadyAllocated, fmt.Sprintf("address %s is somebody else's allocation in IP pool %s",
				a, poolName(d.inv, v.IPPool))}
		}
	}
	return d.reserve(f, a)
}

// noChoice: an address asked for can't be had, free or not.
func (d *differ) noChoice(a netip.Addr, pool string) error {
	return &failure{nsx.ErrExhausted, fmt.Sprintf("address %s can't be asked for: NSX gives no address of one's choice of IP pool %s", a, poolName(d.inv, pool))}
}

// reserve chooses a free address and keeps it for the Service.
func (d *differ) reserve(f nsx.Family, asked netip.Addr) (home, error) {
	request := ipam.Request{
		Class:    d.want.Class,
		Family:   f,
		Asked:    asked,
		Previous: firstOf(d.want.Published, f),
		Seed:     d.seed,
	}
	pools := d.pools
	from, left := leftAllocated(request.Previous, d.inv)
	if left && !asked.IsValid() && !slices.ContainsFunc(pools, func(p nsx.IPPool) bool { return p.ID == from.ID }) {
		pools = append(slices.Clone(pools), from) // which the class had once
	}
	var pool nsx.IPPool
	addr, err := d.inv.Reserve(d.want.Owner, func(free func(string, netip.Addr) bool) (a netip.Addr, err error) {
		pool, a, err = ipam.Choose(pools, request, func(pool string, a netip.Addr) bool {
			return left && a == request.Previous || free(pool, a)
		})
		return a, err
	})
	switch {
	case errors.Is(err, ipam.ErrNotInPools):
		d.bad.add("%v", err)
		return home{}, err
	case err != nil:
		return home{}, err
	case asked.IsValid() && d.inv.NoChoice(pool.ID) && !(left && addr == request.Previous):
		return home{}, d.noChoice(asked, pool.ID)
	}
	return home{addr, pool.ID}, nil
}

// leftAllocated tells whether the address in the Service's status is still allocated for it although its virtual server is
// gone, deleted by hand: nobody carries it, and it was our own ALLOCATE, or its IP pool, which the class may not have any
// more, is ours alone.
func leftAllocated(previous netip.Addr, inv *nsx.Inventory) (pool nsx.IPPool, left bool) {
	pool, ok := ipam.Holding(inv.IPPools(), previous)
	if !ok || len(inv.Carriers(previous)) > 0 {
		return nsx.IPPool{}, false
	}
	allocated, ours := inv.Allocation(pool.ID, previous)
	return pool, allocated && (ours || pool.Exclusive)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
