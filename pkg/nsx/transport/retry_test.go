package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

type answerFunc = func(*http.Request) (*http.Response, error)

// TestTriesAndErrors is the table of what happens to a call by what the network does to it: how often it is sent, and
// what its caller is told. A script's last answer is repeated.
func TestTriesAndErrors(t *testing.T) {
	ok := status(200, "{}")
	tests := []struct {
		name   string
		script []answerFunc
		// "tries outcome"; del is put and put is get when empty.
		get, put, del, post string
	}{
		{name: "success", script: []answerFunc{ok}, get: "1 ok", post: "1 ok"},
		{name: "created", script: []answerFunc{status(201, "{}")}, get: "1 ok", post: "1 ok"},

		{name: "no connection", script: []answerFunc{dialFails}, get: "4 unavailable", post: "4 unavailable"},
		{name: "no connection at first", script: []answerFunc{dialFails, dialFails, ok}, get: "3 ok", post: "3 ok"},
		{name: "no connection in time", script: []answerFunc{hangsDialling}, get: "4 unavailable", post: "4 unavailable"},
		{name: "answer lost", script: []answerFunc{answerLost}, get: "4 unavailable", put: "4 ambiguous", post: "1 ambiguous"},
		{name: "answer lost at first", script: []answerFunc{answerLost, answerLost, answerLost, ok}, get: "4 ok", post: "1 ambiguous"},
		{name: "answer breaks off", script: []answerFunc{answerBreaksOff, ok}, get: "2 ok", post: "1 ambiguous"},
		{name: "no answer in time", script: []answerFunc{hangs}, get: "4 unavailable", put: "4 ambiguous", post: "1 ambiguous"},
		{name: "stale connection, then none", script: []answerFunc{staleThenNone}, get: "4 unavailable", post: "4 unavailable"},
		{name: "no connection, then lost", script: []answerFunc{dialFails, answerLost, dialFails}, get: "4 unavailable", put: "4 ambiguous", post: "2 ambiguous"},

		{name: "502", script: []answerFunc{status(502, "<html>")}, get: "4 unavailable", put: "4 ambiguous", post: "1 ambiguous"},
		{name: "503", script: []answerFunc{status(503, "<html>"), ok}, get: "2 ok", post: "1 ambiguous"},
		{name: "504", script: []answerFunc{status(504, ""), ok}, get: "2 ok", post: "1 ambiguous"},
		{name: "500 reconfiguring", script: []answerFunc{nsxError(500, 607), ok}, get: "2 ok", post: "1 ambiguous"},
		{name: "500", script: []answerFunc{nsxError(500, 100)}, get: "1 unavailable", put: "1 ambiguous", post: "1 ambiguous"},
		{name: "501", script: []answerFunc{status(501, "")}, get: "1 unavailable", put: "1 ambiguous", post: "1 ambiguous"},
		{name: "500 certificate", script: []answerFunc{nsxError(500, 99)}, get: "1 unauthorized", post: "1 unauthorized"},

		{name: "429", script: []answerFunc{nsxError(429, 102)}, get: "4 throttled", post: "4 throttled"},
		{name: "429 at first", script: []answerFunc{nsxError(429, 102), ok}, get: "2 ok", post: "2 ok"},
		{name: "503 too many at once", script: []answerFunc{nsxError(503, 98), ok}, get: "2 ok", post: "2 ok"},
		{name: "503 overloaded", script: []answerFunc{nsxError(503, 604), ok}, get: "2 ok", post: "2 ok"},
		{name: "503 code is a string", script: []answerFunc{status(503, `{"error_code":"604"}`), ok}, get: "2 ok", post: "2 ok"},
		{name: "503 Retry-After", script: []answerFunc{status(503, "", "Retry-After", "2"), ok}, get: "2 ok", post: "2 ok"},

		{name: "400", script: []answerFunc{nsxError(400, 255)}, get: "1 invalid", post: "1 invalid"},
		{name: "403 role", script: []answerFunc{nsxError(403, 289)}, get: "1 unauthorized", post: "1 unauthorized"},
		{name: "404", script: []answerFunc{nsxError(404, 600)}, get: "1 not-found", post: "1 not-found"},
		{name: "409 revision", script: []answerFunc{nsxError(409, 206)}, get: "1 stale", post: "1 stale"},
		{name: "409", script: []answerFunc{nsxError(409, 1)}, get: "1 invalid", post: "1 invalid"},
		{name: "412", script: []answerFunc{nsxError(412, 206)}, get: "1 stale", post: "1 stale"},
		{name: "302", script: []answerFunc{status(302, "", "Location", "https://elsewhere.example/")}, get: "1 unavailable", post: "1 unavailable"},

		{name: "lost, then 412", script: []answerFunc{answerLost, nsxError(412, 206)}, get: "2 stale", put: "2 stale+ambiguous", post: "1 ambiguous"},
		{name: "503, then 404", script: []answerFunc{status(503, ""), nsxError(404, 600)}, get: "2 not-found", put: "2 not-found+ambiguous", post: "1 ambiguous"},
		{name: "lost, then 400", script: []answerFunc{answerLost, nsxError(400, 255)}, get: "2 invalid", put: "2 invalid+ambiguous", post: "1 ambiguous"},
		{name: "lost, then 500", script: []answerFunc{answerLost, nsxError(500, 100)}, get: "2 unavailable", put: "2 ambiguous", post: "1 ambiguous"},
		{name: "lost, then throttled", script: []answerFunc{answerLost, nsxError(429, 102)}, get: "4 throttled", put: "4 throttled+ambiguous", post: "1 ambiguous"},
		{name: "lost, then no connection", script: []answerFunc{answerLost, dialFails}, get: "4 unavailable", put: "4 ambiguous", post: "1 ambiguous"},
		{name: "throttled, then lost", script: []answerFunc{nsxError(429, 102), answerLost, ok}, get: "3 ok", post: "2 ambiguous"},
		{name: "no connection, then 412", script: []answerFunc{dialFails, nsxError(412, 206)}, get: "2 stale", post: "2 stale"},
	}
	for _, tt := range tests {
		put := firstOf(tt.put, tt.get)
		for method, want := range map[string]string{
			http.MethodGet: tt.get, http.MethodHead: tt.get, http.MethodPut: put, http.MethodDelete: firstOf(tt.del, put), http.MethodPost: tt.post,
		} {
			t.Run(tt.name+"/"+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					tr, network := newTransport(t, Options{}, func(n int, req *http.Request) (*http.Response, error) {
						return tt.script[min(n, len(tt.script))-1](req)
					})
					body := ""
					if method == http.MethodPut || method == http.MethodPost {
						body = `{"display_name":"x"}`
					}
					resp, err := tr.RoundTrip(request(t.Context(), method, aPool+"?action=x", body))
					if (resp == nil) == (err == nil) {
						t.Errorf("RoundTrip = %v, %v, want exactly one", resp, err)
					}
					err = Check(resp, err)
					sent := network.all()
					if got := fmt.Sprintf("%d %s", len(sent), kinds(err)); got != want {
						t.Errorf("got %q, want %q; error: %v", got, want, err)
					}
					for i, s := range sent {
						if s.body != body || s.method != method || s.path != aPool {
							t.Errorf("try %d sent %s %s %q, want the same each time", i+1, s.method, s.path, s.body)
						}
					}
				})
			})
		}
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// TestOutcomeIsNeverMisreported sends calls of all methods through networks that fail at random, before or after the
// manager has done the call, and compares what the caller is told with what the manager did.
func TestOutcomeIsNeverMisreported(t *testing.T) {
	type effect struct {
		answer answerFunc
		// does says whether the manager does the call before this answer, mayHave whether it may have for all we can see.
		does, mayHave bool
	}
	effects := map[string]effect{
		"ok":            {status(200, "{}"), true, true},
		"lost undone":   {answerLost, false, true},
		"lost done":     {answerLost, true, true},
		"breaks off":    {answerBreaksOff, true, true},
		"502 done":      {status(502, ""), true, true},
		"503 undone":    {status(503, ""), false, true},
		"500 done":      {nsxError(500, 1), true, true},
		"607 done":      {nsxError(500, 607), true, true},
		"timeout done":  {hangs, true, true},
		"no connection": {dialFails, false, false},
		"429":           {nsxError(429, 102), false, false},
		"503 throttled": {nsxError(503, 98), false, false},
		"401":           {nsxError(401, 403), false, false},
		"403 xsrf":      {nsxError(403, 98), false, false},
		"412":           {nsxError(412, 206), false, false},
		"404":           {nsxError(404, 600), false, false},
		"400":           {nsxError(400, 255), false, false},
		"302":           {status(302, ""), false, false},
	}
	names := slices.Sorted(maps.Keys(effects)) // in the same order each time, for rapid
	// play sends one call and returns what is wrong with the result.
	play := func(t *testing.T, method string, script []string) (wrong []string) {
		complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
		done, unknown := 0, 0
		tr, network := newTransport(t, Options{Managers: []string{"https://a.example", "https://b.example"}}, func(n int, req *http.Request) (*http.Response, error) {
			if method == "POST" && unknown > 0 {
				complain("a POST was sent again after %v", script[:n-1])
			}
			e := effects[script[min(n, len(script))-1]]
			if e.does {
				done++
			}
			if e.does || e.mayHave {
				unknown++
			}
			return e.answer(req)
		})
		_, err := do(t.Context(), tr, method, aPool, "")
		if err == nil && done == 0 {
			complain("success, but it was not done")
		}
		if err != nil && !errors.Is(err, nsx.ErrAmbiguous) && method != "GET" && done > 0 {
			complain("it was done, but the caller is told %v", err)
		}
		if errors.Is(err, nsx.ErrAmbiguous) && (method == "GET" || unknown == 0) {
			complain("nothing is unknown, but the caller is told %v", err)
		}
		if n := len(network.all()); n > maxTries {
			complain("sent %d times", n)
		}
		return wrong
	}
	rapid.Check(t, func(rt *rapid.T) {
		method := rapid.SampledFrom([]string{"GET", "PUT", "DELETE", "POST"}).Draw(rt, "method")
		script := rapid.SliceOfN(rapid.SampledFrom(names), maxTries, maxTries).Draw(rt, "script")
		var wrong []string
		synctest.Test(t, func(t *testing.T) { wrong = play(t, method, script) })
		for _, w := range wrong {
			rt.Error(w)
		}
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, network := newTransport(t, Options{Rand: func() float64 { return 0.5 }}, always(dialFails))
		_, _ = do(t.Context(), tr, "GET", aPool, "")
		var gaps []time.Duration
		sent := network.all()
		for i := 1; i < len(sent); i++ {
			gaps = append(gaps, sent[i].at.Sub(sent[i-1].at))
		}
		// Three quarters of 250 ms, 500 ms and 1 s.
		want := []time.Duration{187500 * time.Microsecond, 375 * time.Millisecond, 750 * time.Millisecond}
		if fmt.Sprint(gaps) != fmt.Sprint(want) {
			t.Errorf("waited %v between tries, want %v", gaps, want)
		}
	})
}

func TestThrottledCallHoldsBackAll(t *testing.T) {
	tests := []struct {
		name   string
		header func(now time.Time) []string
		want   time.Duration
	}{
		{"seconds", func(time.Time) []string { return []string{"Retry-After", "7"} }, 7 * time.Second},
		{"date", func(now time.Time) []string {
			return []string{"Retry-After", now.Add(9 * time.Second).UTC().Format(http.TimeFormat)}
		}, 9 * time.Second},
		{"none", func(time.Time) []string { return nil }, time.Second},
		{"nonsense", func(time.Time) []string { return []string{"Retry-After", "soon"} }, time.Second},
		{"negative", func(time.Time) []string { return []string{"Retry-After", "-5"} }, time.Second},
		{"a mistake", func(time.Time) []string { return []string{"Retry-After", "864000"} }, maxPause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				tr, network := newTransport(t, Options{}, func(n int, req *http.Request) (*http.Response, error) {
					if n == 1 {
						return nsxError(429, 102, tt.header(start)...)(req)
					}
					return status(200, "{}")(req)
				})
				errs := make(chan error)
				go func() { _, err := do(t.Context(), tr, "POST", aPool, "{}"); errs <- err }()
				synctest.Wait()
				go func() { _, err := do(t.Context(), tr, "GET", aPool, ""); errs <- err }()
				for range 2 {
					if err := <-errs; err != nil {
						t.Error(err)
					}
				}
				for i, s := range network.all()[1:] {
					if got := s.at.Sub(start); got < tt.want || got > tt.want+time.Millisecond {
						t.Errorf("request %d went out after %v, want %v", i+2, got, tt.want)
					}
				}
			})
		})
	}
}

func TestRetryAfterReachesTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _ := newTransport(t, Options{}, always(func(req *http.Request) (*http.Response, error) {
			return nsxError(429, 102, "Retry-After", time.Now().Add(30*time.Second).UTC().Format(http.TimeFormat))(req)
		}))
		_, err := do(t.Context(), tr, "GET", aPool, "")
		var answer *nsx.APIError
		if !errors.As(err, &answer) || answer.RetryAfter != 30*time.Second {
			t.Errorf("got %#v, want RetryAfter 30s", answer)
		}
	})
}

func TestContextEnds(t *testing.T) {
	tests := []struct {
		name   string
		answer answerFunc
		get    string
		post   string
	}{
		{"in flight", hangs, "1 unavailable+canceled", "1 ambiguous+canceled"},
		{"dialling", hangsDialling, "1 unavailable+canceled", "1 unavailable+canceled"},
		{"before the next try", dialFails, "1 unavailable+canceled", "1 unavailable+canceled"},
		{"while throttled", nsxError(429, 102, "Retry-After", "30"), "1 throttled+unavailable+canceled", "1 throttled+unavailable+canceled"},
	}
	for _, tt := range tests {
		for method, want := range map[string]string{"GET": tt.get, "POST": tt.post} {
			t.Run(tt.name+"/"+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					tr, network := newTransport(t, Options{}, always(tt.answer))
					done := make(chan error)
					go func() { _, err := do(ctx, tr, method, aPool, ""); done <- err }()
					synctest.Wait()
					start := time.Now()
					cancel()
					err := <-done
					if got := fmt.Sprintf("%d %s", len(network.all()), kinds(err)); got != want {
						t.Errorf("got %q, want %q; error: %v", got, want, err)
					}
					if since := time.Since(start); since > 0 {
						t.Errorf("returned after %v", since)
					}
					// The place is free again, and the manager is not blamed.
					if until := tr.managers.all[0].avoided(); tt.name == "in flight" && !until.IsZero() {
						t.Errorf("the manager is avoided until %v", until)
					}
					if n := tr.queue.inFlight(); n != 0 {
						t.Errorf("%d places still taken", n)
					}
				})
			})
		}
	}
}

func TestContextHasEndedAlready(t *testing.T) {
	tr, network := newTransport(t, Options{}, always(status(200, "{}")))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the Service is gone"))
	_, err := do(ctx, tr, "PUT", aPool, "{}")
	if kinds(err) != "unavailable" || !strings.Contains(err.Error(), "the Service is gone") || len(network.all()) != 0 {
		t.Errorf("got %v after %d requests, want unavailable, with the cause, after none", err, len(network.all()))
	}
}

func TestRequestIsLeftAlone(t *testing.T) {
	tr, network := newTransport(t, Options{UserAgent: "test/1"}, always(status(200, `{"id":"x"}`)))
	body := &closable{Reader: strings.NewReader("{}")}
	req := request(t.Context(), "PUT", aPool+"?force=true", "")
	req.Body = body
	req.Header.Set("X-Allow-Overwrite", "true")
	req.Header.Set("Authorization", "Basic Zm9v")
	req.Header.Set("Cookie", "JSESSIONID=foreign")
	before := req.Header.Clone()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(resp.Body); string(got) != `{"id":"x"}` || resp.ContentLength != int64(len(got)) {
		t.Errorf("body %q, length %d", got, resp.ContentLength)
	}
	if resp.Request != req {
		t.Error("the response names another request, which may hold credentials")
	}
	if !body.closed {
		t.Error("the body was not closed")
	}
	if req.URL.Host != "nsx" || fmt.Sprint(req.Header) != fmt.Sprint(before) {
		t.Errorf("the request was changed to %v %v", req.URL, req.Header)
	}
	h := network.all()[0].header
	if h.Get("X-Allow-Overwrite") != "true" || h.Get("User-Agent") != "test/1" || h.Get("Cookie") != "" || h.Get("Authorization") == "Basic Zm9v" {
		t.Errorf("sent with %v", h)
	}
}

func TestBodyThatCannotBeRead(t *testing.T) {
	tr, network := newTransport(t, Options{}, always(status(200, "{}")))
	req := request(t.Context(), "PUT", aPool, "")
	req.Body = io.NopCloser(failingReader{})
	if _, err := tr.RoundTrip(req); !errors.Is(err, errNetwork) || len(network.all()) != 0 {
		t.Errorf("got %v after %d requests, want the reader's error before any", err, len(network.all()))
	}
}

func TestAnswerTooLarge(t *testing.T) {
	tr, _ := newTransport(t, Options{}, always(func(req *http.Request) (*http.Response, error) {
		resp, err := status(200, "")(req)
		resp.Body = io.NopCloser(io.LimitReader(zeros{}, maxBody+1))
		return resp, err
	}))
	if _, err := do(t.Context(), tr, "GET", aPool, ""); kinds(err) != "unavailable" {
		t.Errorf("got %v, want unavailable", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

type closable struct {
	io.Reader
	closed bool
}

func (c *closable) Close() error { c.closed = true; return nil }
