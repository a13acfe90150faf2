package lb

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
)

// list makes the audit see these Services; the zero list is none.
type list struct{ services []*corev1.Service }

func (l *list) all() ([]*corev1.Service, bool) { return l.services, true }

// publish is a Service as the framework leaves it.
func (b *bench) publish(t *testing.T, name string) *corev1.Service {
	t.Helper()
	svc := testService(name)
	svc.Finalizers = []string{cleanupFinalizer}
	b.mustEnsure(t, svc)
	if len(svc.Status.LoadBalancer.Ingress) == 0 {
		status, _, err := b.Get(context.Background(), svc)
		if err != nil {
			t.Fatal(err)
		}
		svc.Status.LoadBalancer = *status
	}
	return svc
}

// A Service that is deleted while the audit waits for its budget to put it right is not made anew: the list at the beginning of
// an audit of thousands of Services is old at its end.
func TestAuditLeavesAloneWhatGoesMeanwhile(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := b.publish(t, "web")
		l := &list{[]*corev1.Service{svc}}
		b.o.Services = l.all
		b.o.AuditWrites = func(ctx context.Context) (context.Context, error) {
			l.services = nil
			return ctx, b.Delete(ctx, svc)
		}
		edited := svc.DeepCopy()
		edited.Spec.Ports[0].NodePort++ // as if somebody had edited what is in NSX
		l.services[0] = edited
		report, err := b.Audit(t.Context(), config.AuditModeRepair)
		if err != nil || len(report.Entries) > 0 {
			t.Fatalf("%v, %v", report.Entries, err)
		}
		if have := b.inv().Observe(OwnerOf(svc)); !have.Empty() {
			t.Errorf("a Service that is gone has %+v", have)
		}
	})
}

// What was seen as an orphan's, and is a Service's again while the audit waits to remove it, stays.
func TestAuditLeavesAloneWhatComesBackMeanwhile(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := b.publish(t, "web")
		l := &list{}
		b.o.Services = l.all
		waited := 0
		b.o.AuditWrites = func(ctx context.Context) (context.Context, error) {
			waited++
			l.services = []*corev1.Service{svc}
			return ctx, nil
		}
		for range 2 {
			if _, err := b.Audit(t.Context(), config.AuditModeRepair); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if have := b.inv().Observe(OwnerOf(svc)); have.Empty() || waited != 1 {
			t.Errorf("it has %+v, and the audit has waited %d times to remove it", have, waited)
		}
	})
}

// Off and Report write nothing; the zero mode is Repair.
func TestAuditModes(t *testing.T) {
	for mode, repairs := range map[config.AuditMode]bool{
		config.AuditModeReport: false, config.AuditModeOff: false, config.AuditModeRepair: true, "": true,
	} {
		running(t, func(t *testing.T, b *bench) {
			svc := b.publish(t, "web")
			svc.Spec.Ports[0].NodePort++
			b.o.Services = (&list{[]*corev1.Service{svc}}).all
			var did []AuditAction
			b.o.Audited = func(e AuditEntry) { did = append(did, e.Action) }
			b.takeCalls()
			report, err := b.Audit(t.Context(), mode)
			if err != nil || len(report.Entries) != 1 || len(did) != 1 {
				t.Fatalf("mode %q: %v, %v", mode, report.Entries, err)
			}
			wantAction := ActionReport
			if repairs {
				wantAction = ActionRepair
			}
			synctest.Wait() // for the node set, which a repair has compared too
			if calls := b.takeCalls(); slices.Contains(calls, "write vs-01") != repairs || (!repairs && len(calls) != 1) {
				t.Errorf("mode %q: calls %v", mode, calls)
			}
			if did[0] != wantAction {
				t.Errorf("mode %q: %s, want %s", mode, did[0], wantAction)
			}
		})
	}
}
