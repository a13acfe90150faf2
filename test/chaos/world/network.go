package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"regexp"
	"slices"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// link is the network between one process of a cluster's controller and NSX. Nothing passes once the process is dead.
type link struct{ p *process }

var (
	errDead        = errors.New("the process is dead")
	errClosed      = fmt.Errorf("the connection was closed: %w", io.EOF)
	errUnreachable = errors.New("connection refused")
)

// minLatency and maxLatency bound the time that a request takes to get to NSX.
const minLatency, maxLatency = 5 * time.Millisecond, 45 * time.Millisecond

// RoundTrip implements http.RoundTripper.
func (l link) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body) // it is in memory
		r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err // it is not sent, nor counted
	}
	if l.p.dead() {
		return nil, errDead // the same
	}
	trace := httptrace.ContextClientTrace(r.Context())
	if trace != nil && trace.GetConn != nil {
		trace.GetConn("nsx")
	}
	if err := l.pass(r.Context(), l.p.c.latency(r, body)); err != nil {
		return nil, err
	}
	fault := l.p.c.next(Call{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery})
	if fault != nil && fault.unreachable {
		l.p.c.say("%s %s: %s", r.Method, r.URL.Path, fault.Name)
		return nil, errUnreachable
	}
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{})
	}
	answers := make(chan answer, 1)
	l.p.c.w.serving.Go(func() { answers <- l.p.serve(r.Clone(r.Context()), body, fault) })
	select {
	case a := <-answers:
		if l.p.dead() {
			return nil, errDead
		}
		return a.response(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-l.p.killed:
		return nil, errDead
	}
}

// pass lets the time pass that a request takes.
func (l link) pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.p.killed:
	}
	if l.p.dead() {
		return errDead
	}
	return nil
}

// latency is the time that a request takes to get to NSX: another one for each, so that no two requests arrive at the same
// moment and their order does not depend on the scheduling of goroutines.
func (c *Cluster) latency(r *http.Request, body []byte) time.Duration {
	key := c.w.hash(c.Name, r.Method, r.URL.Path, r.URL.RawQuery, string(body))
	c.mu.Lock()
	c.sent[key]++
	n := c.sent[key]
	c.mu.Unlock()
	return minLatency + time.Duration(c.w.hash(fmt.Sprint(key), fmt.Sprint(n))%uint64(maxLatency-minLatency))
}

// answer is what came back: a recorder without a code when the connection was closed before.
type answer struct {
	*httptest.ResponseRecorder
	// cut: the connection was closed before the end.
	cut bool
}

func (a answer) response(r *http.Request) (*http.Response, error) {
	if a.cut && a.Body.Len() == 0 {
		return nil, errClosed
	}
	resp := a.Result()
	resp.Request = r
	if a.cut {
		resp.Body = io.NopCloser(io.MultiReader(a.Body, broken{}))
	}
	return resp, nil
}

// broken is the end of a body that broke off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// serve lets NSX do a request, with a fault if there is one.
func (p *process) serve(r *http.Request, body []byte, fault *Fault) (a answer) {
	w := p.c.w
	name := ""
	if fault != nil {
		name = fault.Name
		rule := fault.rule(p.die)
		rule.Name, rule.Method, rule.Times = name, r.Method, 1
		rule.PathRegexp = "^" + regexp.QuoteMeta(r.URL.Path) + "$"
		remove, err := w.Sim.Faults().Add(rule)
		if err != nil {
			panic(err) // a mistake in fault.go
		}
		defer remove()
	}
	w.watch.before(p.c, r, body)
	a.ResponseRecorder = httptest.NewRecorder()
	func() {
		defer func() {
			if e := recover(); e != nil {
				if e != http.ErrAbortHandler {
					panic(e)
				}
				a.cut = true
			}
		}()
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.Sim.ServeHTTP(a, r)
	}()
	outcome := w.outcome(r)
	shown := fmt.Sprint(a.Code)
	if a.cut {
		shown = "cut off"
	}
	if name != "" {
		name = fmt.Sprintf(" (%s, came to %d)", name, outcome)
	}
	if r.Method != http.MethodGet || name != "" {
		p.c.say("%s %s%s %s: %s%s", r.Method, r.URL.Path, query(r), addressIn(body), shown, name)
	}
	w.watch.after(p, r, body, outcome, a.cut || p.dead() || r.Context().Err() != nil || a.Code/100 != 2)
	return a
}

// outcome is what the journal says a request came to, which has just been served.
func (w *World) outcome(r *http.Request) int {
	entries := w.Sim.Journal().Entries()
	for _, e := range slices.Backward(entries) {
		if e.Method != r.Method || e.Path != r.URL.Path {
			continue
		}
		if w.o.Journal {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.journal = append(w.journal, e)
		}
		return e.Outcome
	}
	return 0
}

func query(r *http.Request) string {
	if r.URL.RawQuery == "" {
		return ""
	}
	return "?" + r.URL.RawQuery
}

// user is a cluster's account on NSX.
func userOf(cluster string) string { return "cluster-" + cluster }

const password = nsxsim.DefaultPassword
