package nsx

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"go4.org/netipx"
)

// VirtualServerRecord is a virtual server in the inventory: ours with its document, anybody else's with its address and the
// group of its access list alone.
type VirtualServerRecord struct {
	// Owner is zero for a virtual server that is not ours.
	Owner Owner
	// VirtualServer but for LBService, Pool and Sources, which follow from the other records.
	VirtualServer VirtualServer
	PoolID        string
	// PersistenceID is its persistence profile, anybody's; empty for none.
	PersistenceID string
	// AccessGroup is the group that its access list names, anybody's; empty when it has none.
	AccessGroup string
	// AccessEdited: the access list does not do what we write, to let in the clients of the group and nobody else.
	AccessEdited bool
	// Edit of it or of its persistence profile, whichever is later; zero for foreign ones.
	Edit Edit
	// Doc is the backend's document, opaque to everybody else; nil for foreign virtual servers.
	Doc []byte
}

// PoolRecord is a pool that the controller made.
type PoolRecord struct {
	// Owner is zero for a pool that the cluster shares.
	Owner Owner
	// Key is the Pool.Key that a shared pool was made for.
	Key string
	ID  string
	// Pool as NSX has it; its Monitor is filled in from the monitor's own record.
	Pool      Pool
	MonitorID string
	Edit      Edit
	Doc       []byte
}

// MonitorRecord is a monitor that the controller made.
type MonitorRecord struct {
	// Owner is zero for a monitor that the cluster shares.
	Owner   Owner
	ID      string
	Monitor Monitor
	Edit    Edit
	Doc     []byte
}

// SourceGroupRecord is a group of clients that the controller made, for the access lists of virtual servers.
type SourceGroupRecord struct {
	ID string
	// Key is the Sources.Key that it was made for.
	Key string
	// SetID is the address set that it consists of; empty when it was made to consist of something else.
	SetID string
	Edit  Edit
	Doc   []byte
}

// SourceSetRecord is the address set behind a SourceGroupRecord.
type SourceSetRecord struct {
	ID string
	// Key is the Sources.Key that it was made for.
	Key string
	// Sources as they are in NSX.
	Sources Sources
	Edit    Edit
	Doc     []byte
}

// LBServiceRecord is a load-balancer service that the cluster uses.
type LBServiceRecord struct {
	ID string
	// Keys by which classes name it.
	Keys []string
	// Ours: made by the controller for this cluster, and deleted by it when empty.
	Ours bool
	// VirtualServers attached to it, anybody's.
	VirtualServers []string
	// Capacity is how many virtual servers it takes; 0 when NSX did not say.
	Capacity int
	Edit     Edit
	Doc      []byte
}

// Mark is a moment in the inventory's history: see Begin.
type Mark uint64

// Listing is what paged lists showed. A nil map means: not listed, keep what is known.
type Listing struct {
	VirtualServers map[string]VirtualServerRecord
	Pools          map[string]PoolRecord
	Monitors       map[string]MonitorRecord
	LBServices     map[string]LBServiceRecord
	SourceGroups   map[string]SourceGroupRecord
	SourceSets     map[string]SourceSetRecord
	IPPools        map[string]IPPool
	// Allocations by IP pool id.
	Allocations map[string][]netip.Addr
}

// Inventory is what this cluster owns in NSX and the use of its IP pools, in memory. Backends write it, as they read and
// change NSX; everybody else reads. It is safe for concurrent use; what it returns is a copy that shares only documents,
// which nobody changes.
type Inventory struct {
	mu     sync.RWMutex
	seq    uint64
	loaded bool

	virtualServers table[VirtualServerRecord]
	pools          table[PoolRecord]
	monitors       table[MonitorRecord]
	lbServices     table[LBServiceRecord]
	sourceGroups   table[SourceGroupRecord]
	sourceSets     table[SourceSetRecord]
	ipPools        map[string]IPPool
	// allocations by IP pool: the value tells whether our own ALLOCATE made it, as far as this process knows.
	allocations map[string]*table[bool]
	// refused addresses by virtual server: NSX said that the allocation is somebody else's.
	refused map[string]netip.Addr
	// noChoice are the IP pools of which NSX gives no address of one's choice, as far as this process knows.
	noChoice map[string]bool
	// reserved addresses: chosen for a Service that is being published, by Service UID.
	reserved map[netip.Addr]string
	// planned LB services by key: problems found while resolving, and services yet to be made.
	rooms map[string]LBServiceRoom
	// promised room by id or key of the load-balancer service, and by Service UID: see ReserveRoom.
	promised map[string]map[string]int
	// profiles are the ids of application profiles by id and by display name.
	profiles map[string]string
	version  Version

	// Indexes, kept with the tables.
	services  map[string]*serviceIndex
	addresses map[netip.Addr]*addressUse
	attached  map[string]string // virtual server id -> LB service id
	poolUsers map[string]map[string]bool
	// sourceUsers counts the virtual servers, anybody's, whose access list names a group.
	sourceUsers map[string]int
	// sharedPools and sharedMonitors are the ids of those that the cluster shares, profileUsers how many of our virtual
	// servers have each.
	sharedPools, sharedMonitors map[string]bool
	profileUsers                map[string]int
}

// serviceIndex is what a Service owns, by id.
type serviceIndex struct {
	owner                           Owner
	virtualServers, pools, monitors map[string]bool
}

// NewInventory is an empty inventory, not loaded yet.
func NewInventory() *Inventory {
	inv := &Inventory{
		virtualServers: newTable[VirtualServerRecord](),
		pools:          newTable[PoolRecord](),
		monitors:       newTable[MonitorRecord](),
		lbServices:     newTable[LBServiceRecord](),
		sourceGroups:   newTable[SourceGroupRecord](),
		sourceSets:     newTable[SourceSetRecord](),
		ipPools:        map[string]IPPool{},
		allocations:    map[string]*table[bool]{},
		refused:        map[string]netip.Addr{},
		noChoice:       map[string]bool{},
		reserved:       map[netip.Addr]string{},
		rooms:          map[string]LBServiceRoom{},
		promised:       map[string]map[string]int{},
	}
	inv.reindex()
	return inv
}

// Loaded tells whether a complete list has been read: until then nothing may be concluded from absence.
func (inv *Inventory) Loaded() bool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.loaded
}

// Begin marks the moment before a list is read. Writes of ours after it are kept when the list is merged.
func (inv *Inventory) Begin() Mark {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return Mark(inv.seq)
}

// Merge takes over what lists showed that were begun at the mark. complete says that the lists cover everything, so that
// the inventory counts as loaded.
func (inv *Inventory) Merge(m Mark, l Listing, complete bool) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	seq := uint64(m)
	if l.VirtualServers != nil {
		inv.virtualServers.merge(seq, l.VirtualServers)
	}
	if l.Pools != nil {
		inv.pools.merge(seq, l.Pools)
	}
	if l.Monitors != nil {
		inv.monitors.merge(seq, l.Monitors)
	}
	if l.LBServices != nil {
		inv.lbServices.merge(seq, l.LBServices)
	}
	if l.SourceGroups != nil {
		inv.sourceGroups.merge(seq, l.SourceGroups)
	}
	if l.SourceSets != nil {
		inv.sourceSets.merge(seq, l.SourceSets)
	}
	if l.IPPools != nil {
		inv.ipPools = maps.Clone(l.IPPools)
	}
	for pool, addrs := range l.Allocations {
		t := inv.allocationsOf(pool)
		listed := make(map[string]bool, len(addrs))
		for _, a := range addrs {
			id := unmap(a).String()
			known, ok := t.get(id)
			listed[id] = ok && known
		}
		t.merge(seq, listed)
	}
	for id, a := range inv.refused {
		r, ok := inv.virtualServers.get(id)
		if t := inv.allocations[r.VirtualServer.IPPool]; ok && t != nil {
			_, ok = t.get(a.String()) // what is free by now is nobody's
		}
		if !ok {
			delete(inv.refused, id)
		}
	}
	inv.loaded = inv.loaded || complete
	inv.reindex()
	inv.keepProofs()
}

// keepProofs notes that an allocated address on which a Service has traffic is the Service's: that goes on to be known when
// somebody has deleted the virtual server.
func (inv *Inventory) keepProofs() {
	for id := range inv.attached {
		r, ok := inv.virtualServers.get(id)
		t := inv.allocations[r.VirtualServer.IPPool]
		if !ok || r.Owner.UID == "" || t == nil || inv.refused[id].IsValid() {
			continue
		}
		addr := unmap(r.VirtualServer.Address).String()
		if a, allocated := t.rows[addr]; allocated {
			t.rows[addr] = row[bool]{true, a.seq}
		}
	}
}

func (inv *Inventory) allocationsOf(pool string) *table[bool] {
	t := inv.allocations[pool]
	if t == nil {
		n := newTable[bool]()
		t = &n
		inv.allocations[pool] = t
	}
	return t
}

// reindex makes the indexes anew from the tables.
func (inv *Inventory) reindex() {
	inv.services = map[string]*serviceIndex{}
	inv.addresses = map[netip.Addr]*addressUse{}
	inv.attached = map[string]string{}
	inv.poolUsers = map[string]map[string]bool{}
	inv.sourceUsers = map[string]int{}
	inv.sharedPools, inv.sharedMonitors = map[string]bool{}, map[string]bool{}
	inv.profileUsers = map[string]int{}
	for id, r := range inv.virtualServers.rows {
		inv.indexVirtualServer(id, r.value)
	}
	for id, r := range inv.pools.rows {
		inv.indexPool(id, r.value.Owner)
	}
	for id, r := range inv.monitors.rows {
		inv.indexMonitor(id, r.value.Owner)
	}
	for id, r := range inv.lbServices.rows {
		for _, vs := range r.value.VirtualServers {
			inv.attached[vs] = id
		}
	}
}

func (inv *Inventory) service(o Owner) *serviceIndex {
	s := inv.services[o.UID]
	if s == nil {
		s = &serviceIndex{o, map[string]bool{}, map[string]bool{}, map[string]bool{}}
		inv.services[o.UID] = s
	}
	return s
}

func (inv *Inventory) indexPool(id string, o Owner) {
	if o.UID == "" {
		inv.sharedPools[id] = true
	} else {
		inv.service(o).pools[id] = true
	}
}

func (inv *Inventory) indexMonitor(id string, o Owner) {
	if o.UID == "" {
		inv.sharedMonitors[id] = true
	} else {
		inv.service(o).monitors[id] = true
	}
}

func (inv *Inventory) indexVirtualServer(id string, r VirtualServerRecord) {
	a := unmap(r.VirtualServer.Address)
	if inv.addresses[a] == nil {
		inv.addresses[a] = &addressUse{}
	}
	inv.addresses[a].add(id)
	if r.AccessGroup != "" {
		inv.sourceUsers[r.AccessGroup]++
	}
	if r.Owner.UID == "" {
		return
	}
	inv.service(r.Owner).virtualServers[id] = true
	inv.profileUsers[r.PersistenceID]++
	if r.PoolID != "" {
		if inv.poolUsers[r.PoolID] == nil {
			inv.poolUsers[r.PoolID] = map[string]bool{}
		}
		inv.poolUsers[r.PoolID][id] = true
	}
}

func (inv *Inventory) unindexVirtualServer(id string) {
	r, ok := inv.virtualServers.get(id)
	if !ok {
		return
	}
	a := unmap(r.VirtualServer.Address)
	if u := inv.addresses[a]; u != nil {
		u.remove(id)
		if len(u.carriers) == 0 {
			delete(inv.addresses, a)
		}
	}
	if inv.sourceUsers[r.AccessGroup]--; inv.sourceUsers[r.AccessGroup] <= 0 {
		delete(inv.sourceUsers, r.AccessGroup)
	}
	delete(inv.poolUsers[r.PoolID], id)
	if r.Owner.UID != "" {
		inv.profileUsers[r.PersistenceID]--
	}
	if s := inv.services[r.Owner.UID]; s != nil {
		delete(s.virtualServers, id)
		inv.dropEmpty(r.Owner.UID)
	}
}

func (inv *Inventory) dropEmpty(uid string) {
	s := inv.services[uid]
	if s != nil && len(s.virtualServers)+len(s.pools)+len(s.monitors) == 0 {
		delete(inv.services, uid)
	}
}

func (inv *Inventory) write(f func(seq uint64)) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.seq++
	f(inv.seq)
}

// PutVirtualServer records a virtual server as NSX answered it.
func (inv *Inventory) PutVirtualServer(r VirtualServerRecord) {
	inv.write(func(seq uint64) {
		id := r.VirtualServer.ID
		inv.unindexVirtualServer(id)
		inv.virtualServers.put(id, r, seq)
		inv.indexVirtualServer(id, r)
		if a, ok := inv.refused[id]; ok && a != unmap(r.VirtualServer.Address) {
			delete(inv.refused, id)
		}
	})
}

// DeleteVirtualServer records that a virtual server is gone.
func (inv *Inventory) DeleteVirtualServer(id string) {
	inv.write(func(seq uint64) {
		inv.unindexVirtualServer(id)
		inv.virtualServers.remove(id, seq)
		delete(inv.refused, id)
	})
}

// PutPool records a pool of ours as NSX answered it.
func (inv *Inventory) PutPool(r PoolRecord) {
	inv.write(func(seq uint64) {
		inv.pools.put(r.ID, r, seq)
		inv.indexPool(r.ID, r.Owner)
	})
}

// DeletePool records that a pool is gone.
func (inv *Inventory) DeletePool(id string) {
	inv.write(func(seq uint64) {
		if r, ok := inv.pools.get(id); ok && r.Owner.UID != "" {
			delete(inv.service(r.Owner).pools, id)
			inv.dropEmpty(r.Owner.UID)
		}
		delete(inv.sharedPools, id)
		inv.pools.remove(id, seq)
	})
}

// PutMonitor records a monitor of ours as NSX answered it.
func (inv *Inventory) PutMonitor(r MonitorRecord) {
	inv.write(func(seq uint64) {
		inv.monitors.put(r.ID, r, seq)
		inv.indexMonitor(r.ID, r.Owner)
	})
}

// DeleteMonitor records that a monitor is gone.
func (inv *Inventory) DeleteMonitor(id string) {
	inv.write(func(seq uint64) {
		if r, ok := inv.monitors.get(id); ok && r.Owner.UID != "" {
			delete(inv.service(r.Owner).monitors, id)
			inv.dropEmpty(r.Owner.UID)
		}
		delete(inv.sharedMonitors, id)
		inv.monitors.remove(id, seq)
	})
}

// PutLBService records a load-balancer service as NSX answered it.
func (inv *Inventory) PutLBService(r LBServiceRecord) {
	inv.write(func(seq uint64) {
		if old, ok := inv.lbServices.get(r.ID); ok {
			for _, vs := range old.VirtualServers {
				if inv.attached[vs] == r.ID {
					delete(inv.attached, vs)
				}
			}
		}
		inv.lbServices.put(r.ID, r, seq)
		for _, vs := range r.VirtualServers {
			inv.attached[vs] = r.ID
		}
	})
}

// DeleteLBService records that a load-balancer service is gone.
func (inv *Inventory) DeleteLBService(id string) {
	inv.write(func(seq uint64) {
		if old, ok := inv.lbServices.get(id); ok {
			for _, vs := range old.VirtualServers {
				if inv.attached[vs] == id {
					delete(inv.attached, vs)
				}
			}
		}
		inv.lbServices.remove(id, seq)
	})
}

// SetRoom records what a class's name for a load-balancer service stands for when that is no service in the inventory:
// one that is yet to be made, or a name that cannot be used and why.
func (inv *Inventory) SetRoom(r LBServiceRoom) {
	inv.write(func(uint64) { inv.rooms[r.Key] = r })
}

// SetAllocated records an allocation; ours says that our own ALLOCATE made it.
func (inv *Inventory) SetAllocated(pool string, a netip.Addr, ours bool) {
	inv.write(func(seq uint64) { inv.allocationsOf(pool).put(unmap(a).String(), ours, seq) })
}

// SetReleased records that an address is no longer allocated.
func (inv *Inventory) SetReleased(pool string, a netip.Addr) {
	inv.write(func(seq uint64) { inv.allocationsOf(pool).remove(unmap(a).String(), seq) })
}

// SetRefused records that the address of a virtual server turned out to be somebody else's allocation.
func (inv *Inventory) SetRefused(virtualServer string, pool string, a netip.Addr) {
	inv.write(func(seq uint64) {
		inv.refused[virtualServer] = unmap(a)
		inv.allocationsOf(pool).put(unmap(a).String(), false, seq)
	})
}

// SetNoChoice records whether NSX gives no address of one's choice of an IP pool.
func (inv *Inventory) SetNoChoice(pool string, is bool) {
	inv.write(func(uint64) {
		if is {
			inv.noChoice[pool] = true
		} else {
			delete(inv.noChoice, pool)
		}
	})
}

// NoChoice tells whether NSX is known to give no address of one's choice of an IP pool.
func (inv *Inventory) NoChoice(pool string) bool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.noChoice[pool]
}

// Reserve keeps an address for a Service while it is published, so that two Services never choose the same. choose runs
// under the inventory's lock, must not call it, and gets what tells a free address.
func (inv *Inventory) Reserve(o Owner, choose func(free func(pool string, a netip.Addr) bool) (netip.Addr, error)) (netip.Addr, error) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	a, err := choose(func(pool string, a netip.Addr) bool {
		a = unmap(a)
		if by, ok := inv.reserved[a]; ok && by != o.UID {
			return false
		}
		if u := inv.addresses[a]; u != nil && len(u.carriers) > 0 {
			return false
		}
		if t := inv.allocations[pool]; t != nil {
			if _, taken := t.get(a.String()); taken {
				return false
			}
		}
		return true
	})
	if err == nil {
		inv.reserved[unmap(a)] = o.UID
	}
	return a, err
}

// Unreserve lets go of what Reserve and ReserveRoom kept for a Service.
func (inv *Inventory) Unreserve(o Owner) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	maps.DeleteFunc(inv.reserved, func(_ netip.Addr, uid string) bool { return uid == o.UID })
	for at, by := range inv.promised {
		delete(by, o.UID)
		if len(by) == 0 {
			delete(inv.promised, at)
		}
	}
}

// Observe is everything that a Service has in NSX.
func (inv *Inventory) Observe(o Owner) Observed {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	out := Observed{Owner: o}
	s := inv.services[o.UID]
	if s == nil {
		return out
	}
	for id := range s.virtualServers {
		r, _ := inv.virtualServers.get(id)
		v := ObservedVirtualServer{VirtualServer: r.VirtualServer, PoolID: r.PoolID}
		v.LBService = inv.attached[id]
		if p, ok := inv.pool(r.PoolID); ok {
			v.Pool, v.MonitorID = p.Pool, p.MonitorID
		}
		v.Sources = inv.sources(r)
		out.VirtualServers = append(out.VirtualServers, v)
	}
	slices.SortFunc(out.VirtualServers, byID(func(v ObservedVirtualServer) string { return v.ID }))
	for i := range out.VirtualServers {
		out.VirtualServers[i].Claim = inv.claim(out.VirtualServers, out.VirtualServers[i])
	}
	for id := range s.pools {
		p, _ := inv.pool(id)
		out.Pools = append(out.Pools, ObservedPool{ID: id, Pool: p.Pool, MonitorID: p.MonitorID})
	}
	slices.SortFunc(out.Pools, byID(func(p ObservedPool) string { return p.ID }))
	out.Monitors = slices.Sorted(maps.Keys(s.monitors))
	return out
}

// claim tells whose the allocation of v's address is. One allocation serves all of a Service's virtual servers on an
// address, so that one of them being refused, or else attached, tells for all.
func (inv *Inventory) claim(all []ObservedVirtualServer, v ObservedVirtualServer) Claim {
	t := inv.allocations[v.IPPool]
	if t == nil {
		return Unclaimed
	}
	addr := unmap(v.Address)
	ours, allocated := t.get(addr.String())
	there := func(is func(ObservedVirtualServer) bool) bool {
		return slices.ContainsFunc(all, func(w ObservedVirtualServer) bool { return unmap(w.Address) == addr && is(w) })
	}
	switch {
	case !allocated:
		return Unclaimed
	case ours:
		return Claimed
	case there(func(w ObservedVirtualServer) bool { return inv.refused[w.ID] == addr }):
		return Refused
	case there(ObservedVirtualServer.Attached):
		return Claimed
	}
	return Doubtful
}

// Owners lists the Services that own anything, by UID.
func (inv *Inventory) Owners() []Owner {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	out := make([]Owner, 0, len(inv.services))
	for _, s := range inv.services {
		out = append(out, s.owner)
	}
	slices.SortFunc(out, byID(func(o Owner) string { return o.UID }))
	return out
}

// IPPool finds an IP pool by its NSX id, or by its name in the cloud config.
func (inv *Inventory) IPPool(idOrName string) (IPPool, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	if p, ok := inv.ipPools[idOrName]; ok {
		return p, true
	}
	for _, p := range inv.ipPools {
		if p.Name == idOrName {
			return p, true
		}
	}
	return IPPool{}, false
}

// IPPools lists the IP pools in the order of their ids.
func (inv *Inventory) IPPools() []IPPool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return slices.SortedFunc(maps.Values(inv.ipPools), byID(func(p IPPool) string { return p.ID }))
}

// Allocations lists the allocated addresses of an IP pool, anybody's, in ascending order.
func (inv *Inventory) Allocations(pool string) []netip.Addr {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	t := inv.allocations[pool]
	if t == nil {
		return nil
	}
	out := make([]netip.Addr, 0, len(t.rows))
	for id := range t.rows {
		out = append(out, netip.MustParseAddr(id))
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Allocation tells whether an address of an IP pool is allocated, and whether our own ALLOCATE did it, as far as this
// process knows.
func (inv *Inventory) Allocation(pool string, a netip.Addr) (allocated, ours bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	if t := inv.allocations[pool]; t != nil {
		ours, allocated = t.get(unmap(a).String())
	}
	return allocated, ours
}

// Unrecorded lists the allocated addresses of an IP pool that no virtual server carries, in ascending order.
func (inv *Inventory) Unrecorded(pool string) []netip.Addr {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	var out []netip.Addr
	if t := inv.allocations[pool]; t != nil {
		for id := range t.rows {
			a := netip.MustParseAddr(id)
			if u := inv.addresses[a]; u == nil || len(u.carriers) == 0 {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Lost lists the addresses of an IP pool on which Services of ours have traffic although they are not allocated, or are somebody
// else's allocation, in ascending order.
func (inv *Inventory) Lost(pool string) []netip.Addr {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	var out []netip.Addr
	t := inv.allocations[pool]
	for id := range inv.attached {
		r, ok := inv.virtualServers.get(id)
		if !ok || r.Owner.UID == "" || r.VirtualServer.IPPool != pool {
			continue
		}
		a := unmap(r.VirtualServer.Address)
		allocated := false
		if t != nil {
			_, allocated = t.get(a.String())
		}
		if !allocated || inv.refused[id] == a {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// KeptByOthers tells whether any address of an IP pool is not allocated, and still on a virtual server of somebody else: it
// has been given back, and the virtual server is, or soon will be, gone.
func (inv *Inventory) KeptByOthers(pool string) bool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	p, t := inv.ipPools[pool], inv.allocations[pool]
	for a, u := range inv.addresses {
		if !slices.ContainsFunc(p.Ranges, func(r netipx.IPRange) bool { return r.Contains(a) }) {
			continue
		}
		if t != nil {
			if _, allocated := t.get(a.String()); allocated {
				continue
			}
		}
		for _, id := range u.carriers {
			if r, _ := inv.virtualServers.get(id); r.Owner.UID == "" {
				return true
			}
		}
	}
	return false
}

// Allocated tells whether an address of an IP pool is allocated, by anybody.
func (inv *Inventory) Allocated(pool string, a netip.Addr) bool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	t := inv.allocations[pool]
	if t == nil {
		return false
	}
	_, ok := t.get(unmap(a).String())
	return ok
}

// AnyAllocated tells whether any address of an IP pool is.
func (inv *Inventory) AnyAllocated(pool string) bool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	t := inv.allocations[pool]
	return t != nil && len(t.rows) > 0
}

// Carriers lists the ids of the virtual servers that carry an address, anybody's, in ascending order.
func (inv *Inventory) Carriers(a netip.Addr) []string {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	u := inv.addresses[unmap(a)]
	if u == nil {
		return nil
	}
	return slices.Sorted(slices.Values(u.carriers))
}

// VirtualServer finds a virtual server by id, anybody's.
func (inv *Inventory) VirtualServer(id string) (VirtualServerRecord, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.virtualServers.get(id)
}

// Pool finds a pool of ours by id.
func (inv *Inventory) Pool(id string) (PoolRecord, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.pool(id)
}

func (inv *Inventory) pool(id string) (PoolRecord, bool) {
	r, ok := inv.pools.get(id)
	r.Pool.Monitor = nil
	if m, known := inv.monitors.get(r.MonitorID); known {
		r.Pool.Monitor = &m.Monitor
	}
	return r, ok
}

// SharedPools lists the pools that the cluster shares, in the order of their ids.
func (inv *Inventory) SharedPools() []PoolRecord {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	var out []PoolRecord
	for id := range inv.sharedPools {
		p, _ := inv.pool(id)
		out = append(out, p)
	}
	slices.SortFunc(out, byID(func(p PoolRecord) string { return p.ID }))
	return out
}

// AnyServicePool tells whether any Service has a pool of its own.
func (inv *Inventory) AnyServicePool() bool {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return len(inv.pools.rows) > len(inv.sharedPools)
}

// SharedMonitors lists the monitors that the cluster shares, in the order of their ids.
func (inv *Inventory) SharedMonitors() []MonitorRecord {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	var out []MonitorRecord
	for id := range inv.sharedMonitors {
		m, _ := inv.monitors.get(id)
		out = append(out, m)
	}
	slices.SortFunc(out, byID(func(m MonitorRecord) string { return m.ID }))
	return out
}

// Monitor finds a monitor of ours by id.
func (inv *Inventory) Monitor(id string) (MonitorRecord, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.monitors.get(id)
}

// PoolUsers counts our virtual servers that forward to a pool.
func (inv *Inventory) PoolUsers(id string) int {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return len(inv.poolUsers[id])
}

// ProfileUsers counts our virtual servers that have a persistence profile.
func (inv *Inventory) ProfileUsers(id string) int {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.profileUsers[id]
}

// LBService finds a load-balancer service by id or by a class's key for it.
func (inv *Inventory) LBService(idOrKey string) (LBServiceRecord, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.lbService(idOrKey)
}

func (inv *Inventory) lbService(idOrKey string) (LBServiceRecord, bool) {
	if r, ok := inv.lbServices.get(idOrKey); ok {
		return r, true
	}
	for _, id := range slices.Sorted(maps.Keys(inv.lbServices.rows)) {
		if r := inv.lbServices.rows[id].value; slices.Contains(r.Keys, idOrKey) {
			return r, true
		}
	}
	return LBServiceRecord{}, false
}

// LBServices lists the load-balancer services in the order of their ids.
func (inv *Inventory) LBServices() []LBServiceRecord {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return values(&inv.lbServices, func(r LBServiceRecord) string { return r.ID })
}

// Unlimited is the room of a load-balancer service whose capacity NSX does not tell.
const Unlimited = 1 << 30

// Room tells what a class's key for a load-balancer service stands for, and how much fits in.
func (inv *Inventory) Room(key string) LBServiceRoom {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.room(key)
}

func values[T any](t *table[T], id func(T) string) []T {
	out := make([]T, 0, len(t.rows))
	for _, r := range t.rows {
		out = append(out, r.value)
	}
	slices.SortFunc(out, byID(id))
	return out
}

// SetVersion records the release of NSX.
func (inv *Inventory) SetVersion(v Version) {
	inv.write(func(uint64) { inv.version = v })
}

// Version is the release of NSX.
func (inv *Inventory) Version() Version {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.version
}

// SetProfiles records the application profiles that NSX has: ids by id and by display name.
func (inv *Inventory) SetProfiles(ids map[string]string) {
	inv.write(func(uint64) { inv.profiles = ids })
}

// ApplicationProfile finds the id of an application profile by its id or display name.
func (inv *Inventory) ApplicationProfile(idOrName string) (string, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	id, ok := inv.profiles[idOrName]
	return id, ok
}
