package lb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"go4.org/netipx"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// errFault is what an injected fault makes a call fail with.
var errFault = errors.New("fault injected by the test")

// fakeNSX is an nsx.Backend over an NSX in memory: the inventory itself holds what is ours, besides which there are
// allocations and virtual servers of somebody else that the inventory may not know of yet. Every call checks what must
// hold at every moment, and fails the test when it doesn't.
type fakeNSX struct {
	t   reporter
	inv *nsx.Inventory

	mu sync.Mutex
	// fault is asked before each call: "create", "write", "allocate", "attach", "detach", "release", "delete", "pool",
	// "monitor", "sources", "nodes", "load", "refresh" and "settle", with the object's id or address.
	fault func(call, on string) error
	// capacities of load-balancer services that the inventory does not know of yet.
	capacities map[string]int
	// foreign are allocations of somebody else, by address.
	foreign map[netip.Addr]bool
	nodes   [][]nsx.Node
	ids     map[string]int
	// calls that changed something, in order.
	calls []string
}

// reporter is a testing.TB or a *rapid.T.
type reporter interface {
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func newFakeNSX(t reporter) *fakeNSX {
	return &fakeNSX{t: t, inv: emptyInventory(), foreign: map[netip.Addr]bool{}, ids: map[string]int{}}
}

func emptyInventory() *nsx.Inventory {
	inv := nsx.NewInventory()
	inv.SetVersion(nsx.Version{Major: 3, Minor: 2})
	inv.SetProfiles(map[string]string{
		"default-tcp-lb-app-profile": "profile-tcp", "profile-tcp": "profile-tcp",
		"default-udp-lb-app-profile": "profile-udp", "profile-udp": "profile-udp",
	})
	return inv
}

func ipPool(name string, exclusive bool, ranges ...string) nsx.IPPool {
	p := nsx.IPPool{ID: "id-of-" + name, Name: name, Exclusive: exclusive}
	for _, r := range ranges {
		p.Ranges = append(p.Ranges, netipx.MustParseIPRange(r))
	}
	return p
}

// setPools makes these the IP pools of NSX.
func (n *fakeNSX) setPools(pools ...nsx.IPPool) {
	l := nsx.Listing{IPPools: map[string]nsx.IPPool{}}
	for _, p := range pools {
		l.IPPools[p.ID] = p
	}
	n.inv.Merge(n.inv.Begin(), l, true)
}

func (n *fakeNSX) addLBService(id string, capacity int) {
	n.inv.PutLBService(nsx.LBServiceRecord{ID: id, Keys: []string{id}, Capacity: capacity})
}

func (n *fakeNSX) Inventory() *nsx.Inventory { return n.inv }

func (n *fakeNSX) call(call, on string) error {
	if n.fault != nil {
		if err := n.fault(call, on); err != nil {
			return fmt.Errorf("%s %s: %w", call, on, err)
		}
	}
	n.calls = append(n.calls, call+" "+on)
	return nil
}

func (n *fakeNSX) newID(kind string) string {
	n.ids[kind]++
	return fmt.Sprintf("%s-%02d", kind, n.ids[kind])
}

func (n *fakeNSX) Load(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.call("load", "all"); err != nil {
		return err
	}
	n.inv.Merge(n.inv.Begin(), nsx.Listing{}, true)
	return nil
}

func (n *fakeNSX) Settle(_ context.Context, o nsx.Owner) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fault == nil {
		return nil
	}
	return n.fault("settle", o.Name)
}

func (n *fakeNSX) RefreshRoom(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.call("refresh", "room"); err != nil {
		return err
	}
	for _, r := range n.inv.LBServices() {
		if capacity, ok := n.capacities[r.ID]; ok {
			r.Capacity = capacity
			n.inv.PutLBService(r)
		}
	}
	return nil
}

func (n *fakeNSX) RefreshAddresses(_ context.Context, pool string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.call("refresh", pool); err != nil {
		return err
	}
	for _, p := range n.inv.IPPools() {
		if p.Name != pool {
			continue
		}
		for _, a := range n.inv.Allocations(p.ID) {
			if _, ours := n.inv.Allocation(p.ID, a); len(n.inv.Carriers(a)) == 0 && !n.foreign[a] && !ours {
				n.inv.SetReleased(p.ID, a)
			}
		}
		for a := range n.foreign {
			if slices.ContainsFunc(p.Ranges, func(r netipx.IPRange) bool { return r.Contains(a) }) {
				n.inv.SetAllocated(p.ID, a, false)
			}
		}
	}
	return nil
}

func (n *fakeNSX) SetNodes(_ context.Context, nodes []nsx.Node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.call("nodes", fmt.Sprint(len(nodes))); err != nil {
		return err
	}
	n.nodes = append(n.nodes, nodes)
	return nil
}

func (n *fakeNSX) SharedDrift(context.Context) []nsx.Finding { return nil }

func (n *fakeNSX) PoolHealth(context.Context) ([]nsx.PoolHealth, error) { return nil, nil }

func (n *fakeNSX) Reclaim(_ context.Context, pool string, a netip.Addr) error {
	n.inv.SetReleased(pool, a)
	return nil
}

// Tidy deletes shared pools, monitors and groups of clients that nothing uses.
func (n *fakeNSX) Tidy(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	used := map[string]bool{}
	for _, p := range n.inv.SharedPools() {
		if n.inv.PoolUsers(p.ID) > 0 {
			used[p.MonitorID] = true
			continue
		}
		if err := n.call("delete", p.ID); err != nil {
			return err
		}
		n.inv.DeletePool(p.ID)
	}
	for _, m := range n.inv.SharedMonitors() {
		if used[m.ID] {
			continue
		}
		if err := n.call("delete", m.ID); err != nil {
			return err
		}
		n.inv.DeleteMonitor(m.ID)
	}
	for _, g := range n.inv.SourceGroups() {
		if n.inv.SourceUsers(g.ID) > 0 {
			continue
		}
		if err := n.call("delete", g.ID); err != nil {
			return err
		}
		n.inv.DeleteSourceGroup(g.ID)
		n.inv.DeleteSourceSet(g.SetID)
	}
	return nil
}

func (n *fakeNSX) Apply(_ context.Context, i nsx.Intent) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.inv.Loaded() {
		n.t.Errorf("Apply before Load: %v", i)
	}
	switch i := i.(type) {
	case nsx.Publish:
		return n.publish(i)
	case nsx.Update:
		if len(i.Changes) != len(i.VirtualServers) {
			n.t.Errorf("%d changes of %d virtual servers", len(i.Changes), len(i.VirtualServers))
		}
		for _, v := range i.VirtualServers {
			have, ok := n.inv.VirtualServer(v.ID)
			if !ok || have.VirtualServer.Address != v.Address || have.VirtualServer.IPPool != v.IPPool || n.attachedTo(i.Owner, v.ID) != v.LBService {
				n.t.Errorf("Update moves %v of %v", v, have.VirtualServer)
			}
			if _, err := n.write(i.Owner, v); err != nil {
				return err
			}
		}
	case nsx.Withdraw:
		return n.withdraw(i)
	case nsx.Collect:
		return n.collect(i)
	}
	return nil
}

func (n *fakeNSX) publish(p nsx.Publish) error {
	var ids, services []string
	for _, v := range p.VirtualServers {
		id, err := n.write(p.Owner, v)
		if err != nil {
			return err
		}
		if err := n.claim(p.Owner, id); err != nil {
			return err
		}
		ids, services = append(ids, id), append(services, v.LBService)
	}
	for i, id := range ids {
		if err := n.attach(p.Owner, id, services[i]); err != nil {
			return err
		}
	}
	return nil
}

// write creates or rewrites a virtual server.
func (n *fakeNSX) write(o nsx.Owner, v nsx.VirtualServer) (string, error) {
	if len(v.Ports) == 0 || len(v.Ports) > nsx.MaxPorts || !slices.IsSortedFunc(v.Ports, nsx.ComparePorts) {
		n.t.Errorf("virtual server with ports %v", v.Ports)
	}
	for _, id := range n.inv.Carriers(v.Address) {
		r, _ := n.inv.VirtualServer(id)
		if id == v.ID || r.VirtualServer.Protocol != v.Protocol {
			continue
		}
		for _, p := range r.VirtualServer.Ports {
			if slices.ContainsFunc(v.Ports, func(q nsx.PortMap) bool { return q.Port == p.Port }) {
				n.t.Errorf("%v has the address, protocol and port %d of %v", v, p.Port, r.VirtualServer)
			}
		}
	}
	pool, err := n.pool(o, v.Pool)
	if err != nil {
		return "", err
	}
	group, err := n.sources(v.Sources)
	if err != nil {
		return "", err
	}
	call := "write"
	if v.ID == "" {
		call = "create"
		v.ID = n.newID("vs")
	} else if r, ok := n.inv.VirtualServer(v.ID); !ok || r.Owner.UID != o.UID {
		n.t.Errorf("writing %v, which is not a virtual server of %v", v, o)
	} else if old := r.VirtualServer; old.Address != v.Address {
		for _, w := range n.inv.Observe(o).VirtualServers {
			if w.ID == v.ID && w.Claim == nsx.Claimed {
				n.t.Errorf("moving %v to %v leaks the allocation of its address", old, v.Address)
			}
		}
	}
	if err := n.call(call, v.ID); err != nil {
		return "", err
	}
	v.LBService, v.Pool, v.Sources = "", nsx.Pool{}, nsx.Sources{}
	n.inv.PutVirtualServer(nsx.VirtualServerRecord{Owner: o, VirtualServer: v, PoolID: pool, AccessGroup: group})
	return v.ID, nil
}

// sources finds or makes the group of the clients that are let in, and makes it hold them.
func (n *fakeNSX) sources(s nsx.Sources) (string, error) {
	if !s.Restricted {
		return "", nil
	}
	if !n.inv.Version().AccessLists() || len(s.Ranges) == 0 || len(s.Ranges) > nsx.MaxRanges {
		n.t.Errorf("NSX %v has no access list of %v", n.inv.Version(), s)
	}
	var id string
	for _, g := range n.inv.SourceGroups() {
		if g.Key == s.Key() {
			id = g.ID
			break
		}
	}
	if set, ok := n.inv.SourceSet(id); ok && set.Sources.Equal(s) {
		return id, nil
	}
	if id == "" {
		id = n.newID("clients")
	}
	if err := n.call("sources", id); err != nil {
		return "", err
	}
	n.inv.PutSourceSet(nsx.SourceSetRecord{ID: id, Key: s.Key(), Sources: s})
	n.inv.PutSourceGroup(nsx.SourceGroupRecord{ID: id, Key: s.Key(), SetID: id})
	return id, nil
}

func (n *fakeNSX) claim(o nsx.Owner, id string) error {
	for _, v := range n.inv.Observe(o).VirtualServers {
		if v.ID != id || v.Claim == nsx.Claimed {
			continue
		}
		if n.foreign[v.Address] || v.Claim == nsx.Refused {
			n.inv.SetRefused(id, v.IPPool, v.Address)
			return fmt.Errorf("allocate %s: %w", v.Address, nsx.ErrAlreadyAllocated)
		}
		if err := n.call("allocate", v.Address.String()); err != nil {
			return err
		}
		n.inv.SetAllocated(v.IPPool, v.Address, true)
	}
	return nil
}

func (n *fakeNSX) attachedTo(o nsx.Owner, id string) string {
	for _, v := range n.inv.Observe(o).VirtualServers {
		if v.ID == id {
			return v.LBService
		}
	}
	return ""
}

func (n *fakeNSX) attach(o nsx.Owner, id, key string) error {
	at := n.attachedTo(o, id)
	if at != "" && at != key {
		n.t.Errorf("virtual server %s is in %s and to be attached to %s as well", id, at, key)
	}
	if at != "" {
		return nil
	}
	r, ok := n.inv.LBService(key)
	if _, _, tier := nsx.ParseTierKey(key); !ok && tier {
		r = nsx.LBServiceRecord{ID: n.newID("lb"), Keys: []string{key}, Ours: true, Capacity: 20}
	} else if !ok {
		n.t.Errorf("attaching %s to unknown load-balancer service %q", id, key)
	}
	if err := n.call("attach", id); err != nil {
		return err
	}
	if r.Capacity > 0 && len(r.VirtualServers) >= r.Capacity {
		return fmt.Errorf("attach %s to %s: capacity exceeded: %w", id, r.ID, nsx.ErrInvalid)
	}
	r.VirtualServers = append(slices.Clone(r.VirtualServers), id)
	n.inv.PutLBService(r)
	n.checkAllocated(o, id)
	return nil
}

// checkAllocated: what carries traffic has an allocation of its own.
func (n *fakeNSX) checkAllocated(o nsx.Owner, id string) {
	for _, v := range n.inv.Observe(o).VirtualServers {
		if v.ID == id && v.Claim != nsx.Claimed {
			n.t.Errorf("attached %v, whose address is %s", v.VirtualServer, v.Claim)
		}
	}
}

func (n *fakeNSX) withdraw(w nsx.Withdraw) error {
	for _, v := range w.VirtualServers {
		if v.Claim == nsx.Claimed {
			n.inv.SetAllocated(v.IPPool, v.Address, true)
		}
		r, ok := n.inv.LBService(v.LBService)
		if !ok || !slices.Contains(r.VirtualServers, v.ID) {
			continue
		}
		if err := n.call("detach", v.ID); err != nil {
			return err
		}
		r.VirtualServers = slices.DeleteFunc(slices.Clone(r.VirtualServers), func(id string) bool { return id == v.ID })
		n.inv.PutLBService(r)
	}
	for _, v := range w.VirtualServers {
		pool, _ := n.inv.IPPool(v.IPPool)
		ours := v.Claim == nsx.Claimed ||
			v.Claim == nsx.Doubtful && (pool.Exclusive || slices.Contains(w.Published, v.Address.String()))
		last := slices.Equal(n.inv.Carriers(v.Address), []string{v.ID})
		if ours && last && slices.Contains(n.inv.Allocations(v.IPPool), v.Address) {
			if err := n.call("release", v.Address.String()); err != nil {
				return err
			}
			n.inv.SetReleased(v.IPPool, v.Address)
		}
		if err := n.call("delete", v.ID); err != nil {
			return err
		}
		n.inv.DeleteVirtualServer(v.ID)
	}
	return nil
}

func (n *fakeNSX) collect(c nsx.Collect) error {
	for _, id := range c.Pools {
		if n.inv.PoolUsers(id) > 0 {
			n.t.Errorf("deleting pool %s, which is in use", id)
		}
		if err := n.call("delete", id); err != nil {
			return err
		}
		n.inv.DeletePool(id)
	}
	for _, id := range c.Monitors {
		for _, p := range n.inv.Observe(c.Owner).Pools {
			if p.MonitorID == id {
				n.t.Errorf("deleting monitor %s, which pool %s uses", id, p.ID)
			}
		}
		if err := n.call("delete", id); err != nil {
			return err
		}
		n.inv.DeleteMonitor(id)
	}
	return nil
}

// pool finds or makes the pool of a virtual server, and makes it what it should be.
func (n *fakeNSX) pool(o nsx.Owner, p nsx.Pool) (string, error) {
	r := nsx.PoolRecord{Key: p.Key()}
	if p.PerService {
		r.Owner = o
		for _, own := range n.inv.Observe(o).Pools {
			if own.Pool.Family == p.Family {
				r, _ = n.inv.Pool(own.ID)
				break
			}
		}
	} else {
		for _, shared := range n.inv.SharedPools() {
			if shared.Key == p.Key() {
				r = shared
				break
			}
		}
	}
	if r.ID != "" && r.Pool.Equal(p) {
		return r.ID, nil
	}
	monitor, err := n.monitor(r, p.Monitor)
	if err != nil {
		return "", err
	}
	if r.ID == "" {
		r.ID = n.newID("pool")
	}
	if err := n.call("pool", r.ID); err != nil {
		return "", err
	}
	r.Pool, r.MonitorID = p, monitor
	n.inv.PutPool(r)
	return r.ID, nil
}

func (n *fakeNSX) monitor(of nsx.PoolRecord, m *nsx.Monitor) (string, error) {
	if m == nil {
		return "", nil
	}
	id := of.MonitorID
	if have := n.inv.Observe(of.Owner).Monitors; id == "" && of.Owner.UID != "" && len(have) > 0 {
		id = have[0]
	}
	if r, ok := n.inv.Monitor(id); !ok || r.Owner.UID != of.Owner.UID {
		id = n.newID("monitor")
	}
	if err := n.call("monitor", id); err != nil {
		return "", err
	}
	n.inv.PutMonitor(nsx.MonitorRecord{Owner: of.Owner, ID: id, Monitor: *m})
	return id, nil
}

// restart makes the inventory what a new process reads: what earlier calls answered is forgotten.
func (n *fakeNSX) restart() {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.inv
	l := nsx.Listing{
		VirtualServers: map[string]nsx.VirtualServerRecord{}, Pools: map[string]nsx.PoolRecord{}, Monitors: map[string]nsx.MonitorRecord{},
		LBServices: map[string]nsx.LBServiceRecord{}, IPPools: map[string]nsx.IPPool{}, Allocations: map[string][]netip.Addr{},
		SourceGroups: map[string]nsx.SourceGroupRecord{}, SourceSets: map[string]nsx.SourceSetRecord{},
	}
	for _, p := range old.IPPools() {
		l.IPPools[p.ID] = p
		l.Allocations[p.ID] = old.Allocations(p.ID)
		for _, a := range l.Allocations[p.ID] {
			for _, id := range old.Carriers(a) {
				l.VirtualServers[id], _ = old.VirtualServer(id)
			}
		}
	}
	for _, o := range old.Owners() {
		have := old.Observe(o)
		for _, v := range have.VirtualServers {
			l.VirtualServers[v.ID], _ = old.VirtualServer(v.ID)
		}
		for _, p := range have.Pools {
			l.Pools[p.ID], _ = old.Pool(p.ID)
		}
		for _, m := range have.Monitors {
			l.Monitors[m], _ = old.Monitor(m)
		}
	}
	for _, p := range old.SharedPools() {
		l.Pools[p.ID] = p
	}
	for _, m := range old.SharedMonitors() {
		l.Monitors[m.ID] = m
	}
	for _, s := range old.LBServices() {
		l.LBServices[s.ID] = s
	}
	for _, g := range old.SourceGroups() {
		l.SourceGroups[g.ID] = g
		l.SourceSets[g.ID], _ = old.SourceSet(g.ID)
	}
	n.inv = emptyInventory()
	n.inv.SetVersion(old.Version())
	n.inv.Merge(n.inv.Begin(), l, true)
}
