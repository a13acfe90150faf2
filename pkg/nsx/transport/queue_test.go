package transport

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls, perSecond, burst = 300, 60, 20
		tr, network := newTransport(t, Options{RequestsPerSecond: perSecond, Burst: burst, MaxConcurrent: 1000}, always(status(200, "{}")))
		start := time.Now()
		var wg sync.WaitGroup
		for range calls {
			wg.Go(func() {
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		sent := network.all()
		if len(sent) != calls {
			t.Fatalf("%d requests, want %d", len(sent), calls)
		}
		// Basic authentication lets the first call go alone; all others wait for the limit only.
		want := time.Duration(calls-burst) * time.Second / perSecond
		if got := time.Since(start).Round(time.Millisecond); got != want.Round(time.Millisecond) {
			t.Errorf("took %v, want %v", got, want)
		}
		for i := range sent {
			in := 0
			for _, s := range sent[i:] {
				if s.at.Sub(sent[i].at) < time.Second {
					in++
				}
			}
			if in > perSecond+burst {
				t.Fatalf("%d requests in the second after %v, want at most %d", in, sent[i].at.Sub(start), perSecond+burst)
			}
		}
	})
}

// TestRateByTheInjectedClock shows that the limits go by the injected clock alone.
func TestRateByTheInjectedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := clocktesting.NewFakeClock(time.Now())
		tr, network := newTransport(t, Options{Clock: clock, RequestsPerSecond: 10, Burst: 1}, always(status(200, "{}")))
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { _, _ = do(t.Context(), tr, "GET", aPool, "") })
		}
		var counts []int
		for range 5 {
			time.Sleep(time.Hour) // of the real clock's time, which does not matter
			synctest.Wait()
			counts = append(counts, len(network.all()))
			clock.Step(100 * time.Millisecond)
		}
		wg.Wait()
		if diff := cmp.Diff([]int{1, 2, 3, 4, 5}, counts); diff != "" {
			t.Errorf("requests by tenths of a second (-want +got):\n%s", diff)
		}
	})
}

func TestDefaultsStayBelowTheLimitsOfNSX(t *testing.T) {
	o := Options{Managers: []string{"https://a.example"}, Credentials: fixed}
	if _, err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if most := o.RequestsPerSecond + float64(o.Burst); most > 100 || o.MaxConcurrent > 40 {
		t.Errorf("up to %v requests in a second and %d at once; NSX allows 100 and 40", most, o.MaxConcurrent)
	}
}

// hold is a network on which calls wait until they are let go, one by one.
type hold struct{ letGo chan struct{} }

func (h hold) answer(_ int, req *http.Request) (*http.Response, error) {
	connect(req, true)
	select {
	case <-h.letGo:
		return status(200, "{}")(req)
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

func TestConcurrencyCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold{make(chan struct{})}
		tr, network := newTransport(t, Options{MaxConcurrent: 3, ClientCertificate: someCertificate}, h.answer)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { _, _ = do(t.Context(), tr, "GET", aPool, "") })
		}
		for done := range 10 {
			synctest.Wait()
			if got, want := len(network.all()), min(10, 3+done); got != want {
				t.Errorf("after %d answers %d requests went out, want %d", done, got, want)
			}
			h.letGo <- struct{}{}
		}
		wg.Wait()
	})
}

func TestForegroundGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold{make(chan struct{})}
		tr, network := newTransport(t, Options{MaxConcurrent: 1}, h.answer)
		background := WithPriority(t.Context(), Background)
		var wg sync.WaitGroup
		for i, ctx := range []context.Context{background, background, t.Context(), background, t.Context(), WithPriority(background, Foreground)} {
			wg.Go(func() { _, _ = do(ctx, tr, "GET", fmt.Sprint("/", i), "") })
			synctest.Wait()
		}
		for range 6 {
			h.letGo <- struct{}{}
			synctest.Wait()
		}
		wg.Wait()
		var order []string
		for _, s := range network.all() {
			order = append(order, s.path)
		}
		if want := []string{"/0", "/2", "/4", "/5", "/1", "/3"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
	})
}

func TestCallGivesUpItsPlaceInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold{make(chan struct{})}
		tr, network := newTransport(t, Options{MaxConcurrent: 1}, h.answer)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = do(t.Context(), tr, "GET", "/first", "") })
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		queued := make(chan error)
		go func() { _, err := do(ctx, tr, "POST", "/queued", ""); queued <- err }()
		synctest.Wait()
		wg.Go(func() { _, _ = do(t.Context(), tr, "GET", "/last", "") })
		synctest.Wait()
		cancel()
		if err := <-queued; kinds(err) != "unavailable+canceled" {
			t.Errorf("got %v, want unavailable+canceled", err)
		}
		h.letGo <- struct{}{}
		h.letGo <- struct{}{}
		wg.Wait()
		if sent := network.all(); len(sent) != 2 || sent[1].path != "/last" {
			t.Errorf("sent %v, want /first and /last", sent)
		}
	})
}

// TestPlaceIsNotLostBetweenTwo has calls give up in the very moment in which they are let go.
func TestPlaceIsNotLostBetweenTwo(t *testing.T) {
	o := Options{Managers: []string{"https://a.example"}, Credentials: fixed, RequestsPerSecond: 1e6, MaxConcurrent: 1}
	if _, err := o.complete(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(&o)
		for range 200 {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if q.acquire(ctx, Foreground) == nil {
					q.release()
				}
			})
			synctest.Wait()
			// It wakes up because of the one, and as a rule finds that the other has happened as well.
			cancel()
			q.admit()
			wg.Wait()
			if q.inFlight != 0 {
				t.Fatalf("%d places are still taken", q.inFlight)
			}
		}
	})
}

func TestClosedTransportSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, network := newTransport(t, Options{MaxConcurrent: 1}, hold{}.answer)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = do(ctx, tr, "GET", "/in-flight", "") })
		synctest.Wait()
		wg.Go(func() {
			if _, err := do(ctx, tr, "GET", "/queued", ""); kinds(err) != "unavailable" {
				t.Errorf("queued: got %v, want unavailable", err)
			}
		})
		synctest.Wait()
		tr.Close(t.Context())
		start := time.Now()
		if _, err := do(ctx, tr, "GET", "/late", ""); kinds(err) != "unavailable" || time.Since(start) > 0 {
			t.Errorf("late: got %v after %v, want unavailable at once", err, time.Since(start))
		}
		cancel()
		wg.Wait()
		if n := len(network.all()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}
