package nsxsim

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// ipPool is the state of an IP pool beyond its document: what is allocated, in
// order, and what was released so lately that it cannot be had yet.
type ipPool struct {
	allocated []allocation
	released  map[netip.Addr]time.Time // when it becomes free
}

type allocation struct {
	addr   netip.Addr
	at     int64
	user   string
	intent bool // an IpAddressAllocation of the Policy API holds it
}

func (p *ipPool) index(a netip.Addr) int {
	return slices.IndexFunc(p.allocated, func(x allocation) bool { return x.addr == a })
}

func (s *Sim) ipPoolState(id string) *ipPool {
	p := s.ipPools[id]
	if p == nil {
		p = &ipPool{released: map[netip.Addr]time.Time{}}
		s.ipPools[id] = p
	}
	for a, free := range p.released {
		if !s.clock.Now().Before(free) {
			delete(p.released, a)
		}
	}
	return p
}

// allocateAddress takes the address asked for (want), or any when that is not valid.
func (s *Sim) allocateAddress(user string, pool *object, want netip.Addr) (netip.Addr, *Error) {
	p := s.ipPoolState(pool.id)
	if want.IsValid() {
		switch s.quirks.ChosenAddress {
		case ChosenAddressRefused:
			return want, refuseIDs(codeChosenAddress, "Allocation of a specific IP address is not supported.")
		case ChosenAddressIgnored:
			want = s.firstFree(pool, p, want)
		default:
			if err := mayAllocate(pool, p, want); err != nil {
				return want, err
			}
		}
	} else {
		want = s.firstFree(pool, p, netip.Addr{})
	}
	if !want.IsValid() {
		return want, refuseIDs(codePoolExhausted, "Unable to allocate an IP address: IpPool %s is exhausted.", pool.id)
	}
	p.allocated = append(p.allocated, allocation{addr: want, at: s.now(), user: user})
	return want, nil
}

func mayAllocate(pool *object, p *ipPool, a netip.Addr) *Error {
	if !slices.ContainsFunc(allocationRanges(pool.doc), func(r netipx.IPRange) bool { return r.Contains(a) }) {
		return refuseIDs(codeNotInPool, "IP address %s does not belong to IpPool %s.", a, pool.id)
	}
	if p.index(a) >= 0 {
		return refuseIDs(codeAlreadyAllocated, "IP address %s is already allocated from IpPool %s.", a, pool.id)
	}
	if free, ok := p.released[a]; ok {
		return refuseIDs(codeAlreadyAllocated, "IP address %s of IpPool %s was released and cannot be allocated before %s.",
			a, pool.id, free.UTC().Format(time.RFC3339))
	}
	return nil
}

// firstFree gives the lowest free address, in the order of the ranges, that is
// not the one to avoid; that one only when no other is free; none when none is.
func (s *Sim) firstFree(pool *object, p *ipPool, avoid netip.Addr) netip.Addr {
	taken := make(map[netip.Addr]bool, len(p.allocated))
	for _, a := range p.allocated {
		taken[a.addr] = true
	}
	var last netip.Addr
	for _, r := range allocationRanges(pool.doc) {
		for a := r.From(); a.IsValid() && a.Compare(r.To()) <= 0; a = a.Next() {
			if _, delayed := p.released[a]; taken[a] || delayed {
				continue
			}
			if a != avoid {
				return a
			}
			last = a
		}
	}
	return last
}

func (s *Sim) releaseAddress(pool *object, a netip.Addr) *Error {
	p := s.ipPoolState(pool.id)
	i := p.index(a)
	if i < 0 {
		return refuseIDs(codeNotAllocated, "IP address %s is not allocated from IpPool %s.", a, pool.id)
	}
	p.allocated = slices.Delete(p.allocated, i, i+1)
	if delay := s.releaseDelay(pool.doc); delay > 0 {
		p.released[a] = s.clock.Now().Add(delay)
	}
	return nil
}

func (s *Sim) releaseDelay(pool document) time.Duration {
	if ms, ok := pool.integer("ip_release_delay"); ok {
		return time.Duration(ms) * time.Millisecond
	}
	return s.defaultReleaseDelay
}

// listedAllocations gives the addresses that the pool shows as allocated.
func (s *Sim) listedAllocations(pool *object) []netip.Addr {
	p := s.ipPoolState(pool.id)
	var addrs []netip.Addr
	for _, a := range p.allocated {
		addrs = append(addrs, a.addr)
	}
	if !s.quirks.ReleasedUnlisted {
		var delayed []netip.Addr
		for a := range p.released {
			delayed = append(delayed, a)
		}
		slices.SortFunc(delayed, netip.Addr.Compare)
		addrs = append(addrs, delayed...)
	}
	return addrs
}

func allocationRanges(pool document) []netipx.IPRange {
	var ranges []netipx.IPRange
	for _, subnet := range pool.objects("subnets") {
		for _, r := range subnet.objects("allocation_ranges") {
			start, _ := netip.ParseAddr(r.str("start"))
			end, _ := netip.ParseAddr(r.str("end"))
			ranges = append(ranges, netipx.IPRangeFrom(start, end))
		}
	}
	return ranges
}

// checkIPPool: ranges lie in their subnet and do not overlap, and an update does
// not take away an address in use.
func checkIPPool(c *change) *Error {
	var all []netipx.IPRange
	for i, subnet := range c.doc.objects("subnets") {
		cidr, _ := netip.ParsePrefix(subnet.str("cidr"))
		for _, r := range allocationRanges(document{"subnets": encode([]document{subnet})}) {
			switch {
			case !r.IsValid():
				return invalid(fmt.Sprintf("subnets[%d].allocation_ranges %s-%s is no range", i, r.From(), r.To()))
			case !cidr.Contains(r.From()) || !cidr.Contains(r.To()):
				return refuseIDs(codeValidation, "Range %s does not lie in subnet %s.", r, cidr)
			case slices.ContainsFunc(all, r.Overlaps):
				return refuseIDs(codeValidation, "Range %s overlaps another range of the IpPool.", r)
			}
			all = append(all, r)
		}
	}
	if c.old == nil {
		return nil
	}
	for _, a := range c.ipPoolState(c.id).allocated {
		if !slices.ContainsFunc(all, func(r netipx.IPRange) bool { return r.Contains(a.addr) }) {
			return refuseIDs(codeRangeShrunk, "IP address %s is allocated: its range cannot be removed from IpPool %s.", a.addr, c.id)
		}
	}
	return nil
}

// deletedIPPool refuses to delete a pool with addresses in use, unless forced.
func deletedIPPool(s *Sim, o *object, force bool) *Error {
	if n := len(s.ipPoolState(o.id).allocated); n > 0 && !force {
		return refuseIDs(codeInUse, "IpPool %s cannot be deleted: %d of its IP addresses are allocated.", o.id, n)
	}
	delete(s.ipPools, o.id)
	return nil
}

func renderPoolUsage(s *Sim, o *object, doc document) {
	total := 0
	for _, r := range allocationRanges(o.doc) {
		total += rangeSize(r)
	}
	used := len(s.listedAllocations(o))
	doc.set("pool_usage", map[string]int{"total_ids": total, "allocated_ids": used, "free_ids": total - used})
}

// rangeSize counts the addresses of a range, up to a bound that keeps large IPv6
// ranges an int.
func rangeSize(r netipx.IPRange) int {
	from, to := r.From().As16(), r.To().As16()
	size := 0
	for i := range from {
		size = size*256 + int(to[i]) - int(from[i])
		if size > 1<<40 {
			return 1 << 40
		}
	}
	return size + 1
}

// ipPoolAction serves POST /pools/ip-pools/{id}?action=ALLOCATE|RELEASE.
func ipPoolAllocate(r *request, pool *object) (*response, *Error) {
	want, err := allocationID(r)
	if err != nil {
		return nil, err
	}
	got, err := r.sim.allocateAddress(r.author.user, pool, want)
	if err != nil {
		return nil, err
	}
	return &response{status: 200, body: encode(map[string]string{"allocation_id": got.String()})}, nil
}

func ipPoolRelease(r *request, pool *object) (*response, *Error) {
	addr, err := allocationID(r)
	if err != nil {
		return nil, err
	}
	if !addr.IsValid() {
		return nil, invalid("allocation_id is required")
	}
	if err := r.sim.releaseAddress(pool, addr); err != nil {
		return nil, err
	}
	return &response{status: 200}, nil
}

// allocationID reads the address in the body; none for null.
func allocationID(r *request) (netip.Addr, *Error) {
	doc, err := r.document()
	if err != nil {
		return netip.Addr{}, err
	}
	if !doc.has("allocation_id") {
		return netip.Addr{}, nil
	}
	var s string
	if !doc.get("allocation_id", &s) {
		return netip.Addr{}, invalid("allocation_id must be a string")
	}
	if s == "" {
		return netip.Addr{}, nil
	}
	a, perr := netip.ParseAddr(s)
	if perr != nil || a.Zone() != "" {
		return netip.Addr{}, invalid(fmt.Sprintf("allocation_id must be an IP address, got %q", s))
	}
	return a, nil
}

func ipPoolAllocations(r *request, pool *object) (*response, *Error) {
	results := []any{}
	for _, a := range r.sim.listedAllocations(pool) {
		results = append(results, map[string]string{"allocation_id": a.String()})
	}
	return r.page(results)
}

var ipPoolSubs = []sub{
	{method: "POST", action: "ALLOCATE", write: true, serve: ipPoolAllocate},
	{method: "POST", action: "RELEASE", write: true, serve: ipPoolRelease},
	{method: "GET", path: "allocations", serve: ipPoolAllocations},
}
