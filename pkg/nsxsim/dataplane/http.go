package dataplane

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// serveHTTP serves the requests of one client's connection, all by the member
// that server is connected to; without one it answers 503, as NSX does.
func (s *session) serveHTTP(client, server net.Conn) {
	proxy := s.proxy(server)
	done := make(chan struct{})
	end := sync.OnceFunc(func() { close(done) })
	var upgraded bool // written and read by the goroutine of the connection only
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.countRequest()
		switch {
		case s.http.redirects():
			http.Redirect(w, r, s.http.target(r), http.StatusFound)
		case server == nil:
			http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		default:
			proxy.ServeHTTP(w, r)
		}
		if upgraded { // the connection was the handler's, and is over
			end()
		}
	})
	srv := http.Server{
		Handler:     handler,
		BaseContext: func(net.Listener) context.Context { return s.ctx },
		ErrorLog:    log.New(io.Discard, "", 0), // what clients do wrong is their affair
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateClosed:
				end()
			case http.StateHijacked:
				upgraded = true
			}
		},
	}
	// Serve returns when the only connection has ended, with net.ErrClosed.
	_ = srv.Serve(&oneConn{conn: &countedConn{client, s}, done: done})
	proxy.Transport.(*http.Transport).CloseIdleConnections()
}

// proxy passes requests on to the session's member: over server, and over new
// connections to it when the member has closed that.
func (s *session) proxy(server net.Conn) *httputil.ReverseProxy {
	var mu sync.Mutex
	dial := func(context.Context, string, string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if conn := server; conn != nil {
			server = nil
			return conn, nil
		}
		conn, err := s.dial(s.pool, s.member)
		if err == nil && !s.own(conn) {
			err = net.ErrClosed
		}
		return conn, err
	}
	return &httputil.ReverseProxy{
		Transport:     &http.Transport{DialContext: dial, MaxConnsPerHost: 1, DisableCompression: true},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // the client is told
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "member"})
			r.Out.Host = r.In.Host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if values, ok := r.In.Header[name]; ok {
					r.Out.Header[name] = values
				}
			}
			s.http.forwardedFor(r.Out.Header, s.client.Addr().String())
		},
	}
}

// forwardedFor tells the member the client's address, if that is wanted.
func (h *HTTP) forwardedFor(header http.Header, client string) {
	const name = "X-Forwarded-For"
	switch before := header.Values(name); {
	case h.XForwardedFor == ForwardedForInsert && len(before) > 0:
		header.Set(name, strings.Join(before, ", ")+", "+client)
	case h.XForwardedFor != "":
		header.Set(name, client)
	}
}

func (h *HTTP) redirects() bool { return h.RedirectToHTTPS || h.RedirectTo != "" }

func (h *HTTP) target(r *http.Request) string {
	if h.RedirectTo != "" {
		return h.RedirectTo
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return "https://" + host + r.URL.RequestURI()
}

// oneConn is a listener that hands out one connection and is closed with it.
type oneConn struct {
	conn net.Conn
	once sync.Once
	done chan struct{}
}

func (l *oneConn) Accept() (conn net.Conn, err error) {
	l.once.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// countedConn is a client's connection whose bytes are counted.
type countedConn struct {
	net.Conn
	session *session
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.session.touch()
	c.session.countIn(n)
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.session.touch()
	n, err := c.Conn.Write(p)
	c.session.countOut(n)
	return n, err
}
