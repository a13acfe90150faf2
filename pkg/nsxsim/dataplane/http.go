package dataplane

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
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

// exchange is one request and what becomes of it.
type exchange struct {
	*httpConn
	*serving
	message *message
	chosen  *pool   // nil: none
	tiedBy  *Action // the generic persistence of the rule that forwards; nil: none
	crumb   *crumb  // that the request brought; nil: none
}

// follow does what all rules of a phase say that match.
func (x *exchange) follow(phase Phase) {
	for _, rule := range x.rules[phase] {
		if !rule.matches(x.message) {
			continue
		}
		for i := range rule.Actions {
			switch a := &rule.Actions[i]; a.Type {
			case DropConnection:
				x.drop()
			case LearnByVariable:
				// Learnt with the response, when the member is known.
			default:
				x.message.rewrite(a)
			}
		}
	}
}

// forward does what the first rule of phase HTTP_FORWARDING says that matches. It returns false if that has answered
// the request.
func (x *exchange) forward(w http.ResponseWriter) bool {
	m := x.message
	i := slices.IndexFunc(x.rules[PhaseForwarding], func(r *rule) bool { return r.matches(m) })
	if i < 0 {
		return true
	}
	actions := x.rules[PhaseForwarding][i].Actions
	for i := range actions {
		switch a := &actions[i]; a.Type {
		case SelectPool:
			x.chosen = x.pools[a.Pool]
		case PersistByVariable:
			x.tiedBy = a
		case Reject:
			answer(w, a.Status, a.Value)
			return false
		case Redirect:
			w.Header().Set("Location", m.expand(a.Value))
			w.WriteHeader(a.Status)
			return false
		case DropConnection:
			x.drop()
		default:
			m.rewrite(a)
		}
	}
	return true
}

// drop ends the client's connection without an answer.
func (x *exchange) drop() {
	x.listener.vs.counters.dropped.Add(1)
	x.abort()
	panic(http.ErrAbortHandler)
}

// pass sends the request to a member and its answer to the client.
func (x *exchange) pass(w http.ResponseWriter) {
	r := x.message.request
	if x.Cookie != nil {
		if k, ok := x.Cookie.take(x.plane().garbler, r, x.plane().clock.Now()); ok {
			x.crumb = &k
		}
	}
	up := x.upstream()
	if up == nil {
		x.listener.vs.counters.refused.Add(1)
		answer(w, http.StatusServiceUnavailable, "")
		return
	}
	if up != x.kept {
		defer up.close()
	}
	member := up.session
	member.countRequest()
	(&httputil.ReverseProxy{
		Transport:     up.transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // the client is told
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "member"})
			p.Out.Host = p.In.Host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if values, ok := p.In.Header[name]; ok {
					p.Out.Header[name] = values
				}
			}
		},
		ModifyResponse: func(response *http.Response) error {
			member.pool.succeeded(member.member)
			x.answered(response, member)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			var tooLarge *http.MaxBytesError
			switch {
			case errors.As(err, &tooLarge):
				answer(w, http.StatusRequestEntityTooLarge, "")
			case r.Context().Err() != nil:
				panic(http.ErrAbortHandler)
			default:
				member.pool.failed(member.member)
				status := http.StatusBadGateway
				if errors.Is(err, os.ErrDeadlineExceeded) {
					status = http.StatusGatewayTimeout
				}
				answer(w, status, "")
			}
		},
	}).ServeHTTP(w, r)
}

// answered does with a member's response what persistence and rules want.
func (x *exchange) answered(response *http.Response, from *session) {
	plane, m := x.plane(), x.message
	m.response = response
	if x.Cookie != nil {
		x.Cookie.leave(plane.garbler, response.Header, x.crumb, from.target(), plane.clock.Now())
	}
	for _, rule := range x.rules[PhaseResponseRewrite] {
		if !rule.matches(m) {
			continue
		}
		for i := range rule.Actions {
			a := &rule.Actions[i]
			if a.Type != LearnByVariable {
				m.rewrite(a)
				continue
			}
			table, value := x.tables[a.Persistence.Shared], m.variable(a.Name)
			if table != nil && value != "" {
				table.learn(from.pool.id+" "+value, from.member.key, plane.clock.Now())
			}
		}
	}
}

// upstream is the way to one member: a session of its own within the client's.
type upstream struct {
	session   *session
	transport *http.Transport
	pools     []*pool // that were asked for a member
}

func (u *upstream) close() {
	u.transport.CloseIdleConnections()
	u.session.end()
}

// upstream connects to a member; nil if there is none.
func (x *exchange) upstream() *upstream {
	var pools []*pool
	for _, p := range []*pool{x.chosen, x.sorry} {
		if p != nil {
			pools = append(pools, p)
		}
	}
	if kept := x.kept; kept != nil {
		if x.ServerKeepAlive && kept.session.ctx.Err() == nil && slices.Equal(kept.pools, pools) {
			return kept
		}
		kept.close()
		x.kept = nil
	}
	s := x.session.within(x.serving, pools)
	if x.crumb != nil {
		s.preferred, s.strict = x.crumb.member, !x.Cookie.Fallback
	}
	if x.tiedBy != nil {
		if value := x.message.variable(x.tiedBy.Name); value != "" {
			s.sticky, s.tiedBy = x.tables[x.tiedBy.Persistence.Shared], value
		}
	}
	conn := s.connect()
	if conn == nil {
		s.end()
		return nil
	}
	up := &upstream{session: s, pools: pools}
	var mu sync.Mutex
	up.transport = &http.Transport{
		// The first time it is the connection that there is, afterwards a new one to the same member.
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			first := conn
			conn = nil
			mu.Unlock()
			if first != nil {
				return first, nil
			}
			return s.open(s.pool, s.member)
		},
		DisableCompression: true, DisableKeepAlives: !x.ServerKeepAlive, MaxConnsPerHost: 1,
		MaxResponseHeaderBytes: 1 << 20,
	}
	if x.ServerKeepAlive {
		x.kept = up
	}
	return up
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

// clientConn is a client's connection whose bytes are counted.
type clientConn struct {
	net.Conn
	session *session
}

func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.session.touch()
	c.session.countIn(n)
	return n, err
}

func (c *clientConn) Write(p []byte) (int, error) {
	c.session.touch()
	n, err := c.Conn.Write(p)
	c.session.countOut(n)
	return n, err
}

// CloseWrite lets net/http end a connection so that the client can read the last answer.
func (c *clientConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// memberConn is a connection to a member, which must send something in time and whose bytes are counted.
type memberConn struct {
	net.Conn
	session *session
	timeout time.Duration
}

func (c *memberConn) Read(p []byte) (int, error) {
	c.Conn.SetReadDeadline(time.Now().Add(c.timeout))
	n, err := c.Conn.Read(p)
	c.session.countOut(n)
	return n, err
}

func (c *memberConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.session.countIn(n)
	return n, err
}
