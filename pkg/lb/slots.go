package lb

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// slot is a virtual server as it is to be, and the observed one that becomes it, if any.
type slot struct {
	want nsx.VirtualServer
	have *nsx.ObservedVirtualServer
}

// live tells whether the slot's virtual server carries traffic already; it is on the right address then.
func (s slot) live() bool { return s.have != nil && s.have.Attached() }

// slots are the virtual servers that a home is to have. Those that are there are used first, those with traffic before the
// others; unfinished ones elsewhere are moved if they are needed. The error tells of listeners that can't be made.
func (d *differ) slots(f nsx.Family, h home, present []nsx.ObservedVirtualServer) ([]slot, error) {
	var out []slot
	var failed several
	for _, l := range d.want.Listeners {
		var use []nsx.ObservedVirtualServer
		for _, v := range present {
			if v.Protocol == l.Protocol && (v.Address == h.addr || d.movable(v)) {
				use = append(use, v)
			}
		}
		slices.SortStableFunc(use, func(v, w nsx.ObservedVirtualServer) int {
			return cmp.Or(-compareBool(v.Address == h.addr, w.Address == h.addr), -compareBool(v.Attached(), w.Attached()))
		})
		held := make([][]nsx.PortMap, len(use))
		for i, v := range use {
			held[i] = v.Ports
		}
		profile, known := d.inv.ApplicationProfile(l.ApplicationProfile)
		if !known {
			failed.add(&failure{nsx.ErrNotFound, fmt.Sprintf("the %s application profile %q of class %q is not in NSX",
				l.Protocol, l.ApplicationProfile, d.want.Class)})
		}
		template := nsx.VirtualServer{
			Protocol:           l.Protocol,
			Address:            h.addr,
			IPPool:             h.pool,
			Class:              d.want.Class,
			ApplicationProfile: profile,
			Affinity:           d.want.Affinity,
			Sources:            d.want.Sources[f],
			Pool:               d.want.PoolOf(f),
		}
		kept, fresh := distribute(l.Ports, held)
		for i := range use {
			s := slot{template, &use[i]}
			s.want.ID, s.want.Ports = use[i].ID, kept[i]
			if s.live() {
				s.want.IPPool, s.want.LBService = use[i].IPPool, use[i].LBService
			}
			if !known {
				s.want.ApplicationProfile = use[i].ApplicationProfile
			}
			if len(kept[i]) > 0 {
				out = append(out, s)
			}
		}
		for _, ports := range fresh {
			s := slot{want: template}
			s.want.Ports = ports
			if known {
				out = append(out, s)
			}
		}
	}
	return out, failed.error()
}

// place chooses the load-balancer service for the slots that are in none, and keeps room there. One address is in one
// service: the one that has it already, else the first of the class's with room for all.
func (d *differ) place(h home, present []nsx.ObservedVirtualServer, slots []slot) error {
	n := 0
	for _, s := range slots {
		if !s.live() {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	keys, whose := d.want.LBServices, fmt.Sprintf("class %q", d.want.Class)
	for _, v := range present {
		if v.Address != h.addr {
			continue
		}
		if lost := d.lost(v); lost != "" {
			return &failure{nsx.ErrAlreadyAllocated, fmt.Sprintf("no virtual server can be added on address %s of IP pool %s, which %s",
				h.addr, poolName(d.inv, h.pool), lost)}
		}
		if v.Attached() {
			keys, whose = []string{v.LBService}, fmt.Sprintf("the load-balancer service of address %s", h.addr)
			break
		}
	}
	var tried []string
	for _, key := range keys {
		room, ok := d.inv.ReserveRoom(d.want.Owner, key, n)
		if !ok {
			tried = append(tried, fmt.Sprintf("%q: %s", key, shortage(room)))
			continue
		}
		for i := range slots {
			if !slots[i].live() {
				slots[i].want.LBService = cmp.Or(room.ID, room.Key)
			}
		}
		return nil
	}
	if len(tried) == 0 {
		return &failure{errNoRoom, whose + " has no load-balancer services"}
	}
	return &failure{errNoRoom, fmt.Sprintf("no room for %d more virtual server%s in %s: %s", n, plural(n), whose, strings.Join(tried, "; "))}
}

// shortage says why a load-balancer service does not do.
func shortage(r nsx.LBServiceRoom) string {
	switch {
	case r.Problem != "":
		return r.Problem
	case r.Free == 0:
		return "full"
	}
	return fmt.Sprintf("room for %d", r.Free)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
