package lb

import (
	"context"
	"time"

	"k8s.io/utils/clock"
)

// refreshInterval is how often at most the use of the IP pools is read again because a Service found no address: all of
// them may be waiting.
const refreshInterval = 15 * time.Second

// refresher reads the use of the IP pools again, for all that ask at the same time at once.
type refresher struct {
	clock clock.PassiveClock
	read  func(context.Context) error
	// turn is full while somebody reads, or looks whether to; last is guarded by it.
	turn chan struct{}
	last time.Time
}

func newRefresher(c clock.PassiveClock, read func(context.Context) error) *refresher {
	return &refresher{clock: c, read: read, turn: make(chan struct{}, 1)}
}

// after tells whether what is known about addresses is newer than a moment, having read it again if the last time is long
// enough ago.
func (r *refresher) after(ctx context.Context, moment time.Time) (bool, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if !r.last.Before(moment) {
		return true, nil
	}
	if r.clock.Since(r.last) < refreshInterval {
		return false, nil
	}
	err := r.read(ctx)
	if ctx.Err() == nil { // what its asker broke off says nothing
		r.last = r.clock.Now()
	}
	return err == nil, err
}
