package transport

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
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

// suspendable is a clock whose time can leap while its timers sleep on, as when a process is stopped and continued.
type suspendable struct {
	clock.RealClock
	mu   sync.Mutex
	leap time.Duration
}

func (c *suspendable) suspend(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leap += d
}

func (c *suspendable) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.leap)
}

func TestStall(t *testing.T) {
	const maxStall = 10 * time.Second
	for name, tt := range map[string]struct {
		gap     time.Duration
		settle  time.Duration // that passes after the gap, before the write
		stalled bool
	}{
		"none":                    {0, 0, false},
		"short":                   {7 * time.Second, 0, false},
		"long, write comes first": {11 * time.Second, 0, true},
		"long, then a while":      {11 * time.Second, time.Minute, true},
		"clock set back":          {-time.Hour, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &suspendable{}
				var mu sync.Mutex
				var told []time.Duration
				tr, network := newTransport(t, Options{Clock: c, MaxStall: maxStall, OnStall: func(gap time.Duration) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, gap)
				}}, always(status(200, "{}")))
				time.Sleep(time.Hour) // quiet times are no stall
				if _, err := do(t.Context(), tr, "PUT", aPool, ""); err != nil {
					t.Fatalf("before the stall: %v", err)
				}

				c.suspend(tt.gap)
				time.Sleep(tt.settle)
				want, wantSent, wantTold := "ok", 3, 0
				if tt.stalled {
					want, wantSent, wantTold = "stopping", 1, 1
				}
				for range 2 {
					if _, err := do(t.Context(), tr, "PUT", aPool, ""); kinds(err) != want {
						t.Errorf("got %v, want %s", err, want)
					}
				}
				if n := len(network.all()); n != wantSent {
					t.Errorf("%d requests, want %d", n, wantSent)
				}
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Errorf("a read: %v", err)
				}
				mu.Lock()
				if len(told) != wantTold {
					t.Errorf("OnStall was told %v, want %d times", told, wantTold)
				}
				mu.Unlock()
				tr.ReopenWrites()
				if _, err := do(t.Context(), tr, "PUT", aPool, ""); err != nil {
					t.Errorf("after ReopenWrites: %v", err)
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
		c.suspend(11 * time.Second)
		h.letGo <- struct{}{}
		if err := <-queued; kinds(err) != "stopping" || len(network.all()) != 1 {
			t.Errorf("got %v after %d requests, want stopping after 1", err, len(network.all()))
		}
		wg.Wait()
	})
}

// TestStallGap shows which clock counts: the one that has moved further.
func TestStallGap(t *testing.T) {
	start := time.Now() // with a monotonic reading
	for name, tt := range map[string]struct {
		seen, now time.Time
		want      bool
	}{
		"both":           {start, start.Add(11 * time.Second), true},
		"neither":        {start, start.Add(9 * time.Second), false},
		"wall clock":     {start.Round(0), start.Add(11 * time.Second), true},
		"set back by 1h": {start.Add(time.Hour).Round(0), start, false},
	} {
		t.Run(name, func(t *testing.T) {
			var gap time.Duration
			g := gate{clock: clocktesting.NewFakeClock(tt.now), maxStall: 10 * time.Second, seen: tt.seen, onStall: func(d time.Duration) { gap = d }}
			g.look()()
			if g.stalled != tt.want || (gap > 0) != tt.want {
				t.Errorf("stalled %v with a gap of %v, want %v", g.stalled, gap, tt.want)
			}
		})
	}
}
