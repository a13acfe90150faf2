package lb

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/ipam"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Diff decides what has to be done so that a Service, which has what was observed, has what is wanted. It changes nothing
// but the Service's reservations in the inventory, which it makes anew: the addresses and the room that the plan counts
// on. The caller lets go of them, with Unreserve, once the plan is applied or dropped. cluster is the cluster's UID.
//
// What carries traffic keeps its address and its load-balancer service, whatever the class says by now; only an address
// that the user asks for moves it, and then the new one is published before the old one is withdrawn. All virtual servers
// of a family are on one address. At no moment have two of them the same address, protocol and port.
//
// When something can't be done, the plan holds what can, without moving or removing what is in use, and the error says
// what can't and why:
//   - ErrBadService: the Service must be changed. The plan is empty.
//   - nsx.ErrExhausted: no address is free, or (errNoRoom) a load-balancer service is full.
//   - nsx.ErrAlreadyAllocated: the address asked for is not free.
//   - nsx.ErrNotFound: the class names an application profile that NSX does not have.
//
// A Service that has nothing in use yet gets all or nothing, so that none holds an address while it waits for another.
func Diff(want Frontend, have nsx.Observed, inv *nsx.Inventory, cluster string) (Plan, error) {
	plan, err := diff(want, have, inv, cluster, false)
	if err == nil || errors.Is(err, ErrBadService) {
		return plan, err
	}
	// Not everything can be had. What carries traffic stays where it is then, or comes back there, so that the status goes
	// on to show what is there, and gets what else is wanted.
	var failed several
	failed.add(err)
	want.Asked = slices.DeleteFunc(slices.Clone(want.Asked), func(asked netip.Addr) bool {
		f := nsx.FamilyOf(asked)
		_, left := leftAllocated(firstOf(want.Published, f), inv)
		return left || slices.ContainsFunc(have.VirtualServers, func(v nsx.ObservedVirtualServer) bool { return v.Attached() && v.Family() == f })
	})
	plan, err = diff(want, have, inv, cluster, true)
	failed.add(err)
	return plan, failed.error()
}

// diff is Diff, but for what becomes of a plan that can't have all. waiting says that something can't be had.
func diff(want Frontend, have nsx.Observed, inv *nsx.Inventory, cluster string, waiting bool) (Plan, error) {
	inv.Unreserve(want.Owner)
	d := &differ{
		want:    want,
		have:    have,
		inv:     inv,
		seed:    cluster + "/" + want.Owner.UID,
		stays:   map[string]bool{},
		written: map[string]bool{},
		touched: map[nsx.Family]bool{},
		homes:   map[nsx.Family]netip.Addr{},
	}
	for _, text := range want.Ignored {
		d.notice(ReasonIgnored, "%s", text)
	}
	for _, name := range want.IPPools {
		p, ok := inv.IPPool(name)
		if !ok {
			p = nsx.IPPool{Name: name, Problem: "not found in NSX"}
		}
		d.pools = append(d.pools, p)
	}
	var failed several
	for _, f := range d.families() {
		d.admissible(f)
		failed.add(d.family(f))
	}
	if err := d.bad.error(); err != nil {
		return Plan{}, err
	}
	err := failed.error()
	switch {
	case err == nil && !waiting:
	case slices.ContainsFunc(have.VirtualServers, d.inUse), err == nil && slices.ContainsFunc(want.Published, d.left):
		d.keepOld()
	default:
		d.abandon()
	}
	return d.plan(), err
}

// differ is the work in progress of one Diff.
type differ struct {
	want  Frontend
	have  nsx.Observed
	inv   *nsx.Inventory
	seed  string
	pools []nsx.IPPool // of the class, in its order

	// stays are the observed virtual servers that are still there when the plan has been carried out, by id; written are
	// those of them that the plan writes.
	stays, written map[string]bool
	// touched are the families in which a virtual server is written, so that the backend finds or makes its pool.
	touched map[nsx.Family]bool
	// homes are the addresses decided on.
	homes   map[nsx.Family]netip.Addr
	update  []change
	publish []nsx.VirtualServer
	// doubts are the observed virtual servers that leave an address which may be somebody else's.
	doubts []nsx.ObservedVirtualServer

	notices []Notice
	bad     faults
}

func (d *differ) notice(reason, format string, args ...any) {
	n := Notice{reason, fmt.Sprintf(format, args...)}
	if !slices.Contains(d.notices, n) {
		d.notices = append(d.notices, n)
	}
}

// families are the wanted ones. Those that no pool of the class has are left out if the Service allows that and nothing of
// theirs is in use.
func (d *differ) families() []nsx.Family {
	if !d.want.FewerFamilies {
		return d.want.Families
	}
	var out []nsx.Family
	for _, f := range d.want.Families {
		if ipam.Serves(d.pools, f) || d.want.AskedOf(f).IsValid() || slices.ContainsFunc(d.of(f), d.inUse) {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		return d.want.Families
	}
	if len(out) < len(d.want.Families) {
		for _, p := range d.pools {
			if p.Problem != "" {
				d.notice(ReasonNoAddress, "not every IP family gets an address: IP pool %q: %s", p.Name, p.Problem)
			}
		}
	}
	return out
}

// of are the observed virtual servers of a family.
func (d *differ) of(f nsx.Family) []nsx.ObservedVirtualServer {
	var out []nsx.ObservedVirtualServer
	for _, v := range d.have.VirtualServers {
		if v.Family() == f {
			out = append(out, v)
		}
	}
	return out
}

// inUse tells whether a virtual server's address is in use by the Service: it carries traffic, or the status shows it.
func (d *differ) inUse(v nsx.ObservedVirtualServer) bool {
	return v.Attached() || d.published(v.Address)
}

// left tells whether an address that the status shows is still allocated, and only its virtual server is gone.
func (d *differ) left(a netip.Addr) bool {
	_, left := leftAllocated(a, d.inv)
	return left
}

func (d *differ) published(a netip.Addr) bool { return slices.Contains(d.want.Published, a) }

// family plans one IP family: its address, the virtual servers there, their load-balancer service, and what that changes.
func (d *differ) family(f nsx.Family) error {
	present := d.of(f)
	h, err := d.home(f, present)
	if err != nil {
		d.spare(present)
		return err
	}
	d.homes[f] = h.addr
	var failed several
	slots, err := d.slots(f, h, present)
	failed.add(err)
	err = d.place(h, present, slots)
	failed.add(err)
	for _, s := range slots {
		switch {
		case s.live():
			d.keep(s)
		case err == nil:
			d.makeLive(s)
		}
	}
	if len(failed) > 0 {
		d.spare(present)
	}
	return failed.error()
}

// spare keeps what the plan does not use but what must not go either, since what should replace it can't be had: what is
// in use, and records of allocations that may be somebody else's. The rest is the debris of earlier tries.
func (d *differ) spare(present []nsx.ObservedVirtualServer) {
	for _, v := range present {
		if d.inUse(v) || v.Claim == nsx.Doubtful {
			d.stays[v.ID] = true
		}
	}
}

// keepOld keeps the addresses that are to be given up until nothing is in the way of the rest, and records of allocations
// that may be somebody else's.
func (d *differ) keepOld() {
	for _, v := range d.have.VirtualServers {
		if v.Claim == nsx.Doubtful || (d.inUse(v) && v.Address != d.homes[v.Family()]) {
			d.stays[v.ID] = true
		}
	}
}

// abandon plans nothing but to remove the debris of earlier tries.
func (d *differ) abandon() {
	d.publish, d.doubts = nil, nil
	clear(d.stays)
	clear(d.written)
	clear(d.touched)
	d.spare(d.have.VirtualServers)
}

// keep plans a virtual server that carries traffic on the right address: to be left alone, changed, or allocated again.
func (d *differ) keep(s slot) {
	v := *s.have
	d.stays[v.ID] = true
	if lost := d.lost(v); lost != "" {
		advice := "free it for this Service, or ask for another"
		if d.inv.NoChoice(v.IPPool) {
			advice = "it stays in use, but NSX may give it to somebody else; the Service gets another one when its type becomes ClusterIP and LoadBalancer again"
		}
		d.notice(ReasonLostAddress, "address %s of IP pool %s, which carries traffic, %s: %s", v.Address, poolName(d.inv, v.IPPool), lost, advice)
	} else if v.Claim == nsx.Unclaimed { // released by hand
		d.publish = append(d.publish, s.want)
		d.writes(s.want)
		return
	}
	if c := changeOf(s); c.text != "" {
		d.update = append(d.update, c)
		d.writes(s.want)
	}
}

// lost says for people why the address of a virtual server that carries traffic can't be allocated for the Service any
// more; it is empty when it is, or can be.
func (d *differ) lost(v nsx.ObservedVirtualServer) string {
	switch {
	case !v.Attached():
	case v.Claim == nsx.Refused:
		return "is not given to this Service: it is somebody else's allocation, or was released a moment ago"
	case v.Claim == nsx.Unclaimed && d.carriedByOthers(v.Address):
		return "is not allocated any more, and somebody else's virtual server carries it too"
	case v.Claim == nsx.Unclaimed && d.inv.NoChoice(v.IPPool):
		return "is not allocated any more, and NSX gives no address of one's choice there"
	}
	return ""
}

// makeLive plans a virtual server that does not carry traffic yet: a new one, or what an earlier try left.
func (d *differ) makeLive(s slot) {
	if s.have != nil {
		d.stays[s.have.ID] = true
		if s.have.Address != s.want.Address && s.have.Claim == nsx.Doubtful {
			d.doubts = append(d.doubts, *s.have)
		}
	}
	d.publish = append(d.publish, s.want)
	d.writes(s.want)
}

func (d *differ) writes(v nsx.VirtualServer) {
	d.touched[v.Family()] = true
	if v.ID != "" {
		d.written[v.ID] = true
	}
}

func (d *differ) carriedByOthers(a netip.Addr) bool {
	return slices.ContainsFunc(d.inv.Carriers(a), func(id string) bool {
		r, _ := d.inv.VirtualServer(id)
		return r.Owner.UID != d.want.Owner.UID
	})
}

func poolName(inv *nsx.Inventory, id string) string {
	if p, ok := inv.IPPool(id); ok && p.Name != "" {
		return fmt.Sprintf("%q", p.Name)
	}
	return fmt.Sprintf("%q", id)
}
