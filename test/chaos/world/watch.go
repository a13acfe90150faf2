package world

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// watch holds every write that a cluster's controller makes against the running invariants:
//
//   - it changes nothing that is another cluster's or the foreign user's;
//   - what surely succeeded and is not idempotent (ALLOCATE of an address, RELEASE, a create) is not sent again;
//   - it allocates no address of its choice that no virtual server of it records;
//   - it gives back no address that another one records or has allocated;
//   - it leaves no node pool that had members without any, nor one without an enabled member while a Node is Ready;
//   - no Service that shows an EXTERNAL-IP loses its virtual server there, unless its user asks for that;
//   - no two Services carry traffic on one address;
//   - no virtual server lets in clients that its Service does not, or did not before its user's last change.
type watch struct {
	w *World

	mu sync.Mutex
	// seen is what there was of each kind after the last write to it, and ownerOf says whose a virtual server is.
	seen    map[nsxsim.Kind]snapshot
	ownerOf map[string]string
	// held says who has an allocation, by IP pool and address.
	held map[string]holding
	// succeeded is the last of ALLOCATE and RELEASE that was done for an address, by cluster, IP pool and address.
	succeeded map[string]string
	// made are the objects that creates have made, by cluster and everything that was sent.
	made map[string]objectKey
	// had are the pools and node groups that had members, by id.
	had map[string]bool
	// lost are the addresses that were released by hand and that nobody can have again.
	lost map[string]bool
	// excused is what is wrong by somebody's doing, by the check that finds it; excusing: what is found is.
	excused  map[string]map[string]bool
	excusing bool
}

// holding is an allocation.
type holding struct {
	// by is a cluster's name, or the foreign user.
	by string
	// process of the controller that allocated it; nil for the foreign user. hidden: it has got no answer.
	process *process
	hidden  bool
	// live: a virtual server that carries traffic has been on it. unrecorded: somebody deleted the virtual server.
	live, unrecorded bool
}

type objectKey struct {
	kind nsxsim.Kind
	id   string
}

// snapshot is everything of some kinds that clusters write, by the cluster's UID; what is no cluster's is the foreign
// user's.
type snapshot map[string]map[objectKey]nsxsim.Object

// kinds that clusters write.
var kinds = []nsxsim.Kind{
	nsxsim.KindVirtualServer, nsxsim.KindPool, nsxsim.KindMonitor, nsxsim.KindPersistenceProfile, nsxsim.KindNSGroup,
	nsxsim.KindIPSet, nsxsim.KindLBService, nsxsim.KindIPPool,
}

func newWatch(w *World) *watch {
	t := &watch{w: w, held: map[string]holding{}, succeeded: map[string]string{}, made: map[string]objectKey{}, had: map[string]bool{}, ownerOf: map[string]string{}, lost: map[string]bool{}, excused: map[string]map[string]bool{}}
	for _, pool := range w.pools {
		for _, a := range w.Sim.Allocations(pool) {
			t.held[pool+" "+a] = holding{by: foreignUser}
		}
	}
	t.seen = t.takeAll(w.look(kinds...))
	return t
}

// view is what there is at a moment.
type view map[nsxsim.Kind][]nsxsim.Object

func (w *World) look(kinds ...nsxsim.Kind) view {
	v := view{}
	for _, k := range kinds {
		v[k] = w.Sim.List(k)
	}
	return v
}

// attached says in which load-balancer service a virtual server is.
func (v view) attached() map[string]string {
	in := map[string]string{}
	for _, lb := range v[nsxsim.KindLBService] {
		for _, id := range lb.Strings("virtual_server_ids") {
			in[id] = lb.ID()
		}
	}
	return in
}

// takeAll makes snapshots of all kinds in a view of all.
func (t *watch) takeAll(v view) map[nsxsim.Kind]snapshot {
	all := map[nsxsim.Kind]snapshot{}
	for _, k := range kinds { // virtual servers first
		all[k] = t.take(v, k)
	}
	return all
}

// take makes a snapshot of one kind. That a virtual server is in a load-balancer service belongs to the virtual server's
// owner, everything else in there to that of the load-balancer service.
func (t *watch) take(v view, k nsxsim.Kind) snapshot {
	s := snapshot{foreignUser: {}}
	for _, c := range t.w.clusters {
		s[c.UID] = map[objectKey]nsxsim.Object{}
	}
	for _, o := range v[k] {
		owner := o.Tags()[nsx.TagClusterUID]
		if s[owner] == nil {
			owner = foreignUser
		}
		switch k {
		case nsxsim.KindVirtualServer:
			t.ownerOf[o.ID()] = owner
		case nsxsim.KindIPPool:
			o = without(o, "pool_usage")
		case nsxsim.KindLBService:
			for _, id := range o.Strings("virtual_server_ids") {
				s[t.ownerOf[id]][objectKey{"attachment", id}] = nsxsim.Object{"to": o.ID()}
			}
			o = without(o, "virtual_server_ids", "_revision", "_last_modified_time", "_last_modified_user")
		}
		s[owner][objectKey{k, o.ID()}] = o
	}
	return s
}

// without is an object but for some fields.
func without(o nsxsim.Object, fields ...string) nsxsim.Object {
	o = maps.Clone(o)
	for _, f := range fields {
		delete(o, f)
	}
	return o
}

// rebase takes what is there for right: somebody else than a cluster's controller has changed it.
func (t *watch) rebase() {
	v := t.w.look(kinds...)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = t.takeAll(v)
}

func (t *watch) foreignHolds(pool, addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held[pool+" "+addr] = holding{by: foreignUser}
	for _, c := range t.w.clusters {
		delete(t.succeeded, c.Name+" "+pool+" "+addr)
	}
}

func (t *watch) foreignLets(pool, addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, pool+" "+addr)
	for _, c := range t.w.clusters {
		delete(t.succeeded, c.Name+" "+pool+" "+addr)
	}
}

// ipam reads an ALLOCATE or RELEASE; ok is false for any other call. addr is empty for an ALLOCATE of any address.
func ipam(r *http.Request, body []byte) (op, pool, addr string, ok bool) {
	pool, ok = strings.CutPrefix(r.URL.Path, "/api/v1/pools/ip-pools/")
	op = r.URL.Query().Get("action")
	if !ok || r.Method != http.MethodPost || op == "" {
		return "", "", "", false
	}
	return op, pool, addressIn(body), true
}

// addressIn is the address in the body of an ALLOCATE or RELEASE, or of a virtual server; empty for none.
func addressIn(body []byte) string {
	var d struct {
		AllocationID string `json:"allocation_id"`
		IPAddress    string `json:"ip_address"`
	}
	_ = json.Unmarshal(body, &d) // other bodies have no address
	return d.AllocationID + d.IPAddress
}

// before is told of each request right before NSX works on it.
func (t *watch) before(c *Cluster, r *http.Request, body []byte) {
	if call := (Call{Method: r.Method, Path: r.URL.Path}); !call.Write() {
		return
	}
	t.w.wroteNow()
	t.mu.Lock()
	defer t.mu.Unlock()
	if op, pool, addr, ok := ipam(r, body); ok {
		if addr != "" && op == "ALLOCATE" && t.w.o.ChosenAddress == nsxsim.ChosenAddressHonoured && !t.w.recorded(c.Name, addr) {
			t.w.Violate("%s: allocates %s, which no virtual server of it records", c.Name, addr)
		}
		if addr != "" && t.succeeded[c.Name+" "+pool+" "+addr] == op {
			t.w.Violate("%s: %s of %s is sent again although it had succeeded", c.Name, op, addr)
		}
		return
	}
	if r.Method != http.MethodPost {
		return
	}
	if key, ok := t.made[c.Name+" "+r.URL.Path+" "+string(body)]; ok && t.w.Sim.Get(key.kind, key.id) != nil {
		t.w.Violate("%s: POST %s is sent again although it had succeeded: it made %s, which is still there", c.Name, r.URL.Path, key.id)
	}
}

// after is told of each request when NSX has done it, and what it came to.
func (t *watch) after(p *process, r *http.Request, body []byte, outcome int, hidden bool) {
	c := p.c
	if call := (Call{Method: r.Method, Path: r.URL.Path}); !call.Write() || outcome/100 != 2 {
		return
	}
	if op, pool, addr, ok := ipam(r, body); ok {
		v := t.w.look(nsxsim.KindVirtualServer)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.address(p, v, op, pool, addr, hidden)
		return
	}
	kind := kindOf(r.URL.Path)
	v := t.w.look(kind)
	if kind == nsxsim.KindLBService {
		v[nsxsim.KindVirtualServer] = t.w.Sim.List(nsxsim.KindVirtualServer)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before, now := t.seen[kind], t.take(v, kind)
	t.seen[kind] = now
	t.others(c, before, now)
	maps.DeleteFunc(t.made, func(_ string, key objectKey) bool { // it is not what was made any more
		return r.Method == http.MethodPut && key == objectKey{kind, path.Base(r.URL.Path)}
	})
	if r.Method == http.MethodPost {
		for key := range now[c.UID] {
			if _, was := before[c.UID][key]; !was {
				t.made[c.Name+" "+r.URL.Path+" "+string(body)] = key
			}
		}
	}
	switch kind {
	case nsxsim.KindPool, nsxsim.KindIPSet:
		t.members(c, v)
	case nsxsim.KindLBService:
		t.traffic(v)
	case nsxsim.KindVirtualServer:
		v[nsxsim.KindLBService] = t.w.Sim.List(nsxsim.KindLBService)
		t.traffic(v)
	}
}

// kindOf is the kind that a write changes.
func kindOf(path string) nsxsim.Kind {
	for _, p := range []struct {
		path string
		kind nsxsim.Kind
	}{
		{"/api/v1/loadbalancer/virtual-servers", nsxsim.KindVirtualServer},
		{"/api/v1/loadbalancer/services", nsxsim.KindLBService},
		{"/api/v1/loadbalancer/pools", nsxsim.KindPool},
		{"/api/v1/loadbalancer/monitors", nsxsim.KindMonitor},
		{"/api/v1/loadbalancer/persistence-profiles", nsxsim.KindPersistenceProfile},
		{"/api/v1/ip-sets", nsxsim.KindIPSet},
		{"/api/v1/ns-groups", nsxsim.KindNSGroup},
		{"/api/v1/pools/ip-pools", nsxsim.KindIPPool},
	} {
		if strings.HasPrefix(path, p.path) {
			return p.kind
		}
	}
	panic("world: a write to " + path + ", whose kind is not watched") // one more for the list above
}

// others: nothing is changed that is not the cluster's.
func (t *watch) others(c *Cluster, before, now snapshot) {
	for owner, docs := range before {
		if owner == c.UID {
			continue
		}
		for key, was := range docs {
			if is, ok := now[owner][key]; !ok {
				t.w.Violate("%s: deleted %s %s, which is of %s", c.Name, key.kind, key.id, owner)
			} else if !reflect.DeepEqual(was, is) {
				t.w.Violate("%s: changed %s %s, which is of %s, from %v to %v", c.Name, key.kind, key.id, owner, was, is)
			}
		}
		for key := range now[owner] {
			if _, ok := docs[key]; !ok {
				t.w.Violate("%s: made %s %s for %s", c.Name, key.kind, key.id, owner)
			}
		}
	}
}

// address notes who holds an address that was allocated or released.
func (t *watch) address(p *process, v view, op, pool, addr string, hidden bool) {
	c := p.c
	if op == "ALLOCATE" {
		chosen := addr != "" && t.w.o.ChosenAddress == nsxsim.ChosenAddressHonoured
		if !chosen {
			addr = t.fresh(pool)
		}
		delete(t.lost, addr)
		t.held[pool+" "+addr] = holding{by: c.Name, process: p, hidden: hidden}
	} else {
		if by := t.held[pool+" "+addr].by; by == foreignUser {
			t.w.Violate("%s: released %s, which %s has allocated", c.Name, addr, by)
		}
		for _, vs := range v[nsxsim.KindVirtualServer] {
			if vs.String("ip_address") == addr && !c.Owns(vs) {
				t.w.Violate("%s: released %s, which virtual server %s of somebody else carries", c.Name, addr, vs.ID())
			}
		}
		delete(t.held, pool+" "+addr)
	}
	for _, other := range t.w.clusters {
		delete(t.succeeded, other.Name+" "+pool+" "+addr)
	}
	t.succeeded[c.Name+" "+pool+" "+addr] = op
}

// fresh is the address of an IP pool that is allocated by nobody we know of: the one that NSX has just given.
func (t *watch) fresh(pool string) string {
	for _, a := range t.w.Sim.Allocations(pool) {
		released := slices.ContainsFunc(t.w.clusters, func(c *Cluster) bool { return t.succeeded[c.Name+" "+pool+" "+a] == "RELEASE" })
		if _, held := t.held[pool+" "+a]; !held && !released && !t.lost[a] {
			return a
		}
	}
	// Released and allocated again, so that it was listed all the time.
	for _, a := range t.w.Sim.Allocations(pool) {
		if _, held := t.held[pool+" "+a]; !held {
			return a
		}
	}
	return ""
}

// mayRemain tells whether an allocation that nobody uses may have got lost: the process that made it did not live to learn
// of it, or to use it.
func (h holding) mayRemain() bool {
	return h.unrecorded || !h.live && (h.hidden || h.process != nil && h.process.dead())
}

// verdict is of one check: it tells what is wrong by a key that stays the same while it is.
type verdict struct {
	t     *watch
	check string
	wrong map[string]bool
}

// judge begins a check, which done ends.
func (t *watch) judge(check string) verdict { return verdict{t, check, map[string]bool{}} }

// tell says what is wrong: a violation, unless it is excused.
func (v verdict) tell(key, format string, args ...any) {
	if v.t.excusing || v.t.excused[v.check][key] {
		v.wrong[key] = true
		return
	}
	v.t.w.Violate(format, args...)
}

// keep says that something is as it was, and not wrong now for another reason.
func (v verdict) keep(key string) {
	if v.t.excusing || v.t.excused[v.check][key] {
		v.wrong[key] = true
	}
}

// done ends the excuses for what is right.
func (v verdict) done() { v.t.excused[v.check] = v.wrong }

// settled is how long a Node is Ready at least before a pool must have it: writes of the node set are spaced out.
const settled = 2 * time.Minute

// members: pools that had members keep some, and an enabled one while a Node is Ready.
func (t *watch) members(c *Cluster, v view) {
	ready := false
	for _, n := range c.kube.listNodes() {
		if since := readySince(n); since != nil && time.Since(*since) > settled {
			ready = true
		}
	}
	if pools, ok := v[nsxsim.KindPool]; ok {
		t.poolMembers(c, pools, ready)
	}
	if sets, ok := v[nsxsim.KindIPSet]; ok {
		t.groupMembers(c, sets, ready)
	}
}

func (t *watch) poolMembers(c *Cluster, pools []nsxsim.Object, ready bool) {
	verdict := t.judge("pools " + c.Name)
	defer verdict.done()
	for _, o := range pools {
		if !c.Owns(o) || o["member_group"] != nil {
			continue
		}
		members := membersOf(o)
		enabled := slices.ContainsFunc(members, func(m member) bool { return m.state == string(nsx.Enabled) })
		switch {
		case enabled:
		case ready && (t.had[o.ID()] || c.kube.seen()): // no pool can have Nodes that were never shown
			verdict.tell(o.ID(), "%s: pool %s has no enabled member although a Node is Ready: %v", c.Name, o.ID(), members)
		default:
			verdict.keep(o.ID())
		}
		if had := t.had[o.ID()]; had && len(members) == 0 {
			verdict.tell(o.ID(), "%s: pool %s had members and has none any more", c.Name, o.ID())
		}
		t.had[o.ID()] = len(members) > 0
	}
}

func (t *watch) groupMembers(c *Cluster, sets []nsxsim.Object, ready bool) {
	verdict := t.judge("node group " + c.Name)
	defer verdict.done()
	for _, o := range sets {
		if !c.Owns(o) || !holdsNodes(o) {
			continue
		}
		n := len(o.Strings("ip_addresses"))
		switch {
		case n > 0:
		case ready && (t.had[o.ID()] || c.kube.seen()):
			verdict.tell(o.ID(), "%s: the node group has no address although a Node is Ready", c.Name)
		default:
			verdict.keep(o.ID())
		}
		if t.had[o.ID()] && n == 0 {
			verdict.tell(o.ID(), "%s: the node group had addresses and has none any more", c.Name)
		}
		t.had[o.ID()] = n > 0
	}
}

// holdsNodes tells an IP set of the node group from one of source ranges.
func holdsNodes(set nsxsim.Object) bool { return set.Tags()[nsx.TagShared] == "node group addresses" }

// member of a pool.
type member struct{ address, name, state string }

func membersOf(pool nsxsim.Object) []member {
	var out []member
	list, _ := pool["members"].([]any)
	for _, m := range list {
		if o, ok := m.(map[string]any); ok {
			m := nsxsim.Object(o)
			out = append(out, member{m.String("ip_address"), m.String("display_name"), m.String("admin_state")})
		}
	}
	return out
}

// traffic: what a Service shows goes on to carry traffic, and no address carries that of two Services.
func (t *watch) traffic(v view) {
	verdict := t.judge("traffic")
	defer verdict.done()
	in := v.attached()
	by := map[string]string{} // owner of the traffic by address
	live := map[string]bool{}
	for _, vs := range v[nsxsim.KindVirtualServer] {
		if in[vs.ID()] == "" || vs["enabled"] != true {
			continue
		}
		owner, addr := vs.Tags()[nsx.TagServiceUID], vs.String("ip_address")
		if before, ok := by[addr]; ok && before != owner {
			verdict.tell(addr, "address %s carries the traffic of two: %s and %s", addr, before, owner)
		}
		by[addr] = owner
		key := vs.Tags()[nsx.TagIPPool] + " " + addr
		if h, ok := t.held[key]; ok {
			h.live = true
			t.held[key] = h
		}
		live[owner+" "+addr] = true
	}
	for _, c := range t.w.clusters {
		for _, svc := range c.kube.list() {
			for _, vs := range v[nsxsim.KindVirtualServer] {
				if !c.Owns(vs) || vs.Tags()[nsx.TagServiceUID] != string(svc.UID) {
					continue
				}
				if lets := t.w.lets(vs); !c.kube.mayLet(svc, lets) {
					verdict.tell(vs.ID(), "virtual server %s of Service %s/%s lets in %q", vs.ID(), c.Name, svc.Name, lets)
				}
			}
			ip := externalIP(svc)
			if ip != "" && wantsLoadBalancer(svc) && !c.kube.moving(svc) && !live[string(svc.UID)+" "+ip] {
				verdict.tell(string(svc.UID), "Service %s/%s shows %s, and no virtual server of it is attached there", c.Name, svc.Name, ip)
			}
		}
	}
}

// everybody is who gets in without source ranges.
const everybody = "everybody"

// sourcesOf are the clients that a Service lets in.
func sourcesOf(svc *corev1.Service) string {
	if len(svc.Spec.LoadBalancerSourceRanges) == 0 {
		return everybody
	}
	return strings.Join(slices.Sorted(slices.Values(svc.Spec.LoadBalancerSourceRanges)), ",")
}

// lets are the clients that a virtual server lets in, as sourcesOf has them.
func (w *World) lets(vs nsxsim.Object) string {
	list, ok := vs["access_list_control"].(map[string]any)
	if !ok {
		return everybody
	}
	if list["action"] != "ALLOW" || list["enabled"] != true {
		return fmt.Sprint(list)
	}
	var in []string
	for _, id := range w.setsOf(nsxsim.Object(list).String("group_id")) {
		for _, a := range w.Sim.Get(nsxsim.KindIPSet, id).Strings("ip_addresses") {
			if !strings.Contains(a, "/") {
				a += "/32"
			}
			in = append(in, a)
		}
	}
	slices.Sort(in)
	return strings.Join(in, ",")
}

// setsOf are the ids of the IP sets of a group.
func (w *World) setsOf(group string) []string {
	var out []string
	members, _ := w.Sim.Get(nsxsim.KindNSGroup, group)["members"].([]any)
	for _, m := range members {
		expression, _ := m.(map[string]any)
		out = append(out, nsxsim.Object(expression).String("value"))
	}
	return out
}
