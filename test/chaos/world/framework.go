package world

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

const (
	// firstRetry and lastRetry bound the back-off of the framework's service controller (k8s.io/cloud-provider).
	firstRetry, lastRetry = 5 * time.Second, 300 * time.Second
	// stopTime is what the product gives itself to stop in order.
	stopTime = 10 * time.Second
	// finalizer is the framework's.
	finalizer = "service.kubernetes.io/load-balancer-cleanup"
)

// framework does for Services what the framework's service controller does with a cloud provider: one thing at a time for
// one Service, level-based, again after an error; a finalizer before the load balancer is asked for, the status after it
// is there, the finalizer off when the load balancer is gone.
type framework struct {
	p   *process
	ctx context.Context

	work sync.WaitGroup

	mu    sync.Mutex
	tasks map[string]*task
}

// task is what is to be done for one Service.
type task struct {
	wake chan struct{}
	// pending: there is something to do, or it is being done; failed is why it has to be done again, nil if it hasn't.
	pending bool
	failed  error
}

func newFramework(ctx context.Context, p *process) *framework {
	return &framework{p: p, ctx: ctx, tasks: map[string]*task{}}
}

// changed says that there may be something to do for a Service.
func (f *framework) changed(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tasks[name]
	if t == nil {
		t = &task{wake: make(chan struct{}, 1)}
		f.tasks[name] = t
		f.work.Go(func() { f.serve(name, t) })
	}
	t.pending = true
	select {
	case t.wake <- struct{}{}:
	default: // it has been told already
	}
}

func (f *framework) wait() { f.work.Wait() }

// busy tells whether anything is being done, rather than waited for.
func (f *framework) busy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tasks {
		if t.pending && t.failed == nil {
			return true
		}
	}
	return false
}

// failures are the errors of what has to be done again, by Service.
func (f *framework) failures() map[string]error {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]error{}
	for name, t := range f.tasks {
		if t.failed != nil {
			out[name] = t.failed
		}
	}
	return out
}

// serve is the worker of one Service.
func (f *framework) serve(name string, t *task) {
	failures := 0
	var again <-chan time.Time
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-t.wake:
		case <-again:
		}
		again = nil
		f.stagger(name)
		err := f.sync(name)
		if f.ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		t.failed = err
		t.pending = err != nil || len(t.wake) > 0
		f.mu.Unlock()
		if err == nil {
			failures = 0
			continue
		}
		f.p.c.mutter("service %s: %v", name, err)
		again = time.After(retryAfter(err, failures))
		failures++
	}
}

// stagger lets no two Services be begun at the same moment, so that the order does not depend on the scheduling of
// goroutines.
func (f *framework) stagger(name string) {
	select {
	case <-time.After(time.Duration(f.p.c.w.random(f.p.c.Name+" "+name) * float64(time.Millisecond))):
	case <-f.ctx.Done():
	}
}

// retryAfter is when the framework calls again: when the error says so, else by its back-off.
func retryAfter(err error, failures int) time.Duration {
	var at *nsx.RetryAt
	var quiet *unwrapped
	if errors.As(err, &at) && !errors.As(err, &quiet) {
		return max(time.Until(at.At), 0)
	}
	return min(firstRetry<<min(failures, 10), lastRetry)
}

// unwrapped is an error of which the framework keeps the text alone.
type unwrapped struct{ error }

func (e *unwrapped) Unwrap() error { return e.error }

// sync is the framework's syncLoadBalancerIfNeeded.
func (f *framework) sync(name string) error {
	k, engine, ctx := f.p.c.kube, f.p.engine, patient{f.ctx, f.p.c, name}
	svc := k.get(name)
	switch {
	case svc == nil:
		return nil
	case wantsLoadBalancer(svc):
		if !k.addFinalizer(f.p, svc) {
			return nil
		}
		svc = k.get(name)
		status, err := engine.Ensure(ctx, svc)
		if err != nil {
			return err
		}
		k.patchStatus(f.p, svc, status)
	case slices.Contains(svc.Finalizers, finalizer):
		_, exists, err := engine.Get(ctx, svc)
		if err != nil {
			return &unwrapped{err}
		}
		if exists {
			if err := engine.Delete(ctx, svc); err != nil {
				return &unwrapped{err}
			}
		}
		k.cleanedUp(f.p, svc)
	}
	return nil
}

func wantsLoadBalancer(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.DeletionTimestamp == nil
}
