package lb

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// refreshInterval is how often at most the use of one IP pool, or of the load-balancer services, is read again because a
// Service found no room: all of them may be waiting. A Service that waits is tried again after 15 to 30 s, so that it finds
// what becomes free within 30 s.
const refreshInterval = 15 * time.Second

// refresher reads things again, each for all that ask for it at the same time at once.
type refresher struct {
	clock clock.PassiveClock

	mu     sync.Mutex
	things map[string]*refreshed
}

// refreshed is one thing that is read again.
type refreshed struct {
	// turn is full while somebody reads, or looks whether to; last is guarded by it.
	turn chan struct{}
	last time.Time
}

func newRefresher(c clock.PassiveClock) *refresher {
	return &refresher{clock: c, things: map[string]*refreshed{}}
}

// after tells whether what is known about a thing is newer than a moment, having read it again if the last time is long
// enough ago.
func (r *refresher) after(ctx context.Context, thing string, moment time.Time, read func(context.Context) error) (bool, error) {
	r.mu.Lock()
	t := r.things[thing]
	if t == nil {
		t = &refreshed{turn: make(chan struct{}, 1)}
		r.things[thing] = t
	}
	r.mu.Unlock()
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if !t.last.Before(moment) {
		return true, nil
	}
	if r.clock.Since(t.last) < refreshInterval {
		return false, nil
	}
	err := read(ctx)
	if ctx.Err() == nil { // what its asker broke off says nothing
		t.last = r.clock.Now()
	}
	return err == nil, err
}

// lookForRoom reads again what kept a plan from finding room: the IP pools of the Service's class, or the load-balancer
// services. It tells whether any of that is newer than a moment.
func (e *Engine) lookForRoom(ctx context.Context, want Frontend, kept error, moment time.Time) (bool, error) {
	var failed several
	newer := false
	look := func(thing string, read func(context.Context) error) {
		again, err := e.refresh.after(ctx, thing, moment, read)
		newer = newer || again
		failed.add(err)
	}
	switch {
	case errors.Is(kept, errNoRoom):
		look("load-balancer services", e.o.Backend.RefreshRoom)
	case errors.Is(kept, nsx.ErrAlreadyAllocated), errors.Is(kept, nsx.ErrExhausted):
		for _, pool := range want.IPPools {
			look("IP pool "+pool, func(ctx context.Context) error { return e.o.Backend.RefreshAddresses(ctx, pool) })
		}
	}
	return newer, failed.error()
}
