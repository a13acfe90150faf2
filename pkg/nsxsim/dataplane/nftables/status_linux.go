package nftables

import (
	"errors"
	"net/netip"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// Status of all that the last Config names. A member that it tells to be DOWN gets nothing new any more.
func (p *Plane) Status() dataplane.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.health.Status()
	if p.closed {
		return st
	}
	if err := p.follow(); err != nil {
		p.opts.Logger.Error(err, "Following the health of members")
	}
	if err := errors.Join(p.ledger.look(p.by), p.visit()); err != nil {
		p.opts.Logger.Error(err, "Reading counters")
	}
	byID := map[string]served{}
	for _, vs := range p.wanted {
		byID[vs.ID] = vs
	}
	for i := range st.VirtualServers {
		s := &st.VirtualServers[i]
		if fault := p.faults[s.ID]; fault != "" {
			s.State, s.Reason = dataplane.StateDown, fault
			s.Listeners = []dataplane.ListenerStatus{{Error: fault}}
			continue
		}
		vs, ok := byID[s.ID]
		if !ok || vs.userSpace {
			continue
		}
		for _, port := range vs.Ports {
			l := dataplane.ListenerStatus{Port: port.Listen}
			if p.failed != nil && p.by.services[serviceOf(vs.VirtualServer, port)].virtualServer != vs.ID {
				s.State, s.Reason = dataplane.StateDown, p.failed.Error()
				l.Error = s.Reason
			}
			s.Listeners = append(s.Listeners, l)
		}
		add(&s.Counters, p.ledger.virtualServers[s.ID])
		if vs.Persistence != nil && p.committed.has(vs.Address, persistenceMap+tieTable(vs.VirtualServer)) {
			var err error
			if s.Persistent, err = ties(vs.VirtualServer); err != nil {
				p.opts.Logger.Error(err, "Counting persistent clients")
			}
		}
	}
	for i := range st.Pools {
		s := &st.Pools[i]
		add(&s.Counters, p.ledger.pools[s.ID])
		for j := range s.Members {
			m := &s.Members[j]
			add(&m.Counters, p.ledger.members[s.ID][netip.AddrPortFrom(m.Address, m.Port)])
		}
	}
	return st
}

func add(to *dataplane.Counters, more *dataplane.Counters) {
	if more == nil {
		return
	}
	to.CurrentConnections += more.CurrentConnections
	to.MaxConnections += more.MaxConnections
	to.TotalConnections += more.TotalConnections
	to.RefusedConnections += more.RefusedConnections
	to.BytesIn += more.BytesIn
	to.BytesOut += more.BytesOut
	to.PacketsIn += more.PacketsIn
	to.PacketsOut += more.PacketsOut
	to.DroppedByAccess += more.DroppedByAccess
}
