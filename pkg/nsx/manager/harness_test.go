package manager_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an NSX and one cluster's backend on it.
type world struct {
	t     *testing.T
	sim   *nsxsim.Server
	clock *clocktesting.FakeClock
	pool  string // IP pool of 10.0.0.1 to 10.0.0.4
	lb    string // load-balancer service "lb"

	exclusive  bool
	lbServices []string
	*manager.Backend
}

func newWorld(t *testing.T, o nsxsim.Options) *world {
	t.Helper()
	w := &world{t: t, clock: clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), exclusive: true, lbServices: []string{"lb"}}
	o.Clock, o.NewID = w.clock, nsxsim.SequentialIDs()
	w.sim = nsxsim.StartPlain(t, o)
	w.pool = nsxsim.Must(w.sim.AddIPPool("floating", "10.0.0.0/24", "10.0.0.1-10.0.0.4")).ID()
	tier1 := nsxsim.Must(w.sim.AddTier1("t1")).ID()
	w.lb = nsxsim.Must(w.sim.AddLBService("lb", "SMALL", tier1)).ID()
	w.restart()
	return w
}

// restart makes the backend anew, as a process that knows nothing.
func (w *world) restart() {
	w.t.Helper()
	w.Backend = w.backend("cluster-1")
	w.must(w.Load(w.t.Context()))
	w.must(w.SetNodes(w.t.Context(), nodes("a", "b")))
}

func (w *world) backend(cluster string) *manager.Backend {
	w.t.Helper()
	tr, err := transport.New(transport.Options{
		Managers: []string{w.sim.URL},
		Credentials: func(context.Context) (transport.Credentials, error) {
			return transport.Credentials{Username: nsxsim.DefaultUsername, Password: nsxsim.DefaultPassword}, nil
		},
		Authentication: transport.Basic, RequestsPerSecond: 10000, Burst: 10000,
		Rand: func() float64 { return 0 },
	})
	w.must(err)
	w.t.Cleanup(func() { tr.Close(context.Background()) })
	return manager.New(manager.Options{
		Transport: tr, ClusterName: "test", ClusterUID: cluster, Clock: w.clock,
		IPPools:    []manager.IPPool{{Name: "floating", ID: "floating", Exclusive: w.exclusive}},
		LBServices: w.lbServices,
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantErr(err, want error) {
	w.t.Helper()
	if !errors.Is(err, want) {
		w.t.Fatalf("got error %v, want one that is %v", err, want)
	}
}

// fault adds a rule that strikes once.
func (w *world) fault(r nsxsim.Rule) {
	w.t.Helper()
	if r.Times == 0 {
		r.Times = 1
	}
	_, err := w.sim.Faults().Add(r)
	w.must(err)
}

func owner(name string) nsx.Owner { return nsx.Owner{UID: "uid-" + name, Name: "default/" + name} }

func nodes(names ...string) []nsx.Node {
	var out []nsx.Node
	for i, n := range names {
		out = append(out, nsx.Node{Name: n, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 0, byte(i + 1)})}, State: nsx.Enabled, InGroup: true})
	}
	return out
}

var kubeProxy = nsx.Monitor{Port: 10256, Path: "/healthz", Interval: 5 * time.Second, Timeout: 5 * time.Second, Fall: 3, Rise: 3}

func clusterPool() nsx.Pool {
	m := kubeProxy
	return nsx.Pool{Family: nsx.IPv4, SNAT: nsx.AutoMap, Algorithm: "ROUND_ROBIN", Monitor: &m}
}

func localPool(port uint16) nsx.Pool {
	m := kubeProxy
	m.Port = port
	return nsx.Pool{Family: nsx.IPv4, SNAT: nsx.Transparent, Algorithm: "ROUND_ROBIN", Monitor: &m, PerService: true, MaxNodes: 128}
}

// tcp is a virtual server on 10.0.0.<n> that forwards 80.
func (w *world) tcp(n byte) nsx.VirtualServer {
	profile, _ := w.Inventory().ApplicationProfile("default-tcp-lb-app-profile")
	return nsx.VirtualServer{
		Protocol: nsx.TCP, Address: netip.AddrFrom4([4]byte{10, 0, 0, n}), IPPool: w.pool, Class: "default", LBService: "lb",
		Ports: []nsx.PortMap{{Port: 80, NodePort: 30080}}, ApplicationProfile: profile, Pool: clusterPool(),
	}
}

func (w *world) udp(n byte) nsx.VirtualServer {
	v := w.tcp(n)
	v.Protocol = nsx.UDP
	v.ApplicationProfile, _ = w.Inventory().ApplicationProfile("default-udp-lb-app-profile")
	return v
}

func (w *world) publish(o nsx.Owner, v ...nsx.VirtualServer) error {
	return w.Apply(w.t.Context(), nsx.Publish{Owner: o, VirtualServers: v})
}

func (w *world) withdraw(o nsx.Owner, published ...string) error {
	return w.Apply(w.t.Context(), nsx.Withdraw{Owner: o, VirtualServers: w.Inventory().Observe(o).VirtualServers, Published: published})
}

// wantAllocated compares the addresses that NSX says are allocated.
func (w *world) wantAllocated(want ...string) {
	w.t.Helper()
	got := w.sim.Allocations(w.pool)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Fatalf("allocated are %v, want %v", got, want)
	}
}

// wantWrites compares what NSX was asked to write since the last call of it.
func (w *world) wantWrites(want map[string]int) {
	w.t.Helper()
	got := w.sim.Journal().Writes()
	for op, n := range want {
		if got[op] != n {
			w.t.Errorf("%s: %d times, want %d", op, got[op], n)
		}
	}
	for op, n := range got {
		if want[op] == 0 {
			w.t.Errorf("%s: %d times, want none", op, n)
		}
	}
	w.sim.Journal().Reset()
}

// count counts the cluster's objects of a kind.
func (w *world) count(k nsxsim.Kind) int {
	n := 0
	for _, o := range w.sim.List(k) {
		if o.Tags()[nsx.TagClusterUID] == "cluster-1" {
			n++
		}
	}
	return n
}

// wantNothing wants nothing of the cluster to be left in NSX.
func (w *world) wantNothing() {
	w.t.Helper()
	w.wantAllocated()
	for _, k := range []nsxsim.Kind{nsxsim.KindVirtualServer, nsxsim.KindPool, nsxsim.KindMonitor, nsxsim.KindNSGroup, nsxsim.KindIPSet, nsxsim.KindPersistenceProfile} {
		if n := w.count(k); n != 0 {
			w.t.Errorf("%d objects of kind %s are left", n, k)
		}
	}
	if ids := w.sim.Get(nsxsim.KindLBService, w.lb).Strings("virtual_server_ids"); len(ids) != 0 {
		w.t.Errorf("load-balancer service still has %v", ids)
	}
}
