package dataplane

import (
	"cmp"
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
	pool      *pool // nil: none
	sticky    *stickiness
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

// narrow ends the listeners, and their connections, that d does not want.
func (vs *virtualServer) narrow(d desired) {
	vs.mu.Lock()
	var cut []*session
	var unwanted []*listener
	for port, l := range vs.listeners {
		if d.serves(vs.want.Address, vs.want.Protocol, port) {
			continue
		}
		delete(vs.listeners, port)
		unwanted = append(unwanted, l)
		cut = append(cut, vs.sessionsOf(l)...)
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

// apply makes d, served by pool, the desired state. The virtual server was narrowed to d before.
func (vs *virtualServer) apply(ctx context.Context, d desired, pool *pool) {
	vs.mu.Lock()
	before := vs.want
	moved := vs.pool != pool
	vs.want, vs.pool = d, pool
	vs.limit(before.MaxConnectionRate)
	vs.stick()
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

func (vs *virtualServer) stick() {
	if vs.want.Persistence == nil {
		vs.sticky = nil
		return
	}
	if vs.sticky == nil {
		vs.sticky = newStickiness()
	}
	vs.sticky.setTimeout(vs.want.Persistence.Timeout)
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
	if !vs.want.Access.permits(client.Addr()) ||
		vs.want.MaxConnections > 0 && len(vs.sessions) >= vs.want.MaxConnections ||
		vs.limiter != nil && !vs.limiter.AllowN(now, 1) {
		vs.counters.refused.Add(1)
		return nil
	}
	s := &session{
		listener: l, protocol: vs.want.Protocol, client: client,
		http: vs.want.HTTP, pool: vs.pool, sticky: vs.sticky, memberPort: vs.want.memberPort(l.port),
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
	pool := cmp.Or(pools[st.PoolID], &PoolStatus{State: StateDown, Reason: "no pool"})
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
