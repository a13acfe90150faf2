package transport

import (
	"context"
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
	most := o.RequestsPerSecond + float64(o.Burst) + o.BackgroundPerSecond + 1
	if at := o.MaxConcurrent + backgroundConcurrent; most > 100 || at > 40 {
		t.Errorf("up to %v requests in a second and %d at once; NSX allows 100 and 40", most, at)
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

// TestAuditNeverDelaysAService sends the calls of 500 Services in bursts, with and without an audit at work all the time,
// and wants them to go out at the very same moments. The audit gets its own rate, no more and no less.
func TestAuditNeverDelaysAService(t *testing.T) {
	const perSecond, background, seconds = 60, 6, 20
	// sent are the moments at which calls of Services went out, and how many of the audit did.
	sent := func(audit bool) (services []time.Duration, audits int) {
		synctest.Test(t, func(t *testing.T) {
			slow := func(_ int, req *http.Request) (*http.Response, error) {
				connect(req, true)
				time.Sleep(100 * time.Millisecond)
				return status(200, "{}")(req)
			}
			tr, network := newTransport(t, Options{RequestsPerSecond: perSecond, Burst: 30, BackgroundPerSecond: background, ClientCertificate: someCertificate}, slow)
			ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
			defer cancel()
			start := time.Now()
			var wg sync.WaitGroup
			if audit {
				for range 4 { // lists are read side by side
					wg.Go(func() {
						for ctx.Err() == nil {
							_, _ = do(WithPriority(ctx, Background), tr, "GET", "/audit", "")
						}
					})
				}
				wg.Go(func() {
					for {
						paid, err := tr.Prepay(ctx, 4)
						if err != nil {
							return
						}
						for range 4 {
							_, _ = do(paid, tr, "PUT", "/audit", "")
						}
					}
				})
			}
			for range 5 { // bursts, with quiet times in between
				for range 100 {
					wg.Go(func() { _, _ = do(ctx, tr, "PUT", aPool, "") })
				}
				time.Sleep(3500 * time.Millisecond)
			}
			wg.Wait()
			for _, s := range network.all() {
				if s.path == "/audit" {
					audits++
				} else {
					services = append(services, s.at.Sub(start))
				}
			}
		})
		return services, audits
	}
	alone, none := sent(false)
	beside, audits := sent(true)
	if len(alone) != 500 || none != 0 {
		t.Fatalf("%d calls of Services and %d of no audit, want 500 and 0", len(alone), none)
	}
	if diff := cmp.Diff(alone, beside); diff != "" {
		t.Errorf("calls of Services go out at other moments when there is an audit (-without +with):\n%s", diff)
	}
	if most := background*seconds + 1; audits > most || audits < most-10 {
		t.Errorf("the audit sent %d requests in %d s, want about %d", audits, seconds, most)
	}
}

// TestPrepaid: what was paid for goes at once however many others wait, and no further.
func TestPrepaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold{make(chan struct{})}
		tr, network := newTransport(t, Options{MaxConcurrent: 1, BackgroundPerSecond: 2, ClientCertificate: someCertificate},
			func(n int, req *http.Request) (*http.Response, error) {
				if req.Method == "GET" {
					return h.answer(n, req)
				}
				return status(200, "{}")(req)
			})
		var wg sync.WaitGroup
		for _, path := range []string{"/in-flight", "/waits"} {
			wg.Go(func() { _, _ = do(t.Context(), tr, "GET", path, "") })
			synctest.Wait()
		}
		start := time.Now()
		paid, err := tr.Prepay(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != 500*time.Millisecond { // the first at once, the second by the rate
			t.Errorf("paying for two took %v, want 500ms", got)
		}
		for _, path := range []string{"/paid-1", "/paid-2", "/no-more"} {
			wg.Go(func() { _, _ = do(paid, tr, "PUT", path, "") })
			synctest.Wait()
		}
		close(h.letGo)
		wg.Wait()
		var order []string
		for _, s := range network.all() {
			order = append(order, s.path)
		}
		if want := []string{"/in-flight", "/paid-1", "/paid-2", "/waits", "/no-more"}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := tr.Prepay(ended, 1); err == nil {
			t.Error("paid although the context has ended")
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
					q.release(Foreground)
				}
			})
			synctest.Wait()
			// It wakes up because of the one, and as a rule finds that the other has happened as well.
			cancel()
			q.admit()
			wg.Wait()
			if q.inFlight() != 0 {
				t.Fatalf("%d places are still taken", q.inFlight())
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
