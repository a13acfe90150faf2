package transport

import (
	"net/url"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// avoidance is how long a manager that failed is left alone while others work.
const avoidance = 30 * time.Second

// manager is one node of the NSX manager cluster.
type manager struct {
	url *url.URL
	// login is held by the one call that logs in to this manager.
	login chan struct{}

	mu         sync.Mutex
	session    *session // nil when there is none
	avoidUntil time.Time
}

// managers chooses which manager a call goes to: one and the same until it fails, since a session lives on one node.
type managers struct {
	clock clock.PassiveClock
	all   []*manager

	mu      sync.Mutex
	current int
}

func newManagers(urls []*url.URL, c clock.PassiveClock) *managers {
	ms := &managers{clock: c}
	for _, u := range urls {
		ms.all = append(ms.all, &manager{url: u, login: make(chan struct{}, 1)})
	}
	return ms
}

// pick returns the current manager, or the next one that has not failed lately. If all have, it is the one whose failure
// is the oldest.
func (ms *managers) pick() *manager {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	now := ms.clock.Now()
	best, until := -1, time.Time{}
	for i := range ms.all {
		n := (ms.current + i) % len(ms.all)
		u := ms.all[n].avoided()
		if !u.After(now) {
			best = n
			break
		}
		if best < 0 || u.Before(until) {
			best, until = n, u
		}
	}
	ms.current = best
	return ms.all[best]
}

// failed says that a manager did not do its work.
func (ms *managers) failed(m *manager) {
	until := ms.clock.Now().Add(avoidance)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.avoidUntil = until
}

func (m *manager) avoided() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.avoidUntil
}
