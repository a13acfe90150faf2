package integration

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/bench"
)

// lateWrite is a write that NSX holds on to: its sender gives up, looks it up in vain, and goes on without it; then it is
// done all the same.
type lateWrite struct {
	release, done chan struct{}
}

// hold holds the n-th write from now on.
func (w *world) hold(n int) lateWrite {
	w.t.Helper()
	late := lateWrite{make(chan struct{}), make(chan struct{})}
	_, err := w.sim.Faults().Add(
		nsxsim.Rule{Method: "POST,PUT,DELETE", Nth: n, Hook: func(r *http.Request) {
			w.giveUp(r)
			<-late.release
		}},
		nsxsim.Rule{Method: "POST,PUT,DELETE", Nth: n, When: nsxsim.AfterCommit, Hook: func(*http.Request) { close(late.done) }},
	)
	w.must(err)
	return late
}

// lateSteps are steps in the life of the Service web.
var lateSteps = []struct {
	name string
	// before is the Service that is there when the step begins; nil for none.
	before func() *corev1.Service
	// change makes of it what is wanted; nil when it is deleted.
	change func(*corev1.Service)
}{
	{"create-3-ports", nil, func(svc *corev1.Service) { *svc = *threePorts() }},
	{"create-local", nil, func(svc *corev1.Service) { *svc = *localPolicy() }},
	{"create-sticky", nil, func(svc *corev1.Service) { *svc = *sticky() }},
	{"create-restricted", nil, func(svc *corev1.Service) { *svc = *restricted() }},
	{"change-ports", threePorts, func(svc *corev1.Service) { svc.Spec.Ports[1].Port, svc.Spec.Ports[2].NodePort = 8443, 31000 }},
	{"to-local", threePorts, func(svc *corev1.Service) {
		svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = local, 32000
	}},
	{"delete-restricted", restricted, nil},
	{"delete-local", localPolicy, nil},
}

// TestLateCommits: every write of those steps is done by NSX long after its outcome was looked up. After two audits the state
// is as it would be without that: nothing twice, no address leaked, the same EXTERNAL-IP.
func TestLateCommits(t *testing.T) {
	for _, step := range lateSteps {
		for _, others := range []bool{true, false} { // whether the cluster's shared objects are there before and after
			begin := func(t *testing.T) (w *world, services []*corev1.Service, svc *corev1.Service) {
				w = newWorld(t, nsxsim.Options{})
				w.exclusive = !others
				w.recordForeignAllocation()
				w.start()
				if others {
					services = []*corev1.Service{bench.Service("other", cluster, "80"), bench.Service("other-local", local, "80")}
					for _, svc := range services {
						w.ensure(svc)
					}
				}
				svc = &corev1.Service{}
				if step.before != nil {
					svc = step.before()
					w.ensure(svc)
				}
				if step.change != nil {
					step.change(svc)
				}
				return w, services, svc
			}
			run := func(w *world, svc *corev1.Service) {
				if step.change == nil {
					w.remove(svc)
				} else {
					w.ensure(svc)
				}
			}
			w, _, svc := begin(t)
			w.sim.Journal().Reset()
			run(w, svc)
			writes := 0
			for _, n := range w.sim.Journal().Writes() {
				writes += n
			}
			for n := 1; n <= writes; n++ {
				t.Run(fmt.Sprintf("%s/others=%t/call-%d", step.name, others, n), func(t *testing.T) {
					t.Parallel()
					w, services, svc := begin(t)
					ip := externalIP(svc)
					late := w.hold(n)
					run(w, svc)
					close(late.release)
					select {
					case <-late.done:
					case <-time.After(time.Minute):
						t.Fatal("the late write has not been done: the test proves nothing")
					}
					w.sim.Faults().Clear()

					if step.change != nil {
						services = append(services, svc)
					}
					w.twoAudits(services)
					w.check(services...)
					if got := externalIP(svc); step.change != nil && ip != "" && got != ip {
						t.Errorf("EXTERNAL-IP changed from %s to %s", ip, got)
					}
					w.mu.Lock()
					w.services = nil
					w.mu.Unlock()
					for _, svc := range services {
						w.remove(svc)
					}
					w.check()
				})
			}
		}
	}
}

// recordForeignAllocation gives the foreign user's address a virtual server, so that no audit takes it for nobody's.
func (w *world) recordForeignAllocation() {
	nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindVirtualServer, nsxsim.Object{
		"display_name": "theirs too", "ip_address": "10.0.0.7", "ip_protocol": "TCP", "ports": []string{"80"},
		"application_profile_id": w.profile("LbFastTcpProfile"),
	}))
	w.foreign = w.foreignDocs()
}

// twoAudits has two audits compare NSX with what the Services want, far enough apart to count as two sightings.
func (w *world) twoAudits(services []*corev1.Service) {
	w.t.Helper()
	for _, svc := range services {
		svc.Finalizers = []string{"service.kubernetes.io/load-balancer-cleanup"}
	}
	w.mu.Lock()
	w.services = services
	w.mu.Unlock()
	for range 2 {
		w.clock.Step(4 * time.Minute) // longer than the release delay of a pool
		w.settle("the audit", func() error {
			_, err := w.engine.Audit(w.t.Context(), config.AuditModeRepair)
			return err
		})
	}
}
