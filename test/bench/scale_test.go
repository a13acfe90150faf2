package bench

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

const (
	cluster = corev1.ServiceExternalTrafficPolicyCluster
	local   = corev1.ServiceExternalTrafficPolicyLocal

	// unlimited is a rate that holds nobody back.
	unlimited = 1e6
	latency   = 5 * time.Millisecond
	workers   = 64
)

func TestMain(m *testing.M) {
	klog.SetLogger(klog.Logger{}) // nobody reads it here
	goleak.VerifyTestMain(m)
}

// world is an NSX and a controller in virtual time. Nobody in it may wait for a mutex while its holder waits for time to
// pass, for time stands still then: so what the cluster shares is made before many Services come at once.
type world struct {
	t   *testing.T
	nsx *NSX
	*Controller
	nodes []*corev1.Node
}

// limits are those of an NSX manager.
var limits = nsxsim.Options{
	RateLimit: nsxsim.NSXRateLimit, MaxConcurrent: nsxsim.NSXMaxConcurrent, MaxConcurrentTotal: nsxsim.NSXMaxConcurrentTotal,
}

// inWorld runs a test in a world for that many Services, without NSX's limits.
func inWorld(t *testing.T, services, nodes int, test func(t *testing.T, w *world)) {
	inWorldWith(nsxsim.Options{}, t, services, nodes, test)
}

func inWorldWith(o nsxsim.Options, t *testing.T, services, nodes int, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		n, err := NewNSX(services, o)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		w := &world{t: t, nsx: n, nodes: Nodes(nodes)}
		defer func() {
			if w.Controller != nil {
				w.Close()
			}
		}()
		test(t, w)
	})
}

// start starts the controller, or another in its place, and waits until it is ready and NSX has the nodes.
func (w *world) start(rate float64, base http.RoundTripper) {
	w.t.Helper()
	if w.Controller != nil {
		w.Close()
	}
	if base == nil {
		base = Direct{Handler: w.nsx, Latency: latency}
	}
	c, err := StartController(Options{URL: "https://nsx.example.com", Base: base, Rate: rate, LBNames: w.nsx.LBNames})
	w.must(err)
	w.Controller = c
	c.NodesChanged(w.nodes)
	for c.Ready() != nil {
		time.Sleep(time.Millisecond) // virtual
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// prime makes a Service of each policy, and with them what the cluster shares.
func (w *world) prime() (ofCluster, ofLocal *corev1.Service) {
	w.t.Helper()
	both := []*corev1.Service{Service("first-cluster", cluster, "80"), Service("first-local", local, "80")}
	w.must(w.EnsureAll(w.t.Context(), 1, both))
	return both[0], both[1]
}
