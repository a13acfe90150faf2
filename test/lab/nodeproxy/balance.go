package nodeproxy

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// balancer chooses the endpoint of a connection: in turn, or the client's last one with affinity.
type balancer struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	turn    int
	clients map[netip.Addr]affine
}

// affine is a client's endpoint.
type affine struct {
	endpoint netip.AddrPort
	last     time.Time // use
}

func newBalancer(c clock.PassiveClock) *balancer {
	return &balancer{clock: c, clients: map[netip.Addr]affine{}}
}

// choose returns one of the port's endpoints.
func (b *balancer) choose(port Port, client netip.Addr) netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	if port.Affinity > 0 {
		a, ok := b.clients[client]
		if ok && now.Sub(a.last) < port.Affinity && slices.Contains(port.Endpoints, a.endpoint) {
			b.clients[client] = affine{a.endpoint, now}
			return a.endpoint
		}
	}
	chosen := port.Endpoints[b.turn%len(port.Endpoints)]
	b.turn++
	if port.Affinity > 0 {
		b.clients[client] = affine{chosen, now}
	}
	return chosen
}
