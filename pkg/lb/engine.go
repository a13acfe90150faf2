package lb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// How often a Service is planned again at once. Each try moves to another address, so that a few are enough unless the
// inventory is far from the truth; what else changed in NSX in the meantime is looked up and planned for once.
const (
	maxMoves   = 8
	maxReplans = 2
)

// Engine gives Services of type LoadBalancer what they should have in NSX. It is safe for concurrent use; what is done for
// one Service is done one after the other.
//
// Until Run has read the inventory and the nodes are known, Ensure, Get, Delete and Plan fail with ErrNotLoaded. Errors
// that know when to try again are, or wrap, an *nsx.RetryAt.
type Engine struct {
	o        Options
	locks    keyedLocks
	refresh  *refresher
	auditor  *auditor
	watchdog *watchdog

	// wake has an item when there is a new list of nodes, untidy when something may have gone out of use in NSX.
	wake, untidy chan struct{}

	// running counts what is being done for Services.
	running sync.WaitGroup

	mu sync.Mutex
	// stopping says that nothing more is begun.
	stopping bool
	// listed are the Nodes as last given; known tells that they are, decided that NSX has been told.
	listed         []*corev1.Node
	known, decided bool
	// recheck asks for the node set to be compared with NSX.
	recheck bool
	// loadErr is why the inventory could not be read.
	loadErr error
	// enabled counts the nodes that should get connections.
	enabled    int
	auditState AuditState
}

// New makes an Engine. It does nothing before Run.
func New(o Options) *Engine {
	e := &Engine{
		o:       o,
		refresh: newRefresher(o.Clock),
		wake:    make(chan struct{}, 1),
		untidy:  make(chan struct{}, 1),
	}
	e.auditor, e.watchdog = newAuditor(e), newWatchdog(o.Clock)
	return e
}

func (e *Engine) inv() *nsx.Inventory { return e.o.Backend.Inventory() }

// Ready is nil once inventory and nodes are known; before that it wraps ErrNotLoaded and says what is missing, and why.
func (e *Engine) Ready() error {
	if err := e.InventoryKnown(); err != nil {
		return err
	}
	return e.NodesKnown()
}

// InventoryKnown is nil once what the cluster has in NSX has been read; before that it wraps ErrNotLoaded and says why not.
func (e *Engine) InventoryKnown() error {
	if e.inv().Loaded() {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.loadErr != nil {
		return fmt.Errorf("%w: reading what the cluster has in NSX: %w", ErrNotLoaded, e.loadErr)
	}
	return fmt.Errorf("%w: what the cluster has in NSX has not been read", ErrNotLoaded)
}

// NodesKnown is nil once the node set has been decided; before that it wraps ErrNotLoaded.
func (e *Engine) NodesKnown() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.decided {
		return fmt.Errorf("%w: the cluster's nodes are not known", ErrNotLoaded)
	}
	return nil
}

// begin is what every call for a Service begins with: readiness, the Service's lock, and writes of unknown outcome looked
// up. The caller must call end when err is nil.
func (e *Engine) begin(ctx context.Context, o nsx.Owner) (end func(), err error) {
	if err := e.Ready(); err != nil {
		return nil, e.retryIn(err, notLoadedRetry, notLoadedSpread)
	}
	if !e.enter() {
		return nil, fmt.Errorf("%s: %w", o, nsx.ErrStopping)
	}
	under := e.watchdog.begin("Service " + o.Name)
	unlock, err := e.locks.lock(ctx, o.UID)
	if err != nil {
		under.end()
		e.running.Done()
		return nil, fmt.Errorf("waiting for what is being done for %s: %w", o, err)
	}
	end = func() {
		unlock()
		under.end()
		e.running.Done()
	}
	if err := e.o.Backend.Settle(ctx, o); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// enter counts one more thing being done for a Service, unless the Engine is stopping.
func (e *Engine) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.stopping {
		e.running.Add(1)
	}
	return !e.stopping
}

// Stop lets what is being done for Services come to its end, and begins nothing more: Ensure, Get, Delete and Plan fail with
// nsx.ErrStopping from now on. It returns when nothing is left in progress, or when ctx ends.
func (e *Engine) Stop(ctx context.Context) error {
	e.mu.Lock()
	e.stopping = true
	e.mu.Unlock()
	ended := make(chan struct{})
	go func() { // ends as soon as the last one does, whose calls are bounded by the transport
		defer close(ended)
		e.running.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for what is being done for Services: %w", ctx.Err())
	}
}

// Ensure makes the Service's load balancer what it should be and returns its status. When that can't be done, what is live
// stays so and is changed as far as possible; the user is told by an event.
func (e *Engine) Ensure(ctx context.Context, svc *corev1.Service) (*corev1.LoadBalancerStatus, error) {
	return e.ensure(ctx, svc, func() *corev1.Service { return svc })
}

// ensure is Ensure of what the Service is by the time that nothing else is done for it; nil for nothing to do.
func (e *Engine) ensure(ctx context.Context, svc *corev1.Service, current func() *corev1.Service) (*corev1.LoadBalancerStatus, error) {
	o := OwnerOf(svc)
	end, err := e.begin(ctx, o)
	if err != nil {
		return nil, e.failed(svc, err)
	}
	defer end()
	if svc = current(); svc == nil {
		return nil, nil
	}
	want, err := e.desired(svc)
	if err == nil {
		err = e.converge(ctx, svc, want)
	}
	if err != nil {
		return nil, e.failed(svc, err)
	}
	return statusOf(svc, e.inv().Observe(o)), nil
}

func (e *Engine) desired(svc *corev1.Service) (Frontend, error) {
	class, err := ClassOf(svc, e.o.Config)
	if err != nil {
		return Frontend{}, err
	}
	return Desired(svc, class)
}

// converge plans and applies until there is nothing left to do, or something is in the way.
func (e *Engine) converge(ctx context.Context, svc *corev1.Service, want Frontend) error {
	defer e.inv().Unreserve(want.Owner)
	refreshed := false
	told := map[Notice]bool{}
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := e.o.Clock.Now()
		var failed several
		plan, err := Diff(want, e.inv().Observe(want.Owner), e.inv(), e.o.ClusterUID)
		if err != nil && !refreshed {
			// Perhaps somebody has made room.
			refreshed = true
			again, refreshErr := e.lookForRoom(ctx, want, err, now)
			if again {
				continue
			}
			failed.add(refreshErr)
		}
		failed.add(err)
		for _, n := range plan.Notices {
			if !told[n] {
				e.event(svc, n.Reason, n.Message)
			}
			told[n] = true
		}
		err = e.apply(ctx, plan.Intents)
		if replan(err, try) {
			if err := e.o.Backend.Settle(ctx, want.Owner); err != nil {
				return err
			}
			continue
		}
		failed.add(err)
		return failed.error()
	}
}

// replan tells whether a plan that failed shows something new about NSX, by which the inventory has learnt.
func replan(err error, try int) bool {
	switch {
	case errors.Is(err, nsx.ErrAlreadyAllocated):
		return try < maxMoves
	case errors.Is(err, nsx.ErrNotFound), errors.Is(err, nsx.ErrStaleRevision):
		return try < maxReplans
	}
	return false
}

// apply carries out intents in order, up to the first that fails. What that leaves unused is looked for afterwards: it would
// stand in the way of the intents that follow.
func (e *Engine) apply(ctx context.Context, intents []nsx.Intent) error {
	logger := klog.FromContext(ctx)
	unused := false
	defer func() {
		if unused {
			e.tidyLater()
		}
	}()
	for _, i := range intents {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.o.Backend.Apply(ctx, i); err != nil {
			return err
		}
		if _, made := i.(nsx.Publish); !made {
			unused = true
		}
		logger.Info("Changed NSX", "service", i.Service().Name, "change", strings.TrimSpace(i.String()))
	}
	return nil
}

// Get tells whether anything of the Service is in NSX, and the status of what carries traffic.
func (e *Engine) Get(ctx context.Context, svc *corev1.Service) (status *corev1.LoadBalancerStatus, exists bool, err error) {
	o := OwnerOf(svc)
	end, err := e.begin(ctx, o)
	if err != nil {
		return nil, false, e.failed(svc, err)
	}
	defer end()
	have := e.inv().Observe(o)
	if have.Empty() {
		e.tidyLater() // it is being forgotten, and a creation that failed may have left what the cluster shares
	}
	return statusOf(svc, have), !have.Empty(), nil
}

// Delete removes everything that the Service has in NSX. There is nothing left when it returns nil.
func (e *Engine) Delete(ctx context.Context, svc *corev1.Service) error {
	o := OwnerOf(svc)
	end, err := e.begin(ctx, o)
	if err != nil {
		return e.failed(svc, err)
	}
	defer end()
	for try := 1; ; try++ {
		err := e.apply(ctx, DiffGone(e.inv().Observe(o), published(svc)))
		switch {
		case replan(err, try):
			if err := e.o.Backend.Settle(ctx, o); err != nil {
				return e.failed(svc, err)
			}
		case err != nil:
			return e.failed(svc, err)
		case e.inv().Observe(o).Empty():
			return nil
		case try >= maxReplans:
			return e.failed(svc, fmt.Errorf("not everything of %s could be removed from NSX: %w", o, nsx.ErrInUse))
		}
	}
}

// Plan is what Ensure would do now, or what would remove everything from NSX when the Service wants no load balancer. It
// changes nothing.
func (e *Engine) Plan(ctx context.Context, svc *corev1.Service) (Plan, error) {
	p, _, err := e.plan(ctx, svc)
	return p, err
}

// plan is Plan, with what the Service has that it was made of.
func (e *Engine) plan(ctx context.Context, svc *corev1.Service) (Plan, nsx.Observed, error) {
	o := OwnerOf(svc)
	end, err := e.begin(ctx, o)
	if err != nil {
		return Plan{}, nsx.Observed{}, err
	}
	defer end()
	have := e.inv().Observe(o)
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.DeletionTimestamp != nil {
		return Plan{Intents: DiffGone(have, published(svc))}, have, nil
	}
	want, err := e.desired(svc)
	if err != nil {
		return Plan{}, have, err
	}
	defer e.inv().Unreserve(o)
	p, err := Diff(want, have, e.inv(), e.o.ClusterUID)
	return p, have, err
}
