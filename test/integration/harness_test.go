package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/bench"
)

func TestMain(m *testing.M) {
	klog.SetLogger(klog.Logger{}) // nobody reads it here
	goleak.VerifyTestMain(m)
}

const clusterUID = "0c5c1f2e-cluster"

const clusterConfig = `
apiVersion: nsxt.io/v1alpha1
kind: CloudConfig
cluster: {name: test}
nsx:
  managers: [https://nsx.example.com]
  credentials: {file: /credentials}
loadBalancer:
  ipPools: [{name: floating, exclusive: %t}]
  classes:
  - name: default
    ipPools: [floating]
    loadBalancerServices: [lb]
`

// world is an NSX with a foreign user on it, and the process of one controller.
type world struct {
	t         *testing.T
	sim       *nsxsim.Server
	clock     *clocktesting.FakeClock
	pool, lb  string
	exclusive bool
	nodes     []*corev1.Node
	services  []*corev1.Service // that the audit sees
	foreign   map[string]string // documents of the foreign user by kind and id

	*process
	mu     sync.Mutex
	events []lb.Event
}

// process is one run of the controller.
type process struct {
	engine  *lb.Engine
	backend *manager.Backend
	dead    atomic.Bool
	conns   sync.Map // net.Conn to NSX by its local address
	end     func()
}

func newWorld(t *testing.T, o nsxsim.Options) *world {
	t.Helper()
	w := &world{t: t, clock: clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), exclusive: true, nodes: bench.Nodes(3)}
	o.NewID = nsxsim.SequentialIDs()
	w.sim = nsxsim.Start(t, o)
	w.pool = nsxsim.Must(w.sim.AddIPPool("floating", "10.0.0.0/16", "10.0.0.1-10.0.20.250")).ID()
	w.lb = nsxsim.Must(w.sim.AddLBService("lb", "LARGE", nsxsim.Must(w.sim.AddTier1("t1")).ID())).ID()
	w.makeForeign()
	return w
}

// makeForeign puts objects of somebody else on the same NSX, one of them in our load-balancer service.
func (w *world) makeForeign() {
	as := w.sim.As("somebody")
	monitor := nsxsim.Must(as.Create(nsxsim.KindMonitor, nsxsim.Object{"resource_type": "LbTcpMonitor", "display_name": "theirs"}))
	pool := nsxsim.Must(as.Create(nsxsim.KindPool, nsxsim.Object{"display_name": "theirs", "active_monitor_ids": []string{monitor.ID()}, "members": []any{}}))
	vs := nsxsim.Must(as.Create(nsxsim.KindVirtualServer, nsxsim.Object{
		"display_name": "theirs", "ip_address": "10.0.30.1", "ip_protocol": "TCP", "ports": []string{"80"}, "pool_id": pool.ID(),
		"application_profile_id": w.profile("LbFastTcpProfile"),
		"tags":                   []any{map[string]any{"scope": nsx.TagServiceUID, "tag": "uid-web"}, map[string]any{"tag": "no scope"}},
	}))
	_, err := as.Update(nsxsim.KindLBService, w.lb, func(o nsxsim.Object) {
		o["virtual_server_ids"] = []string{vs.ID()}
		o["relax_scale_validation"] = true
	})
	w.must(err)
	_, err = as.Allocate(w.pool, "10.0.0.7")
	w.must(err)
	w.foreign = w.foreignDocs()
}

func (w *world) profile(kind string) string {
	for _, p := range w.sim.List(nsxsim.KindApplicationProfile) {
		if p.String("resource_type") == kind {
			return p.ID()
		}
	}
	w.t.Fatalf("no application profile of kind %s", kind)
	return ""
}

var ownedKinds = []nsxsim.Kind{
	nsxsim.KindVirtualServer, nsxsim.KindPool, nsxsim.KindMonitor, nsxsim.KindPersistenceProfile, nsxsim.KindNSGroup, nsxsim.KindIPSet,
}

// foreignDocs are the documents of all objects that are not ours.
func (w *world) foreignDocs() map[string]string {
	docs := map[string]string{}
	for _, k := range ownedKinds {
		for _, o := range w.sim.List(k) {
			if o.Tags()[nsx.TagClusterUID] != clusterUID {
				docs[string(k)+"/"+o.ID()] = fmt.Sprint(map[string]any(o))
			}
		}
	}
	return docs
}

// start starts a controller.
func (w *world) start() {
	w.t.Helper()
	cfg, err := config.Parse("test", fmt.Appendf(nil, clusterConfig, w.exclusive))
	w.must(err)
	p := &process{}
	tr, err := transport.New(transport.Options{
		Managers: []string{w.sim.URL},
		Credentials: func(context.Context) (transport.Credentials, error) {
			return transport.Credentials{Username: nsxsim.DefaultUsername, Password: nsxsim.DefaultPassword}, nil
		},
		Authentication: transport.Basic, RequestsPerSecond: 100000, Burst: 100000,
		Timeout: 5 * time.Minute, // in real time, however busy the machine is; see giveUp
		Rand:    func() float64 { return 0 },
		Base: &mortal{p, &http.Transport{
			DialContext: p.dial, MaxIdleConnsPerHost: 20, TLSClientConfig: &tls.Config{RootCAs: w.sim.CertPool(), MinVersion: tls.VersionTLS12},
		}},
	})
	w.must(err)
	p.backend = manager.New(manager.Options{
		Transport: tr, ClusterName: "test", ClusterUID: clusterUID, Clock: w.clock,
		IPPools:    []manager.IPPool{{Name: "floating", ID: "floating", Exclusive: w.exclusive}},
		LBServices: []string{"lb"},
	})
	p.engine = lb.New(lb.Options{
		Backend: p.backend, Config: cfg.LoadBalancer, ClusterUID: clusterUID, Clock: w.clock, Random: func() float64 { return 0 },
		Services: func() ([]*corev1.Service, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.services, true
		},
		Record: func(e lb.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.engine.Run(ctx)
	}()
	p.end = sync.OnceFunc(func() {
		cancel()
		<-done
		tr.Close(context.Background())
	})
	w.t.Cleanup(p.end)
	w.process = p
	p.engine.NodesChanged(w.nodes)
	w.eventually("the engine is ready", func() bool { return p.engine.Ready() == nil })
}

// restart ends the process, however alive it is, and starts another.
func (w *world) restart() {
	w.t.Helper()
	w.dead.Store(true)
	w.end()
	w.start()
}

// mortal is the network of a process: nothing goes out once it is dead.
type mortal struct {
	p *process
	*http.Transport
}

var errDead = errors.New("the process is dead")

func (m *mortal) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.p.dead.Load() {
		return nil, errDead
	}
	resp, err := m.Transport.RoundTrip(r)
	if m.p.dead.Load() && err == nil {
		resp.Body.Close()
		return nil, errDead
	}
	return resp, err
}

func (p *process) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		p.conns.Store(c.LocalAddr().String(), c)
	}
	return c, err
}

// giveUp closes the connection from which NSX has a request, as its client does that has waited for too long, and returns
// when NSX has noticed.
func (p *process) giveUp(r *http.Request) {
	c, _ := p.conns.Load(r.RemoteAddr)
	_ = c.(net.Conn).Close() // that it was closed before is as well
	<-r.Context().Done()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// eventually polls a condition that real goroutines bring about, and lets the injected time go on: by some minutes, in which
// no audit comes by itself, however long the goroutines take.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	deadline, began := time.Now().Add(time.Minute), w.clock.Now()
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain until %s", what)
		}
		if w.clock.HasWaiters() && w.clock.Since(began) < 5*time.Minute {
			w.clock.Step(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// settle does as the framework does: it calls again when an error says so, in injected time.
func (w *world) settle(what string, call func() error) {
	w.t.Helper()
	var err error
	for range 30 {
		if err = call(); err == nil {
			return
		}
		if w.dead.Load() {
			return
		}
		wait := 5 * time.Second
		if at := (*nsx.RetryAt)(nil); errors.As(err, &at) {
			wait = max(at.At.Sub(w.clock.Now()), 0)
		}
		w.clock.Step(wait)
	}
	w.t.Fatalf("%s does not come to rest: %v", what, err)
}

// ensure ensures a Service until that succeeds, and takes over its status as the framework does.
func (w *world) ensure(svc *corev1.Service) {
	w.t.Helper()
	w.settle("ensuring "+svc.Name, func() error {
		status, err := w.engine.Ensure(w.t.Context(), svc)
		if err == nil {
			svc.Status.LoadBalancer = *status
		}
		return err
	})
}

// remove deletes a Service's load balancer until nothing of it exists, as the framework does before it drops the finalizer.
func (w *world) remove(svc *corev1.Service) {
	w.t.Helper()
	w.settle("deleting "+svc.Name, func() error {
		_, exists, err := w.engine.Get(w.t.Context(), svc)
		if err != nil || !exists {
			return err
		}
		return w.engine.Delete(w.t.Context(), svc)
	})
}

const (
	cluster = corev1.ServiceExternalTrafficPolicyCluster
	local   = corev1.ServiceExternalTrafficPolicyLocal
)

// check holds NSX against what the Services that exist should have: each port once, on an address that is allocated and
// that the status shows; one node pool and monitor; nothing else of ours, and everything foreign as it was.
func (w *world) check(services ...*corev1.Service) {
	w.t.Helper()
	want := map[string]bool{"10.0.0.7": true} // the foreign allocation
	wantPorts := map[string]bool{}
	for _, svc := range services {
		ip := svc.Status.LoadBalancer.Ingress[0].IP
		want[ip] = true
		for _, p := range svc.Spec.Ports {
			wantPorts[fmt.Sprintf("%s %s %d->%d", ip, p.Protocol, p.Port, p.NodePort)] = true
		}
	}
	letsIn := map[string]string{}
	for _, svc := range services {
		letsIn[string(svc.UID)] = sourcesOf(svc)
	}
	got := map[string]bool{}
	for _, a := range w.sim.Allocations(w.pool) {
		got[a] = true
	}
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("allocations (-want +got):\n%s", d)
	}

	attached := w.sim.Get(nsxsim.KindLBService, w.lb).Strings("virtual_server_ids")
	gotPorts := map[string]bool{}
	ours := 0
	for _, vs := range w.sim.List(nsxsim.KindVirtualServer) {
		if vs.Tags()[nsx.TagClusterUID] != clusterUID {
			continue
		}
		ours++
		if !slices.Contains(attached, vs.ID()) {
			w.t.Errorf("virtual server %s (%s) is not attached", vs.ID(), vs.String("display_name"))
		}
		if got, want := w.lets(vs), letsIn[vs.Tags()[nsx.TagServiceUID]]; got != want {
			w.t.Errorf("virtual server %s lets in %q, want %q", vs.ID(), got, want)
		}
		members := vs.Strings("default_pool_member_ports")
		for i, p := range vs.Strings("ports") {
			key := fmt.Sprintf("%s %s %s->%s", vs.String("ip_address"), vs.String("ip_protocol"), p, members[i])
			if gotPorts[key] {
				w.t.Errorf("%s is there twice", key)
			}
			gotPorts[key] = true
		}
		if pool := w.sim.Get(nsxsim.KindPool, vs.String("pool_id")); pool.Tags()[nsx.TagClusterUID] != clusterUID {
			w.t.Errorf("virtual server %s forwards to pool %q, which is not ours", vs.ID(), vs.String("pool_id"))
		}
	}
	if len(attached) != ours+1 { // and the foreign one
		w.t.Errorf("load-balancer service has %v, want %d of ours and the foreign one", attached, ours)
	}
	if d := cmp.Diff(wantPorts, gotPorts); d != "" {
		w.t.Errorf("ports (-want +got):\n%s", d)
	}
	// What no Service uses any more goes soon after.
	wantKinds, had := w.support(services)
	w.eventually(fmt.Sprintf("objects of ours, which were %v, are %v", had, wantKinds), func() bool {
		want, got := w.support(services)
		return maps.Equal(want, got)
	})
	if d := cmp.Diff(w.foreign, w.foreignDocs()); d != "" {
		w.t.Errorf("somebody else's objects changed (-want +got):\n%s", d)
	}
	if o := w.sim.Get(nsxsim.KindLBService, w.lb); o["relax_scale_validation"] != true {
		w.t.Error("the load-balancer service lost a field that the SDK does not know")
	}
}

// sourcesOf are the clients that a Service lets in, as its source ranges in normal form; empty for everybody.
func sourcesOf(svc *corev1.Service) string {
	return strings.Join(svc.Spec.LoadBalancerSourceRanges, ",")
}

// lets are the clients that a virtual server lets in, likewise.
func (w *world) lets(vs nsxsim.Object) string {
	w.t.Helper()
	list, ok := vs["access_list_control"].(map[string]any)
	if !ok {
		return ""
	}
	if list["action"] != "ALLOW" || list["enabled"] != true {
		return fmt.Sprint(list)
	}
	members, _ := w.sim.Get(nsxsim.KindNSGroup, list["group_id"].(string))["members"].([]any)
	var in []string
	for _, m := range members {
		for _, a := range w.sim.Get(nsxsim.KindIPSet, m.(map[string]any)["value"].(string)).Strings("ip_addresses") {
			if !strings.Contains(a, "/") {
				a += "/32"
			}
			in = append(in, a)
		}
	}
	return strings.Join(in, ",")
}

// support counts pools, monitors and groups as they should be and as they are.
func (w *world) support(services []*corev1.Service) (want, got map[nsxsim.Kind]int) {
	want = map[nsxsim.Kind]int{}
	shared := false
	lists := map[string]bool{} // of source ranges: each has a group over an IP set
	for _, svc := range services {
		if s := sourcesOf(svc); s != "" && !lists[s] {
			lists[s] = true
			want[nsxsim.KindNSGroup]++
			want[nsxsim.KindIPSet]++
		}
	}
	locals := 0
	for _, svc := range services {
		if svc.Spec.ExternalTrafficPolicy == local {
			want[nsxsim.KindPool]++
			want[nsxsim.KindMonitor]++
			if locals++; locals == 1 {
				want[nsxsim.KindNSGroup]++
				want[nsxsim.KindIPSet]++
			}
		} else {
			shared = true
		}
	}
	for _, svc := range services {
		if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
			want[nsxsim.KindPersistenceProfile] = 1
		}
	}
	if shared {
		want[nsxsim.KindPool]++
		want[nsxsim.KindMonitor]++
	}
	got = map[nsxsim.Kind]int{}
	for _, k := range ownedKinds[1:] {
		for _, o := range w.sim.List(k) {
			if o.Tags()[nsx.TagClusterUID] == clusterUID {
				got[k]++
			}
		}
	}
	return want, got
}
