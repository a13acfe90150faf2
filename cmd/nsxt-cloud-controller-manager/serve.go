package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/client-go/rest"
	appconfig "k8s.io/cloud-provider/app/config"
	genericapp "k8s.io/controller-manager/app"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/cloud"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
)

// The framework serves /healthz and /metrics on its secure port, and has no way to add a path. So our own server takes that
// port, with the same certificates, authentication and authorization; it serves /livez, /readyz and /audit, and passes all
// else on to the framework's, which listens in memory. The framework knows its own loopback client, so that nothing of what
// it allows is lost on the way.

// serve starts our server in front of the framework's, which is not started yet. Both end with stop.
func serve(c *appconfig.CompletedConfig, provider *cloud.Cloud, stop <-chan struct{}) error {
	if c.SecureServing == nil {
		return nil // --secure-port=0
	}
	front, behind := *c.SecureServing, newMemoryListener()
	c.SecureServing.Listener = behind

	loopback := rest.CopyConfig(c.LoopbackClientConfig)
	loopback.Dial = behind.dial
	framework, err := rest.TransportFor(loopback)
	if err != nil {
		return fmt.Errorf("serving in front of the framework: %w", err)
	}
	m := mux.NewPathRecorderMux("nsxt-cloud-controller-manager")
	paths(m, provider, &httputil.ReverseProxy{Transport: framework, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "https", behind.Addr().String()
		r.Out.Header.Del("Authorization") // who asks has been authorized; from here on it is the loopback client
	}})
	if _, _, err := front.Serve(genericapp.BuildHandlerChain(m, &c.Authorization, &c.Authentication), 0, stop); err != nil {
		return fmt.Errorf("serving in front of the framework: %w", err)
	}
	return nil
}

// provider is what our paths are about; *cloud.Cloud is one.
type provider interface {
	Readiness() []cloud.Check
	Audit(ctx context.Context, mode config.AuditMode) (lb.AuditReport, error)
}

// paths are what is served: ours, and the framework's for all others. /livez is the framework's /healthz.
func paths(m *mux.PathRecorderMux, p provider, framework http.Handler) {
	var ready []healthz.HealthChecker
	for _, c := range p.Readiness() {
		ready = append(ready, healthz.NamedCheck(c.Name, func(*http.Request) error { return c.Fails() }))
	}
	healthz.InstallReadyzHandler(m, ready...)
	m.HandleFunc("/livez", func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL.Path = "/healthz"
		framework.ServeHTTP(w, r)
	})
	m.HandleFunc("/audit", func(w http.ResponseWriter, r *http.Request) { audit(w, r, p) })
	m.NotFoundHandler(framework)
}

// audit serves POST /audit[?mode=Report|Repair]: it audits now, and answers with what was found and done.
func audit(w http.ResponseWriter, r *http.Request, p provider) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST to audit now", http.StatusMethodNotAllowed)
		return
	}
	mode := config.AuditMode(r.URL.Query().Get("mode"))
	switch mode {
	case "", config.AuditModeReport, config.AuditModeRepair:
	default:
		http.Error(w, fmt.Sprintf("mode is Report or Repair, not %q", mode), http.StatusBadRequest)
		return
	}
	report, err := p.Audit(r.Context(), mode)
	if errors.Is(err, lb.ErrNotLoaded) {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer := newAuditAnswer(report)
	status := http.StatusOK
	if err != nil {
		answer.Error, status = err.Error(), http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // people read "81->30081"
	_ = e.Encode(answer)   // who asked may be gone: nobody to tell
}

// auditAnswer is the body of an answer to POST /audit.
type auditAnswer struct {
	Mode    config.AuditMode `json:"mode"`
	Started time.Time        `json:"started"`
	Took    string           `json:"took"`
	Found   []auditFinding   `json:"found"`
	Error   string           `json:"error,omitempty"`
}

type auditFinding struct {
	Action  lb.AuditAction `json:"action"`
	Kind    string         `json:"kind"`
	ID      string         `json:"id,omitempty"`
	Service string         `json:"service,omitempty"`
	What    string         `json:"what"`
	By      string         `json:"lastModifiedBy,omitempty"`
	At      *time.Time     `json:"lastModifiedAt,omitempty"`
}

func newAuditAnswer(r lb.AuditReport) auditAnswer {
	a := auditAnswer{Mode: r.Mode, Started: r.Started.UTC().Truncate(time.Millisecond), Took: r.Duration.Round(time.Millisecond).String(), Found: []auditFinding{}}
	for _, e := range r.Entries {
		f := auditFinding{Action: e.Action, Kind: string(e.Kind), ID: e.ID, Service: e.Service, What: e.What, By: e.Edit.By}
		if e.Edit.By != "" {
			f.At = &e.Edit.At
		}
		a.Found = append(a.Found, f)
	}
	return a
}

// memoryListener is a net.Listener whose connections come from the same process.
type memoryListener struct {
	accepted chan net.Conn
	closed   chan struct{}
	close    func()
}

func newMemoryListener() *memoryListener {
	l := &memoryListener{accepted: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

// dial connects to whoever accepts.
func (l *memoryListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.accepted <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept implements net.Listener.
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *memoryListener) Close() error { l.close(); return nil }

// Addr implements net.Listener.
func (l *memoryListener) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "framework" }
