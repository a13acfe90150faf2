package integration

import (
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/bench"
)

// A fault is something that happens to one call, once, on the way over a real connection.
type fault struct {
	name string
	rule func(w *world) nsxsim.Rule
}

func rule(r nsxsim.Rule) func(*world) nsxsim.Rule {
	return func(*world) nsxsim.Rule { return r }
}

var faults = []fault{
	{"answer-lost", rule(nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true})},
	{"answer-halved", rule(nsxsim.Rule{When: nsxsim.AfterCommit, Half: true})},
	{"connection-reset", rule(nsxsim.Rule{Reset: true})},
	// Holds the request until the client gives up, and does nothing.
	{"timeout", func(w *world) nsxsim.Rule {
		return nsxsim.Rule{Hook: func(r *http.Request) { w.giveUp(r) }, Drop: true}
	}},
	{"restart-after", func(w *world) nsxsim.Rule {
		return nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true, Hook: func(*http.Request) { w.dead.Store(true) }}
	}},
}

func threePorts() *corev1.Service  { return bench.Service("web", cluster, "80", "443", "8080") }
func localPolicy() *corev1.Service { return bench.Service("web", local, "80") }
func restricted() *corev1.Service {
	svc := bench.Service("web", cluster, "53", "53/UDP")
	svc.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
	return svc
}

func externalIP(svc *corev1.Service) string {
	if len(svc.Status.LoadBalancer.Ingress) == 0 {
		return ""
	}
	return svc.Status.LoadBalancer.Ingress[0].IP
}

// TestFaultsOverHTTPS lets the writes of a Service's creation and deletion fail in those ways that depend on the connection.
// Package chaos lets every call of every operation fail, without connections.
func TestFaultsOverHTTPS(t *testing.T) {
	calls := func(act func(*world, *corev1.Service)) (n int) {
		w := newWorld(t, nsxsim.Options{})
		w.start()
		svc := restricted()
		w.sim.Journal().Reset()
		act(w, svc)
		for _, times := range w.sim.Journal().Writes() {
			n += times
		}
		return n
	}
	create := func(w *world, svc *corev1.Service) { w.ensure(svc) }
	all := func(w *world, svc *corev1.Service) {
		w.ensure(svc)
		w.remove(svc)
	}
	made := calls(create)
	for n := 1; n <= calls(all); n++ {
		for _, f := range faults {
			t.Run(fmt.Sprintf("call-%d/%s", n, f.name), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, nsxsim.Options{})
				w.start()
				other := bench.Service("other", local, "80")
				w.ensure(other)
				svc := restricted()
				act := create
				if n > made {
					w.ensure(svc)
					w.strike(f, n-made)
					act = func(w *world, svc *corev1.Service) { w.remove(svc) }
				} else {
					w.strike(f, n)
				}
				act(w, svc)
				w.recover()
				act(w, svc)
				if n > made {
					w.check(other)
				} else {
					w.check(other, svc)
				}
			})
		}
	}
}

// strike lets the n-th write from now on fail.
func (w *world) strike(f fault, n int) {
	w.t.Helper()
	r := f.rule(w)
	r.Method, r.Nth = "POST,PUT,DELETE", n
	_, err := w.sim.Faults().Add(r)
	w.must(err)
}

// recover ends the fault, and starts the process again if it died of it.
func (w *world) recover() {
	w.sim.Faults().Clear()
	if w.dead.Load() {
		w.restart()
	}
}
