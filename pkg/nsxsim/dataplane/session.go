package dataplane

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// session is one client's TCP connection or UDP flow through a listener to a member. The goroutine that serves
// it owns it and ends it; others may only abort it.
type session struct {
	listener   *listener
	protocol   Protocol
	client     netip.AddrPort
	layer7     *layer7     // how members are spoken to; nil: layer 4, or a client's connection of layer 7
	parent     *session    // of layer 7: the client's connection, within which this one goes to a member
	pools      []*pool     // in the order in which they are asked for a member
	pool       *pool       // of the member, once connected
	sticky     *stickiness // nil: no persistence by a table
	tiedBy     string      // in the table, with the pool; "": the client's address ties it
	preferred  netip.AddrPort
	strict     bool // if the preferred member cannot serve, no other may
	memberPort uint16
	member     *member // once connected
	ctx        context.Context
	cancel     context.CancelFunc
	busy       atomic.Int64 // requests that are being served
	active     atomic.Int64 // when bytes last passed, in Unix nanoseconds of the plane's clock

	mu      sync.Mutex
	conns   []net.Conn
	aborted bool
}

// own makes conn end with the session. It returns false, with conn closed, if the session was aborted before.
func (s *session) own(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		reset(conn)
		return false
	}
	s.conns = append(s.conns, conn)
	return true
}

// abort resets the session's connections, which makes its goroutine end it.
func (s *session) abort() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	for _, c := range s.conns {
		reset(c)
	}
}

func abortAll(sessions []*session) {
	for _, s := range sessions {
		s.abort()
	}
}

// end closes the session's connections and gives back all that it held.
func (s *session) end() {
	s.cancel()
	s.mu.Lock()
	for _, c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	if s.member != nil {
		s.release(s.pool, s.member)
		s.pool.counters.end()
		s.member.counters.end()
	}
	if s.parent == nil {
		s.listener.vs.forget(s)
	}
}

func (s *session) plane() *Plane { return s.listener.vs.plane }

// connect chooses a member and connects to it; when that fails, to the next. It returns nil if no member answers.
func (s *session) connect() net.Conn {
	for _, p := range s.pools {
		if conn := s.connectTo(p); conn != nil || s.ctx.Err() != nil {
			return conn
		}
	}
	return nil
}

func (s *session) connectTo(p *pool) net.Conn {
	var tried []netip.AddrPort
	for range s.plane().opts.DialAttempts {
		m := s.choose(p, tried)
		if m == nil {
			return nil
		}
		conn, err := s.open(p, m)
		if err == nil {
			s.pool, s.member = p, m
			if s.layer7 == nil { // else it is the answer that counts
				p.succeeded(m)
			}
			m.counters.begin()
			p.counters.begin()
			return conn
		}
		s.release(p, m)
		if s.ctx.Err() != nil {
			return nil
		}
		p.failed(m)
		m.counters.refused.Add(1)
		p.counters.refused.Add(1)
		s.plane().opts.Logger.V(2).Info("Member does not answer", "pool", p.id, "member", m.key, "err", err)
		tried = append(tried, m.key)
	}
	return nil
}

// choose ties the session to the member that the client's persistence or else the pool's algorithm names.
func (s *session) choose(p *pool, tried []netip.AddrPort) *member {
	if s.sticky == nil {
		return p.assign(s, s.preferred, tried)
	}
	return s.sticky.assign(s.tie(p), s.plane().clock.Now(), func(preferred netip.AddrPort) *member {
		return p.assign(s, preferred, tried)
	})
}

// tie is the session's key in the table of persistence.
func (s *session) tie(p *pool) string {
	if s.tiedBy != "" {
		return p.id + " " + s.tiedBy
	}
	return s.client.Addr().String()
}

// release undoes choose.
func (s *session) release(p *pool, m *member) {
	p.release(s, m)
	if s.sticky != nil {
		s.sticky.release(s.tie(p), m.key, s.plane().clock.Now())
	}
}

// within gives a session of its own to a request of layer 7.
func (s *session) within(with *serving, pools []*pool) *session {
	child := &session{
		parent: s, layer7: with.layer7, pools: pools, listener: s.listener, protocol: s.protocol, client: s.client,
		sticky: with.sticky, memberPort: s.memberPort,
	}
	child.ctx, child.cancel = context.WithCancel(s.ctx)
	child.touch()
	return child
}

// open connects to a member, for the session to own, and speaks TLS with it if that is wanted.
func (s *session) open(p *pool, m *member) (net.Conn, error) {
	conn, err := s.dial(p, m)
	if err != nil {
		return nil, err
	}
	if !s.own(conn) {
		return nil, net.ErrClosed
	}
	if s.layer7 == nil {
		return conn, nil
	}
	conn = &memberConn{Conn: conn, session: s, timeout: s.layer7.ResponseTimeout}
	if s.layer7.toServer == nil {
		return conn, nil
	}
	secure := tls.Client(conn, s.layer7.toServer)
	ctx, cancel := context.WithTimeout(s.ctx, s.plane().opts.DialTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// target is where the session's member listens.
func (s *session) target() netip.AddrPort {
	return netip.AddrPortFrom(s.member.key.Addr(), cmp.Or(s.member.key.Port(), s.memberPort))
}

// dial connects to a member with the source address that the pool's SNAT asks for.
func (s *session) dial(p *pool, m *member) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.plane().opts.DialTimeout)
	defer cancel()
	network := map[Protocol]string{TCP: "tcp", UDP: "udp"}[s.protocol]
	target := netip.AddrPortFrom(m.key.Addr(), cmp.Or(m.key.Port(), s.memberPort))
	if p.snat() != Transparent {
		return s.plane().dialFromSNAT(ctx, network, target)
	}
	conn, err := dial(ctx, network, s.client.Addr(), target)
	switch {
	case err == nil:
		p.noteOpaque("")
	case errors.Is(err, errSource):
		p.noteOpaque(fmt.Sprintf("not transparent for client %v: %v", s.client.Addr(), err))
		return s.plane().dialFromSNAT(ctx, network, target)
	}
	return conn, err
}

// counted gives the counters of all that takes part in the session.
func (s *session) counted() []*counters {
	var all []*counters
	if s.parent == nil { // else the client's connection counts for the virtual server
		all = append(all, &s.listener.vs.counters)
	}
	if s.member != nil {
		all = append(all, &s.pool.counters, &s.member.counters)
	}
	return all
}

// countIn counts n bytes from the client to the member.
func (s *session) countIn(n int) {
	for _, c := range s.counted() {
		c.in.Add(int64(n))
		c.packetsIn.Add(1)
	}
}

// countOut counts n bytes from the member to the client.
func (s *session) countOut(n int) {
	for _, c := range s.counted() {
		c.out.Add(int64(n))
		c.packetsOut.Add(1)
	}
}

// countRequest counts a request of layer 7.
func (s *session) countRequest() {
	for _, c := range s.counted() {
		c.requests.Add(1)
	}
}

// touch notes that bytes pass, before they do.
func (s *session) touch() { s.active.Store(s.plane().clock.Now().UnixNano()) }

// idleSince tells whether no bytes passed from a time on, and nobody waits for an answer.
func (s *session) idleSince(t time.Time) bool {
	return s.busy.Load() == 0 && s.active.Load() <= t.UnixNano()
}

// splice passes bytes between client and member until both have closed, each side's close (a FIN) handed on to the
// other; any error resets both.
func (s *session) splice(client, server *net.TCPConn) {
	var back sync.WaitGroup
	back.Go(func() { s.pump(client, server, s.countOut) })
	s.pump(server, client, s.countIn)
	back.Wait()
}

// pump copies from src to dst until src closes.
func (s *session) pump(dst, src *net.TCPConn, count func(int)) {
	buf := s.plane().segments.Get().(*[]byte)
	defer s.plane().segments.Put(buf)
	for {
		n, err := src.Read(*buf)
		if n > 0 {
			s.touch()
			count(n)
			if _, err := dst.Write((*buf)[:n]); err != nil {
				s.abort()
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if dst.CloseWrite() != nil {
				s.abort()
			}
			return
		case err != nil:
			s.abort()
			return
		}
	}
}
