package dataplane

import (
	"net/netip"
	"sync"
	"time"
)

// maxTies bounds the clients that one virtual server remembers; the one that expires first makes room.
const maxTies = 1 << 16

// stickiness remembers which member a client's address is tied to: source-IP persistence.
type stickiness struct {
	mu      sync.Mutex // held around the choice of a member, so that two first connections of a client agree
	timeout time.Duration
	ties    map[netip.Addr]tie
}

type tie struct {
	member  netip.AddrPort
	expires time.Time
}

func newStickiness() *stickiness { return &stickiness{ties: map[netip.Addr]tie{}} }

func (t *stickiness) setTimeout(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timeout = d
}

// assign hands the member that the client is tied to (or none) to choose, and ties the client to its choice.
func (t *stickiness) assign(client netip.Addr, now time.Time, choose func(preferred netip.AddrPort) *member) *member {
	t.mu.Lock()
	defer t.mu.Unlock()
	var preferred netip.AddrPort
	if known := t.ties[client]; now.Before(known.expires) {
		preferred = known.member
	}
	m := choose(preferred)
	if m != nil {
		t.tie(client, m.key, now)
	}
	return m
}

// touch lets the timeout begin anew, when a connection to member ends, unless the client is tied elsewhere by now.
func (t *stickiness) touch(client netip.Addr, member netip.AddrPort, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.ties[client]; !ok || known.member == member {
		t.tie(client, member, now)
	}
}

func (t *stickiness) tie(client netip.Addr, member netip.AddrPort, now time.Time) {
	if _, ok := t.ties[client]; !ok && len(t.ties) >= maxTies {
		delete(t.ties, t.firstToExpire())
	}
	t.ties[client] = tie{member: member, expires: now.Add(t.timeout)}
}

func (t *stickiness) firstToExpire() netip.Addr {
	var first netip.Addr
	for client, tie := range t.ties {
		if !first.IsValid() || tie.expires.Before(t.ties[first].expires) {
			first = client
		}
	}
	return first
}

// expire forgets the ties that are over.
func (t *stickiness) expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for client, tie := range t.ties {
		if !now.Before(tie.expires) {
			delete(t.ties, client)
		}
	}
}
