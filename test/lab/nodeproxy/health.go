package nodeproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// httpServer answers health checks on one port.
type httpServer struct {
	listener net.Listener
	server   *http.Server
}

func (p *Proxy) serveHTTP(port uint16, handler http.Handler) (*httpServer, error) {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.config.Address, port)))
	if err != nil {
		return nil, err
	}
	s := &httpServer{l, &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}}
	p.running.Go(func() { _ = s.server.Serve(l) }) // returns when it is stopped
	return s, nil
}

// stop returns when the port is free.
func (s *httpServer) stop() {
	_ = s.listener.Close() // the server may not have seen its listener yet
	_ = s.server.Close()
}

// healthzHandler answers whether the node is fit for load balancer traffic: 503 once it is being deleted (KEP-3836).
func (p *Proxy) healthzHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		eligible, now := p.eligible.Load(), p.config.Clock.Now()
		writeJSON(w, eligible, map[string]any{"lastUpdated": now, "currentTime": now, "nodeEligible": eligible})
	})
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) {
		now := p.config.Clock.Now()
		writeJSON(w, true, map[string]any{"lastUpdated": now, "currentTime": now})
	})
	return mux
}

// checkServer is a health check node port that is listened on.
type checkServer struct {
	*httpServer
	service types.NamespacedName
	ready   atomic.Int64 // local endpoints
}

func (p *Proxy) dropChecks(wanted []HealthCheck) {
	keep := map[uint16]types.NamespacedName{}
	for _, c := range wanted {
		keep[c.Number] = c.Service
	}
	for number, s := range p.checks {
		if service, ok := keep[number]; !ok || service != s.service {
			s.stop()
			delete(p.checks, number)
		}
	}
}

func (p *Proxy) bindChecks(wanted []HealthCheck) error {
	var errs []error
	for _, c := range wanted {
		s, ok := p.checks[c.Number]
		if !ok {
			s = &checkServer{service: c.Service}
			s.ready.Store(int64(c.LocalEndpoints)) // before it is asked
			var err error
			if s.httpServer, err = p.serveHTTP(c.Number, s); err != nil {
				errs = append(errs, fmt.Errorf("proxy of node %s: health check node port of Service %s: %w", p.config.Node, c.Service, err))
				continue
			}
			p.checks[c.Number] = s
		}
		s.ready.Store(int64(c.LocalEndpoints))
	}
	return errors.Join(errs...)
}

// ServeHTTP answers any path, as kube-proxy does: 200 with ready endpoints on this node, 503 without.
func (s *checkServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	n := int(s.ready.Load())
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(n))
	writeJSON(w, n > 0, map[string]any{
		"service":             map[string]string{"namespace": s.service.Namespace, "name": s.service.Name},
		"localEndpoints":      n,
		"serviceProxyHealthy": true,
	})
}

func writeJSON(w http.ResponseWriter, healthy bool, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}
