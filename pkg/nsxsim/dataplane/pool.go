package dataplane

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// pool is a running Pool: its members, their health and who is connected to them. Several virtual servers may
// use it.
type pool struct {
	plane    *Plane
	id       string
	counters counters

	mu      sync.Mutex // the innermost lock; never held across I/O
	cfg     *Pool
	inUse   bool      // by an enabled virtual server
	members []*member // in the Config's order
	byKey   map[netip.AddrPort]*member
	opaque  string // why the last connection of a Transparent pool did not show the client's address
}

// member of a pool. All but the counters is guarded by pool.mu.
type member struct {
	share
	cfg      Member
	counters counters
	probers  map[string]*prober // by monitor id
	up       bool               // all its monitors say so
	changed  time.Time
	sessions map[*session]struct{}

	// Of the passive monitor.
	fails   int       // connections in a row that failed
	benched time.Time // it gets no connections before
}

func newPool(plane *Plane, id string) *pool {
	return &pool{plane: plane, id: id, byKey: map[netip.AddrPort]*member{}}
}

// apply makes cfg the desired state.
func (p *pool) apply(cfg *Pool, inUse bool) {
	p.mu.Lock()
	now := p.plane.clock.Now()
	var cut []*session
	old := p.byKey
	p.cfg, p.inUse = cfg, inUse
	p.members, p.byKey = nil, make(map[netip.AddrPort]*member, len(cfg.Members))
	for _, m := range cfg.Members {
		key := netip.AddrPortFrom(m.Address, m.Port)
		mem, known := old[key]
		if !known {
			mem = &member{share: share{key: key}, probers: map[string]*prober{}, sessions: map[*session]struct{}{}}
		}
		delete(old, key)
		mem.cfg, mem.weight = m, m.Weight
		p.members = append(p.members, mem)
		p.byKey[key] = mem
		p.monitor(mem)
		if mem.judge(now) && !known {
			mem.changed = time.Time{} // how it begins is no change
		}
		if !mem.up {
			cut = append(cut, mem.sessionsOf(UDP)...)
		}
		if m.AdminState == Disabled && !p.plane.opts.DisabledKeepsConnections {
			cut = append(cut, mem.sessionsOf(TCP, UDP)...)
		}
	}
	for _, gone := range old {
		gone.stopProbers()
		cut = append(cut, gone.sessionsOf(TCP, UDP)...)
	}
	if cfg.SNAT != Transparent {
		p.opaque = ""
	}
	p.mu.Unlock()
	abortAll(cut)
}

// close ends the probing. Connections live on: they belong to the virtual servers.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.members {
		m.stopProbers()
	}
}

// monitor starts and stops the probers of a member so that they are what the pool's monitors want. A prober
// that replaces another of the same monitor goes on from its verdict.
func (p *pool) monitor(mem *member) {
	wanted := map[string]*prober{}
	for i := range p.cfg.Monitors {
		mon := &p.cfg.Monitors[i]
		target := netip.AddrPortFrom(mem.cfg.Address, cmp.Or(mon.Port, mem.cfg.Port))
		running := mem.probers[mon.ID]
		if running != nil && running.sameAs(mon, target) {
			wanted[mon.ID] = running
			delete(mem.probers, mon.ID)
			continue
		}
		pr := &prober{pool: p, member: mem, monitor: *mon, target: target, verdict: newVerdict(&p.plane.opts)}
		if running != nil {
			pr.verdict = running.verdict
		}
		wanted[mon.ID] = pr
		var ctx context.Context
		ctx, pr.cancel = context.WithCancel(p.plane.ctx)
		p.plane.running.Go(func() { pr.run(ctx) })
	}
	mem.stopProbers()
	mem.probers = wanted
}

func (m *member) stopProbers() {
	for _, pr := range m.probers {
		pr.cancel()
	}
	m.probers = nil
}

// record takes the outcome of a probe.
func (p *pool) record(pr *prober, err error) {
	p.mu.Lock()
	now := p.plane.clock.Now()
	if pr.member.probers[pr.monitor.ID] != pr {
		p.mu.Unlock()
		return // replaced while it probed
	}
	pr.verdict.record(&pr.monitor, err, now)
	changed, up, cause := pr.member.judge(now), pr.member.up, p.failureCause(pr.member)
	var cut []*session
	if !up {
		cut = pr.member.sessionsOf(UDP)
	}
	if changed && p.plane.opts.HealthChanged != nil {
		p.plane.opts.HealthChanged() // before anybody sees it
	}
	p.mu.Unlock()
	abortAll(cut)
	if changed {
		p.plane.opts.Logger.V(1).Info("Member health changed", "pool", p.id, "member", pr.member.key, "up", up, "cause", cause)
	}
}

// judge sums up the verdicts on a member and tells whether that changes its health.
func (m *member) judge(now time.Time) bool {
	up := true
	for _, pr := range m.probers {
		up = up && pr.verdict.up
	}
	if up == m.up {
		return false
	}
	m.up, m.changed = up, now
	return true
}

// failureCause says why a member is DOWN: with several monitors, what each of them found (the format is NSX's).
func (p *pool) failureCause(m *member) string {
	var causes []string
	for i := range p.cfg.Monitors {
		id := p.cfg.Monitors[i].ID
		pr := m.probers[id]
		if pr == nil || pr.verdict.up {
			continue
		}
		if len(p.cfg.Monitors) == 1 {
			return pr.verdict.cause
		}
		causes = append(causes, fmt.Sprintf("%s:%s.", id, pr.verdict.cause))
	}
	return strings.Join(causes, " ")
}

// assign ties a session to a member that may get it and that is not in tried: the preferred one, if there is
// one, else the choice of the pool's algorithm. It returns nil if there is none.
func (p *pool) assign(s *session, preferred netip.AddrPort, tried []netip.AddrPort) *member {
	p.mu.Lock()
	defer p.mu.Unlock()
	chosen := p.member(preferred)
	if chosen != nil && s.strict && (!p.takes(chosen, s) || chosen.cfg.AdminState == Disabled) {
		return nil
	}
	if chosen == nil || !p.takes(chosen, s) || chosen.cfg.AdminState == Disabled || slices.Contains(tried, chosen.key) {
		candidates := p.eligible(s, tried)
		if len(candidates) == 0 {
			return nil
		}
		chosen = p.byKey[choose(p.cfg.Algorithm, candidates, s.client.Addr()).key]
	}
	chosen.connections++
	chosen.sessions[s] = struct{}{}
	return chosen
}

// member gives the member at an address and port, or the one at the address that has no port of its own.
func (p *pool) member(at netip.AddrPort) *member {
	if m := p.byKey[at]; m != nil {
		return m
	}
	return p.byKey[netip.AddrPortFrom(at.Addr(), 0)]
}

// eligible returns the members for a new connection: the primary ones that are UP and ENABLED; the backup ones
// if there are too few of these, or if all of these were tried.
func (p *pool) eligible(s *session, tried []netip.AddrPort) []*share {
	var primary, backup []*share
	active := 0
	for _, m := range p.members {
		switch {
		case !p.serves(m) || m.cfg.AdminState != Enabled:
			continue
		case !m.cfg.Backup:
			active++
		}
		switch {
		case !p.takes(m, s):
		case m.cfg.Backup:
			backup = append(backup, &m.share)
		default:
			primary = append(primary, &m.share)
		}
	}
	untried := func(all []*share) []*share {
		return slices.DeleteFunc(all, func(s *share) bool { return slices.Contains(tried, s.key) })
	}
	tooFew := active < p.cfg.MinActiveMembers
	primary, backup = untried(primary), untried(backup)
	if len(primary) == 0 || (tooFew && len(backup) > 0) {
		return backup
	}
	return primary
}

// serves tells whether a member is UP for the active monitors and the passive one.
func (p *pool) serves(m *member) bool {
	return m.up && (p.cfg.Passive == nil || !p.plane.clock.Now().Before(m.benched))
}

// takes tells whether a member may get a session: it is UP, of the client's IP version, and below its limit.
func (p *pool) takes(m *member, s *session) bool {
	return p.serves(m) && m.key.Addr().Is4() == s.client.Addr().Is4() &&
		(m.cfg.MaxConnections == 0 || m.connections < m.cfg.MaxConnections)
}

// failed and succeeded tell the passive monitor of a client's connection to a member.

func (p *pool) failed(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if passive := p.cfg.Passive; passive != nil {
		if m.fails++; m.fails >= passive.MaxFails {
			m.benched = p.plane.clock.Now().Add(passive.Timeout)
		}
	}
}

func (p *pool) succeeded(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.fails, m.benched = 0, time.Time{}
}

// release undoes assign.
func (p *pool) release(s *session, m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.connections--
	delete(m.sessions, s)
}

// snat returns the pool's SNAT mode.
func (p *pool) snat() SNAT {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg.SNAT
}

// noteOpaque remembers, for the status, why a connection could not show its client's address; "": it could.
func (p *pool) noteOpaque(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opaque = why
}

func (m *member) sessionsOf(protocols ...Protocol) []*session {
	var found []*session
	for s := range m.sessions {
		if slices.Contains(protocols, s.protocol) {
			found = append(found, s)
		}
	}
	return found
}

// sample notes what was counted until now, for the rates.
func (p *pool) sample(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counters.sample(now)
	for _, m := range p.members {
		m.counters.sample(now)
	}
}

// status of the pool and its members.
func (p *pool) status() PoolStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := PoolStatus{ID: p.id, Counters: p.counters.snapshot()}
	for _, m := range p.members {
		st.Members = append(st.Members, p.memberStatus(m))
	}
	st.State, st.Reason = poolState(st.Members, p.cfg.MinActiveMembers)
	if !p.inUse {
		st.State, st.Reason = StateUnknown, "on no enabled virtual server"
	}
	notes := []string{st.Reason}
	for _, mon := range p.cfg.Monitors {
		unprobed := func(m *member) bool { pr := m.probers[mon.ID]; return pr != nil && pr.verdict.unprobed }
		if slices.ContainsFunc(p.members, unprobed) {
			notes = append(notes, fmt.Sprintf("monitor %s: this host cannot probe by %s, which counts as a success", mon.ID, mon.Type))
		}
	}
	st.Reason = joinReasons(append(notes, p.opaque)...)
	return st
}

func (p *pool) memberStatus(m *member) MemberStatus {
	st := MemberStatus{
		Address: m.cfg.Address, Port: m.cfg.Port, Backup: m.cfg.Backup,
		State: StateDown, FailureCause: p.failureCause(m), LastChange: m.changed, Counters: m.counters.snapshot(),
	}
	switch {
	case m.cfg.AdminState == Disabled:
		st.State = StateDisabled
	case m.cfg.AdminState == GracefulDisabled:
		st.State = StateGracefulDisabled
	case p.serves(m):
		st.State = StateUp
	}
	if m.up && !p.serves(m) {
		st.FailureCause = fmt.Sprintf("%d connections failed in a row", m.fails)
	}
	for _, pr := range m.probers {
		if pr.verdict.checked.After(st.LastCheck) {
			st.LastCheck = pr.verdict.checked
		}
	}
	return st
}

// poolState sums up members in NSX's words, and says why it is not UP.
func poolState(members []MemberStatus, minActive int) (State, string) {
	var primary, primaryUp, backupUp int
	for _, m := range members {
		switch {
		case m.Backup && m.State == StateUp:
			backupUp++
		case !m.Backup:
			primary++
			if m.State == StateUp {
				primaryUp++
			}
		}
	}
	counts := fmt.Sprintf("%d of %d members UP", primaryUp, primary)
	switch {
	case len(members) == 0:
		return StateDown, "no members"
	case backupUp > 0 && primaryUp < minActive:
		return StatePrimaryDown, fmt.Sprintf("%s of at least %d: backup members serve", counts, minActive)
	case primaryUp == 0:
		return StateDown, counts
	case primaryUp < primary:
		return StatePartiallyUp, counts
	default:
		return StateUp, ""
	}
}

func joinReasons(reasons ...string) string {
	return strings.Join(slices.DeleteFunc(reasons, func(r string) bool { return r == "" }), "; ")
}
