package nodeagent

import (
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// addresses hands out the Pod addresses of a node: the one that was free for longest, so that a client with stale
// knowledge does not meet a stranger.
type addresses struct {
	prefix netip.Prefix
	last   netip.Addr
	used   map[netip.Addr]bool
}

func newAddresses(prefix netip.Prefix) *addresses {
	return &addresses{prefix: prefix.Masked(), last: prefix.Masked().Addr(), used: map[netip.Addr]bool{}}
}

// take returns a free address, never the network's own.
func (a *addresses) take() (netip.Addr, error) {
	for ip := a.next(a.last); ip != a.last; ip = a.next(ip) {
		if !a.used[ip] && ip != a.prefix.Addr() {
			a.used[ip] = true
			a.last = ip
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are in use", a.prefix)
}

func (a *addresses) next(ip netip.Addr) netip.Addr {
	if ip = ip.Next(); a.prefix.Contains(ip) {
		return ip
	}
	return a.prefix.Addr()
}

func (a *addresses) release(ip netip.Addr) { delete(a.used, ip) }

// routes say where the ports of Pods really listen.
type routes struct {
	mu   sync.RWMutex
	real map[route]netip.AddrPort
}

type route struct {
	protocol corev1.Protocol
	pod      netip.AddrPort
}

func (r *routes) locate(protocol corev1.Protocol, pod netip.AddrPort) (netip.AddrPort, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	real, ok := r.real[route{protocol, pod}]
	return real, ok
}

func (r *routes) add(from route, to netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.real == nil {
		r.real = map[route]netip.AddrPort{}
	}
	r.real[from] = to
}

func (r *routes) drop(from route) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.real, from)
}
