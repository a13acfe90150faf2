package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/server/mux"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/cloud"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// fakeProvider answers what the paths ask for.
type fakeProvider struct {
	nsx   error
	modes []config.AuditMode
	audit func(ctx context.Context) (lb.AuditReport, error)
}

func (p *fakeProvider) Readiness() []cloud.Check {
	return []cloud.Check{{Name: "nsx", Fails: func() error { return p.nsx }}, {Name: "nodes", Fails: func() error { return nil }}}
}

func (p *fakeProvider) Audit(ctx context.Context, mode config.AuditMode) (lb.AuditReport, error) {
	p.modes = append(p.modes, mode)
	return p.audit(ctx)
}

func TestPaths(t *testing.T) {
	framework := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "framework ", r.Method, " ", r.URL) })
	down := errors.New("no call has been answered since noon")
	report := lb.AuditReport{
		Mode: config.AuditModeReport, Started: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Duration: 1500*time.Millisecond + 7*time.Nanosecond,
		Entries: []lb.AuditEntry{{
			Finding: nsx.Finding{Kind: nsx.KindPool, ID: "p", What: "port -81->30081", Edit: nsx.Edit{By: "somebody", At: time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC)}},
			Service: "default/web", Action: lb.ActionReport,
		}},
	}
	const found = `"mode":"Report","started":"2026-01-01T00:00:00Z","took":"1.5s","found":[{"action":"report","kind":"pool","id":"p",` +
		`"service":"default/web","what":"port -81->30081","lastModifiedBy":"somebody","lastModifiedAt":"2025-12-31T00:00:00Z"}]`
	for _, tc := range []struct {
		name, request string
		nsx, audit    error
		status        int
		body          string
	}{
		{"ready", "GET /readyz", nil, nil, 200, "ok"},
		{"ready, verbose", "GET /readyz?verbose", nil, nil, 200, "[+]nsx ok\n[+]nodes ok\nreadyz check passed\n"},
		{"not ready: the reason is not for everybody", "GET /readyz", down, nil, 500, "[-]nsx failed: reason withheld\n[+]nodes ok\nreadyz check failed\n"},
		{"not ready, but for that", "GET /readyz?exclude=nsx", down, nil, 200, "ok"},
		{"one check", "GET /readyz/nodes", down, nil, 200, "ok"},
		{"one check with its reason", "GET /readyz/nsx", down, nil, 500, "internal server error: no call has been answered since noon\n"},
		{"alive while NSX is down", "GET /livez?verbose", down, nil, 200, "framework GET /healthz?verbose"},
		{"the framework's health", "GET /healthz", nil, nil, 200, "framework GET /healthz"},
		{"the framework's metrics", "GET /metrics", nil, nil, 200, "framework GET /metrics"},
		{"the framework's flags", "PUT /debug/flags/v", nil, nil, 200, "framework PUT /debug/flags/v"},
		{"audit by GET", "GET /audit", nil, nil, 405, "POST to audit now\n"},
		{"audit of no mode", "POST /audit?mode=off", nil, nil, 400, "mode is Report or Repair, not \"off\"\n"},
		{"audit", "POST /audit?mode=Report", nil, nil, 200, "{" + found + "}"},
		{"audit that could not do all", "POST /audit", nil, errors.New("no room"), 500, "{" + found + `,"error":"no room"}`},
		{"audit by who is not the leader", "POST /audit", nil, lb.ErrNotLoaded, 503, lb.ErrNotLoaded.Error() + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &fakeProvider{nsx: tc.nsx, audit: func(context.Context) (lb.AuditReport, error) { return report, tc.audit }}
			m := mux.NewPathRecorderMux("test")
			paths(m, p, framework)
			method, url, _ := strings.Cut(tc.request, " ")
			w := httptest.NewRecorder()
			m.ServeHTTP(w, httptest.NewRequest(method, url, nil))
			body := w.Body.String()
			if strings.HasPrefix(body, "{") {
				var compact bytes.Buffer
				if err := json.Compact(&compact, []byte(body)); err != nil {
					t.Fatal(err)
				}
				body = compact.String()
			}
			if w.Code != tc.status {
				t.Errorf("status %d, want %d", w.Code, tc.status)
			}
			if d := cmp.Diff(tc.body, body); d != "" {
				t.Errorf("body (-want +got):\n%s", d)
			}
		})
	}
}

// TestAuditEndsWithItsCaller: an audit on demand does not go on for nobody.
func TestAuditEndsWithItsCaller(t *testing.T) {
	p := &fakeProvider{audit: func(ctx context.Context) (lb.AuditReport, error) { <-ctx.Done(); return lb.AuditReport{}, ctx.Err() }}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	audit(w, httptest.NewRequestWithContext(ctx, "POST", "/audit?mode=Repair", nil), p)
	if d := cmp.Diff([]config.AuditMode{config.AuditModeRepair}, p.modes); d != "" || w.Code != 500 {
		t.Errorf("status %d, modes (-want +got):\n%s", w.Code, d)
	}
}

// TestMemoryListener serves TLS on it, as the framework does, to several clients at once.
func TestMemoryListener(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l := newMemoryListener()
	s := &httptest.Server{Listener: l, Config: &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // what is missing shows in the answer
		_, _ = w.Write(b)
	})}}
	s.StartTLS()
	client := s.Client()
	tr := client.Transport.(*http.Transport).Clone()
	tr.DialContext, tr.MaxConnsPerHost = l.dial, 3
	tr.TLSClientConfig = tr.TLSClientConfig.Clone()
	tr.TLSClientConfig.ServerName = "example.com"
	client.Transport = tr
	answers := make(chan string)
	for i := range 10 {
		go func() {
			resp, err := client.Post("https://memory/", "text/plain", strings.NewReader(strings.Repeat("x", i*1000)))
			if err != nil {
				answers <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			answers <- fmt.Sprint(len(b) == i*1000, err)
		}()
	}
	for range 10 {
		if got := <-answers; got != "true <nil>" {
			t.Error(got)
		}
	}
	tr.CloseIdleConnections()
	s.Close()
	if _, err := l.dial(t.Context(), "", ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dialled a closed listener: %v", err)
	}
}
