package lb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// cleanupFinalizer is what the framework's service controller puts on a Service before it asks for a load balancer.
const cleanupFinalizer = "service.kubernetes.io/load-balancer-cleanup"

// auditor compares what NSX has with what the cluster's Services want. What looks like nobody's goes only when two audits
// in a row have seen it so: in between, a Service or another cluster may have come to own it.
type auditor struct {
	e *Engine
	// orphans seen by the last audit, by Service UID.
	orphans map[string]bool
	// unrecorded addresses, and when they were first seen so.
	unrecorded map[netip.Addr]time.Time
}

// keepAudited audits every AuditInterval, spread by a tenth, until ctx ends.
func (e *Engine) keepAudited(ctx context.Context) {
	if e.o.Services == nil {
		return
	}
	if e.o.Background != nil {
		ctx = e.o.Background(ctx)
	}
	a := &auditor{e: e, orphans: map[string]bool{}, unrecorded: map[netip.Addr]time.Time{}}
	for {
		pause := time.Duration(float64(e.o.Config.AuditInterval) * (0.9 + 0.2*e.o.Random()))
		if !e.sleep(ctx, e.o.Clock.Now().Add(pause), nil) {
			return
		}
		if err := a.audit(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Comparing NSX with what Services want failed")
		}
	}
}

// audit is one comparison.
func (a *auditor) audit(ctx context.Context) error {
	services, known := a.e.o.Services()
	if !known || a.e.Ready() != nil {
		return nil
	}
	if err := a.e.o.Backend.Load(ctx); err != nil {
		return err
	}
	a.e.recheckNodes()
	a.e.tidyLater()
	var failed several
	for _, svc := range slices.SortedFunc(slices.Values(services), byName) {
		failed.add(a.repair(ctx, svc))
	}
	failed.add(a.removeOrphans(ctx, services))
	failed.add(a.reclaim(ctx))
	return failed.error()
}

func byName(a, b *corev1.Service) int {
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}

// repair puts right what was changed of a Service that is published. One that is not published yet, or that is going, is
// the framework's to deal with: it would not clean up what is made behind its back.
func (a *auditor) repair(ctx context.Context, svc *corev1.Service) error {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.DeletionTimestamp != nil ||
		!slices.Contains(svc.Finalizers, cleanupFinalizer) || len(svc.Status.LoadBalancer.Ingress) == 0 {
		return nil
	}
	plan, err := a.e.Plan(ctx, svc)
	if err != nil || len(plan.Intents) == 0 {
		return nil // what keeps a Service from being served, it has been told by Ensure
	}
	a.e.event(svc, ReasonDrift, "what NSX has differs from what the Service wants, and is put right: "+strings.TrimSpace(plan.String()))
	if _, err := a.e.Ensure(ctx, svc); err != nil {
		return fmt.Errorf("putting right what NSX has for %s: %w", OwnerOf(svc), err)
	}
	return nil
}

// removeOrphans removes what belongs to Services that are gone, or no longer of our kind.
func (a *auditor) removeOrphans(ctx context.Context, services []*corev1.Service) error {
	wanted := map[string]bool{}
	for _, svc := range services {
		if svc.Spec.Type == corev1.ServiceTypeLoadBalancer || slices.Contains(svc.Finalizers, cleanupFinalizer) {
			wanted[string(svc.UID)] = true
		}
	}
	var failed several
	before := a.orphans
	a.orphans = map[string]bool{}
	for _, o := range a.e.inv().Owners() {
		switch {
		case wanted[o.UID]:
		case before[o.UID]:
			failed.add(a.remove(ctx, o))
		default:
			a.orphans[o.UID] = true
		}
	}
	return failed.error()
}

func (a *auditor) remove(ctx context.Context, o nsx.Owner) error {
	end, err := a.e.begin(ctx, o)
	if err != nil {
		return err
	}
	defer end()
	a.orphans[o.UID] = true // until it is gone
	a.e.o.Record(Event{Type: corev1.EventTypeWarning, Reason: ReasonOrphan,
		Message: fmt.Sprintf("Service %s (%s) is gone, and what it had in NSX is removed", o.Name, o.UID)})
	if err := a.e.apply(ctx, DiffGone(a.e.inv().Observe(o), nil)); err != nil {
		return fmt.Errorf("removing what the Service %s, which is gone, had in NSX: %w", o, err)
	}
	return nil
}

// reclaim releases the allocations of exclusive pools that no virtual server records.
func (a *auditor) reclaim(ctx context.Context) error {
	var failed several
	now := a.e.o.Clock.Now()
	seen := map[netip.Addr]time.Time{}
	for _, p := range a.e.inv().IPPools() {
		if !p.Exclusive {
			continue
		}
		for _, addr := range a.e.inv().Unrecorded(p.ID) {
			first, before := a.unrecorded[addr]
			if !before {
				first = now
			}
			seen[addr] = first
			// A released address may stay listed for a while.
			if !before || now.Sub(first) < p.ReleaseDelay {
				continue
			}
			if err := a.e.o.Backend.Reclaim(ctx, p.ID, addr); err != nil {
				failed.add(err)
				continue
			}
			delete(seen, addr)
			klog.FromContext(ctx).Info("Released an address that nobody recorded", "ipPool", p.Name, "address", addr)
			a.e.o.Record(Event{Type: corev1.EventTypeWarning, Reason: ReasonUnrecordedAddress,
				Message: fmt.Sprintf("address %s of IP pool %q was allocated for nobody, and is released", addr, p.Name)})
		}
	}
	a.unrecorded = seen
	return failed.error()
}
