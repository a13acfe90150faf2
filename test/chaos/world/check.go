package world

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Check holds a world that is at rest against what should be: every cluster's objects are those that its Services want,
// exactly; the allocations are the addresses in use; what is foreign is as it was left. Users' wishes for other addresses
// count as served from then on.
func (w *World) Check() {
	v := w.look(kinds...)
	used := map[string]string{} // IP pool and address -> by whom
	for _, c := range w.clusters {
		n := &inspection{w: w, c: c, view: v, attached: v.attached(), used: used, wanted: map[nsxsim.Kind]map[string]bool{}}
		n.run()
		c.kube.settle()
	}
	w.checkAllocations(used)
	w.watch.checkForeign(v)
}

// inspection is one Check of one cluster.
type inspection struct {
	w        *World
	c        *Cluster
	view     view
	attached map[string]string
	used     map[string]string
	// wanted are the ids of the objects that the cluster should have.
	wanted map[nsxsim.Kind]map[string]bool
}

func (n *inspection) violate(format string, args ...any) {
	n.w.Violate("at rest: %s: %s", n.c.Name, fmt.Sprintf(format, args...))
}

func (n *inspection) run() {
	failures := map[string]error{}
	if p := n.c.process; p == nil || p.dead() {
		n.violate("no process runs")
	} else {
		failures = p.framework.failures()
	}
	for _, svc := range n.c.Services() {
		switch err := failures[svc.Name]; {
		case !wantsLoadBalancer(svc):
			n.gone(svc, err)
		case err != nil && n.pending(svc, err):
		case err != nil:
			n.violate("Service %s is not served: %v", svc.Name, err)
		default:
			n.served(svc)
		}
	}
	n.nothingElse()
	n.nodes()
}

// gone: a Service that wants no load balancer has nothing, and is free to go.
func (n *inspection) gone(svc *corev1.Service, err error) {
	if err != nil {
		n.violate("the load balancer of Service %s does not go: %v", svc.Name, err)
	}
	if len(svc.Finalizers) > 0 || externalIP(svc) != "" {
		n.violate("Service %s wants no load balancer, and has finalizers %v and EXTERNAL-IP %q", svc.Name, svc.Finalizers, externalIP(svc))
	}
}

// pending tells whether a Service may wait for an address, having none.
func (n *inspection) pending(svc *corev1.Service, err error) bool {
	class, classErr := lb.ClassOf(svc, n.c.process.config)
	if classErr != nil {
		return false
	}
	if asked := svc.Spec.LoadBalancerIP; asked != "" && errors.Is(err, lb.ErrBadService) {
		if externalIP(svc) != "" && !n.w.unproven(externalIP(svc)) {
			n.served(svc)
		}
		return !slices.Contains(class.IPPools, n.w.poolOf(asked)) // the class does not have it
	}
	if !errors.Is(err, nsx.ErrExhausted) && !errors.Is(err, nsx.ErrAlreadyAllocated) {
		return false
	}
	if addr := externalIP(svc); addr != "" {
		if n.w.unproven(addr) {
			return true
		}
		n.served(svc) // and waits for another one
		return true
	}
	if svc.Spec.LoadBalancerIP == "" {
		for _, name := range class.IPPools {
			if free := n.w.o.Addresses - len(n.w.Sim.Allocations(n.w.pools[name])); free > 0 && !n.carried(name, free) {
				n.violate("Service %s has no address, and IP pool %s has %d free: %v", svc.Name, name, free, err)
			}
		}
	}
	return true
}

// carried tells whether all of the free addresses of a pool are on virtual servers, which nobody must choose then.
func (n *inspection) carried(pool string, free int) bool {
	allocated := n.w.Sim.Allocations(n.w.pools[pool])
	on := map[string]bool{}
	for _, vs := range n.view[nsxsim.KindVirtualServer] {
		if a := vs.String("ip_address"); !slices.Contains(allocated, a) && n.w.poolOf(a) == pool {
			on[a] = true
		}
	}
	return len(on) >= free
}

// poolOf is the name of the IP pool in whose range an address is; empty for none.
func (w *World) poolOf(a string) string {
	addr, err := netip.ParseAddr(a)
	if err != nil {
		return ""
	}
	b := addr.As4()
	names := []string{PoolFloating, PoolSpare}
	if int(b[2]) < len(names) && int(b[3]) >= 1 && int(b[3]) <= w.o.Addresses {
		return names[b[2]]
	}
	return ""
}

func (n *inspection) want(k nsxsim.Kind, id string) {
	if n.wanted[k] == nil {
		n.wanted[k] = map[string]bool{}
	}
	n.wanted[k][id] = true
}

// served: a Service has one address, on which virtual servers carry its ports, as its class says.
func (n *inspection) served(svc *corev1.Service) {
	class, err := lb.ClassOf(svc, n.c.process.config)
	if err != nil {
		n.violate("Service %s: %v", svc.Name, err)
		return
	}
	front, err := lb.Desired(svc, class)
	if err != nil {
		n.violate("Service %s: %v", svc.Name, err)
		return
	}
	ip := externalIP(svc)
	if asked := svc.Spec.LoadBalancerIP; ip == "" || (asked != "" && asked != ip && n.c.process.framework.failures()[svc.Name] == nil) {
		n.violate("Service %s has EXTERNAL-IP %q and asks for %q", svc.Name, ip, asked)
	}
	have := map[string]bool{}
	perProtocol := map[string]int{}
	for _, vs := range n.view[nsxsim.KindVirtualServer] {
		if !n.c.Owns(vs) || vs.Tags()[nsx.TagServiceUID] != string(svc.UID) {
			continue
		}
		n.want(nsxsim.KindVirtualServer, vs.ID())
		if n.inDoubt(svc, vs) {
			continue
		}
		protocol := vs.String("ip_protocol")
		perProtocol[protocol]++
		nodePorts := vs.Strings("default_pool_member_ports")
		for i, port := range vs.Strings("ports") {
			key := fmt.Sprintf("%s %s->%s", protocol, port, nodePorts[min(i, len(nodePorts)-1)])
			if have[key] {
				n.violate("Service %s has %s twice", svc.Name, key)
			}
			have[key] = true
		}
		n.virtualServer(svc, front, vs)
	}
	want := map[string]bool{}
	for _, p := range svc.Spec.Ports {
		want[fmt.Sprintf("%s %d->%d", p.Protocol, p.Port, p.NodePort)] = true
	}
	if n.w.watch.isLost(ip) && n.c.process.framework.failures()[svc.Name] != nil {
		maps.DeleteFunc(want, func(port string, _ bool) bool { return !have[port] }) // no virtual server can be added there
	}
	if !maps.Equal(want, have) {
		n.violate("Service %s has the ports %v, want %v", svc.Name, slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(want)))
	}
	for protocol, count := range perProtocol {
		if !n.c.kube.hadMany(svc) && count != 1 {
			n.violate("Service %s has %d virtual servers of %s, want 1", svc.Name, count, protocol)
		}
	}
	if n.c.process.framework.failures()[svc.Name] == nil {
		n.planned(svc)
	}
}

// inDoubt tells whether a virtual server records the address that a Service asks for and does not get: its ALLOCATE got no
// answer, so that in an IP pool which others use nothing tells whose the allocation is.
func (n *inspection) inDoubt(svc *corev1.Service, vs nsxsim.Object) bool {
	n.w.watch.mu.Lock()
	defer n.w.watch.mu.Unlock()
	asked := svc.Spec.LoadBalancerIP
	return !n.w.o.Exclusive && asked != "" && asked != externalIP(svc) && asked == vs.String("ip_address") && n.attached[vs.ID()] == "" &&
		n.c.process.framework.failures()[svc.Name] != nil && n.w.watch.held[vs.Tags()[nsx.TagIPPool]+" "+asked].mayRemain()
}

// virtualServer is live, on the Service's address, and as its class says.
func (n *inspection) virtualServer(svc *corev1.Service, front lb.Frontend, vs nsxsim.Object) {
	id, tags := vs.ID(), vs.Tags()
	bad := func(what string, got, want any) {
		n.violate("virtual server %s of Service %s: %s is %v, want %v", id, svc.Name, what, got, want)
	}
	if got := vs.String("ip_address"); got != externalIP(svc) {
		bad("address", got, externalIP(svc))
	}
	if vs["enabled"] != true {
		bad("enabled", vs["enabled"], true)
	}
	if n.attached[id] == "" {
		bad("attached", false, true)
	} else {
		n.want(nsxsim.KindLBService, n.attached[id])
	}
	for scope, want := range map[string]string{nsx.TagService: "default/" + svc.Name, nsx.TagCluster: n.c.Name, nsx.TagClass: front.Class} {
		if tags[scope] != want {
			bad("tag "+scope, tags[scope], want)
		}
	}
	key, who := tags[nsx.TagIPPool]+" "+vs.String("ip_address"), n.c.Name+"/"+svc.Name
	if other := n.used[key]; other != "" && other != who {
		n.violate("Service %s and %s have the address %s", svc.Name, other, vs.String("ip_address"))
	}
	n.used[key] = who
	i := slices.IndexFunc(front.Listeners, func(l lb.Listener) bool { return string(l.Protocol) == vs.String("ip_protocol") })
	if i < 0 {
		bad("protocol", vs.String("ip_protocol"), "one of the Service's")
		return
	}
	if want := n.w.named(nsxsim.KindApplicationProfile, front.Listeners[i].ApplicationProfile); vs.String("application_profile_id") != want {
		bad("application profile", vs.String("application_profile_id"), want)
	}
	affinity := time.Duration(0)
	if profile := vs.String("persistence_profile_id"); profile != "" {
		n.want(nsxsim.KindPersistenceProfile, profile)
		seconds, _ := n.w.Sim.Get(nsxsim.KindPersistenceProfile, profile)["timeout"].(float64)
		affinity = time.Duration(seconds) * time.Second
	}
	if affinity != front.Affinity {
		bad("affinity", affinity, front.Affinity)
	}
	if got, want := n.w.lets(vs), sourcesOf(svc); got != want {
		bad("access list", got, want)
	}
	if list, ok := vs["access_list_control"].(map[string]any); ok {
		group := nsxsim.Object(list).String("group_id")
		n.want(nsxsim.KindNSGroup, group)
		for _, set := range n.w.setsOf(group) {
			n.want(nsxsim.KindIPSet, set)
		}
	}
	n.pool(svc, front.PoolOf(nsx.IPv4), n.w.Sim.Get(nsxsim.KindPool, vs.String("pool_id")))
}

// pool is as the class says, with its monitor.
func (n *inspection) pool(svc *corev1.Service, want nsx.Pool, o nsxsim.Object) {
	if o == nil || !n.c.Owns(o) {
		n.violate("Service %s forwards to a pool that is not the cluster's: %v", svc.Name, o)
		return
	}
	n.want(nsxsim.KindPool, o.ID())
	got := nsx.Pool{Family: nsx.IPv4, Algorithm: o.String("algorithm"), SNAT: nsx.Transparent}
	if _, ok := o["snat_translation"]; ok {
		got.SNAT = nsx.AutoMap
	}
	if g, ok := o["member_group"].(map[string]any); ok {
		got.PerService = true
		limit, _ := g["max_ip_list_size"].(float64)
		got.MaxNodes = int(limit)
		object, _ := g["grouping_object"].(map[string]any)
		group := n.w.Sim.Get(nsxsim.KindNSGroup, nsxsim.Object(object).String("target_id"))
		if group == nil || !n.c.Owns(group) {
			n.violate("the members of pool %s are in no group of the cluster", o.ID())
		} else {
			n.want(nsxsim.KindNSGroup, group.ID())
			for _, set := range n.w.setsOf(group.ID()) {
				n.want(nsxsim.KindIPSet, set)
			}
		}
		if o.Tags()[nsx.TagServiceUID] != string(svc.UID) {
			n.violate("pool %s of Service %s is another's", o.ID(), svc.Name)
		}
	}
	for _, id := range o.Strings("active_monitor_ids") {
		n.want(nsxsim.KindMonitor, id)
		got.Monitor = monitorOf(n.w.Sim.Get(nsxsim.KindMonitor, id))
	}
	if !got.Equal(want) {
		n.violate("pool %s of Service %s is %q, want %q", o.ID(), svc.Name, got.Key(), want.Key())
	}
}

func monitorOf(o nsxsim.Object) *nsx.Monitor {
	number := func(field string) int {
		f, _ := o[field].(float64)
		return int(f)
	}
	port, _ := strconv.Atoi(o.String("monitor_port"))
	return &nsx.Monitor{
		Port: uint16(port), Path: o.String("request_url"),
		Interval: time.Duration(number("interval")) * time.Second, Timeout: time.Duration(number("timeout")) * time.Second,
		Fall: number("fall_count"), Rise: number("rise_count"),
	}
}

// planned: the controller sees nothing to do either, so that what it knows of NSX is what is there.
func (n *inspection) planned(svc *corev1.Service) {
	plan, err := n.c.process.engine.Plan(context.Background(), svc)
	switch {
	case err != nil:
		n.violate("planning Service %s: %v", svc.Name, err)
	case len(plan.Intents) > 0:
		n.violate("Service %s is not as the controller wants it: %s", svc.Name, plan)
	}
}

// nothingElse: what of the cluster's is there is wanted.
func (n *inspection) nothingElse() {
	shared := map[string]string{}
	for _, k := range kinds {
		for _, o := range n.view[k] {
			if !n.c.Owns(o) {
				continue
			}
			if !n.wanted[k][o.ID()] {
				n.violate("%s %s (%s) is there, and no Service uses it", k, o.ID(), o.String("display_name"))
			}
			key := fmt.Sprint(k, o.Tags()[nsx.TagShared])
			if what := o.Tags()[nsx.TagShared]; what != "" && k != nsxsim.KindLBService && shared[key] != "" {
				n.violate("%s %q is there twice: %s and %s", k, what, shared[key], o.ID())
			}
			shared[key] = o.ID()
		}
	}
}

// nodes: every Node that can have traffic gets it, no other address does, and no more than half are kept although unfit.
func (n *inspection) nodes() {
	byAddress := map[string]*corev1.Node{}
	fit := map[string]bool{}
	for _, node := range n.c.Nodes() {
		for _, a := range node.Status.Addresses {
			byAddress[a.Address] = node
			fit[a.Address] = readySince(node) != nil
		}
	}
	ready := slices.DeleteFunc(slices.Sorted(maps.Keys(fit)), func(a string) bool { return !fit[a] })
	for _, o := range n.view[nsxsim.KindPool] {
		if !n.c.Owns(o) || o["member_group"] != nil {
			continue
		}
		members := membersOf(o)
		var enabled []string
		for _, m := range members {
			if m.state == string(nsx.Enabled) {
				enabled = append(enabled, m.address)
			}
			if node := byAddress[m.address]; len(byAddress) > 0 && (node == nil || node.Name != m.name) && len(members) > 1 {
				n.violate("pool %s has member %s (%s), which is no Node", o.ID(), m.address, m.name)
			}
		}
		slices.Sort(enabled)
		for _, a := range ready {
			if !slices.Contains(enabled, a) {
				n.violate("pool %s does not have the ready Node %s as an enabled member: %v", o.ID(), a, members)
			}
		}
		if extra := len(enabled) - len(ready); extra > 0 && len(enabled) > (len(members)+1)/2 {
			n.violate("pool %s has %d unfit members enabled: %v", o.ID(), extra, members)
		}
	}
	for _, o := range n.view[nsxsim.KindIPSet] {
		if !n.c.Owns(o) || !holdsNodes(o) {
			continue
		}
		addresses := o.Strings("ip_addresses")
		for _, a := range ready {
			if !slices.Contains(addresses, a) {
				n.violate("the node group does not have the ready Node %s: %v", a, addresses)
			}
		}
		for _, a := range addresses {
			if len(byAddress) > 0 && byAddress[a] == nil && len(addresses) > 1 {
				n.violate("the node group has %s, which is no Node", a)
			}
		}
	}
}

// checkAllocations: the allocations are the addresses in use and the foreign user's. In IP pools that are not exclusive,
// an address may remain whose ALLOCATE got no answer, or whose process died before it used it, for nothing tells that it is
// nobody's; it must have been reported.
func (w *World) checkAllocations(used map[string]string) {
	w.watch.mu.Lock()
	held := maps.Clone(w.watch.held)
	w.watch.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.pools)) {
		pool := w.pools[name]
		allocated := w.Sim.Allocations(pool)
		for key, who := range used {
			addr, ok := strings.CutPrefix(key, pool+" ")
			switch {
			case !ok || slices.Contains(allocated, addr):
			case !w.watch.isLost(addr):
				w.Violate("at rest: %s, which %s uses, is not allocated in IP pool %s", addr, who, name)
			case !w.told(strings.Split(who, "/")[0], addr, lb.ReasonLostAddress):
				w.Violate("at rest: %s, which %s uses, was released by hand, and no event says so", addr, who)
			}
		}
		for _, a := range allocated {
			h := held[pool+" "+a]
			switch {
			case used[pool+" "+a] != "" || h.by == foreignUser || w.unproven(a):
			case w.o.Exclusive || !h.mayRemain():
				w.Violate("at rest: %s is allocated in IP pool %s by %q and used by nobody", a, name, h.by)
			case !w.reported(h.by, a):
				w.Violate("at rest: %s of IP pool %s was left behind by %s, which does not say so", a, name, h.by)
			}
		}
	}
}

// unproven tells whether a Service shows an address that it had until somebody deleted its virtual server: in an IP pool that
// is not exclusive, a process that has not seen that cannot know whose it is. The Service gets another one, but may wait for
// one that is free.
func (w *World) unproven(addr string) bool {
	return slices.ContainsFunc(w.clusters, func(c *Cluster) bool {
		return slices.ContainsFunc(c.Services(), func(svc *corev1.Service) bool {
			return externalIP(svc) == addr && w.watch.unproven(addr)
		})
	})
}

// reported tells whether an event of a cluster's controller says that an address is allocated and perhaps nobody's.
func (w *World) reported(cluster, addr string) bool {
	return w.told(cluster, addr, lb.ReasonDoubtfulAddress, lb.ReasonNoAddress, lb.ReasonUnrecordedAddress)
}

// told tells whether an event of a cluster's controller that has one of these reasons names an address.
func (w *World) told(cluster, addr string, about ...string) bool {
	mentioned := regexp.MustCompile(`(^|[^0-9.])` + regexp.QuoteMeta(addr) + `($|[^0-9.])`)
	return slices.ContainsFunc(w.Cluster(cluster).Events(), func(e lb.Event) bool {
		return slices.Contains(about, e.Reason) && mentioned.MatchString(e.Message)
	})
}

// recorded tells whether a virtual server of a cluster records an address.
func (w *World) recorded(cluster, addr string) bool {
	c := w.Cluster(cluster)
	return slices.ContainsFunc(w.Sim.List(nsxsim.KindVirtualServer), func(vs nsxsim.Object) bool {
		return c.Owns(vs) && vs.String("ip_address") == addr
	})
}

// checkForeign: what is the foreign user's is as it was left.
func (t *watch) checkForeign(v view) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, now := range t.takeAll(v) {
		was := t.seen[k][foreignUser]
		for key, o := range was {
			if is := now[foreignUser][key]; !reflect.DeepEqual(o, is) {
				t.w.Violate("at rest: %s %s of the foreign user was %v and is %v", key.kind, key.id, o, is)
			}
		}
	}
	for key, h := range t.held {
		pool, addr, _ := strings.Cut(key, " ")
		if h.by == foreignUser && !slices.Contains(t.w.Sim.Allocations(pool), addr) {
			t.w.Violate("at rest: %s, which the foreign user has allocated, is not allocated any more", addr)
		}
	}
}
