package lb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// world is some Services of one cluster whose users, NSX and controller do anything at any time. What must hold at every
// moment is checked by fakeNSX and before each of its calls.
type world struct {
	*fakeNSX
	t        *rapid.T
	class    config.Class
	services []*corev1.Service
	// contested addresses are those that somebody else laid hands on: whoever had one may lose it.
	contested map[netip.Addr]bool
	// let are the families in which a Service let go of its address since its last sync that succeeded: it asked for
	// another, or did without the family.
	let       map[nsx.Owner][]nsx.Family
	restarted bool
	// untilFault counts the calls until one fails; negative for never.
	untilFault int
	// must are what a Service that is being synced must go on to serve.
	syncing nsx.Owner
	must    []string
	// sources are the clients that it is to let in.
	sources map[nsx.Family]nsx.Sources
}

func newWorld(t *rapid.T) *world {
	w := &world{fakeNSX: newFakeNSX(t), t: t, class: testClass(), contested: map[netip.Addr]bool{}, let: map[nsx.Owner][]nsx.Family{}, untilFault: -1}
	w.setPools(
		ipPool("floating", false, "10.0.0.1-10.0.0.6", "2001:db8::1-2001:db8::4"),
		ipPool("ours", true, "10.1.0.1-10.1.0.4"),
	)
	w.addLBService("lb-1", rapid.IntRange(1, 12).Draw(t, "capacity"))
	w.addLBService("lb-2", 0)
	w.fault = func(call, on string) error {
		w.checkServed(call + " " + on)
		if call == "attach" {
			w.checkSources(on)
		}
		if w.untilFault--; w.untilFault == -1 {
			return errFault
		}
		return nil
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "services") {
		svc := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("web-", i), UID: types.UID(fmt.Sprint("uid-", i))},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer},
		}
		w.services = append(w.services, svc)
		w.editPorts(svc)
		w.editFamilies(svc)
	}
	return w
}

// served is what a Service's attached virtual servers serve, as "family protocol port".
func (w *world) served(o nsx.Owner) []string {
	var out []string
	for _, v := range w.inv.Observe(o).VirtualServers {
		for _, p := range v.Ports {
			if v.Attached() {
				out = append(out, fmt.Sprint(v.Family(), " ", v.Protocol, " ", p.Port))
			}
		}
	}
	return out
}

// checkServed: what was served before a sync, and is wanted, is served at every moment of it.
func (w *world) checkServed(before string) {
	served := w.served(w.syncing)
	for _, s := range w.must {
		if !slices.Contains(served, s) {
			w.t.Fatalf("%v: %s is no longer served before %s", w.syncing, s, before)
		}
	}
}

// checkSources: a virtual server lets in those that it is to let in, and nobody else, before it carries traffic.
func (w *world) checkSources(id string) {
	for _, v := range w.inv.Observe(w.syncing).VirtualServers {
		if v.ID == id && !v.Sources.Equal(w.sources[v.Family()]) {
			w.t.Fatalf("%v: attaching %v, which lets in %v, want %v", w.syncing, v, v.Sources, w.sources[v.Family()])
		}
	}
}

func (w *world) editPorts(svc *corev1.Service) {
	svc.Spec.Ports = nil
	n := rapid.SampledFrom([]int{2, 5, 40}).Draw(w.t, "port range")
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		for _, p := range drawPorts(w.t, "ports", n) {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Protocol: protocol, Port: int32(p.Port), NodePort: int32(p.NodePort)})
		}
	}
	if len(svc.Spec.Ports) == 0 {
		svc.Spec.Ports = []corev1.ServicePort{{Port: 1, NodePort: 30001}}
	}
}

func (w *world) editFamilies(svc *corev1.Service) {
	svc.Spec.IPFamilies = rapid.SampledFrom([][]corev1.IPFamily{{"IPv4"}, {"IPv6"}, {"IPv4", "IPv6"}, {"IPv6", "IPv4"}}).Draw(w.t, "families")
	policy := rapid.SampledFrom([]corev1.IPFamilyPolicy{"RequireDualStack", "PreferDualStack"}).Draw(w.t, "family policy")
	svc.Spec.IPFamilyPolicy = &policy
	svc.Annotations = nil
}

func (w *world) editPolicy(svc *corev1.Service) {
	svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyCluster, 0
	if rapid.Bool().Draw(w.t, "local") {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		svc.Spec.HealthCheckNodePort = rapid.Int32Range(32000, 32002).Draw(w.t, "health check")
	}
	svc.Spec.SessionAffinity = rapid.SampledFrom([]corev1.ServiceAffinity{"None", "ClientIP"}).Draw(w.t, "affinity")
}

func (w *world) editSources(svc *corev1.Service) {
	svc.Spec.LoadBalancerSourceRanges = rapid.SampledFrom([][]string{
		nil, {"0.0.0.0/0"}, {"192.0.2.0/24", "2001:db8:1::/48"}, {"2001:db8:1::/48", "192.0.2.128/25", "192.0.2.0/25"}, {"198.51.100.0/24", "::/0"},
	}).Draw(w.t, "source ranges")
}

func (w *world) askAddress(svc *corev1.Service) {
	var asked []string
	for _, f := range svc.Spec.IPFamilies {
		if rapid.Bool().Draw(w.t, "ask") {
			asked = append(asked, w.drawAddress(nsx.Family(f)).String())
		}
	}
	svc.Annotations = map[string]string{names.AnnotationIPAddresses: strings.Join(asked, ",")}
}

func (w *world) drawAddress(f nsx.Family) netip.Addr {
	var all []netip.Addr
	for _, p := range w.inv.IPPools() {
		for _, r := range p.Ranges {
			for a := r.From(); r.Contains(a); a = a.Next() {
				if nsx.FamilyOf(a) == f {
					all = append(all, a)
				}
			}
		}
	}
	return rapid.SampledFrom(all).Draw(w.t, "address")
}

func (w *world) editClass() {
	w.class.Name = rapid.SampledFrom([]string{"default", "gold"}).Draw(w.t, "class")
	w.class.IPPools = rapid.SampledFrom([][]string{nil, {"floating"}, {"ours"}, {"ours", "floating"}, {"mistyped", "floating"}}).Draw(w.t, "pools")
	w.class.LoadBalancerServices = rapid.SampledFrom([][]string{{"lb-1"}, {"lb-2"}, {"lb-1", "lb-2"}, {"mistyped", "lb-2"}}).Draw(w.t, "services")
	w.class.MaxNodes = rapid.IntRange(100, 101).Draw(w.t, "max nodes")
	if w.class.HealthCheck = (config.HealthCheck{}); rapid.Bool().Draw(w.t, "checks") {
		w.class.HealthCheck = config.HealthCheck{Port: 10256, Path: "/healthz"}
	}
}

// meddle is somebody else in NSX.
func (w *world) meddle() {
	a := w.drawAddress(rapid.SampledFrom([]nsx.Family{nsx.IPv4, nsx.IPv6}).Draw(w.t, "family"))
	var pool nsx.IPPool
	for _, p := range w.inv.IPPools() {
		if slices.ContainsFunc(p.Ranges, func(r netipx.IPRange) bool { return r.Contains(a) }) {
			pool = p
		}
	}
	allocated := slices.Contains(w.inv.Allocations(pool.ID), a)
	switch what := rapid.SampledFrom([]string{"allocate", "allocate unseen", "release", "carry", "detach", "open", "admit", "go"}).Draw(w.t, "meddling"); {
	case what == "release" && allocated:
		w.inv.SetReleased(pool.ID, a)
		delete(w.foreign, a)
	case what == "detach":
		for _, id := range w.inv.Carriers(a) {
			if r, _ := w.inv.VirtualServer(id); r.Owner.UID != "" {
				w.mishap(r.Owner, mishap{Detach: id})
			}
		}
	case what == "open":
		for _, id := range w.inv.Carriers(a) {
			if r, _ := w.inv.VirtualServer(id); r.Owner.UID != "" {
				w.mishap(r.Owner, mishap{Open: id})
			}
		}
	case what == "admit":
		w.mishap(nsx.Owner{}, mishap{Admit: "10.99.0.0/16"})
	case what == "go":
		for _, id := range w.inv.Carriers(a) {
			if r, _ := w.inv.VirtualServer(id); r.Owner.UID == "" {
				w.inv.DeleteVirtualServer(id)
			}
		}
		if w.foreign[a] {
			w.inv.SetReleased(pool.ID, a)
			delete(w.foreign, a)
		}
	case what == "carry":
		w.contested[a] = true
		w.mishap(nsx.Owner{}, mishap{Carry: a.String()})
	case !pool.Exclusive && !allocated && what == "allocate":
		w.contested[a] = true
		w.mishap(nsx.Owner{}, mishap{Allocate: a.String()})
	case !pool.Exclusive && !allocated && what == "allocate unseen":
		w.contested[a] = true
		w.mishap(nsx.Owner{}, mishap{Hidden: a.String()})
	}
}

func (w *world) wants(svc *corev1.Service) Frontend {
	want, err := Desired(svc, w.class)
	if err != nil {
		w.t.Fatalf("Desired: %v", err)
	}
	return want
}

// syncOnce plans for a Service and carries the plan out, perhaps up to a fault. After an address turned out to be taken it
// does so again.
func (w *world) syncOnce(svc *corev1.Service) (Plan, error) {
	want := w.wants(svc)
	defer w.inv.Unreserve(want.Owner)
	defer func() { w.must = nil }()
	var plan Plan
	for range 20 {
		w.syncing, w.must, w.sources = want.Owner, nil, want.Sources
		for _, s := range w.served(want.Owner) {
			for _, l := range want.Listeners {
				for _, p := range l.Ports {
					for _, f := range want.Families {
						if s == fmt.Sprint(f, " ", l.Protocol, " ", p.Port) {
							w.must = append(w.must, s)
						}
					}
				}
			}
		}
		var err error
		plan, err = Diff(want, w.inv.Observe(want.Owner), w.inv, testCluster)
		if err != nil && !errors.Is(err, ErrBadService) && !errors.Is(err, nsx.ErrExhausted) && !errors.Is(err, nsx.ErrAlreadyAllocated) {
			w.t.Fatalf("Diff: %v", err)
		}
		applied := error(nil)
		for _, i := range plan.Intents {
			if applied = w.Apply(context.Background(), i); applied != nil {
				break
			}
			w.checkServed("the intent after " + i.String())
		}
		if !errors.Is(applied, nsx.ErrAlreadyAllocated) {
			return plan, errors.Join(err, applied)
		}
	}
	w.t.Fatalf("%v: each of 20 addresses in a row turned out to be taken, the last one in:\n%v%v", want.Owner, plan, w.inv.Observe(want.Owner))
	return Plan{}, nil
}

// sync syncs a Service, and when that succeeds checks that it has what it wants, where it was.
func (w *world) sync(svc *corev1.Service) {
	want := w.wants(svc)
	for _, f := range []nsx.Family{nsx.IPv4, nsx.IPv6} {
		if want.AskedOf(f).IsValid() || !slices.Contains(want.Families, f) {
			w.let[want.Owner] = append(w.let[want.Owner], f)
		}
	}
	if _, err := w.syncOnce(svc); err != nil {
		return
	}
	have := w.inv.Observe(want.Owner)
	if again, err := Diff(want, have, w.inv, testCluster); err != nil || len(again.Intents) > 0 {
		w.t.Fatalf("%v\nhas not settled: %v\n%v", want, err, again)
	}
	for _, v := range have.VirtualServers {
		if !v.Sources.Equal(want.Sources[v.Family()]) {
			w.t.Fatalf("%v: %v lets in %v, want %v", want.Owner, v, v.Sources, want.Sources[v.Family()])
		}
	}
	status := statusOf(svc, have)
	for _, in := range status.Ingress {
		a := netip.MustParseAddr(in.IP)
		f := nsx.FamilyOf(a)
		if asked := want.AskedOf(f); asked.IsValid() {
			if asked != a {
				w.t.Fatalf("%v: asked for %v, got %v", want.Owner, asked, a)
			}
		} else if old := firstOf(want.Published, f); old.IsValid() && old != a && !w.contested[old] && !slices.Contains(w.let[want.Owner], f) {
			w.t.Fatalf("%v: address changed from %v to %v, which nobody asked for", want.Owner, old, a)
		}
		for _, l := range want.Listeners {
			var ports []nsx.PortMap
			for _, v := range have.VirtualServers {
				if v.Address == a && v.Protocol == l.Protocol && v.Attached() {
					ports = append(ports, v.Ports...)
				}
			}
			slices.SortFunc(ports, nsx.ComparePorts)
			if !slices.Equal(ports, l.Ports) {
				w.t.Fatalf("%v: %v %v forwards %v, want %v", want.Owner, a, l.Protocol, ports, l.Ports)
			}
		}
	}
	if len(status.Ingress) == 0 || len(status.Ingress) < len(want.Families) && !want.FewerFamilies {
		w.t.Fatalf("%v: synced, with status %v", want.Owner, status.Ingress)
	}
	svc.Status.LoadBalancer = *status
	delete(w.let, want.Owner)
	w.checkOneEach()
}

// checkOneEach: no two Services are on one address.
func (w *world) checkOneEach() {
	by := map[netip.Addr]nsx.Owner{}
	for _, o := range w.inv.Owners() {
		for _, v := range w.inv.Observe(o).VirtualServers {
			if other, ok := by[v.Address]; ok && other != o {
				w.t.Fatalf("%v and %v are both on %v", o, other, v.Address)
			}
			by[v.Address] = o
		}
	}
}

// Whatever users, NSX and faults do, in whatever order: nothing collides, moves unasked or stops being served, each sync
// that succeeds settles, and in the end nothing is left.
func TestDiffInAnyWorld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		pick := func() *corev1.Service { return w.services[rapid.IntRange(0, len(w.services)-1).Draw(t, "service")] }
		t.Repeat(map[string]func(*rapid.T){
			"ports":    func(*rapid.T) { w.editPorts(pick()) },
			"families": func(*rapid.T) { w.editFamilies(pick()) },
			"policy":   func(*rapid.T) { w.editPolicy(pick()) },
			"sources":  func(*rapid.T) { w.editSources(pick()) },
			"tidy":     func(*rapid.T) { _ = w.Tidy(context.Background()) }, // a fault may end it
			"ask":      func(*rapid.T) { w.askAddress(pick()) },
			"class":    func(*rapid.T) { w.editClass() },
			"meddle":   func(*rapid.T) { w.meddle() },
			"restart":  func(*rapid.T) { w.restarted = true; w.restart() },
			"sync":     func(*rapid.T) { w.sync(pick()) },
			"sync 2":   func(*rapid.T) { w.sync(pick()) },
			"fault":    func(*rapid.T) { w.untilFault = rapid.IntRange(0, 12).Draw(t, "calls until a fault") },
		})
		w.untilFault = -1
		for _, svc := range w.services {
			for _, i := range DiffGone(w.inv.Observe(OwnerOf(svc)), published(svc)) {
				if err := w.Apply(context.Background(), i); err != nil {
					t.Fatal(err)
				}
			}
			if have := w.inv.Observe(OwnerOf(svc)); !have.Empty() {
				t.Fatalf("left of %v: %v", have.Owner, have)
			}
		}
		for _, p := range w.inv.IPPools() {
			for _, a := range w.inv.Allocations(p.ID) {
				// Records of doubtful allocations in a pool that others use may be gone: they are reported, and left.
				if !w.foreign[a] && (p.Exclusive || !w.restarted) && !w.contested[a] {
					t.Fatalf("%v of pool %s is still allocated", a, p.Name)
				}
			}
		}
	})
}

// A virtual server that somebody gave more ports than are ours to give: those too many move to another, which makes way
// for them first.
func TestPortsThatMove(t *testing.T) {
	n := newFakeNSX(t)
	n.setPools(ipPool("floating", false, "10.0.0.1-10.0.0.1"))
	n.addLBService("lb-1", 0)
	svc := testService("web")
	svc.Spec.Ports = nil
	for port := range int32(16) {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Port: port + 1, NodePort: port + 30001})
	}
	want, err := Desired(svc, testClass())
	if err != nil {
		t.Fatal(err)
	}
	settle := func() Plan {
		plan, err := Diff(want, n.inv.Observe(want.Owner), n.inv, testCluster)
		if err != nil || n.apply(plan, new(strings.Builder)) != nil {
			t.Fatal(plan, err)
		}
		return plan
	}
	settle()
	first, _ := n.inv.VirtualServer("vs-01")
	second, _ := n.inv.VirtualServer("vs-02")
	all := slices.Concat(first.VirtualServer.Ports, second.VirtualServer.Ports)
	first.VirtualServer.Ports, second.VirtualServer.Ports = all[:1], all[1:]
	n.inv.PutVirtualServer(first)
	n.inv.PutVirtualServer(second)
	plan := settle() // fakeNSX checks that no port is there twice at any moment
	if u, ok := plan.Intents[0].(nsx.Update); !ok || len(u.VirtualServers) != 2 || u.VirtualServers[0].ID != "vs-02" {
		t.Errorf("plan: %v", plan)
	}
	if plan := settle(); len(plan.Intents) > 0 {
		t.Errorf("left: %v", plan)
	}
}

// The same input gives the same plan.
func TestDiffIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for _, svc := range w.services {
			w.editPolicy(svc)
			w.sync(svc)
			w.editPorts(svc)
			want := w.wants(svc)
			plans := map[string]bool{}
			for range 4 {
				plan, err := Diff(want, w.inv.Observe(want.Owner), w.inv, testCluster)
				plans[fmt.Sprint(plan, err)] = true
			}
			if len(plans) > 1 {
				t.Fatalf("several plans:\n%s", strings.Join(slices.Sorted(maps.Keys(plans)), "\n"))
			}
		}
	})
}

// A sync that finds all as it should be costs the same whatever the cluster's size.
func TestDiffOfWhatIsRightIsCheap(t *testing.T) {
	n := newFakeNSX(t)
	n.setPools(ipPool("floating", false, "10.0.0.1-10.0.9.9"))
	n.addLBService("lb-1", 0)
	service := func(i int) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("web-", i), UID: types.UID(fmt.Sprint("uid-", i))},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}},
		}
	}
	cost := func() float64 {
		want, err := Desired(service(0), testClass())
		if err != nil {
			t.Fatal(err)
		}
		return testing.AllocsPerRun(20, func() {
			if plan, err := Diff(want, n.inv.Observe(want.Owner), n.inv, testCluster); err != nil || len(plan.Intents) > 0 {
				t.Fatalf("%v, %v", plan, err)
			}
		})
	}
	publish := func(i int) {
		want, _ := Desired(service(i), testClass())
		plan, err := Diff(want, n.inv.Observe(want.Owner), n.inv, testCluster)
		if err != nil || n.apply(plan, new(strings.Builder)) != nil {
			t.Fatal(plan, err)
		}
		n.inv.Unreserve(want.Owner)
	}
	publish(0)
	alone := cost()
	for i := range 1000 {
		publish(i + 1)
	}
	if among := cost(); among > alone+5 { // maps of the runtime vary a little
		t.Errorf("%v allocations among 1001 Services, %v alone", among, alone)
	}
}
