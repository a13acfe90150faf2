package lb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Plan is what has to be done so that a Service has what it should have.
type Plan struct {
	// Intents in the order in which they are to be applied. None when all is as it should be.
	Intents []nsx.Intent
	// Notices are what the Service's user should be told.
	Notices []Notice
}

// Notice is a warning that becomes an event.
type Notice struct {
	// Reason is one of the Reason constants, Message a sentence for people.
	Reason, Message string
}

// String is a dry run: one line for each change and notice.
func (p Plan) String() string {
	var b strings.Builder
	for _, i := range p.Intents {
		b.WriteString(i.String())
	}
	for _, n := range p.Notices {
		fmt.Fprintf(&b, "notice %s: %s\n", n.Reason, n.Message)
	}
	return b.String()
}

// plan puts what was decided in order: first what is live, then what becomes live, then what goes.
func (d *differ) plan() Plan {
	var p Plan
	owner, shown := d.want.Owner, texts(d.want.Published)
	if len(d.update) > 0 {
		// Ports that go make way for ports that come.
		slices.SortStableFunc(d.update, func(a, b change) int { return compareBool(a.grows, b.grows) })
		u := nsx.Update{Owner: owner}
		for _, c := range d.update {
			u.VirtualServers = append(u.VirtualServers, c.want)
			u.Changes = append(u.Changes, c.text)
		}
		p.Intents = append(p.Intents, u)
	}
	if len(d.publish) > 0 {
		p.Intents = append(p.Intents, nsx.Publish{Owner: owner, VirtualServers: d.publish, Asked: d.want.Asked, Published: shown})
	}
	w := nsx.Withdraw{Owner: owner, Published: shown}
	for _, v := range d.have.VirtualServers {
		if d.stays[v.ID] {
			continue
		}
		if pool, _ := d.inv.IPPool(v.IPPool); v.Claim == nsx.Doubtful && !pool.Exclusive && !d.published(v.Address) {
			d.doubts = append(d.doubts, v)
		}
		w.VirtualServers = append(w.VirtualServers, v)
	}
	if len(w.VirtualServers) > 0 {
		p.Intents = append(p.Intents, w)
	}
	if c := d.unused(); len(c.Pools)+len(c.Monitors) > 0 {
		p.Intents = append(p.Intents, c)
	}
	for _, v := range d.doubts {
		d.notice(ReasonDoubtfulAddress, "address %s stays allocated in IP pool %s, since nothing tells whether it was allocated for this Service: "+
			"release it in NSX if nobody uses it", v.Address, poolName(d.inv, v.IPPool))
	}
	p.Notices = d.notices
	return p
}

// unused are the Service's own pools and monitors that nothing uses once the rest of the plan is carried out. A backend
// takes the Service's own pool of lowest id in the family for whatever is written, or makes one when there is none; and
// for a pool that has no monitor yet, the Service's monitor of lowest id.
func (d *differ) unused() nsx.Collect {
	pools, monitors := map[string]bool{}, map[string]bool{}
	for _, v := range d.have.VirtualServers {
		if d.stays[v.ID] && !d.written[v.ID] {
			pools[v.PoolID] = true
		}
	}
	for f := range d.touched {
		if !d.want.Pool.PerService {
			break
		}
		i := slices.IndexFunc(d.have.Pools, func(p nsx.ObservedPool) bool { return p.Pool.Family == f })
		if i >= 0 {
			pools[d.have.Pools[i].ID] = true
		}
		if (i < 0 || d.have.Pools[i].MonitorID == "") && len(d.have.Monitors) > 0 {
			monitors[d.have.Monitors[0]] = true
		}
	}
	c := nsx.Collect{Owner: d.want.Owner}
	for _, p := range d.have.Pools {
		if pools[p.ID] {
			monitors[p.MonitorID] = true
		} else {
			c.Pools = append(c.Pools, p.ID)
		}
	}
	for _, m := range d.have.Monitors {
		if !monitors[m] {
			c.Monitors = append(c.Monitors, m)
		}
	}
	return c
}

// DiffGone is what removes everything that a Service has. published are the addresses that its status shows.
func DiffGone(have nsx.Observed, published []netip.Addr) []nsx.Intent {
	var out []nsx.Intent
	if len(have.VirtualServers) > 0 {
		out = append(out, nsx.Withdraw{Owner: have.Owner, VirtualServers: have.VirtualServers, Published: texts(published)})
	}
	if len(have.Pools)+len(have.Monitors) > 0 {
		c := nsx.Collect{Owner: have.Owner, Monitors: have.Monitors}
		for _, p := range have.Pools {
			c.Pools = append(c.Pools, p.ID)
		}
		out = append(out, c)
	}
	return out
}

func texts(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
