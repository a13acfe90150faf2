package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A thousand Services at once cost little more than their own two calls each, since they share the attaching, and take
// little more time than the rate limit alone. NSX, which has its own limits, refuses none of them.
func TestBulkCreate(t *testing.T) {
	for _, c := range []struct {
		services int
		rate     float64
	}{{1000, 60}, {300, 100}} {
		inWorldWith(limits, t, c.services, 100, func(t *testing.T, w *world) {
			n, rate := c.services, c.rate
			limit := n * 22 / 10
			w.start(rate, nil)
			w.prime()
			time.Sleep(time.Minute) // the bucket is full again
			w.nsx.Journal().Reset()
			services := Services("bulk", n, cluster, "80")
			start := time.Now()
			w.must(w.EnsureAll(t.Context(), workers, services))
			took := time.Since(start)
			calls := w.nsx.Journal().Count()
			if calls > limit {
				t.Errorf("%d calls for %d Services, want at most 2.2 each: %v", calls, n, w.nsx.Journal().Counts())
			}
			least := time.Duration((float64(calls) - rate/2) / rate * float64(time.Second))
			if took > least*5/4 {
				t.Errorf("took %v, want at most 1.25 x the %v that %d calls take at %v a second", took, least, calls, rate)
			}
			t.Logf("at %v/s: %d calls, %v, rate limit alone %v: %v", rate, calls, took, least, w.nsx.Journal().Counts())

			for _, e := range w.nsx.Journal().Entries() {
				if e.Status/100 != 2 {
					t.Fatalf("NSX answered %s %s with %d", e.Method, e.Path, e.Status)
				}
			}

			w.nsx.Journal().Reset()
			w.must(w.EnsureAll(t.Context(), workers, services))
			if again := w.nsx.Journal().Count(); again != 0 {
				t.Errorf("ensuring them again took %d calls", again)
			}

			w.must(w.DeleteAll(t.Context(), workers, services))
			if calls := w.nsx.Journal().Count(); calls > limit {
				t.Errorf("%d calls to delete %d Services, want at most 2.2 each: %v", calls, n, w.nsx.Journal().Counts())
			}
		})
	}
}

// Nobody waits behind more than one write of a load-balancer service besides its own: at most one that was under way when
// it came.
func TestAttachingIsFair(t *testing.T) {
	const services = 500
	inWorld(t, services, 10, func(t *testing.T, w *world) {
		watch := &watcher{Direct: Direct{Handler: w.nsx, Latency: latency}, allocated: map[string]time.Time{}}
		w.start(60, watch)
		w.prime()
		w.must(w.EnsureAll(t.Context(), workers, Services("fair", services, cluster, "80")))
		attached := 0
		for addr, since := range watch.allocated {
			vs := w.Backend.Inventory().Carriers(mustAddr(t, addr))[0]
			behind := 0
			for _, put := range watch.puts {
				if !put.done.After(since) {
					continue
				}
				if slices.Contains(put.ids, vs) {
					attached++
					break
				}
				behind++
			}
			if behind > 1 {
				t.Errorf("the virtual server on %s waited for %d writes besides its own", addr, behind)
			}
		}
		if attached != services+2 {
			t.Errorf("%d virtual servers were seen being attached, want %d", attached, services+2)
		}
	})
}

// watcher is a network that notes when addresses were allocated and what load-balancer services were made.
type watcher struct {
	Direct
	mu        sync.Mutex
	allocated map[string]time.Time
	puts      []put
}

type put struct {
	done time.Time
	ids  []string
}

// RoundTrip implements http.RoundTripper.
func (w *watcher) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := w.Direct.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var sent struct {
		Address string   `json:"allocation_id"`
		IDs     []string `json:"virtual_server_ids"`
	}
	_ = json.Unmarshal(body, &sent) // no body: nothing to see
	switch {
	case r.URL.Query().Get("action") == "ALLOCATE":
		w.allocated[sent.Address] = time.Now()
	case r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/api/v1/loadbalancer/services/"):
		w.puts = append(w.puts, put{time.Now(), sent.IDs})
	}
	return resp, nil
}

func mustAddr(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
