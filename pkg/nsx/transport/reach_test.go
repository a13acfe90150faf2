package transport

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestReach: which outcomes of calls, repeated for a minute after a success, mean that NSX is not reached.
func TestReach(t *testing.T) {
	for name, tc := range map[string]struct {
		answer  func(*http.Request) (*http.Response, error)
		reached bool
	}{
		"success":               {status(200, "{}"), true},
		"refused for good":      {nsxError(400, 255), true},
		"not found":             {nsxError(404, 600), true},
		"an internal error":     {nsxError(500, 100), true}, // for three minutes
		"throttled":             {nsxError(429, 102), true},
		"no connection":         {dialFails, false},
		"no answer":             {answerLost, false},
		"half an answer":        {answerBreaksOff, false},
		"unavailable":           {nsxError(503, 1), false},
		"a proxy without NSX":   {status(502, "Bad Gateway"), false},
		"refused credentials":   {nsxError(403, 403), false},
		"reconfiguring":         {nsxError(500, 607), false},
		"given up by its asker": {hangs, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, _ := newTransport(t, Options{Timeout: 5 * time.Second}, func(n int, req *http.Request) (*http.Response, error) {
					if n == 1 {
						return status(200, "{}")(req)
					}
					return tc.answer(req)
				})
				if tr.Reach().Check() == nil {
					t.Fatal("reached before there was any call")
				}
				_, _ = do(t.Context(), tr, "GET", aPool, "")
				if err := tr.Reach().Check(); err != nil {
					t.Fatal(err)
				}
				for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Second) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					_, _ = do(ctx, tr, "GET", aPool, "")
					cancel()
				}
				if err := tr.Reach().Check(); (err == nil) != tc.reached {
					t.Errorf("got %v, want reached %t", err, tc.reached)
				}
			})
		})
	}
}

// A closed gate shows, and looking at it changes nothing.
func TestWritesOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, _ := newTransport(t, Options{}, always(status(200, "{}")))
		if err := tr.WritesOpen(); err != nil {
			t.Fatal(err)
		}
		tr.CloseWrites()
		if kinds(tr.WritesOpen()) != "stopping" {
			t.Errorf("got %v", tr.WritesOpen())
		}
	})
}
