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

// queue lets calls out by lanes, one for each priority: at most so many of a lane at once and so many a second, in the
// order in which they came. No lane waits for another one.
type queue struct {
	clock   clock.WithTicker
	metrics *Metrics
	// wake tells run that something has changed; done is closed when run has ended.
	wake chan struct{}
	done chan struct{}

	mu          sync.Mutex
	lanes       [priorities]lane
	pausedUntil time.Time
}

// lane is what one priority may do.
type lane struct {
	limiter *rate.Limiter
	max     int
	// waiting holds a chan struct{} for each call that waits, closed when it may go.
	waiting  list.List
	inFlight int
}

// backgroundConcurrent is how many Background calls are under way at most, besides all others.
const backgroundConcurrent = 2

func newQueue(o *Options) *queue {
	q := &queue{
		clock:   o.Clock,
		metrics: o.Metrics,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	q.lanes[Foreground] = lane{limiter: rate.NewLimiter(rate.Limit(o.RequestsPerSecond), o.Burst), max: o.MaxConcurrent}
	q.lanes[Background] = lane{limiter: rate.NewLimiter(rate.Limit(o.BackgroundPerSecond), 1), max: backgroundConcurrent}
	// What was paid for waits for nothing but a pause.
	q.lanes[prepaid] = lane{limiter: rate.NewLimiter(rate.Inf, 0), max: o.MaxConcurrent}
	return q
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
	var next time.Duration
	for p := range q.lanes {
		if wait := q.admitFrom(&q.lanes[p]); wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	q.metrics.inFlight.Set(float64(q.inFlight()))
	return next
}

func (q *queue) admitFrom(l *lane) time.Duration {
	for l.inFlight < l.max {
		first := l.waiting.Front()
		if first == nil {
			return 0
		}
		now := q.clock.Now()
		if wait := q.pausedUntil.Sub(now); wait > 0 {
			return wait
		}
		token := l.limiter.ReserveN(now, 1)
		if wait := token.DelayFrom(now); wait > 0 {
			token.CancelAt(now)
			return wait
		}
		l.inFlight++
		close(l.waiting.Remove(first).(chan struct{}))
	}
	return 0
}

// inFlight counts the calls that hold a place, under the lock.
func (q *queue) inFlight() (n int) {
	for p := range q.lanes {
		n += q.lanes[p].inFlight
	}
	return n
}

// acquire waits until a call of this priority may go, or its context ends; release must follow if it may.
func (q *queue) acquire(ctx context.Context, p Priority) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	start := q.clock.Now()
	ready := make(chan struct{})
	q.mu.Lock()
	e := q.lanes[p].waiting.PushBack(ready)
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
	q.lanes[p].waiting.Remove(e)
	q.mu.Unlock()
	select {
	case <-ready: // let go at the same moment
		q.release(p)
	default:
	}
	return err
}

// release makes room for the next call.
func (q *queue) release(p Priority) {
	q.mu.Lock()
	q.lanes[p].inFlight--
	q.metrics.inFlight.Set(float64(q.inFlight()))
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
