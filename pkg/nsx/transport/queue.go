package transport

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// queue lets calls out: at most so many at once and so many a second, those of higher priority first, within one
// priority in the order in which they came.
type queue struct {
	clock   clock.WithTicker
	max     int
	metrics *Metrics
	// wake tells run that something has changed; done is closed when run has ended.
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	limiter *rate.Limiter
	// waiting holds a chan struct{} for each call that waits, closed when it may go.
	waiting     [priorities]list.List
	inFlight    int
	pausedUntil time.Time
}

func newQueue(o *Options) *queue {
	return &queue{
		clock:   o.Clock,
		max:     o.MaxConcurrent,
		metrics: o.Metrics,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		limiter: rate.NewLimiter(rate.Limit(o.RequestsPerSecond), o.Burst),
	}
}

// run admits calls until the context ends. After that, every acquire fails.
func (q *queue) run(ctx context.Context) {
	defer close(q.done)
	for {
		var tick <-chan time.Time
		stop := func() bool { return false }
		if wait := q.admit(); wait > 0 {
			timer := q.clock.NewTimer(wait)
			tick, stop = timer.C(), timer.Stop
		}
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-tick:
		}
		stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// admit lets go whoever may. It returns how long the next one has to wait, or 0 if that is not a matter of time.
func (q *queue) admit() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.inFlight < q.max {
		next, from := q.next()
		if next == nil {
			return 0
		}
		now := q.clock.Now()
		if wait := q.pausedUntil.Sub(now); wait > 0 {
			return wait
		}
		token := q.limiter.ReserveN(now, 1)
		if wait := token.DelayFrom(now); wait > 0 {
			token.CancelAt(now)
			return wait
		}
		q.inFlight++
		q.metrics.inFlight.Set(float64(q.inFlight))
		close(from.Remove(next).(chan struct{}))
	}
	return 0
}

func (q *queue) next() (*list.Element, *list.List) {
	for p := range q.waiting {
		if e := q.waiting[p].Front(); e != nil {
			return e, &q.waiting[p]
		}
	}
	return nil, nil
}

// acquire waits until a call of this priority may go, or its context ends; release must follow if it may.
func (q *queue) acquire(ctx context.Context, p Priority) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	start := q.clock.Now()
	ready := make(chan struct{})
	q.mu.Lock()
	e := q.waiting[p].PushBack(ready)
	q.mu.Unlock()
	q.poke()

	var err error
	select {
	case <-ready:
		q.metrics.queueTime.WithLabelValues(p.String()).Observe(q.clock.Since(start).Seconds())
		return nil
	case <-ctx.Done():
		err = fmt.Errorf("waiting for its turn: %w", context.Cause(ctx))
	case <-q.done:
		err = errClosed
	}
	q.mu.Lock()
	q.waiting[p].Remove(e)
	q.mu.Unlock()
	select {
	case <-ready: // let go at the same moment
		q.release()
	default:
	}
	return err
}

// release makes room for the next call.
func (q *queue) release() {
	q.mu.Lock()
	q.inFlight--
	q.metrics.inFlight.Set(float64(q.inFlight))
	q.mu.Unlock()
	q.poke()
}

// pause holds everybody back until then.
func (q *queue) pause(until time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if until.After(q.pausedUntil) {
		q.pausedUntil = until
	}
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

var errClosed = fmt.Errorf("%w: the transport is closed", nsx.ErrUnavailable)
