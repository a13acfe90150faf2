package transport

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

func TestWriteGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, network := newTransport(t, Options{}, always(status(200, "{}")))
		tr.CloseWrites()
		tr.ReopenWrites() // undoes stalls alone
		for method, want := range map[string]string{"GET": "ok", "HEAD": "ok", "PUT": "stopping", "POST": "stopping", "DELETE": "stopping", "PATCH": "stopping"} {
			if _, err := do(t.Context(), tr, method, aPool, ""); kinds(err) != want {
				t.Errorf("%s: got %v, want %s", method, err, want)
			}
		}
		for _, s := range network.all() {
			if !isRead(s.method) {
				t.Errorf("a %s was sent", s.method)
			}
		}
	})
}

func TestWriteGateStopsWritesThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold{make(chan struct{})}
		tr, network := newTransport(t, Options{MaxConcurrent: 1}, h.answer)
		errs := make(chan error)
		go func() { _, err := do(t.Context(), tr, "PUT", "/sent", ""); errs <- err }()
		synctest.Wait()
		go func() { _, err := do(t.Context(), tr, "PUT", "/queued", ""); errs <- err }()
		synctest.Wait()
		tr.CloseWrites()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tr.Drain(ctx); kinds(err) != "deadline" {
			t.Errorf("Drain with a write in flight: %v, want the deadline", err)
		}
		drained := make(chan error)
		go func() { drained <- tr.Drain(t.Context()) }()
		synctest.Wait()
		h.letGo <- struct{}{}
		for _, want := range []string{"ok", "stopping"} {
			if err := <-errs; kinds(err) != want {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		if err := <-drained; err != nil {
			t.Errorf("Drain: %v", err)
		}
		if n := len(network.all()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestDrainDoesNotWaitForReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold{make(chan struct{})}
		tr, _ := newTransport(t, Options{}, h.answer)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = do(t.Context(), tr, "GET", aPool, "") })
		synctest.Wait()
		if err := tr.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		h.letGo <- struct{}{}
		wg.Wait()
	})
}

func TestWriteGateStopsRetries(t *testing.T) {
	for name, tt := range map[string]struct {
		answer answerFunc
		want   string
	}{
		"lost":          {answerLost, "ambiguous+stopping"},
		"no connection": {dialFails, "stopping"},
		"throttled":     {nsxError(429, 102), "stopping"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, network := newTransport(t, Options{}, always(tt.answer))
				done := make(chan error)
				go func() { _, err := do(t.Context(), tr, "PUT", aPool, ""); done <- err }()
				synctest.Wait()
				tr.CloseWrites()
				if err := <-done; kinds(err) != tt.want || len(network.all()) != 1 {
					t.Errorf("got %v after %d requests, want %s after 1", err, len(network.all()), tt.want)
				}
			})
		})
	}
}

// suspendable is a clock whose time can leap while its timers sleep on. The monotonic clock leaps when a process was
// stopped and continued, the wall clock also when the whole machine was suspended.
type suspendable struct {
	clock.RealClock
	mu              sync.Mutex
	wall, monotonic time.Duration // by which they have leapt
	// readings are the times that were read, with what the monotonic clock was ahead of the wall clock by.
	readings map[time.Time]time.Duration
}

func (c *suspendable) leap(monotonic, wall time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.monotonic += monotonic
	c.wall += wall
}

func (c *suspendable) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().Round(0).Add(c.wall)
	if c.readings == nil {
		c.readings = map[time.Time]time.Duration{}
	}
	c.readings[now] = c.monotonic - c.wall
	return now
}

func (c *suspendable) Since(t time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	ahead := c.monotonic - c.wall - c.readings[t]
	return time.Now().Round(0).Add(c.wall).Sub(t) + ahead
}

func TestStall(t *testing.T) {
	const maxStall = 10 * time.Second
	for name, tt := range map[string]struct {
		monotonic, wall time.Duration // the leap
		then            time.Duration // that passes before the write
		stalled         bool
	}{
		"none":                    {0, 0, 0, false},
		"short":                   {7 * time.Second, 7 * time.Second, 0, false},
		"long, write comes first": {11 * time.Second, 11 * time.Second, 0, true},
		"long, then a while":      {11 * time.Second, 11 * time.Second, time.Minute, true},
		"machine suspended":       {0, time.Hour, 0, true},
		"clock set back in it":    {11 * time.Second, -time.Hour, 0, true},
		"clock set back":          {0, -time.Hour, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &suspendable{}
				var told stalls
				tr, network := newTransport(t, Options{Clock: c, MaxStall: maxStall, OnStall: told.add}, always(status(200, "{}")))
				time.Sleep(time.Hour) // quiet times are no stall
				put := func() string {
					_, err := do(t.Context(), tr, "PUT", aPool, "")
					return kinds(err)
				}
				if got := put(); got != "ok" {
					t.Fatalf("before the stall: %v", got)
				}

				c.leap(tt.monotonic, tt.wall)
				time.Sleep(tt.then)
				want, wantSent, wantTold := "ok", 3, 0
				if tt.stalled {
					want, wantSent, wantTold = "stopping", 1, 1
				}
				for range 2 {
					if got := put(); got != want {
						t.Errorf("got %s, want %s", got, want)
					}
				}
				if n := len(network.all()); n != wantSent {
					t.Errorf("%d requests, want %d", n, wantSent)
				}
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Errorf("a read: %v", err)
				}
				if got := told.all(); len(got) != wantTold {
					t.Errorf("OnStall was told of %v, want %d", got, wantTold)
				}
				tr.ReopenWrites()
				if got := put(); got != "ok" {
					t.Errorf("after ReopenWrites: %v", got)
				}
			})
		})
	}
}

// stalls are what OnStall was told.
type stalls struct {
	mu   sync.Mutex
	gaps []time.Duration
}

func (s *stalls) add(gap time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gaps = append(s.gaps, gap)
}

func (s *stalls) all() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Duration(nil), s.gaps...)
}

// TestStallAfterStall stops the process again while somebody makes sure that the lease has outlived the first stall.
func TestStallAfterStall(t *testing.T) {
	for name, between := range map[string]time.Duration{"seen": 5 * time.Second, "unseen": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &suspendable{}
				var told stalls
				tr, _ := newTransport(t, Options{Clock: c, MaxStall: 10 * time.Second, OnStall: told.add}, always(status(200, "{}")))
				put := func(want string) {
					t.Helper()
					if _, err := do(t.Context(), tr, "PUT", aPool, ""); kinds(err) != want {
						t.Errorf("got %v, want %s", err, want)
					}
				}
				c.leap(11*time.Second, 11*time.Second)
				put("stopping")
				c.leap(20*time.Second, 20*time.Second)
				time.Sleep(between)
				tr.ReopenWrites() // for the first
				put("stopping")
				tr.ReopenWrites() // for the second
				put("ok")
				tr.ReopenWrites() // one too many, which does not count for a later stall
				c.leap(11*time.Second, 11*time.Second)
				tr.ReopenWrites()
				put("stopping")
				if n := len(told.all()); n != 3 {
					t.Errorf("OnStall was told %d times, want 3", n)
				}
			})
		})
	}
}

// TestStallWhileQueued stops the process between a write's admission to the queue and its sending.
func TestStallWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold{make(chan struct{})}
		c := &suspendable{}
		tr, network := newTransport(t, Options{Clock: c, MaxStall: 10 * time.Second, MaxConcurrent: 1}, h.answer)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = do(t.Context(), tr, "GET", "/first", "") })
		synctest.Wait()
		queued := make(chan error)
		go func() { _, err := do(t.Context(), tr, "POST", "/queued", ""); queued <- err }()
		synctest.Wait()
		c.leap(11*time.Second, 11*time.Second)
		h.letGo <- struct{}{}
		if err := <-queued; kinds(err) != "stopping" || len(network.all()) != 1 {
			t.Errorf("got %v after %d requests, want stopping after 1", err, len(network.all()))
		}
		wg.Wait()
	})
}
