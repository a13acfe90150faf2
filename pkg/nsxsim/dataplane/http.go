package dataplane

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// layer7 is an HTTP that is ready for use.
type layer7 struct {
	HTTP
	toClient, toServer *tls.Config // nil: no TLS
	rules              map[Phase][]*rule
}

func (h *HTTP) withDefaults() *HTTP {
	c := *h
	c.ResponseTimeout = cmp.Or(c.ResponseTimeout, 60*time.Second)
	c.ToClient, c.ToServer = c.ToClient.clone(), c.ToServer.clone()
	if c.Cookie != nil {
		c.Cookie = new(*c.Cookie)
		c.Cookie.Mode = cmp.Or(c.Cookie.Mode, CookieInsert)
	}
	c.Rules = slices.Clone(c.Rules)
	return &c
}

// ready checks an HTTP with its defaults filled in, and makes it usable.
func (h *HTTP) ready() (*layer7, error) {
	if h == nil {
		return nil, nil
	}
	l := &layer7{HTTP: *h, rules: map[Phase][]*rule{}}
	if !slices.Contains([]XForwardedFor{"", ForwardedForInsert, ForwardedForReplace}, h.XForwardedFor) {
		return nil, fmt.Errorf("X-Forwarded-For %q: %w", h.XForwardedFor, ErrInvalid)
	}
	if h.RequestHeaderSize < 0 || h.RequestBodySize < 0 || h.ResponseTimeout < 0 {
		return nil, fmt.Errorf("negative size or timeout: %w", ErrInvalid)
	}
	if err := h.Cookie.check(); err != nil {
		return nil, err
	}
	var err error
	if h.ToClient != nil {
		if l.toClient, err = h.ToClient.toClient(); err != nil {
			return nil, fmt.Errorf("TLS of clients: %w", err)
		}
	}
	if h.ToServer != nil {
		if l.toServer, err = h.ToServer.toServer(); err != nil {
			return nil, fmt.Errorf("TLS of members: %w", err)
		}
	}
	for _, r := range h.Rules {
		ready, err := newRule(r)
		if err != nil {
			return nil, err
		}
		l.rules[r.Phase] = append(l.rules[r.Phase], ready)
	}
	return l, nil
}

// maxHeader is how large a request's header may be, whatever the profile guarantees.
const maxHeader = 32 << 10

// serving is what serves the requests of a layer 7 virtual server now. It is replaced, never changed.
type serving struct {
	*layer7
	address     netip.Addr
	sticky      *stickiness            // nil: none
	pool, sorry *pool                  // nil: none
	pools       map[*Pool]*pool        // of rules
	tables      map[string]*stickiness // of rules
}

// httpConn is a client's connection to a layer 7 virtual server.
type httpConn struct {
	*session
	kept *upstream // with ServerKeepAlive: the member that serves, once there is one
}

// serveHTTP serves the requests of one client's connection.
func (s *session) serveHTTP(client net.Conn, with *serving) {
	c := &httpConn{session: s}
	var conn net.Conn = &clientConn{Conn: client, session: s}
	if with.toClient != nil {
		conn = tls.Server(conn, with.toClient)
	}
	done := make(chan struct{})
	end := sync.OnceFunc(func() { close(done) })
	var upgraded bool // written and read by the goroutine of the connection only
	srv := http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.serve(w, r)
			if upgraded { // the connection was the handler's, and is over
				end()
			}
		}),
		BaseContext:    func(net.Listener) context.Context { return s.ctx },
		MaxHeaderBytes: max(with.RequestHeaderSize, maxHeader),
		TLSNextProto:   map[string]func(*http.Server, *tls.Conn, http.Handler){}, // no HTTP/2, as in NSX
		ErrorLog:       log.New(io.Discard, "", 0),                               // what clients do wrong is their affair
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
	_ = srv.Serve(&oneConn{conn: conn, done: done})
	if c.kept != nil {
		c.kept.close()
	}
}

// serve answers one request, by the rules and settings of now.
func (c *httpConn) serve(w http.ResponseWriter, r *http.Request) {
	c.busy.Add(1)
	defer c.busy.Add(-1)
	with := c.listener.vs.serving()
	if with == nil { // it is none of layer 7 any more
		c.abort()
		panic(http.ErrAbortHandler)
	}
	c.countRequest()
	m := &message{client: c.client, local: netip.AddrPortFrom(with.address, c.listener.port), secure: r.TLS, request: r, variables: map[string]string{}}
	if limit := with.RequestBodySize; limit > 0 {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		if r.ContentLength > limit {
			answer(w, http.StatusRequestEntityTooLarge, "")
			return
		}
	}
	x := &exchange{httpConn: c, serving: with, message: m, chosen: with.pool}
	x.follow(PhaseAccess)
	if to := with.redirect(m); to != "" {
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	with.forwarded(m)
	x.follow(PhaseRequestRewrite)
	if x.forward(w) {
		x.pass(w)
	}
}

func answer(w http.ResponseWriter, status int, text string) {
	http.Error(w, cmp.Or(text, http.StatusText(status)), status)
}

// redirect gives where the profile redirects all requests to; "": nowhere.
func (l *layer7) redirect(m *message) string {
	switch {
	case l.RedirectTo != "":
		return l.RedirectTo
	case l.RedirectToHTTPS && m.secure == nil:
		return "https://" + m.variable("_host") + m.request.URL.RequestURI()
	}
	return ""
}

// forwarded tells the member about the client, if that is wanted.
func (l *layer7) forwarded(m *message) {
	const name = "X-Forwarded-For"
	header, client := m.request.Header, m.client.Addr().String()
	before := header.Values(name)
	switch {
	case l.XForwardedFor == "":
		return
	case l.XForwardedFor == ForwardedForInsert && len(before) > 0:
		header.Set(name, strings.Join(before, ", ")+", "+client)
	default:
		header.Set(name, client)
	}
	header.Set("X-Forwarded-Proto", m.variable("_scheme"))
	header.Set("X-Forwarded-Port", strconv.Itoa(int(m.local.Port())))
}
