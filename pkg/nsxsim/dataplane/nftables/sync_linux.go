package nftables

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// want decides which virtual servers can be served, and claims their addresses.
func (p *Plane) want(valid dataplane.Config) {
	p.wanted, p.disabled, p.faults = nil, nil, map[string]string{}
	taken := map[service]string{}
	claims := map[netip.Prefix]error{}
	router := map[uint8]bool{}
	for _, f := range families() {
		router[f.number] = forwards(f)
	}
next:
	for _, vs := range valid.VirtualServers {
		if vs.Disabled {
			p.disabled = append(p.disabled, served{vs, vs.HTTP != nil})
			continue
		}
		for _, port := range vs.Ports {
			if other, ok := taken[serviceOf(vs, port)]; ok {
				p.faults[vs.ID] = fmt.Sprintf("%v port %d is served by %s", vs.Address, port.Listen, other)
				continue next
			}
		}
		if vs.Address.Is6() && !router[unix.NFPROTO_IPV6] {
			p.faults[vs.ID] = "this host does not forward IPv6"
			continue
		}
		for _, address := range addressesOf(vs) {
			if _, ok := claims[address]; !ok {
				claims[address] = p.addresses.claim(address)
			}
			if err := claims[address]; err != nil {
				p.faults[vs.ID] = err.Error()
				continue next
			}
		}
		for _, port := range vs.Ports {
			taken[serviceOf(vs, port)] = vs.ID
		}
		p.wanted = append(p.wanted, served{vs, vs.HTTP != nil})
	}
}

// addressesOf gives all that a virtual server has this host answer for.
func addressesOf(vs dataplane.VirtualServer) []netip.Prefix {
	all := []netip.Prefix{netip.PrefixFrom(vs.Address, vs.Address.BitLen())}
	for _, pool := range poolsOf(vs) {
		if pool.SNAT != dataplane.Transparent {
			all = append(all, pool.SNATAddresses...)
		}
	}
	return all
}

// sync brings the kernel to what is wanted, given the health of members.
func (p *Plane) sync() error {
	d := desired{virtualServers: p.wanted, pools: map[string]choice{}, snatAddress: p.opts.SNATAddress.Unmap()}
	states := map[string][]dataplane.MemberStatus{}
	for _, s := range p.health.Status().Pools {
		states[s.ID] = s.Members
	}
	known := map[netip.AddrPort]bool{}
	all := slices.Concat(p.disabled, p.wanted)
	for _, vs := range all {
		if vs.userSpace {
			continue
		}
		for _, pool := range poolsOf(vs.VirtualServer) {
			if _, ok := d.pools[pool.ID]; ok {
				continue
			}
			d.pools[pool.ID] = choose(pool, states[pool.ID], p.full[pool.ID], p.marks, p.opts.DisabledKeepsConnections)
			for _, m := range pool.Members {
				known[netip.AddrPortFrom(m.Address, m.Port)] = true
			}
		}
	}
	rules := render(d)
	survivors := surviving(p.survivors, all, d.pools, p.marks)
	by := ownedBy(all, survivors)
	var uncounted error
	if by.differs(p.by) {
		uncounted = p.ledger.look(p.by) // what was counted until now is the former owners'
	}
	if p.failed = p.change(rules); p.failed != nil {
		return p.failed
	}
	p.ledger.forget(by.services)
	nothingToCut := survivors.include(p.survivors)
	p.committed, p.by, p.survivors = rules, by, survivors
	p.marks.keep(known)
	if nothingToCut {
		return uncounted // to look at all connections takes its time
	}
	return errors.Join(uncounted, p.visit())
}

// change makes the kernel's ruleset another one. If the kernel cannot, somebody may have meddled with the tables: they are
// made anew, and what packets have left there is lost.
func (p *Plane) change(to ruleset) error {
	if p.failed != nil {
		return p.replaceBy(to) // who knows what is there
	}
	var err error
	for _, changes := range diff(p.committed, to) {
		t := &transaction{}
		for _, c := range changes {
			t.change(c)
		}
		if err = t.commit(); err != nil {
			break
		}
	}
	if err == nil {
		return nil
	}
	if again := p.replaceBy(to); again != nil {
		return errors.Join(err, again)
	}
	p.opts.Logger.Info("Tables of nftables were made anew, as they could not be changed", "err", err)
	return nil
}

// replaceBy makes the tables anew. Their counters begin with 0.
func (p *Plane) replaceBy(to ruleset) error {
	err := replaceBy(to)
	if err == nil {
		clear(p.ledger.seen)
	}
	return err
}

// replaceBy makes the tables anew, in one transaction.
func replaceBy(to ruleset) error {
	t := &transaction{}
	for _, f := range families() {
		t.table(f) // so that there is one to delete
		t.noTable(f)
		t.table(f)
	}
	for _, changes := range diff(ruleset{}, to) {
		for _, c := range changes {
			t.change(c)
		}
	}
	return t.commit()
}

// visit cuts the connections that are not to live on, and counts the others.
func (p *Plane) visit() error {
	open := map[counted]uint64{}
	err := connections(func(c connection) bool {
		if !p.survivors.has(c) {
			return false
		}
		if c.open {
			open[counted{c.service, c.mark}]++
		}
		return true
	})
	p.ledger.current(open, p.by)
	return err
}

// fill takes note of the members that have as many connections as they may, and tells whether they are others than before.
func (p *Plane) fill() bool {
	full := map[string]map[uint32]bool{}
	for _, vs := range p.wanted {
		for _, pool := range poolsOf(vs.VirtualServer) {
			for _, m := range pool.Members {
				key := netip.AddrPortFrom(m.Address, m.Port)
				c := p.ledger.members[pool.ID][key]
				if m.MaxConnections == 0 || c == nil || c.CurrentConnections < uint64(m.MaxConnections) {
					continue
				}
				if full[pool.ID] == nil {
					full[pool.ID] = map[uint32]bool{}
				}
				full[pool.ID][p.marks.of(key)] = true
			}
		}
	}
	changed := !maps.EqualFunc(full, p.full, maps.Equal[map[uint32]bool])
	p.full = full
	return changed
}
