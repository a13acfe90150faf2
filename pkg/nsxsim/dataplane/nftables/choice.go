//go:build linux

package nftables

import (
	"net/netip"
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// marks gives each member, by address and port of its own, the mark of its connections. A member that went and comes
// again gets another: nothing ties clients to it.
type marks struct {
	byMember map[netip.AddrPort]uint32
	byMark   map[uint32]netip.AddrPort
	last     uint32
}

func newMarks() *marks {
	return &marks{byMember: map[netip.AddrPort]uint32{}, byMark: map[uint32]netip.AddrPort{}}
}

func (m *marks) of(member netip.AddrPort) uint32 {
	mark, ok := m.byMember[member]
	if !ok {
		m.last = (m.last + 1) &^ markMask
		mark = markOurs | m.last
		m.byMember[member], m.byMark[mark] = mark, member
	}
	return mark
}

// keep forgets all but the members given.
func (m *marks) keep(members map[netip.AddrPort]bool) {
	for member, mark := range m.byMember {
		if !members[member] {
			delete(m.byMember, member)
			delete(m.byMark, mark)
		}
	}
}

// choose tells how a pool's members are used, given their states and which of them have as many connections as they may.
// disabledKeeps is Options.DisabledKeepsConnections.
func choose(pool *dataplane.Pool, states []dataplane.MemberStatus, full map[uint32]bool, marks *marks, disabledKeeps bool) choice {
	c := choice{algorithm: pool.Algorithm}
	health := map[netip.AddrPort]bool{}
	for _, s := range states {
		health[netip.AddrPortFrom(s.Address, s.Port)] = s.FailureCause == ""
	}
	var primary, backup []target
	active := 0
	for _, m := range pool.Members {
		key := netip.AddrPortFrom(m.Address, m.Port)
		t := target{mark: marks.of(key), address: m.Address, port: m.Port, weight: m.Weight}
		if m.AdminState != dataplane.Disabled || disabledKeeps {
			c.all = append(c.all, t)
		}
		if !health[key] || m.AdminState == dataplane.Disabled {
			continue
		}
		c.up = append(c.up, t)
		if m.AdminState == dataplane.Enabled && !m.Backup {
			active++
		}
		if full[t.mark] {
			continue
		}
		c.usable = append(c.usable, t)
		switch {
		case m.AdminState != dataplane.Enabled:
		case m.Backup:
			backup = append(backup, t)
		default:
			primary = append(primary, t)
		}
	}
	c.turns = primary
	if len(primary) == 0 || active < pool.MinActiveMembers && len(backup) > 0 {
		c.turns = backup
	}
	return c
}

// serving is the pool of a virtual server that gets its new connections: its own, if any of the members can, or else the
// sorry pool.
func (d desired) serving(vs dataplane.VirtualServer) *dataplane.Pool {
	if vs.SorryPool == nil || vs.Pool != nil && len(d.pools[vs.Pool.ID].of(vs.Address)) > 0 {
		return vs.Pool
	}
	return vs.SorryPool
}

// of gives the members for new connections that an address of their family can lead to.
func (c choice) of(address netip.Addr) []target {
	return slices.DeleteFunc(slices.Clone(c.turns), func(t target) bool { return t.address.Is4() != address.Is4() })
}

// poolsOf gives the pools of a virtual server.
func poolsOf(vs dataplane.VirtualServer) []*dataplane.Pool {
	return slices.DeleteFunc([]*dataplane.Pool{vs.Pool, vs.SorryPool}, func(p *dataplane.Pool) bool { return p == nil })
}
