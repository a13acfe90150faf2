package lb

import (
	"fmt"
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// explain says what is wrong with what a Service has, given the plan that puts it right: which objects, and who wrote them
// last. Of what is gone, NSX does not say who deleted it.
func explain(p Plan, have nsx.Observed, inv *nsx.Inventory) []nsx.Finding {
	var out []nsx.Finding
	add := func(f nsx.Finding) {
		if !slices.ContainsFunc(out, func(g nsx.Finding) bool { return g.ID != "" && idOf(f) == idOf(g) }) {
			out = append(out, f)
		}
	}
	observed := func(id string) (nsx.ObservedVirtualServer, bool) {
		i := slices.IndexFunc(have.VirtualServers, func(v nsx.ObservedVirtualServer) bool { return v.ID == id })
		if i < 0 {
			return nsx.ObservedVirtualServer{}, false
		}
		return have.VirtualServers[i], true
	}
	for _, intent := range p.Intents {
		switch intent := intent.(type) {
		case nsx.Update:
			for _, want := range intent.VirtualServers {
				if v, ok := observed(want.ID); ok {
					for _, f := range explainUpdate(v, want, inv) {
						add(f)
					}
				}
			}
		case nsx.Publish:
			for _, want := range intent.VirtualServers {
				v, ok := observed(want.ID)
				add(explainPublish(v, ok, want, inv))
			}
		case nsx.Withdraw:
			for _, v := range intent.VirtualServers {
				add(nsx.Finding{Kind: nsx.KindVirtualServer, ID: v.ID, What: "is one too many: " + v.String(), Edit: virtualServerEdit(v.ID, inv)})
			}
		case nsx.Collect:
			for _, id := range intent.Pools {
				r, _ := inv.Pool(id)
				add(nsx.Finding{Kind: nsx.KindPool, ID: id, What: "is used by nothing", Edit: r.Edit})
			}
			for _, id := range intent.Monitors {
				r, _ := inv.Monitor(id)
				add(nsx.Finding{Kind: nsx.KindMonitor, ID: id, What: "is used by nothing", Edit: r.Edit})
			}
		}
	}
	return out
}

func virtualServerEdit(id string, inv *nsx.Inventory) nsx.Edit {
	r, _ := inv.VirtualServer(id)
	return r.Edit
}

// explainUpdate compares a live virtual server, its pool and its monitor with what is wanted.
func explainUpdate(have nsx.ObservedVirtualServer, want nsx.VirtualServer, inv *nsx.Inventory) []nsx.Finding {
	var out []nsx.Finding
	edit := virtualServerEdit(have.ID, inv)
	own := want
	own.Pool = have.Pool
	if have.ApplicationProfile == "" { // what the inventory has for one that is switched off
		have.ApplicationProfile = own.ApplicationProfile
		out = append(out, nsx.Finding{Kind: nsx.KindVirtualServer, ID: have.ID, What: "is switched off, or has no application profile", Edit: edit})
	}
	if group, by, ok := inv.ClientGroup(have.ID); ok && want.Sources.Restricted && !have.Sources.Equal(want.Sources) {
		own.Sources = have.Sources
		out = append(out, nsx.Finding{Kind: nsx.KindClientGroup, ID: group, What: "should be " + want.Sources.String(), Edit: by})
	}
	if c := changeOf(slot{have: &have, want: own}); c.text != "" {
		out = append(out, nsx.Finding{Kind: nsx.KindVirtualServer, ID: have.ID, What: "should have " + c.text, Edit: edit})
	}
	if have.Pool.Equal(want.Pool) {
		return out
	}
	pool, ours := inv.Pool(have.PoolID)
	if !ours {
		return append(out, nsx.Finding{Kind: nsx.KindVirtualServer, ID: have.ID, What: fmt.Sprintf("forwards to the pool %q, which is not this cluster's", have.PoolID), Edit: edit})
	}
	checked := have.Pool
	checked.Monitor = want.Pool.Monitor
	if m, known := inv.Monitor(have.MonitorID); known && want.Pool.Monitor != nil && checked.Equal(want.Pool) {
		return append(out, nsx.Finding{Kind: nsx.KindMonitor, ID: m.ID, What: "should be " + want.Pool.Monitor.String(), Edit: m.Edit})
	}
	return append(out, nsx.Finding{Kind: nsx.KindPool, ID: pool.ID, What: "should be " + want.Pool.String(), Edit: pool.Edit})
}

// explainPublish says what a virtual server lacks that should be live.
func explainPublish(have nsx.ObservedVirtualServer, there bool, want nsx.VirtualServer, inv *nsx.Inventory) nsx.Finding {
	switch {
	case !there:
		return nsx.Finding{Kind: nsx.KindVirtualServer, What: fmt.Sprintf("for %s is gone", want)}
	case !have.Attached():
		r, _ := inv.LBService(want.LBService)
		return nsx.Finding{Kind: nsx.KindLBService, ID: r.ID, What: fmt.Sprintf("lacks virtual server %s", have.ID), Edit: r.Edit}
	case have.Address != want.Address:
		return nsx.Finding{Kind: nsx.KindVirtualServer, ID: have.ID, What: fmt.Sprintf("should have address %s", want.Address), Edit: virtualServerEdit(have.ID, inv)}
	}
	return nsx.Finding{Kind: nsx.KindAddress, ID: have.Address.String(), What: fmt.Sprintf("is not allocated in IP pool %s", poolName(inv, have.IPPool))}
}
