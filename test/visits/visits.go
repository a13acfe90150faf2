// Package visits has clients visit a Service at a steady pace, and keeps account of how that went: for tests that somebody
// is served, or is not, whatever happens meanwhile.
//
//	crowd := visits.Gather(ctx, 25*time.Millisecond, func(ctx context.Context, i int) visits.Visit { ... })
//	...
//	crowd.Visits().Since(changed).Failed()
//	crowd.GoHome()
//
// How a visit is made, by whom and for how long at most, is the test's business, and so is what must become of it.
package visits

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Visit is a connection of its own to a Service, and what it was good for.
type Visit struct {
	Client netip.AddrPort // who made it; port 0 if the kernel chose one
	To     netip.AddrPort
	// Began and Ended are when.
	Began, Ended time.Time
	// Pod answered, and sees this client; Node is the pod's, if it said so.
	Pod, Node string
	Sees      netip.AddrPort
	Err       error
}

// Visits are in the order in which they ended.
type Visits []Visit

// Failed are those with an error.
func (v Visits) Failed() Visits {
	return slices.DeleteFunc(slices.Clone(v), func(v Visit) bool { return v.Err == nil })
}

// Since are those that began at a time or later.
func (v Visits) Since(t time.Time) Visits {
	return slices.DeleteFunc(slices.Clone(v), func(v Visit) bool { return v.Began.Before(t) })
}

// Pods are the names of the pods that answered, sorted, each once.
func (v Visits) Pods() []string {
	var names []string
	for _, v := range v {
		if v.Err == nil {
			names = append(names, v.Pod)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Crowd is clients that visit at a steady pace, until they are told to leave. Those that wait for an answer keep nobody else
// from asking.
type Crowd struct {
	leave   context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex
	made    Visits
}

// Gather has a visit begin every so often, until GoHome or the end of the context. Visit makes the i-th one, from 0, and must
// end it in bounded time: the crowd leaves when all that began have ended, for which they have a context that does not end
// with the crowd's. It is called from several goroutines.
func Gather(ctx context.Context, every time.Duration, visit func(ctx context.Context, i int) Visit) *Crowd {
	stay, leave := context.WithCancel(ctx)
	c := &Crowd{leave: leave}
	c.running.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-stay.Done():
				return
			case <-ticker.C:
			}
			c.running.Go(func() {
				v := visit(context.WithoutCancel(stay), i)
				c.mu.Lock()
				defer c.mu.Unlock()
				c.made = append(c.made, v)
			})
		}
	})
	return c
}

// Visits are those that have ended.
func (c *Crowd) Visits() Visits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.made)
}

// GoHome ends the visits, and returns all of them when the last one has ended. It may be called again.
func (c *Crowd) GoHome() Visits {
	c.leave()
	c.running.Wait()
	return c.Visits()
}
