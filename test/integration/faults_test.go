package integration

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// A fault is something that happens to one call, once.
type fault struct {
	name string
	rule func(w *world) nsxsim.Rule
}

func answer(status int) fault {
	return fault{fmt.Sprint(status), func(*world) nsxsim.Rule { return nsxsim.Rule{Status: status} }}
}

var faults = []fault{
	answer(500), answer(503), answer(429), answer(412), answer(401),
	{"timeout", func(*world) nsxsim.Rule {
		// Holds the request until the client gives up, and does nothing.
		return nsxsim.Rule{Hook: func(r *http.Request) { <-r.Context().Done() }, Drop: true}
	}},
	{"answer-lost", func(*world) nsxsim.Rule { return nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true} }},
	{"restart-before", func(w *world) nsxsim.Rule {
		return nsxsim.Rule{Drop: true, Hook: func(*http.Request) { w.dead.Store(true) }}
	}},
	{"restart-after", func(w *world) nsxsim.Rule {
		return nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true, Hook: func(*http.Request) { w.dead.Store(true) }}
	}},
}

// An operation is a step in the life of a Service.
type operation struct {
	name string
	// before is the Service that is there when the operation begins; nil for none.
	before func() *corev1.Service
	// change makes of it what is wanted; nil when it is deleted.
	change func(*corev1.Service)
}

func threePorts() *corev1.Service    { return service("web", cluster, "80", "443", "8080") }
func bothProtocols() *corev1.Service { return service("web", cluster, "53", "53/UDP") }
func localPolicy() *corev1.Service   { return service("web", local, "80") }
func restricted() *corev1.Service {
	svc := service("web", cluster, "53", "53/UDP")
	svc.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
	return svc
}

var operations = []operation{
	{"create-3-ports", nil, func(svc *corev1.Service) { *svc = *threePorts() }},
	{"create-tcp-and-udp", nil, func(svc *corev1.Service) { *svc = *bothProtocols() }},
	{"create-local", nil, func(svc *corev1.Service) { *svc = *localPolicy() }},
	{"change-ports", threePorts, func(svc *corev1.Service) { svc.Spec.Ports[1].Port, svc.Spec.Ports[2].NodePort = 8443, 31000 }},
	{"add-udp", threePorts, func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "u", Protocol: corev1.ProtocolUDP, Port: 53, NodePort: 30053})
	}},
	{"remove-udp", bothProtocols, func(svc *corev1.Service) { svc.Spec.Ports = svc.Spec.Ports[:1] }},
	{"to-local", threePorts, func(svc *corev1.Service) {
		svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = local, 32000
	}},
	{"to-cluster", localPolicy, func(svc *corev1.Service) {
		svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = cluster, 0
	}},
	{"affinity", threePorts, func(svc *corev1.Service) { svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }},
	{"create-source-ranges", nil, func(svc *corev1.Service) { *svc = *restricted() }},
	{"add-source-ranges", bothProtocols, func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} }},
	{"change-source-ranges", restricted, func(svc *corev1.Service) {
		svc.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24", "203.0.113.7/32"}
	}},
	{"remove-source-ranges", restricted, func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = nil }},
	{"delete-source-ranges", restricted, nil},
	{"delete-3-ports", threePorts, nil},
	{"delete-tcp-and-udp", bothProtocols, nil},
	{"delete-local", localPolicy, nil},
}

// run carries the operation out, until it is done or the process is dead.
func (o operation) run(w *world, svc *corev1.Service) {
	if o.change == nil {
		w.remove(svc)
	} else {
		w.ensure(svc)
	}
}

// TestEveryCallFails lets every NSX call of every step in the life of a Service fail in every way, and wants the same
// outcome as without a failure: the right objects, the right allocations, the same EXTERNAL-IP, nothing foreign touched.
func TestEveryCallFails(t *testing.T) {
	for _, op := range operations {
		for _, others := range []bool{true, false} { // whether the cluster's shared objects are there before and after
			name := op.name
			if !others {
				name += "-alone"
			}
			calls := op.writes(t, others)
			if calls == 0 {
				t.Fatalf("%s takes no call: the test proves nothing", name)
			}
			for _, f := range faults {
				for n := 1; n <= calls; n++ {
					t.Run(fmt.Sprintf("%s/call-%d/%s", name, n, f.name), func(t *testing.T) {
						t.Parallel()
						w, services := newLife(t, others)
						svc := op.begin(w)
						ip := externalIP(svc)
						w.strike(f, n)
						op.run(w, svc)
						op.checkSources(w, svc)
						w.recover()
						op.run(w, svc)
						if op.change == nil {
							w.check(services...)
							return
						}
						w.check(append(services, svc)...)
						if got := externalIP(svc); ip != "" && got != ip {
							t.Errorf("EXTERNAL-IP changed from %s to %s", ip, got)
						}
						w.remove(svc)
						w.check(services...)
					})
				}
			}
		}
	}
}

// checkSources: while the operation is under way, no client gets in who is not let in before it or after it.
func (o operation) checkSources(w *world, svc *corev1.Service) {
	w.t.Helper()
	may := []string{sourcesOf(svc)}
	if o.before != nil {
		may = append(may, sourcesOf(o.before()))
	}
	for _, vs := range w.sim.List(nsxsim.KindVirtualServer) {
		if vs.Tags()[nsx.TagServiceUID] == string(svc.UID) && vs.Tags()[nsx.TagClusterUID] == clusterUID && !slices.Contains(may, w.lets(vs)) {
			w.t.Errorf("virtual server %s lets in %q, want one of %q", vs.ID(), w.lets(vs), may)
		}
	}
}

// begin brings about what is there before the operation, and gives the Service as it is wanted then.
func (o operation) begin(w *world) *corev1.Service {
	w.t.Helper()
	svc := &corev1.Service{}
	if o.before != nil {
		svc = o.before()
		w.ensure(svc)
	}
	if o.change != nil {
		o.change(svc)
	}
	return svc
}

// writes counts the writes that the operation takes when nothing fails.
func (o operation) writes(t *testing.T, others bool) (n int) {
	w, _ := newLife(t, others)
	svc := o.begin(w)
	w.sim.Journal().Reset()
	o.run(w, svc)
	for _, times := range w.sim.Journal().Writes() {
		n += times
	}
	return n
}

func externalIP(svc *corev1.Service) string {
	if len(svc.Status.LoadBalancer.Ingress) == 0 {
		return ""
	}
	return svc.Status.LoadBalancer.Ingress[0].IP
}

// newLife is a world with a running controller, and with other Services where they are wanted.
func newLife(t *testing.T, others bool) (*world, []*corev1.Service) {
	w := newWorld(t, nsxsim.Options{})
	w.start()
	var services []*corev1.Service
	if others {
		services = []*corev1.Service{service("other", cluster, "80"), service("other-local", local, "80"), service("other-restricted", cluster, "80")}
		services[2].Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
		for _, svc := range services {
			w.ensure(svc)
		}
	}
	return w, services
}

// strike lets the n-th write from now on fail.
func (w *world) strike(f fault, n int) {
	w.t.Helper()
	rule := f.rule(w)
	if f.name == "timeout" {
		w.timeout = time.Second
		w.restart()
	}
	rule.Method, rule.Nth = "POST,PUT,DELETE", n
	_, err := w.sim.Faults().Add(rule)
	w.must(err)
}

// recover ends the fault, and starts the process again if it died of it.
func (w *world) recover() {
	w.sim.Faults().Clear()
	if w.dead.Load() {
		w.restart()
	}
}
