package integration

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

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
	answer(500), answer(503), answer(429), answer(412),
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

// TestEveryCallFails lets every NSX call of the life of a Service fail in every way, and wants the same outcome as without
// a failure: the right objects, the right allocations, nothing foreign touched.
func TestEveryCallFails(t *testing.T) {
	for _, c := range []struct {
		name string
		svc  func() *corev1.Service
	}{
		{"3-ports", func() *corev1.Service { return service("web", cluster, "80", "443", "8080") }},
		{"tcp-and-udp", func() *corev1.Service { return service("web", cluster, "53", "53/UDP") }},
		{"local", func() *corev1.Service { return service("web", local, "80") }},
	} {
		for _, others := range []bool{true, false} { // whether the cluster's shared objects are there before and after
			name := c.name
			if !others {
				name += "-alone"
			}
			create, remove := writes(t, c.svc, others)
			for _, f := range faults {
				for n := 1; n <= create; n++ {
					t.Run(fmt.Sprintf("%s/create/call-%d/%s", name, n, f.name), func(t *testing.T) {
						t.Parallel()
						w, services := newLife(t, others)
						svc := c.svc()
						w.strike(f, n)
						w.ensure(svc)
						w.recover()
						w.ensure(svc)
						w.check(append(services, svc)...)
						w.remove(svc)
						w.check(services...)
					})
				}
				for n := 1; n <= remove; n++ {
					t.Run(fmt.Sprintf("%s/delete/call-%d/%s", name, n, f.name), func(t *testing.T) {
						t.Parallel()
						w, services := newLife(t, others)
						svc := c.svc()
						w.ensure(svc)
						w.strike(f, n)
						w.remove(svc)
						w.recover()
						w.remove(svc)
						w.check(services...)
					})
				}
			}
		}
	}
}

// newLife is a world with a running controller, and with other Services where they are wanted.
func newLife(t *testing.T, others bool) (*world, []*corev1.Service) {
	w := newWorld(t, nsxsim.Options{})
	w.start()
	var services []*corev1.Service
	if others {
		services = []*corev1.Service{service("other", cluster, "80"), service("other-local", local, "80")}
		for _, svc := range services {
			w.ensure(svc)
		}
	}
	return w, services
}

// writes counts the writes that creation and deletion take when nothing fails.
func writes(t *testing.T, svc func() *corev1.Service, others bool) (create, remove int) {
	w, _ := newLife(t, others)
	s := svc()
	count := func(f func(*corev1.Service)) (n int) {
		w.sim.Journal().Reset()
		f(s)
		for _, times := range w.sim.Journal().Writes() {
			n += times
		}
		return n
	}
	return count(w.ensure), count(w.remove)
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
