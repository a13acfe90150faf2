package bench

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/ipam"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// memory is what the pure parts work on: the inventory of a cluster, as it is after reading it.
type memory struct {
	inv   *nsx.Inventory
	class config.Class
	// services that it has, one of each policy first.
	services []*corev1.Service
}

// remember makes the inventory of a cluster of that size, a hundredth of whose Services are of policy Local.
func remember(tb testing.TB, services, nodes int) memory {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	n, err := NewNSX(services, nsxsim.Options{})
	must(err)
	defer n.Close()
	start := func() *Controller {
		c, err := StartController(Options{URL: "https://nsx.example.com", Base: Direct{Handler: n}, Rate: unlimited, LBNames: n.LBNames})
		must(err)
		c.NodesChanged(Nodes(nodes))
		for deadline := time.Now().Add(time.Minute); c.Ready() != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				tb.Fatal(c.Ready())
			}
		}
		return c
	}
	c := start()
	m := memory{class: c.Class, services: []*corev1.Service{Service("first", cluster, "80", "443", "8080"), Service("first-local", local, "80", "443", "8080")}}
	must(c.EnsureAll(tb.Context(), 1, m.services))
	c.Close()
	for i, more := range [][]*corev1.Service{
		Services("cluster", services-services/100-1, cluster, "80", "443", "8080"),
		Services("local", max(0, services/100-1), local, "80", "443", "8080"),
	} {
		must(n.Copy(m.services[i], more))
		m.services = append(m.services, more...)
	}
	c = start()
	defer c.Close()
	m.inv = c.Backend.Inventory()
	return m
}

// diff plans a Service, as a sync does.
func (m memory) diff(tb testing.TB, svc *corev1.Service) lb.Plan {
	want, err := lb.Desired(svc, m.class)
	if err != nil {
		tb.Fatal(err)
	}
	defer m.inv.Unreserve(want.Owner)
	plan, err := lb.Diff(want, m.inv.Observe(want.Owner), m.inv, "cluster")
	if err != nil {
		tb.Fatal(err)
	}
	return plan
}

// A sync of an unchanged Service allocates the same, however many nodes and Services there are.
func TestDiffOfAnUnchangedServiceIsConstant(t *testing.T) {
	small, large := remember(t, 100, 10), remember(t, 1000, 1000)
	for i, policy := range []string{"Cluster", "Local"} {
		bytes := func(m memory) (allocs float64, bytes uint64) {
			if plan := m.diff(t, m.services[i]); len(plan.Intents) != 0 {
				t.Fatalf("the plan of an unchanged Service: %v", plan)
			}
			const runs = 200
			var before, after runtime.MemStats
			allocs = testing.AllocsPerRun(runs, func() { m.diff(t, m.services[i]) })
			runtime.ReadMemStats(&before)
			for range runs {
				m.diff(t, m.services[i])
			}
			runtime.ReadMemStats(&after)
			return allocs, (after.TotalAlloc - before.TotalAlloc) / runs
		}
		fewAllocs, fewBytes := bytes(small)
		manyAllocs, manyBytes := bytes(large)
		// The race detector allocates now and then by itself.
		if manyAllocs > fewAllocs+2 || manyBytes > fewBytes*11/10 {
			t.Errorf("policy %s: %v allocations of %d bytes with 1,000 nodes and Services, %v of %d with 10 and 100",
				policy, manyAllocs, manyBytes, fewAllocs, fewBytes)
		}
	}
}

func BenchmarkDesired(b *testing.B) {
	svc := Service("web", cluster, "80", "443", "8080")
	class := remember(b, 1, 1).class
	b.ReportAllocs()
	for b.Loop() {
		if _, err := lb.Desired(svc, class); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	for _, size := range []struct{ services, nodes int }{{100, 10}, {5000, 1000}} {
		m := remember(b, size.services, size.nodes)
		for name, svc := range map[string]*corev1.Service{
			"unchanged-cluster": m.services[0], "unchanged-local": m.services[1], "new": Service("new", cluster, "80", "443", "8080"),
		} {
			b.Run(fmt.Sprintf("%s/services=%d/nodes=%d", name, size.services, size.nodes), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					m.diff(b, svc)
				}
			})
		}
	}
}

// The allocator, on a pool of 65,000 addresses of which so many are taken.
func BenchmarkChoose(b *testing.B) {
	pool := nsx.IPPool{ID: "pool", Name: "floating", Ranges: []netipx.IPRange{netipx.MustParseIPRange("10.0.0.1-10.0.253.232")}}
	for _, taken := range []int{0, 5000, 60000} {
		b.Run(fmt.Sprintf("taken=%d", taken), func(b *testing.B) {
			used := map[netip.Addr]bool{}
			free := func(_ string, a netip.Addr) bool { return !used[a] }
			choose := func(i int) netip.Addr {
				_, a, err := ipam.Choose([]nsx.IPPool{pool}, ipam.Request{Class: "default", Family: nsx.IPv4, Seed: fmt.Sprint("cluster/", i)}, free)
				if err != nil {
					b.Fatal(err)
				}
				return a
			}
			for i := range taken {
				used[choose(i)] = true
			}
			b.ReportAllocs()
			i := taken
			for b.Loop() {
				choose(i)
				i++
			}
		})
	}
}

// The node set, when one of a thousand nodes changes.
func BenchmarkNodeSet(b *testing.B) {
	nodes := Nodes(1000)
	ill := append(Nodes(999), notReady(Node(999)))
	set := lb.NewNodeSet(time.Minute, 5*time.Minute)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	set.Observe(nodes, now)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		nodes, ill = ill, nodes
		set.Observe(nodes, now)
	}
}

// What a change does to the inventory besides, with 5,000 Services in it.
func BenchmarkInventory(b *testing.B) {
	m := remember(b, 5000, 100)
	pool := m.inv.IPPools()[0].ID
	addr := netip.MustParseAddr(m.services[0].Status.LoadBalancer.Ingress[0].IP)
	for name, f := range map[string]func(){
		"allocated":    func() { m.inv.Allocated(pool, addr) },
		"shared-pools": func() { m.inv.SharedPools() },
		"observe":      func() { m.inv.Observe(lb.OwnerOf(m.services[0])) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
