// Package reach remembers how the latest calls to another system went, so that health checks can tell whether it is reached.
// It calls nobody.
package reach

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// patience is how long calls may fail before the system counts as not reached: shorter failures are made good by
	// trying again.
	patience = 10 * time.Second
	// stale is how old the last success may be. Who asks for health makes a call in good time before that.
	stale = 3 * time.Minute
)

// Record is what is known of one system. It is safe for concurrent use.
type Record struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	success time.Time
	// failing since then, with err the latest failure; zero after a success.
	failing time.Time
	err     error
}

// New makes a Record of no call.
func New(c clock.PassiveClock) *Record { return &Record{clock: c} }

// Done takes note of a call that was answered, or of one that failed with err.
func (r *Record) Done(err error) {
	now := r.clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	switch {
	case err == nil:
		r.success, r.failing = now, time.Time{}
	case r.failing.IsZero():
		r.failing = now
	}
}

// Last is when the latest call was answered; the zero Time for never.
func (r *Record) Last() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.success
}

// Idle is how long ago the latest call was answered; a very long time when none was.
func (r *Record) Idle() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.clock.Since(r.success)
}

// Check is nil if the system is reached; else the error says since when it is not, and why.
func (r *Record) Check() error {
	now := r.clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.success.IsZero() && r.err == nil:
		return fmt.Errorf("no call has been answered yet")
	case r.success.IsZero():
		return fmt.Errorf("no call has been answered yet: %w", r.err)
	case !r.failing.IsZero() && now.Sub(r.failing) >= patience:
		return fmt.Errorf("no call has been answered since %s: %w", r.success.UTC().Format(time.RFC3339), r.err)
	case now.Sub(r.success) >= stale:
		return fmt.Errorf("no call has been answered since %s", r.success.UTC().Format(time.RFC3339))
	}
	return nil
}
