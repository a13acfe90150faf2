package transport

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// gate decides whether a write may go out. It closes for good when the controller stops, and closes by itself when the
// process has stood still for so long that its lease may be somebody else's: the writes that were under way would
// otherwise go on for a moment, before leader election takes notice.
type gate struct {
	clock    clock.WithTicker
	maxStall time.Duration
	onStall  func(time.Duration)

	mu     sync.Mutex
	closed bool
	// stalls that nobody has cleared yet.
	stalls int
	// seen is when the process was last known to run.
	seen time.Time
	// inFlight writes, and a channel for those who wait until there are none.
	inFlight int
	idle     chan struct{}
}

func newGate(o *Options) *gate {
	return &gate{clock: o.Clock, maxStall: o.MaxStall, onStall: o.OnStall, seen: o.Clock.Now()}
}

// run is the watchdog: while the process runs, it says so four times in the length of a stall.
func (g *gate) run(ctx context.Context) {
	ticker := g.clock.NewTicker(g.maxStall / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
			g.mu.Lock()
			tell := g.look()
			g.mu.Unlock()
			tell()
		}
	}
}

// look notices a stall, under the lock, and returns what to call after it.
func (g *gate) look() (tell func()) {
	now := g.clock.Now()
	// A suspended machine's monotonic clock stands still; its wall clock is set forward afterwards.
	gap := max(g.clock.Since(g.seen), now.Round(0).Sub(g.seen.Round(0)))
	g.seen = now
	if g.maxStall == 0 || gap <= g.maxStall {
		return func() {}
	}
	g.stalls++
	return func() { g.onStall(gap) }
}

// enter lets a write through, or says why not. leave must follow if it does. It is asked right before sending, since a
// stall can come at any moment before.
func (g *gate) enter() error {
	g.mu.Lock()
	tell := g.look()
	defer tell()
	defer g.mu.Unlock()
	err := g.barred()
	if err == nil {
		g.inFlight++
	}
	return err
}

// barred is why no write goes out, under the lock; nil when they do.
func (g *gate) barred() error {
	switch {
	case g.closed:
		return nsx.ErrStopping
	case g.stalls > 0:
		return fmt.Errorf("%w: the process stood still for more than %v", nsx.ErrStopping, g.maxStall)
	}
	return nil
}

// open is nil while writes go out. It changes nothing.
func (g *gate) open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.barred()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if g.inFlight == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// reopen clears one stall. One that has come since, seen or not, stays.
func (g *gate) reopen() {
	g.mu.Lock()
	known := g.stalls
	tell := g.look()
	defer tell()
	defer g.mu.Unlock()
	if known > 0 {
		g.stalls--
	}
}

// drain waits until no write is in flight.
func (g *gate) drain(ctx context.Context) error {
	for {
		g.mu.Lock()
		n := g.inFlight
		if n > 0 && g.idle == nil {
			g.idle = make(chan struct{})
		}
		idle := g.idle
		g.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return fmt.Errorf("%d writes to NSX still in flight: %w", n, context.Cause(ctx))
		}
	}
}
