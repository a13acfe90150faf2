package dataplane

import (
	"net/netip"
	"sync"
	"time"
)

// maxTies bounds the clients that one table remembers.
const maxTies = 1 << 16

// stickiness remembers which member a client is tied to: by its address for source-IP persistence, by the value of a
// variable for generic persistence.
type stickiness struct {
	mu      sync.Mutex // held around the choice of a member, so that two first connections of a client agree
	timeout time.Duration
	noPurge bool
	ties    map[string]*tie
}

type tie struct {
	member      netip.AddrPort
	connections int       // that hold it
	expires     time.Time // once there are none
}

func newStickiness() *stickiness { return &stickiness{ties: map[string]*tie{}} }

func (t *stickiness) set(p *Persistence) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timeout, t.noPurge = p.Timeout, p.NoPurge
}

// assign hands the member that the client is tied to (or none) to choose, and ties the client to its choice until
// release.
func (t *stickiness) assign(client string, now time.Time, choose func(preferred netip.AddrPort) *member) *member {
	t.mu.Lock()
	defer t.mu.Unlock()
	var preferred netip.AddrPort
	known := t.ties[client]
	if known != nil && (known.connections > 0 || now.Before(known.expires)) {
		preferred = known.member
	}
	m := choose(preferred)
	switch {
	case m == nil:
	case known != nil && known.member == m.key:
		known.connections++
	case known != nil:
		t.ties[client] = &tie{member: m.key, connections: 1}
	case len(t.ties) < maxTies || t.makeRoom():
		t.ties[client] = &tie{member: m.key, connections: 1}
	}
	return m
}

// learn ties a client, unless it is tied already.
func (t *stickiness) learn(client string, member netip.AddrPort, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.ties[client]
	if known != nil && (known.connections > 0 || now.Before(known.expires)) || known == nil && len(t.ties) >= maxTies && !t.makeRoom() {
		return
	}
	t.ties[client] = &tie{member: member, expires: now.Add(t.timeout)}
}

// release gives back what a connection to member held. With the last one the timeout begins, unless the client is
// tied elsewhere by now.
func (t *stickiness) release(client string, member netip.AddrPort, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.ties[client]; known != nil && known.member == member && known.connections > 0 {
		known.connections--
		known.expires = now.Add(t.timeout)
	}
}

// makeRoom lets the client go whose tie expires first, if any may go.
func (t *stickiness) makeRoom() bool {
	if t.noPurge {
		return false
	}
	first := ""
	for client, tie := range t.ties {
		if tie.connections == 0 && (first == "" || tie.expires.Before(t.ties[first].expires)) {
			first = client
		}
	}
	delete(t.ties, first)
	return first != ""
}

// expire forgets the ties that are over.
func (t *stickiness) expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for client, tie := range t.ties {
		if tie.connections == 0 && !now.Before(tie.expires) {
			delete(t.ties, client)
		}
	}
}

// size is the number of clients that are tied.
func (t *stickiness) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ties)
}
