package transport

import (
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// cluster is a set of managers, each with what it does at the moment.
type cluster struct {
	mu    sync.Mutex
	state map[string]answerFunc
}

func (c *cluster) answer(_ int, req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	f := c.state[req.URL.Host]
	c.mu.Unlock()
	return f(req)
}

func (c *cluster) set(host string, f answerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state[host] = f
}

func hosts(n *network, from int) []string {
	var all []string
	for _, s := range n.all()[from:] {
		all = append(all, s.host)
	}
	return all
}

func TestFailOver(t *testing.T) {
	up := status(200, "{}")
	for name, down := range map[string]answerFunc{
		"no connection": dialFails,
		"503":           status(503, "no healthy upstream"),
		"hangs":         hangsDialling,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cluster{state: map[string]answerFunc{"a": up, "b": up, "c": up}}
				tr, network := newTransport(t, Options{Managers: []string{"https://a", "https://b", "https://c"}}, c.answer)
				seen := 0
				calls := func(what string, n int, want ...string) {
					t.Helper()
					for range n {
						if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
							t.Errorf("%s: %v", what, err)
						}
					}
					if diff := cmp.Diff(want, hosts(network, seen)); diff != "" {
						t.Errorf("%s (-want +got):\n%s", what, diff)
					}
					seen = len(network.all())
				}
				calls("one is as good as another", 3, "a", "a", "a")
				c.set("a", down)
				calls("the next one takes over, for good", 3, "a", "b", "b", "b")
				c.set("a", up)
				time.Sleep(2 * avoidance)
				calls("and keeps it", 2, "b", "b")
				c.set("a", down)
				c.set("b", down)
				calls("two are down", 2, "b", "c", "c")
				c.set("a", up)
				c.set("c", down)
				calls("back to the first", 2, "c", "a", "a")
			})
		})
	}
}

// TestFailedManagerIsLeftAlone has all managers fail; the one whose failure is the oldest is asked first.
func TestFailedManagerIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{state: map[string]answerFunc{"a": dialFails, "b": dialFails, "c": dialFails}}
		tr, network := newTransport(t, Options{Managers: []string{"https://a", "https://b", "https://c"}}, c.answer)
		if _, err := do(t.Context(), tr, "POST", aPool, ""); kinds(err) != "unavailable" {
			t.Errorf("got %v, want unavailable", err)
		}
		c.set("b", status(200, "{}"))
		for range 3 {
			if _, err := do(t.Context(), tr, "POST", aPool, ""); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff([]string{"a", "b", "c", "a", "b", "b", "b"}, hosts(network, 0)); diff != "" {
			t.Errorf("managers asked (-want +got):\n%s", diff)
		}
	})
}

func TestAnswersOfAManagerAreNotItsFailure(t *testing.T) {
	for name, f := range map[string]answerFunc{
		"404":       nsxError(404, 600),
		"throttled": nsxError(503, 98),
		"500":       nsxError(500, 1),
		"400":       nsxError(400, 255),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, network := newTransport(t, Options{Managers: []string{"https://a", "https://b"}}, always(f))
				for range 2 {
					_, _ = do(t.Context(), tr, "GET", aPool, "")
				}
				for _, h := range hosts(network, 0) {
					if h != "a" {
						t.Errorf("went to %s", h)
					}
				}
			})
		})
	}
}

func TestEachManagerHasItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{password: "x", configured: "x"}
		tr, network := newTransport(t, Options{Authentication: Session, Credentials: k.read, Managers: []string{"https://a", "https://b"}}, func(n int, req *http.Request) (*http.Response, error) {
			if n == 3 {
				return answerLost(req)
			}
			return k.answer(n, req)
		})
		for range 3 {
			if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
				t.Error(err)
			}
		}
		// log-in, call, lost; log-in, the same again, call
		if diff := cmp.Diff([]string{"a", "a", "a", "b", "b", "b"}, hosts(network, 0)); diff != "" {
			t.Errorf("managers asked (-want +got):\n%s", diff)
		}
		if k.made != 2 || k.failures != 0 {
			t.Errorf("%d sessions, %d failures", k.made, k.failures)
		}
		tr.Close(t.Context())
		if len(k.sessions) != 0 {
			t.Errorf("sessions left behind: %v", k.sessions)
		}
	})
}
