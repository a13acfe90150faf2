package bench

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

const (
	putPool    = "PUT /loadbalancer/pools/{id}"
	putGroup   = "PUT /ip-sets/{id}"
	fleetSize  = 5000
	fleetLocal = 50 // of them, of policy Local
)

// fleet fills the world with Services, all of them with what the product would give them.
func (w *world) fleet() []*corev1.Service {
	w.t.Helper()
	w.start(unlimited, nil)
	ofCluster, ofLocal := w.prime()
	clusters := Services("cluster", fleetSize-fleetLocal-1, cluster, "80")
	locals := Services("local", fleetLocal-1, local, "80")
	w.must(w.nsx.Copy(ofCluster, clusters))
	w.must(w.nsx.Copy(ofLocal, locals))
	return slices.Concat([]*corev1.Service{ofCluster, ofLocal}, clusters, locals)
}

// A restart reads lists and writes nothing, and a node that comes, flaps or goes is one write for each shared object,
// whatever the number of Services.
func TestFiveThousandServices(t *testing.T) {
	inWorld(t, fleetSize, 100, func(t *testing.T, w *world) {
		services := w.fleet()
		time.Sleep(time.Minute)

		w.nsx.Journal().Reset()
		start := time.Now()
		w.start(100, nil)
		w.must(w.EnsureAll(t.Context(), 1, services))
		took := time.Since(start)
		if writes := w.nsx.Journal().Writes(); len(writes) > 0 {
			t.Errorf("restart wrote: %v", writes)
		}
		if took > 10*time.Second {
			t.Errorf("restart took %v of NSX's time, want at most 10s", took)
		}
		want := w.lists(fleetSize)
		if calls := w.nsx.Journal().Count(); calls > want {
			t.Errorf("restart took %d calls, want at most %d: %v", calls, want, w.nsx.Journal().Counts())
		}
		t.Logf("restart: %v, %v", took, w.nsx.Journal().Counts())

		time.Sleep(time.Minute)
		for _, c := range []struct {
			name  string
			nodes []*corev1.Node
			last  time.Duration
			want  map[string]int
		}{
			{"a node comes", Nodes(101), time.Minute, map[string]int{putPool: 1, putGroup: 1}},
			{"a node goes", Nodes(100), time.Minute, map[string]int{putPool: 1, putGroup: 1}},
			{"a node is not Ready for a moment", append(Nodes(99), notReady(Node(99))), 30 * time.Second, nil},
			{"and Ready again", Nodes(100), time.Minute, nil},
			{"a node is cordoned", append(Nodes(99), cordoned(Node(99))), time.Minute, nil},
			{"all are replaced", replaced(Nodes(100), 500), time.Minute, map[string]int{putPool: 1, putGroup: 1}},
		} {
			w.nsx.Journal().Reset()
			w.NodesChanged(c.nodes)
			time.Sleep(c.last)
			if got := w.nsx.Journal().Writes(); !maps.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	})
}

func notReady(n *corev1.Node) *corev1.Node {
	n.Status.Conditions[0].Status = corev1.ConditionFalse
	return n
}

func cordoned(n *corev1.Node) *corev1.Node {
	n.Spec.Unschedulable = true
	return n
}

// replaced are as many other nodes.
func replaced(nodes []*corev1.Node, from int) []*corev1.Node {
	out := make([]*corev1.Node, len(nodes))
	for i := range out {
		out[i] = Node(from + i)
	}
	return out
}

// Half of a thousand nodes are replaced in a minute: each is tainted by the autoscaler, its successor becomes Ready, and it
// goes. That is a write a second at most, and at no moment are fewer than half of the members ENABLED.
func TestNodesReplacedInAMinute(t *testing.T) {
	const all, half = 1000, 500
	inWorld(t, 10, all, func(t *testing.T, w *world) {
		w.start(60, nil)
		w.prime()
		time.Sleep(time.Minute)
		w.nsx.Journal().Reset()

		_, err := w.nsx.Faults().Add(nsxsim.Rule{Method: "PUT", Path: "/loadbalancer/pools/*", When: nsxsim.AfterCommit, Hook: w.checkHalf})
		w.must(err)
		const step = time.Minute / half
		drain := int(5 * time.Second / step)
		old, fresh := w.nodes, []*corev1.Node(nil)
		gone := 0
		for i := range half + drain {
			if i < half {
				old[i] = tainted(old[i])
				fresh = append(fresh, Node(all+i))
			}
			if i >= drain {
				gone = i - drain + 1
			}
			w.NodesChanged(slices.Concat(old[gone:], fresh))
			time.Sleep(step)
			if i == half-1 {
				if n := w.writes(); n > 60 {
					t.Errorf("%d writes in the minute, want at most 60: %v", n, w.nsx.Journal().Counts())
				}
				t.Logf("in the minute: %v", w.nsx.Journal().Counts())
			}
		}
		time.Sleep(time.Minute)
		want := map[string]string{}
		for _, n := range slices.Concat(old[half:], fresh) {
			want[n.Status.Addresses[0].Address] = "ENABLED"
		}
		if got := w.nsx.Members(); !maps.Equal(got, want) {
			t.Errorf("%d members afterwards, want the %d nodes that are left, ENABLED", len(got), len(want))
		}
	})
}

func tainted(n *corev1.Node) *corev1.Node {
	n = n.DeepCopy()
	n.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}}
	return n
}

func (w *world) writes() int {
	n := 0
	for _, times := range w.nsx.Journal().Writes() {
		n += times
	}
	return n
}

// checkHalf is a hook of the simulator: at least half of the members are ENABLED.
func (w *world) checkHalf(*http.Request) {
	members, enabled := w.nsx.Members(), 0
	for _, state := range members {
		if state == "ENABLED" {
			enabled++
		}
	}
	if 2*enabled < len(members) {
		w.t.Errorf("%d of %d members are ENABLED", enabled, len(members))
	}
}
