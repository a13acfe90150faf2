package nsxsim_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

// statuses sends n times the same request and gives what came back.
func (r *rig) statuses(n int, method, path string, body any) string {
	r.t.Helper()
	var got []string
	for range n {
		got = append(got, fmt.Sprint(r.do(method, path, body).status))
	}
	return strings.Join(got, " ")
}

func (r *rig) fault(rules ...nsxsim.Rule) {
	r.t.Helper()
	if _, err := r.Faults().Add(rules...); err != nil {
		r.t.Fatal(err)
	}
}

func TestWhichRequestsAFaultStrikes(t *testing.T) {
	for _, c := range []struct {
		name string
		rule nsxsim.Rule
		want string // statuses of: GET pools, GET monitors, POST pools x, POST ip-pools ALLOCATE, GET pools by other
	}{
		{"all", nsxsim.Rule{}, "500 500 500 500 500"},
		{"method", nsxsim.Rule{Method: "GET"}, "500 500 201 200 500"},
		{"methods", nsxsim.Rule{Method: "POST,PUT"}, "200 200 500 500 200"},
		{"path", nsxsim.Rule{Path: "/loadbalancer/pools"}, "500 200 500 200 500"},
		{"path with a star", nsxsim.Rule{Path: "/loadbalancer/*"}, "500 500 500 200 500"},
		{"a star stays in its segment", nsxsim.Rule{Path: "/*"}, "200 200 201 200 200"},
		{"path with two stars", nsxsim.Rule{Path: "/**"}, "500 500 500 500 500"},
		{"path by regexp", nsxsim.Rule{PathRegexp: "^/api/v1/.*/pools$"}, "500 200 500 200 500"},
		{"action", nsxsim.Rule{Action: "ALLOCATE"}, "200 200 201 500 200"},
		{"user", nsxsim.Rule{User: "other"}, "200 200 201 200 500"},
		{"users by a pattern", nsxsim.Rule{User: "*th*"}, "200 200 201 200 500"},
		{"body", nsxsim.Rule{Body: `"needle"`}, "200 200 500 200 200"},
		{"all of them", nsxsim.Rule{Method: "POST", Body: "needle", Path: "/loadbalancer/monitors"}, "200 200 201 200 200"},
		{"second", nsxsim.Rule{Nth: 2}, "200 500 201 200 200"},
		{"every second", nsxsim.Rule{Every: 2}, "200 500 201 500 200"},
		{"three times", nsxsim.Rule{Times: 3}, "500 500 500 200 200"},
		{"the n-th of those that match", nsxsim.Rule{Method: "POST", Nth: 2}, "200 200 201 500 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newIPRig(t, nsxsim.Options{})
			c.rule.Status = 500
			r.fault(c.rule)
			got := []string{
				r.statuses(1, "GET", pools, nil), r.statuses(1, "GET", monitors, nil),
				r.statuses(1, "POST", pools, doc{"display_name": "needle"}), fmt.Sprint(r.allocate("").status),
				r.as("other").statuses(1, "GET", pools, nil),
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestProbabilityIsSeeded(t *testing.T) {
	run := func(seed uint64) string {
		r := newRig(t, nsxsim.Options{Seed: seed})
		r.fault(nsxsim.Rule{Probability: 0.5, Status: 500})
		return r.statuses(40, "GET", pools, nil)
	}
	first, second := run(1), run(1)
	if first != second {
		t.Error("the same seed gives different faults")
	}
	if got := first; !strings.Contains(got, "500") || !strings.Contains(got, "200") {
		t.Errorf("a probability of a half strikes all or none: %s", got)
	}
}

func TestWhatAFaultAnswers(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	r.fault(
		nsxsim.Rule{Nth: 1, Status: 429, Code: 102, Text: "slow down", RetryAfter: 3},
		nsxsim.Rule{Nth: 2, Status: 502, RawBody: `{"proxy":true}`},
	)
	a := r.do("GET", pools, nil)
	if a.status != 429 || a.code() != "102" || a.message() != "slow down" || a.header.Get("Retry-After") != "3" {
		t.Errorf("%d %v %s", a.status, a.header, a.raw)
	}
	if a := r.do("GET", pools, nil); a.status != 502 || a.raw != `{"proxy":true}` {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

func TestFaultsBeforeAndAfterTheCommit(t *testing.T) {
	for _, c := range []struct {
		when nsxsim.Phase
		done int
	}{{nsxsim.BeforeCommit, 0}, {nsxsim.AfterCommit, 1}} {
		r := newRig(t, nsxsim.Options{})
		hooked := -1
		r.fault(nsxsim.Rule{Method: "POST", When: c.when, Status: 504, Hook: func(req *http.Request) {
			body, err := io.ReadAll(req.Body)
			if err != nil || string(body) != `{"display_name":"p"}` || req.Method != "POST" {
				t.Errorf("the hook is given %s %q, %v", req.Method, body, err)
			}
			hooked = len(r.List(nsxsim.KindPool)) // no lock is held: the hook may look
		}})
		if a := r.do("POST", pools, doc{"display_name": "p"}); a.status != 504 {
			t.Errorf("%q: %d, want 504", c.when, a.status)
		}
		if got := len(r.List(nsxsim.KindPool)); hooked != c.done || got != c.done {
			t.Errorf("%q: the hook sees %d pools and %d are left, want %d", c.when, hooked, got, c.done)
		}
	}
}

func TestDroppedConnections(t *testing.T) {
	for _, c := range []struct {
		when nsxsim.Phase
		done int
	}{{nsxsim.BeforeCommit, 0}, {nsxsim.AfterCommit, 1}} {
		srv := nsxsim.Start(t, nsxsim.Options{})
		client := srv.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
		t.Cleanup(client.CloseIdleConnections)
		if _, err := srv.Faults().Add(nsxsim.Rule{Name: "lost", Method: "POST", When: c.when, Drop: true}); err != nil {
			t.Fatal(err)
		}
		resp, err := client.Post(srv.URL+"/api/v1"+pools, "application/json", strings.NewReader("{}"))
		if err == nil {
			t.Errorf("%q: answered with %s", c.when, resp.Status)
			resp.Body.Close()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%q: %v, want an end of the connection", c.when, err)
		}
		if got := len(srv.List(nsxsim.KindPool)); got != c.done {
			t.Errorf("%q: %d pools, want %d", c.when, got, c.done)
		}
		entries := srv.Journal().Entries()
		if len(entries) != 1 || entries[0].Status != 0 || entries[0].Fault != "lost" {
			t.Errorf("%q: journal %+v, want one entry without a status", c.when, entries)
		}
	}
}

func TestHalfAnAnswer(t *testing.T) {
	for _, c := range []struct {
		rule nsxsim.Rule
		done int
	}{
		{nsxsim.Rule{Method: "POST", Half: true, When: nsxsim.AfterCommit}, 1},
		{nsxsim.Rule{Method: "POST", Half: true, Status: 200, RawBody: `{"resource_type":"LbPool"}`}, 0},
	} {
		srv := nsxsim.Start(t, nsxsim.Options{})
		client := srv.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
		t.Cleanup(client.CloseIdleConnections)
		if _, err := srv.Faults().Add(c.rule); err != nil {
			t.Fatal(err)
		}
		resp, err := client.Post(srv.URL+"/api/v1"+pools, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !errors.Is(err, io.ErrUnexpectedEOF) || int64(len(body)) != resp.ContentLength/2 || resp.StatusCode/100 != 2 {
			t.Errorf("%d, %d bytes of %d, %v", resp.StatusCode, len(body), resp.ContentLength, err)
		}
		if got := len(srv.List(nsxsim.KindPool)); got != c.done {
			t.Errorf("%d pools, want %d", got, c.done)
		}
	}
}

func TestResets(t *testing.T) {
	for _, start := range []func(nsxsim.TB, nsxsim.Options) *nsxsim.Server{nsxsim.Start, nsxsim.StartPlain} {
		srv := start(t, nsxsim.Options{})
		client := srv.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
		t.Cleanup(client.CloseIdleConnections)
		if _, err := srv.Faults().Add(nsxsim.Rule{Method: "POST", When: nsxsim.AfterCommit, Reset: true}); err != nil {
			t.Fatal(err)
		}
		resp, err := client.Post(srv.URL+"/api/v1"+pools, "application/json", strings.NewReader("{}"))
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", srv.URL, err)
		}
		if got := len(srv.List(nsxsim.KindPool)); got != 1 {
			t.Errorf("%d pools, want 1", got)
		}
		if e := srv.Journal().Entries(); len(e) != 1 || e[0].Status != 0 {
			t.Errorf("journal %+v", e)
		}
	}
}

func TestDelaysAreOnTheClock(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(0, 0))
	r := newRig(t, nsxsim.Options{Clock: clock})
	r.fault(nsxsim.Rule{Method: "POST", Delay: nsxsim.Duration(time.Hour)})
	done := make(chan answer)
	go func() { done <- r.do("POST", pools, doc{}) }()
	waitFor(t, clock.HasWaiters)
	if n := len(r.List(nsxsim.KindPool)); n != 0 {
		t.Errorf("%d pools before the delay is over", n)
	}
	clock.Step(time.Hour)
	if a := <-done; a.status != 201 {
		t.Errorf("after the delay: %d", a.status)
	}
	if d := r.Journal().Entries()[0].Duration; d != time.Hour {
		t.Errorf("the journal tells of %s, want 1h", d)
	}
}

func TestPauseHoldsRequests(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	r.Faults().Pause()
	done := make(chan answer)
	go func() { done <- r.do("GET", pools, nil) }()
	select {
	case a := <-done:
		t.Fatalf("answered while paused: %d", a.status)
	case <-time.After(20 * time.Millisecond):
	}
	r.Faults().Resume()
	if a := <-done; a.status != 200 {
		t.Errorf("after the pause: %d", a.status)
	}
	r.ok("GET", pools, nil)
}

func TestFaultsCanBeTakenAway(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	remove, err := r.Faults().Add(nsxsim.Rule{Status: 500})
	if err != nil {
		t.Fatal(err)
	}
	r.fault(nsxsim.Rule{Method: "POST", Status: 503})
	remove()
	if got := r.statuses(1, "GET", pools, nil) + r.statuses(1, "POST", pools, "{}"); got != "200503" {
		t.Errorf("with one rule of two removed: %s", got)
	}
	r.Faults().Clear()
	if got := r.statuses(1, "POST", pools, "{}"); got != "201" {
		t.Errorf("with none left: %s", got)
	}
}

func TestRulesFromYAML(t *testing.T) {
	rules, err := nsxsim.ParseRules([]byte(`
- name: busy
  method: PUT,POST
  path: /loadbalancer/**
  every: 3
  times: 2
  when: before
  status: 503
  code: 98
  retryAfter: 1
- pathRegexp: allocations$
  user: admin
  when: after
  delay: 1500ms
  drop: true
  probability: 0.25
`))
	want := []nsxsim.Rule{
		{Name: "busy", Method: "PUT,POST", Path: "/loadbalancer/**", Every: 3, Times: 2, Status: 503, Code: 98, RetryAfter: 1},
		{PathRegexp: "allocations$", User: "admin", When: nsxsim.AfterCommit, Delay: nsxsim.Duration(1500 * time.Millisecond), Drop: true, Probability: 0.25},
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, rules); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for text, part := range map[string]string{
		"- {}":                             "does nothing",
		"- {status: 99}":                   "status",
		"- {status: 500, drop: true}":      "exclude",
		"- {status: 500, when: never}":     "when",
		"- {status: 500, pathRegexp: '('}": "fault rule 1",
		"- {status: 500, probability: 2}":  "probability",
		"- {status: 500, nth: -1}":         "negative",
		"- {status: 500, methd: GET}":      "methd",
		"- {delay: 5}":                     "duration",
		"- {status: 500, path: pools}":     "path",
		"- {half: true}":                   "before the commit",
		"- {half: true, drop: true}":       "exclude",
		"- {status: 500, reset: true}":     "exclude",
		"status: 500":                      "reading fault rules",
	} {
		if _, err := nsxsim.ParseRules([]byte(text)); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v, want an error about %q", text, err, part)
		}
	}
}

// patience is how long a test waits for what must happen. Where it happens, nothing takes long, but for a machine that is
// busy with something else.
const patience = 30 * time.Second

// waitFor polls a condition that another goroutine brings about.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("it does not come about")
		}
		time.Sleep(time.Millisecond)
	}
}
