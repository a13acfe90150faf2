package dataplane

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"sync"
)

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
