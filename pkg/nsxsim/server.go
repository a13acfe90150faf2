package nsxsim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is a simulator that listens. Closing it closes the simulator, too, unless it
// is a further node.
type Server struct {
	*Sim
	node int
	URL  string // "https://127.0.0.1:PORT"; no path
	// CA is the PEM of the certificate authority that the server's certificate is
	// of; nil for a plain server and for one whose certificate was given.
	CA []byte

	http   *http.Server
	served chan error

	mu      sync.Mutex
	unused  map[net.Conn]struct{} // connections that carried no request yet
	closing bool                  // none of them will
}

// ListenOptions tell where and how to listen. The zero value is TLS with a
// certificate made for the occasion, on a free port of 127.0.0.1.
type ListenOptions struct {
	Addr        string           // default 127.0.0.1:0
	Plain       bool             // HTTP instead of HTTPS
	Certificate *tls.Certificate // default: a new one, for the address and localhost
}

// Listen starts to serve the simulator.
func (s *Sim) Listen(o ListenOptions) (*Server, error) { return s.listen(0, o) }

// ListenNode starts to serve a further node of the manager, numbered from 1, at an
// address of its own (see Node). Closing it takes that node down, and ends its
// sessions: the others go on.
func (s *Sim) ListenNode(n int, o ListenOptions) (*Server, error) {
	if n < 1 {
		return nil, fmt.Errorf("node %d of the simulated NSX manager: further nodes are numbered from 1", n)
	}
	return s.listen(n, o)
}

func (s *Sim) listen(node int, o ListenOptions) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listening for the simulated NSX manager: %w", err)
	}
	srv := &Server{
		Sim:    s,
		node:   node,
		URL:    "http://" + listener.Addr().String(),
		served: make(chan error, 1),
		unused: map[net.Conn]struct{}{},
	}
	srv.http = &http.Server{Handler: s.Node(node), ReadHeaderTimeout: 30 * time.Second, ErrorLog: discardLog, ConnState: srv.connState}
	if !o.Plain {
		srv.URL = "https://" + listener.Addr().String()
		if o.Certificate == nil {
			made, ca, err := NewCertificate(listener.Addr().(*net.TCPAddr).IP.String())
			if err != nil {
				return nil, errors.Join(err, listener.Close())
			}
			o.Certificate, srv.CA = &made, ca
		}
		// Any client certificate is taken here: which user it is, is decided by the
		// authenticator.
		listener = tls.NewListener(listener, &tls.Config{
			Certificates: []tls.Certificate{*o.Certificate},
			ClientAuth:   tls.RequestClientCert,
			MinVersion:   tls.VersionTLS12,
		})
	}
	go func() { srv.served <- srv.http.Serve(listener) }()
	return srv, nil
}

// connState remembers connections that carried no request yet: clients dial some
// to spare, and http.Server.Shutdown would wait for them.
func (srv *Server) connState(c net.Conn, state http.ConnState) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(srv.unused, c)
	case srv.closing: // it was accepted just before the listener was closed
		_ = c.Close()
	default:
		srv.unused[c] = struct{}{}
	}
}

func (srv *Server) closeUnused() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.closing = true
	for c := range srv.unused {
		_ = c.Close() // it carries nothing
	}
}

// Shutdown stops to listen, waits for the requests in service until ctx ends,
// and closes the simulator, unless it is a further node.
func (srv *Server) Shutdown(ctx context.Context) error {
	if srv.node == 0 {
		srv.Sim.Close()
	} else {
		defer srv.Sim.endSessionsOf(srv.node)
	}
	srv.http.RegisterOnShutdown(srv.closeUnused)
	err := srv.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, srv.http.Close())
	}
	if served := <-srv.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// Close is Shutdown that cuts off the requests in service after ten seconds, and says so.
func (srv *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// HTTPClient gives a client that trusts the server and sends the credentials
// with each request.
func (srv *Server) HTTPClient(username, password string) *http.Client {
	return &http.Client{Transport: &basicAuth{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: srv.CertPool(), MinVersion: tls.VersionTLS12}},
		username:  username, password: password,
	}}
}

// CertPool gives what a client needs to trust the server.
func (srv *Server) CertPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(srv.CA)
	return pool
}

type basicAuth struct {
	*http.Transport
	username, password string
}

func (t *basicAuth) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth(t.username, t.password)
	return t.Transport.RoundTrip(r)
}

// TB is the part of testing.TB that Start needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// Start gives a running simulator to a test, over TLS on a free port of
// 127.0.0.1, and stops it when the test ends.
func Start(tb TB, o Options) *Server {
	tb.Helper()
	return StartAt(tb, o, ListenOptions{})
}

// StartPlain is Start over plain HTTP.
func StartPlain(tb TB, o Options) *Server {
	tb.Helper()
	return StartAt(tb, o, ListenOptions{Plain: true})
}

// StartAt is Start with a choice of where and how to listen.
func StartAt(tb TB, o Options, l ListenOptions) *Server {
	tb.Helper()
	sim, err := New(o)
	if err != nil {
		tb.Fatalf("nsxsim: %v", err)
		return nil
	}
	srv, err := sim.Listen(l)
	if err != nil {
		tb.Fatalf("nsxsim: %v", err)
		return nil
	}
	tb.Cleanup(func() {
		if err := srv.Close(); err != nil {
			tb.Errorf("nsxsim: closing: %v", err)
		}
	})
	return srv
}
