package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// keeper is a manager cluster that knows passwords and keeps sessions, and the place where the controller's password is
// configured.
type keeper struct {
	mu         sync.Mutex
	password   string // that NSX wants
	configured string
	reads      int
	sessions   map[string]string // host/cookie to XSRF token
	made       int
	failures   int
	roundTrip  time.Duration
}

func (k *keeper) read(context.Context) (Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads++
	if k.configured == "" {
		return Credentials{}, errors.New("no such Secret")
	}
	return Credentials{"admin", k.configured}, nil
}

func (k *keeper) answer(_ int, req *http.Request) (*http.Response, error) {
	connect(req, true)
	time.Sleep(k.roundTrip)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case req.URL.Path == "/api/session/create":
		return k.logIn(req)
	case req.Header.Get("Authorization") != "":
		_, password, _ := req.BasicAuth()
		if password != k.password {
			k.failures++
			return nsxError(403, 403)(req)
		}
	default:
		cookie, err := req.Cookie("JSESSIONID")
		if err != nil {
			return nsxError(401, 0)(req)
		}
		token, known := k.sessions[req.URL.Host+"/"+cookie.Value]
		if !known {
			return nsxError(401, 0)(req)
		}
		if token != req.Header.Get("X-XSRF-TOKEN") {
			return nsxError(403, 98)(req)
		}
		if req.URL.Path == "/api/session/destroy" {
			delete(k.sessions, req.URL.Host+"/"+cookie.Value)
		}
	}
	return status(200, "{}")(req)
}

func (k *keeper) logIn(req *http.Request) (*http.Response, error) {
	body, _ := req.GetBody()
	b := make([]byte, req.ContentLength)
	_, _ = body.Read(b)
	form, err := url.ParseQuery(string(b))
	if err != nil || req.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		return status(400, "not a form")(req)
	}
	if form.Get("j_username") != "admin" || form.Get("j_password") != k.password {
		k.failures++
		return nsxError(403, 403)(req)
	}
	k.made++
	cookie, token := fmt.Sprint("c", k.made), fmt.Sprint("t", k.made)
	if k.sessions == nil {
		k.sessions = map[string]string{}
	}
	k.sessions[req.URL.Host+"/"+cookie] = token
	return status(200, "", "Set-Cookie", "JSESSIONID="+cookie+"; Path=/; Secure; HttpOnly", "X-XSRF-TOKEN", token)(req)
}

func (k *keeper) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// paths of the requests that went out, with their methods.
func paths(n *network) []string {
	var all []string
	for _, s := range n.all() {
		all = append(all, s.method+" "+s.path)
	}
	return all
}

const oddPassword = "p&a=s%s+wörd ?"

func TestSessionIsMadeOnceAndUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{password: oddPassword, configured: oddPassword, roundTrip: time.Millisecond}
		tr, network := newTransport(t, Options{Authentication: Session, Credentials: k.read}, k.answer)
		var wg sync.WaitGroup
		for range 15 {
			wg.Go(func() {
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if k.made != 1 || k.reads != 1 || len(network.all()) != 16 {
			t.Errorf("%d sessions, %d reads of the credentials, %d requests, want 1, 1 and 16", k.made, k.reads, len(network.all()))
		}
		for _, s := range network.all() {
			if strings.Contains(s.header.Get("Authorization")+s.header.Get("Cookie")+s.path, oddPassword) {
				t.Errorf("%s shows the password", s.path)
			}
		}
		tr.Close(t.Context())
		if len(k.sessions) != 0 {
			t.Errorf("sessions left behind after Close: %v", k.sessions)
		}
	})
}

func TestSessionEnds(t *testing.T) {
	for name, end := range map[string]func(*keeper){
		"expired":   func(k *keeper) { clear(k.sessions) },
		"bad token": func(k *keeper) { k.sessions["a.example/c1"] = "other" },
		"password rotated": func(k *keeper) {
			clear(k.sessions)
			k.password, k.configured = "new", "new"
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &keeper{password: "old", configured: "old"}
				tr, network := newTransport(t, Options{Authentication: Session, Credentials: k.read}, k.answer)
				if _, err := do(t.Context(), tr, "GET", "/1", ""); err != nil {
					t.Fatal(err)
				}
				k.change(func() { end(k) })
				// A POST too: the refused one has done nothing.
				if _, err := do(t.Context(), tr, "POST", "/2", `{"a":1}`); err != nil {
					t.Fatal(err)
				}
				want := []string{"POST /api/session/create", "GET /1", "POST /2", "POST /api/session/create", "POST /2"}
				if diff := cmp.Diff(want, paths(network)); diff != "" {
					t.Errorf("requests (-want +got):\n%s", diff)
				}
				if k.failures != 0 {
					t.Errorf("%d log-ins failed", k.failures)
				}
			})
		})
	}
}

// TestSessionEndsForManyCallsAtOnce has the refusals come in one after the other, some when there is a new session.
func TestSessionEndsForManyCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{password: "x", configured: "x"}
		tr, _ := newTransport(t, Options{Authentication: Session, Credentials: k.read}, func(n int, req *http.Request) (*http.Response, error) {
			resp, err := k.answer(n, req)
			if req.URL.Path == aPool {
				time.Sleep(time.Duration(n) * time.Millisecond)
			}
			return resp, err
		})
		_, _ = do(t.Context(), tr, "GET", aPool, "")
		k.change(func() { clear(k.sessions) })
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if k.made != 2 {
			t.Errorf("%d sessions were made, want 2", k.made)
		}
	})
}

func TestSessionThatIsRefusedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{password: "x", configured: "x"}
		tr, network := newTransport(t, Options{Authentication: Session, Credentials: k.read}, func(n int, req *http.Request) (*http.Response, error) {
			if req.URL.Path == aPool {
				return nsxError(401, 0)(req)
			}
			return k.answer(n, req)
		})
		if _, err := do(t.Context(), tr, "POST", aPool, ""); kinds(err) != "unauthorized" {
			t.Errorf("got %v, want unauthorized", err)
		}
		want := []string{"POST /api/session/create", "POST " + aPool, "POST /api/session/create", "POST " + aPool}
		if diff := cmp.Diff(want, paths(network)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// TestWrongPasswordDoesNotLockTheAccount makes calls all the time with a password that NSX refuses, and counts how often
// NSX gets to see it.
func TestWrongPasswordDoesNotLockTheAccount(t *testing.T) {
	for _, authentication := range []Authentication{Session, Basic} {
		t.Run(string(authentication), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &keeper{password: "right", configured: "wrong", roundTrip: time.Millisecond}
				tr, _ := newTransport(t, Options{Authentication: authentication, Credentials: k.read}, k.answer)
				start := time.Now()
				var tried []time.Duration
				var retryAt *nsx.RetryAt
				for time.Since(start) < 4*time.Minute {
					before := k.failures
					var wg sync.WaitGroup
					for range 10 {
						wg.Go(func() {
							_, err := do(t.Context(), tr, "GET", aPool, "")
							if kinds(err) != "unauthorized" {
								t.Errorf("got %v, want unauthorized", err)
							}
							if err != nil && strings.Contains(err.Error(), "wrong") {
								t.Errorf("the error shows the password: %v", err)
							}
						})
					}
					wg.Wait()
					if n := k.failures - before; n > 1 {
						t.Fatalf("%d tries at once", n)
					} else if n == 1 {
						tried = append(tried, time.Since(start).Round(time.Second))
					}
					_, err := do(t.Context(), tr, "GET", aPool, "")
					if !errors.As(err, &retryAt) || !retryAt.At.After(time.Now()) {
						t.Errorf("%v does not say when to try again", err)
					}
					time.Sleep(500 * time.Millisecond)
				}
				want := []time.Duration{0, 5 * time.Second, 15 * time.Second, 35 * time.Second, 75 * time.Second, 135 * time.Second, 195 * time.Second}
				if len(tried) != len(want) {
					t.Fatalf("tried at %v, want about %v", tried, want)
				}
				for i := range want {
					if d := tried[i] - want[i]; d < 0 || d > 4*time.Second {
						t.Fatalf("tried at %v, want about %v", tried, want)
					}
				}

				// A changed password is tried at once.
				k.change(func() { k.configured = "right" })
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Errorf("with the right password: %v", err)
				}
				// And after a success the waiting starts from 5 s again, even with the password that was refused before.
				k.change(func() { k.password, k.configured = "wrong", "wrong"; clear(k.sessions) })
				time.Sleep(maxLoginWait)
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Errorf("with the password that became right: %v", err)
				}
				k.change(func() { k.password = "right"; clear(k.sessions) })
				_, _ = do(t.Context(), tr, "GET", aPool, "")
				_, err := do(t.Context(), tr, "GET", aPool, "")
				if !errors.As(err, &retryAt) || time.Until(retryAt.At) > minLoginWait {
					t.Errorf("after a success: %v, want to be let try again within %v", err, minLoginWait)
				}
			})
		})
	}
}

func TestWrongPasswordIsNotTriedOnTheOtherManagers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{password: "right", configured: "wrong"}
		tr, network := newTransport(t, Options{Authentication: Session, Credentials: k.read, Managers: []string{"https://a.example", "https://b.example"}}, k.answer)
		_, _ = do(t.Context(), tr, "GET", aPool, "")
		tr.managers.failed(tr.managers.all[0])
		_, _ = do(t.Context(), tr, "GET", aPool, "")
		if n := len(network.all()); n != 1 {
			t.Errorf("%d log-ins, want 1", n)
		}
	})
}

func TestBasicTakesUpARotatedPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{password: "old", configured: "old"}
		tr, network := newTransport(t, Options{Credentials: k.read}, k.answer)
		for i, change := range []func(){func() {}, func() {}, func() { k.password, k.configured = "new", "new" }, func() {}} {
			k.change(change)
			if _, err := do(t.Context(), tr, "POST", fmt.Sprint("/", i), "{}"); err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
		if diff := cmp.Diff([]string{"POST /0", "POST /1", "POST /2", "POST /2", "POST /3"}, paths(network)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if k.reads != 2 {
			t.Errorf("credentials were read %d times, want 2", k.reads)
		}
	})
}

// TestLogInsRefusedAtOnce has the log-ins at several managers refused at the same time, which is one reason to wait.
func TestLogInsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{password: "right", configured: "wrong", roundTrip: time.Millisecond}
		tr, network := newTransport(t, Options{Authentication: Session, Credentials: k.read, Managers: []string{"https://a.example", "https://b.example"}}, k.answer)
		var wg sync.WaitGroup
		for _, m := range tr.managers.all {
			wg.Go(func() {
				req := request(t.Context(), "GET", aPool, "")
				_, failed := tr.auth.authorize(t.Context(), m, req)
				var retryAt *nsx.RetryAt
				if failed == nil || !errors.As(failed.err, &retryAt) || time.Until(retryAt.At) != minLoginWait {
					t.Errorf("got %v, want to be let try again after %v", failed, minLoginWait)
				}
			})
		}
		wg.Wait()
		if n := len(network.all()); n != 2 {
			t.Errorf("%d log-ins, want 2", n)
		}
	})
}

// TestBasicProbesAlone sends many calls at once with a password that is not proven: one goes ahead.
func TestBasicProbesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hold{make(chan struct{})}
		tr, network := newTransport(t, Options{}, h.answer)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := len(network.all()); n != 1 {
			t.Errorf("%d calls with a password that is not proven, want 1", n)
		}
		h.letGo <- struct{}{}
		synctest.Wait()
		if n := len(network.all()); n != 10 {
			t.Errorf("%d calls with a proven password, want 10", n)
		}
		close(h.letGo)
		wg.Wait()
	})
}

func TestCredentialsThatCannotBeRead(t *testing.T) {
	for _, authentication := range []Authentication{Session, Basic} {
		t.Run(string(authentication), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &keeper{password: "x"}
				tr, network := newTransport(t, Options{Authentication: authentication, Credentials: k.read}, k.answer)
				_, err := do(t.Context(), tr, "GET", aPool, "")
				if kinds(err) != "unauthorized" || !strings.Contains(err.Error(), "no such Secret") || len(network.all()) != 0 {
					t.Errorf("got %v after %d requests, want unauthorized with the cause after none", err, len(network.all()))
				}
				k.change(func() { k.configured = "x" })
				if _, err := do(t.Context(), tr, "GET", aPool, ""); err != nil {
					t.Errorf("once they can be read: %v", err)
				}
			})
		})
	}
}

// TestLogInFails shows that a log-in's own failures are not the call's: the call was not sent, so even a POST is tried
// again.
func TestLogInFails(t *testing.T) {
	for name, tt := range map[string]struct {
		logIn answerFunc
		want  string
	}{
		"lost":       {answerLost, "5 ok"},
		"503":        {status(503, ""), "5 ok"},
		"500":        {status(500, ""), "5 ok"},
		"throttled":  {nsxError(429, 102), "5 ok"},
		"no session": {status(200, ""), "1 unauthorized"},
		"times out":  {hangs, "5 ok"},
		"redirect":   {status(302, "", "Location", "/login"), "5 ok"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &keeper{password: "x", configured: "x"}
				logIns := 0
				tr, network := newTransport(t, Options{Authentication: Session, Credentials: k.read}, func(n int, req *http.Request) (*http.Response, error) {
					if req.URL.Path == "/api/session/create" {
						if logIns++; logIns < maxTries {
							return tt.logIn(req)
						}
					}
					return k.answer(n, req)
				})
				_, err := do(t.Context(), tr, "POST", aPool, "")
				if got := fmt.Sprintf("%d %s", len(network.all()), kinds(err)); got != tt.want {
					t.Errorf("got %q, want %q: %v", got, tt.want, err)
				}
			})
		})
	}
}

// TestLogInFailsForGood shows that what an answer means for the log-in, it does not mean for the call: nothing was done,
// and nothing is known of the object.
func TestLogInFailsForGood(t *testing.T) {
	for name, tt := range map[string]struct {
		logIn answerFunc
		want  string
	}{
		"no connection":    {dialFails, "4 unavailable"},
		"lost":             {answerLost, "4 unavailable"},
		"503":              {status(503, ""), "4 unavailable"},
		"500":              {status(500, ""), "4 unavailable"},
		"404":              {status(404, ""), "4 unavailable"},
		"400":              {nsxError(400, 1), "4 unavailable"},
		"redirect":         {status(302, "", "Location", "/login"), "4 unavailable"},
		"throttled":        {nsxError(429, 102), "4 throttled"},
		"refused":          {nsxError(403, 403), "1 unauthorized"},
		"refused, no code": {status(403, "<html>"), "1 unauthorized"},
	} {
		for _, method := range []string{"DELETE", "POST"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tr, network := newTransport(t, Options{Authentication: Session}, always(tt.logIn))
					_, err := do(t.Context(), tr, method, aPool, "")
					if got := fmt.Sprintf("%d %s", len(network.all()), kinds(err)); got != tt.want {
						t.Errorf("got %q, want %q: %v", got, tt.want, err)
					}
				})
			})
		}
	}
}

func TestLogInIsCancelledWithItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, authentication := range []Authentication{Session, Basic} {
			k := &keeper{password: "x", configured: "x"}
			tr, _ := newTransport(t, Options{Authentication: authentication, Credentials: k.read}, func(n int, req *http.Request) (*http.Response, error) {
				if n == 1 {
					return hangs(req)
				}
				return k.answer(n, req)
			})
			first, cancelFirst := context.WithCancel(t.Context())
			second, cancelSecond := context.WithCancel(t.Context())
			errs := make(chan error, 3)
			for _, ctx := range []context.Context{first, second, t.Context()} {
				go func() { _, err := do(ctx, tr, "GET", aPool, ""); errs <- err }()
				synctest.Wait()
			}
			cancelSecond()
			if err := <-errs; kinds(err) != "unavailable+canceled" {
				t.Errorf("%s: waiting for another call's log-in: %v", authentication, err)
			}
			cancelFirst()
			got := []string{kinds(<-errs), kinds(<-errs)}
			slices.Sort(got)
			if diff := cmp.Diff([]string{"ok", "unavailable+canceled"}, got); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", authentication, diff)
			}
			synctest.Wait()
		}
	})
}

func TestCredentialsDoNotPrint(t *testing.T) {
	c := Credentials{"admin", "secret"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(verb, c); strings.Contains(s, "secret") || !strings.Contains(s, "admin") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}
