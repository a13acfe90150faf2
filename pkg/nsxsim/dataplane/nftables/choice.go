//go:build linux

package nftables

import (
	"net/netip"

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

// choose tells how a pool's members are used, given their states. disabledKeeps is Options.DisabledKeepsConnections.
func choose(pool *dataplane.Pool, states []dataplane.MemberStatus, marks *marks, disabledKeeps bool) choice {
	c := choice{algorithm: pool.Algorithm}
	health := map[netip.AddrPort]bool{}
	for _, s := range states {
		health[netip.AddrPortFrom(s.Address, s.Port)] = s.FailureCause == ""
	}
	var primary, backup []target
	for _, m := range pool.Members {
		key := netip.AddrPortFrom(m.Address, m.Port)
		t := target{mark: marks.of(key), address: m.Address, port: m.Port, weight: m.Weight}
		if m.AdminState != dataplane.Disabled || disabledKeeps {
			c.all = append(c.all, t)
		}
		if !health[key] || m.AdminState == dataplane.Disabled {
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
	if len(primary) == 0 || len(primary) < pool.MinActiveMembers && len(backup) > 0 {
		c.turns = backup
	}
	return c
}
