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

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// cleanupFinalizer is what the framework's service controller puts on a Service before it asks for a load balancer.
const cleanupFinalizer = "service.kubernetes.io/load-balancer-cleanup"

// sightingGap is how far apart two sightings of what looks like nobody's are at least before it is removed. In between, a
// Service or another cluster may come to own it.
const sightingGap = 30 * time.Second

// auditor compares what NSX has with what the cluster's Services want. One audit runs at a time.
type auditor struct {
	e *Engine
	// turn is full while an audit runs; what follows is guarded by it.
	turn chan struct{}
	// ended has an item when an audit has ended.
	ended chan struct{}
	// orphans, by Service UID, unrecorded addresses, and pools all of whose members are DOWN, by id: since when they have
	// been seen so.
	orphans    map[string]time.Time
	unrecorded map[netip.Addr]time.Time
	down       map[string]time.Time
	// told are the unrecorded addresses of each shared IP pool, as the last event named them.
	told map[string]string
}

func newAuditor(e *Engine) *auditor {
	return &auditor{
		e: e, turn: make(chan struct{}, 1), ended: make(chan struct{}, 1), orphans: map[string]time.Time{}, unrecorded: map[netip.Addr]time.Time{},
		down: map[string]time.Time{}, told: map[string]string{},
	}
}

// Audit compares NSX with what Services want, now, after an audit that is under way has ended. With mode Off it is as with
// Report. It fails with ErrNotLoaded as long as inventory, nodes and Services are not known; any other error says what
// could not be compared or put right, of which the report has the rest.
func (e *Engine) Audit(ctx context.Context, mode config.AuditMode) (AuditReport, error) {
	return e.auditor.run(ctx, mode)
}

// keepAudited audits every AuditInterval, spread by a tenth, until ctx ends.
func (e *Engine) keepAudited(ctx context.Context) {
	if e.o.Services == nil || e.o.Config.AuditMode == config.AuditModeOff {
		return
	}
	for {
		pause := time.Duration(float64(e.o.Config.AuditInterval) * (0.9 + 0.2*e.o.Random()))
		next := e.o.Clock.Now().Add(pause)
		for {
			look := e.auditor.lookAgain(ctx)
			if !e.sleep(ctx, earlier(next, look), e.auditor.ended) {
				return
			}
			now := e.o.Clock.Now()
			if !now.Before(next) {
				break
			}
			if look.IsZero() || now.Before(look) {
				continue // an audit on demand has ended
			}
			if err := e.auditor.lookAtPools(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "Reading the state of pools failed")
			}
		}
		if _, err := e.Audit(ctx, e.o.Config.AuditMode); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Comparing NSX with what Services want failed")
		}
	}
}

// enter waits for the turn of one more audit.
func (a *auditor) enter(ctx context.Context) (leave func(), err error) {
	select {
	case a.turn <- struct{}{}:
		return func() { <-a.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for another audit to end: %w", ctx.Err())
	}
}

// reading marks the context of calls that the audit makes to look.
func (a *auditor) reading(ctx context.Context) context.Context {
	if a.e.o.AuditReads == nil {
		return ctx
	}
	return a.e.o.AuditReads(ctx)
}

// writing waits until the audit may make a change, and gives the context for it.
func (a *auditor) writing(ctx context.Context) (context.Context, error) {
	if a.e.o.AuditWrites == nil {
		return ctx, nil
	}
	return a.e.o.AuditWrites(ctx)
}

// run is one audit.
func (a *auditor) run(ctx context.Context, mode config.AuditMode) (AuditReport, error) {
	leave, err := a.enter(ctx)
	if err != nil {
		return AuditReport{}, err
	}
	defer leave()
	if err := a.e.Ready(); err != nil {
		return AuditReport{}, err
	}
	services, known := a.services()
	if !known {
		return AuditReport{}, fmt.Errorf("%w: the cluster's Services are not known", ErrNotLoaded)
	}
	r := &round{
		auditor: a, repairs: mode != config.AuditModeReport && mode != config.AuditModeOff, seen: map[string]bool{},
		report: AuditReport{Mode: mode, Started: a.e.o.Clock.Now(), Entries: []AuditEntry{}},
	}
	r.under = a.e.watchdog.begin("the audit")
	err = r.compare(ctx, services)
	r.under.end()
	r.report.Duration = a.e.o.Clock.Since(r.report.Started)
	a.e.audited(r.report, err)
	select {
	case a.ended <- struct{}{}:
	default: // it is known already
	}
	return r.report, err
}

func (a *auditor) services() ([]*corev1.Service, bool) {
	if a.e.o.Services == nil {
		return nil, false
	}
	return a.e.o.Services()
}

// round is one audit under way.
type round struct {
	*auditor
	under *activity
	// repairs tells whether it writes to NSX.
	repairs bool
	// seen are the findings about what the cluster shares, which every Service's plan shows again.
	seen   map[string]bool
	report AuditReport
}

func (r *round) compare(ctx context.Context, services []*corev1.Service) error {
	if err := r.e.o.Backend.Load(r.reading(ctx)); err != nil {
		return err
	}
	var failed several
	r.shared(ctx)
	services = slices.SortedFunc(slices.Values(services), byName)
	for _, svc := range services {
		r.under.progress()
		failed.add(r.service(ctx, svc, services))
	}
	if now, known := r.services(); known { // the repairs may have taken a while
		services = now
	}
	failed.add(r.removeOrphans(ctx, services))
	failed.add(r.addresses(ctx, services))
	failed.add(r.pools(ctx))
	return failed.error()
}

func byName(a, b *corev1.Service) int {
	return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
}

// shared looks at what the cluster shares. Putting it right is left to those who keep it.
func (r *round) shared(ctx context.Context) {
	found := r.e.o.Backend.SharedDrift(ctx)
	if r.repairs {
		r.e.recheckNodes()
		r.e.tidyLater()
	}
	for _, f := range found {
		r.seen[idOf(f)] = true
		r.tell(ctx, nil, ReasonDrift, "what all Services share in NSX was changed, and "+r.done(ActionRepair), r.act(ActionRepair), f)
	}
}

// service puts right what was changed of a Service that is published. One that is not published yet, or that is going, is
// the framework's to deal with: it would not clean up what is made behind its back.
func (r *round) service(ctx context.Context, svc *corev1.Service, services []*corev1.Service) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !isPublished(svc) {
		return nil
	}
	plan, have, err := r.e.plan(ctx, svc)
	if err != nil || len(plan.Intents) == 0 {
		r.lost(ctx, svc, plan)
		return nil // what keeps a Service from being served, it has been told by Ensure
	}
	found := slices.DeleteFunc(explain(plan, have, r.e.inv()), func(f nsx.Finding) bool { return r.isShared(f) && r.seen[idOf(f)] })
	others := r.sharers(svc, services, found)
	tell := func(outcome string, action AuditAction) {
		const changed = "what this Service has in NSX was changed, and "
		r.tell(ctx, svc, ReasonDrift, changed+outcome, action, found...)
		for _, o := range others {
			r.event(o.svc, ReasonDrift, changed+outcome, o.found)
		}
		for _, f := range found {
			r.seen[idOf(f)] = true
		}
	}
	if !r.repairs {
		tell(r.done(ActionRepair), ActionReport)
		return nil
	}
	paid, err := r.writing(ctx)
	if err != nil {
		return err
	}
	// It may have been deleted since the audit began, and what it had removed: that must not be made anew.
	var now *corev1.Service
	current := func() *corev1.Service { now = r.current(svc); return now }
	_, err = r.e.ensure(paid, svc, current)
	switch {
	case err != nil:
		tell("cannot be put right ("+err.Error()+")", ActionFail)
		return fmt.Errorf("putting right what NSX has for %s: %w", OwnerOf(svc), err)
	case now != nil:
		tell(r.done(ActionRepair), ActionRepair)
	}
	return nil
}

// sharer is a Service that uses what was found at another one, which puts it right for both.
type sharer struct {
	svc   *corev1.Service
	found []nsx.Finding
}

// sharers are the other Services that use what of a Service's was found, in their order: each is to hear of it.
func (r *round) sharers(svc *corev1.Service, services []*corev1.Service, found []nsx.Finding) []sharer {
	found = slices.DeleteFunc(slices.Clone(found), func(f nsx.Finding) bool { return !r.isShared(f) })
	if len(found) == 0 {
		return nil
	}
	var out []sharer
	for _, other := range services {
		if other.UID == svc.UID || !isPublished(other) {
			continue
		}
		s := sharer{svc: other}
		have := r.e.inv().Observe(OwnerOf(other))
		for _, f := range found {
			if slices.ContainsFunc(have.VirtualServers, func(v nsx.ObservedVirtualServer) bool { return r.uses(v, f) }) {
				s.found = append(s.found, f)
			}
		}
		if len(s.found) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// uses tells whether a virtual server uses the object that a finding is about.
func (r *round) uses(v nsx.ObservedVirtualServer, f nsx.Finding) bool {
	switch f.Kind {
	case nsx.KindClientGroup:
		group, _, ok := r.e.inv().ClientGroup(v.ID)
		return ok && group == f.ID
	case nsx.KindPool:
		return v.PoolID == f.ID
	case nsx.KindMonitor:
		return v.MonitorID == f.ID
	}
	return false
}

// lost tells of an address in use that nobody can put right: also when it was lost long ago.
func (r *round) lost(ctx context.Context, svc *corev1.Service, p Plan) {
	for _, n := range p.Notices {
		if n.Reason == ReasonLostAddress {
			r.tell(ctx, svc, n.Reason, n.Message, ActionReport, nsx.Finding{Kind: nsx.KindAddress, ID: strings.Join(texts(published(svc)), ", "), What: "is in use and lost"})
		}
	}
}

// isPublished tells whether a Service has a load balancer that is to stay.
func isPublished(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.DeletionTimestamp == nil &&
		slices.Contains(svc.Finalizers, cleanupFinalizer) && len(svc.Status.LoadBalancer.Ingress) > 0
}

// current is a Service as it is by now; nil when it is not published any more. Whoever removes a Service's load balancer has
// seen before, in the same list, that it is going.
func (r *round) current(svc *corev1.Service) *corev1.Service {
	services, _ := r.services()
	i := slices.IndexFunc(services, func(s *corev1.Service) bool { return s.UID == svc.UID })
	if i < 0 || !isPublished(services[i]) {
		return nil
	}
	return services[i]
}

// isWanted tells whether what a Service has in NSX is for the framework to remove, if for anybody.
func isWanted(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer || slices.Contains(svc.Finalizers, cleanupFinalizer)
}

// isShared tells whether a finding is about something that several Services use.
func (r *round) isShared(f nsx.Finding) bool {
	switch f.Kind {
	case nsx.KindClientGroup:
		return true
	case nsx.KindPool:
		p, _ := r.e.inv().Pool(f.ID)
		return p.Owner.UID == ""
	case nsx.KindMonitor:
		m, _ := r.e.inv().Monitor(f.ID)
		return m.Owner.UID == ""
	}
	return false
}

func idOf(f nsx.Finding) string { return string(f.Kind) + " " + f.ID + " " + f.What }

// removeOrphans removes what belongs to Services that are gone, or no longer of our kind.
func (r *round) removeOrphans(ctx context.Context, services []*corev1.Service) error {
	wanted := map[string]bool{}
	for _, svc := range services {
		if isWanted(svc) {
			wanted[string(svc.UID)] = true
		}
	}
	var failed several
	before, now := r.orphans, r.e.o.Clock.Now()
	r.orphans = map[string]time.Time{}
	for _, o := range r.e.inv().Owners() {
		if wanted[o.UID] {
			continue
		}
		first, known := before[o.UID]
		if !known {
			first = now
		}
		r.orphans[o.UID] = first // until it is gone
		r.under.progress()
		f := nsx.Finding{Kind: nsx.KindService, ID: o.Name, What: fmt.Sprintf("(%s) is gone, and what it had in NSX is still there", o.UID)}
		if now.Sub(first) < sightingGap {
			r.note(ctx, "", ActionSight, f)
			continue
		}
		failed.add(r.remove(ctx, o, f))
	}
	return failed.error()
}

func (r *round) remove(ctx context.Context, o nsx.Owner, f nsx.Finding) error {
	text := fmt.Sprintf("Service %s is gone, and what it had in NSX ", o.Name)
	if !r.repairs {
		r.tell(ctx, nil, ReasonOrphan, text+r.done(ActionRemove), ActionReport, f)
		return nil
	}
	paid, err := r.writing(ctx)
	if err != nil {
		return err
	}
	end, err := r.e.begin(paid, o)
	if err != nil {
		return err
	}
	defer end()
	services, known := r.services()
	if !known || slices.ContainsFunc(services, func(s *corev1.Service) bool { return string(s.UID) == o.UID && isWanted(s) }) {
		return nil // it has come back meanwhile
	}
	if err := r.e.apply(paid, DiffGone(r.e.inv().Observe(o), nil)); err != nil {
		r.tell(ctx, nil, ReasonOrphan, text+"cannot be removed yet", ActionFail, f)
		return fmt.Errorf("removing what the Service %s, which is gone, had in NSX: %w", o, err)
	}
	delete(r.orphans, o.UID)
	r.tell(ctx, nil, ReasonOrphan, text+r.done(ActionRemove), ActionRemove, f)
	return nil
}

// addresses looks at the allocations that no virtual server records: those of exclusive IP pools are released, those of
// others may be anybody's and are named. What a Service shows is its own, also while its virtual server is gone.
func (r *round) addresses(ctx context.Context, services []*corev1.Service) error {
	var failed several
	shown := map[netip.Addr]bool{}
	for _, svc := range services {
		for _, addr := range published(svc) {
			shown[addr] = true
		}
	}
	now := r.e.o.Clock.Now()
	before := r.unrecorded
	r.unrecorded = map[netip.Addr]time.Time{}
	for _, p := range r.e.inv().IPPools() {
		var settled []nsx.Finding
		for _, addr := range r.e.inv().Unrecorded(p.ID) {
			if shown[addr] {
				continue
			}
			first, known := before[addr]
			if !known {
				first = now
			}
			r.unrecorded[addr] = first
			r.under.progress()
			f := nsx.Finding{Kind: nsx.KindAddress, ID: addr.String(), What: fmt.Sprintf("of IP pool %q is allocated, and no virtual server has it", p.Name)}
			switch {
			case now.Sub(first) < max(sightingGap, p.ReleaseDelay): // a released address may stay listed for a while
				r.note(ctx, "", ActionSight, f)
			case !p.Exclusive:
				settled = append(settled, f)
			default:
				failed.add(r.release(ctx, p, addr, f))
			}
		}
		r.unaccounted(ctx, p, settled)
	}
	return failed.error()
}

// release gives back an address of an exclusive IP pool.
func (r *round) release(ctx context.Context, p nsx.IPPool, addr netip.Addr, f nsx.Finding) error {
	text := fmt.Sprintf("address %s of IP pool %q was allocated for nobody, and ", addr, p.Name)
	if !r.repairs {
		r.tell(ctx, nil, ReasonUnrecordedAddress, text+r.done(ActionRelease), ActionReport, f)
		return nil
	}
	paid, err := r.writing(ctx)
	if err != nil {
		return err
	}
	if err := r.e.o.Backend.Reclaim(paid, p.ID, addr); err != nil {
		r.tell(ctx, nil, ReasonUnrecordedAddress, text+"cannot be released yet", ActionFail, f)
		return err
	}
	delete(r.unrecorded, addr)
	r.tell(ctx, nil, ReasonUnrecordedAddress, text+r.done(ActionRelease), ActionRelease, f)
	return nil
}

// unaccounted names the addresses of a shared IP pool that are on no virtual server, in one event, and again when they are
// others: in a shared pool, others' allocations are no fault.
func (r *round) unaccounted(ctx context.Context, p nsx.IPPool, found []nsx.Finding) {
	var addrs []string
	for _, f := range found {
		addrs = append(addrs, f.ID)
		r.note(ctx, "", ActionReport, f)
	}
	names := shorten(addrs)
	if r.told[p.ID] == names {
		return
	}
	r.told[p.ID] = names
	if len(addrs) > 0 {
		r.e.o.Record(Event{Type: corev1.EventTypeNormal, Reason: ReasonUnrecordedAddress, Message: fmt.Sprintf(
			"IP pool %q has %d allocated addresses that no virtual server has: somebody else's, or leaked: %s", p.Name, len(addrs), names)})
	}
}

// shorten lists some words, and says how many more there are.
func shorten(words []string) string {
	const most = 10
	if len(words) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), len(words)-most)
	}
	return strings.Join(words, ", ")
}
