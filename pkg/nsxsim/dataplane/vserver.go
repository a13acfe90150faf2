package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// virtualServer is a running VirtualServer.
type virtualServer struct {
	plane    *Plane
	id       string
	counters counters

	mu        sync.Mutex // never held across I/O that can block
	want      desired
	pool      *pool    // nil: none
	sorry     *pool    // nil: none
	http      *serving // nil: layer 4
	sticky    *stickiness
	sharing   bool // sticky is other virtual servers', too
	limiter   *rate.Limiter
	listeners map[uint16]*listener
	sessions  map[*session]struct{}
}

func newVirtualServer(plane *Plane, id string) *virtualServer {
	return &virtualServer{plane: plane, id: id, listeners: map[uint16]*listener{}, sessions: map[*session]struct{}{}}
}

// listens tells whether d wants listeners at all.
func (d *desired) listens() bool { return d.fault == nil && !d.Disabled && !d.Offloaded }

// serves tells whether d wants a port of an address and protocol to be listened on.
func (d *desired) serves(address netip.Addr, protocol Protocol, port uint16) bool {
	return d.listens() && d.Address == address && d.Protocol == protocol &&
		slices.ContainsFunc(d.Ports, func(p PortMap) bool { return p.Listen == port })
}

// keeps tells whether d lets a session live that began when vs was as want has it.
func (d *desired) keeps(s *session, want *desired) bool {
	enabled := *d
	enabled.Disabled = d.Disabled && s.protocol == UDP // whose flows go with the listener that they answer through
	return enabled.serves(want.Address, want.Protocol, s.listener.port)
}

// narrow ends the listeners and the sessions that d does not want.
func (vs *virtualServer) narrow(d desired) {
	vs.mu.Lock()
	var cut []*session
	var unwanted []*listener
	for port, l := range vs.listeners {
		if !d.serves(vs.want.Address, vs.want.Protocol, port) {
			delete(vs.listeners, port)
			unwanted = append(unwanted, l)
		}
	}
	for s := range vs.sessions {
		if !d.keeps(s, &vs.want) {
			cut = append(cut, s)
		}
	}
	vs.mu.Unlock()
	for _, l := range unwanted {
		if l.socket != nil { // nobody writes it any more: l is in no map
			l.socket.Close()
		}
	}
	abortAll(cut)
}

// close ends everything.
func (vs *virtualServer) close() { vs.narrow(desired{}) }

// apply makes d the desired state. The virtual server was narrowed to d before.
func (vs *virtualServer) apply(ctx context.Context, d desired) {
	pool := vs.plane.poolOf(d.Pool)
	vs.mu.Lock()
	before := vs.want
	moved := vs.pool != pool
	vs.want, vs.pool, vs.sorry = d, pool, vs.plane.poolOf(d.SorryPool)
	vs.limit(before.MaxConnectionRate)
	vs.stick(vs.plane.shared)
	vs.serve()
	var cut []*session
	if d.listens() {
		for _, p := range d.Ports {
			l := vs.listeners[p.Listen]
			if l == nil {
				vs.listeners[p.Listen] = &listener{vs: vs, port: p.Listen}
			} else if d.Protocol == UDP && (moved || p.Member != before.memberPort(p.Listen)) {
				cut = append(cut, vs.sessionsOf(l)...)
			}
		}
	}
	vs.bind(ctx)
	vs.mu.Unlock()
	abortAll(cut)
}

func (vs *virtualServer) limit(before int) {
	switch limit := vs.want.MaxConnectionRate; {
	case limit == 0:
		vs.limiter = nil
	case limit != before:
		vs.limiter = rate.NewLimiter(rate.Limit(limit), limit)
	}
}

// stick gives the virtual server its table of persistence: one of its own, or one of those that are shared.
func (vs *virtualServer) stick(shared map[string]*stickiness) {
	p := vs.want.Persistence
	switch {
	case p == nil:
		vs.sticky = nil
		return
	case p.Shared != "":
		vs.sticky = shared[p.Shared]
	case vs.sticky == nil || vs.sharing:
		vs.sticky = newStickiness()
	}
	vs.sharing = p.Shared != ""
	vs.sticky.set(p)
}

// serve makes ready what serves requests.
func (vs *virtualServer) serve() {
	vs.http = nil
	if vs.want.layer7 == nil {
		return
	}
	vs.http = &serving{layer7: vs.want.layer7, address: vs.want.Address, sticky: vs.sticky, pool: vs.pool, sorry: vs.sorry, pools: map[*Pool]*pool{}, tables: vs.plane.shared}
	for _, cfg := range vs.want.pools() {
		vs.http.pools[cfg] = vs.plane.poolOf(cfg)
	}
}

func (vs *virtualServer) serving() *serving {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	return vs.http
}

// bind opens the listeners that are not open.
func (vs *virtualServer) bind(ctx context.Context) {
	for _, p := range vs.want.Ports {
		l := vs.listeners[p.Listen]
		if l == nil || l.socket != nil {
			continue
		}
		failed := l.err != nil
		l.err = l.open(ctx, vs.want.Address, vs.want.Protocol)
		if l.err != nil && !failed {
			vs.plane.opts.Logger.V(1).Info("Port cannot be bound", "virtualServer", vs.id, "err", l.err)
		}
	}
}

// keepHouse retries unbound ports, and ends what has been idle or tied for too long.
func (vs *virtualServer) keepHouse(now time.Time) {
	vs.mu.Lock()
	vs.bind(vs.plane.ctx)
	var idle []*session
	for s := range vs.sessions {
		if s.idleSince(now.Add(-vs.want.IdleTimeout)) {
			idle = append(idle, s)
		}
	}
	sticky := vs.sticky
	vs.mu.Unlock()
	abortAll(idle)
	if sticky != nil {
		sticky.expire(now)
	}
}

// admit begins a session of a client of l; nil if it is refused.
func (vs *virtualServer) admit(l *listener, client netip.AddrPort) *session {
	now := vs.plane.clock.Now()
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.listeners[l.port] != l {
		return nil // closed since the client came
	}
	permitted := vs.want.Access.permits(client.Addr())
	if !permitted {
		vs.counters.keptOut.Add(1)
	}
	if !permitted ||
		vs.want.MaxConnections > 0 && len(vs.sessions) >= vs.want.MaxConnections ||
		vs.limiter != nil && !vs.limiter.AllowN(now, 1) {
		vs.counters.refused.Add(1)
		return nil
	}
	s := &session{
		listener: l, protocol: vs.want.Protocol, client: client,
		sticky: vs.sticky, memberPort: vs.want.memberPort(l.port),
	}
	for _, p := range []*pool{vs.pool, vs.sorry} {
		if p != nil {
			s.pools = append(s.pools, p)
		}
	}
	s.ctx, s.cancel = context.WithCancel(vs.plane.ctx)
	s.touch()
	vs.sessions[s] = struct{}{}
	vs.counters.begin()
	return s
}

// forget undoes admit.
func (vs *virtualServer) forget(s *session) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	delete(vs.sessions, s)
	vs.counters.end()
}

func (vs *virtualServer) sessionsOf(l *listener) []*session {
	var found []*session
	for s := range vs.sessions {
		if s.listener == l {
			found = append(found, s)
		}
	}
	return found
}

// status of the virtual server, given those of the pools.
func (vs *virtualServer) status(pools map[string]*PoolStatus) VirtualServerStatus {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	st := VirtualServerStatus{ID: vs.id, Counters: vs.counters.snapshot()}
	if vs.pool != nil {
		st.PoolID = vs.pool.id
	}
	if vs.sticky != nil {
		st.Persistent = vs.sticky.size()
	}
	var unbound []string
	for _, p := range vs.want.Ports {
		if l := vs.listeners[p.Listen]; l != nil {
			ls := ListenerStatus{Port: l.port}
			if l.err != nil {
				ls.Error = l.err.Error()
				unbound = append(unbound, fmt.Sprintf("port %d: %v", l.port, l.err))
			}
			st.Listeners = append(st.Listeners, ls)
		}
	}
	pool := pools[st.PoolID]
	switch {
	case pool != nil:
	case vs.http != nil: // rules may name pools; NSX does not look further
		pool = &PoolStatus{State: StateUp}
	default:
		pool = &PoolStatus{State: StateDown, Reason: "no pool"}
	}
	switch {
	case vs.want.fault != nil:
		st.State, st.Reason = StateDown, vs.want.fault.Error()
	case vs.want.Disabled:
		st.State = StateDisabled
	case len(unbound) > 0:
		st.State, st.Reason = StateDown, joinReasons(append(unbound, pool.Reason)...)
	default:
		st.State, st.Reason = pool.State, pool.Reason
	}
	return st
}
