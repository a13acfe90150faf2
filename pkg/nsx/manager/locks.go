package manager

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sync/semaphore"
)

// rwLock is a read-write lock that may be held across calls to NSX: waiting for it ends with the context. Like a
// sync.RWMutex, it lets nobody read who comes after somebody that waits to write.
type rwLock struct{ all *semaphore.Weighted }

func newRWLock() rwLock { return rwLock{semaphore.NewWeighted(math.MaxInt64)} }

// lock waits until nobody else holds it. The caller must call unlock exactly once when err is nil.
func (l rwLock) lock(ctx context.Context) (unlock func(), err error) {
	return l.acquire(ctx, math.MaxInt64)
}

// rLock waits until nobody holds it for writing. The caller must call unlock exactly once when err is nil.
func (l rwLock) rLock(ctx context.Context) (unlock func(), err error) { return l.acquire(ctx, 1) }

func (l rwLock) acquire(ctx context.Context, n int64) (unlock func(), err error) {
	if err := l.all.Acquire(ctx, n); err != nil {
		return nil, fmt.Errorf("waiting for what is being done to shared objects: %w", err)
	}
	return func() { l.all.Release(n) }, nil
}
