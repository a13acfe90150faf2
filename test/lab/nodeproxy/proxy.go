package nodeproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
)

// HealthzPort is where a proxy tells whether its node is fit for load balancer traffic.
const HealthzPort = 10256

// Config is what a Proxy needs to know of its node.
type Config struct {
	Node    string
	Address netip.Addr // what it listens on
	// Locate says where an endpoint of a pod really listens; false: nowhere.
	Locate func(protocol corev1.Protocol, endpoint netip.AddrPort) (netip.AddrPort, bool)
	Clock  clock.PassiveClock
}

// Proxy is the running proxy of one node.
type Proxy struct {
	config Config
	// ctx is that of all connections, and running counts all goroutines.
	ctx     context.Context
	cut     context.CancelFunc
	running sync.WaitGroup
	// eligible is false for a node that is being deleted.
	eligible atomic.Bool
	healthz  *httpServer

	mu     sync.Mutex
	ports  map[portKey]forwarder
	checks map[uint16]*checkServer
}

type portKey struct {
	protocol corev1.Protocol
	number   uint16
}

// forwarder is a node port that is listened on.
type forwarder interface {
	update(Port)
	// stop stops listening. TCP connections live on, as they do with kube-proxy.
	stop()
}

// Start starts a Proxy that forwards nothing yet. It fails when the port of its own health check cannot be bound.
func Start(c Config) (*Proxy, error) {
	p := &Proxy{config: c, ports: map[portKey]forwarder{}, checks: map[uint16]*checkServer{}}
	p.ctx, p.cut = context.WithCancel(context.Background())
	p.eligible.Store(true)
	var err error
	if p.healthz, err = p.serveHTTP(HealthzPort, p.healthzHandler()); err != nil {
		p.cut()
		return nil, fmt.Errorf("proxy of node %s: its health check: %w", c.Node, err)
	}
	return p, nil
}

// SetEligible says whether the node may get load balancer traffic; at first it may.
func (p *Proxy) SetEligible(yes bool) { p.eligible.Store(yes) }

// Apply makes plan what the proxy does. The error names each port that cannot be bound; all others are served, and Apply
// may be called again.
func (p *Proxy) Apply(plan Plan) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return nil // closed
	}
	// A number may move from one list to the other: let go first, then bind.
	p.dropPorts(plan.Ports)
	p.dropChecks(plan.Checks)
	return errors.Join(p.bindPorts(plan.Ports), p.bindChecks(plan.Checks))
}

// Close stops listening, resets all connections and waits for all goroutines.
func (p *Proxy) Close() {
	p.cut()
	p.mu.Lock()
	p.dropPorts(nil)
	p.dropChecks(nil)
	p.mu.Unlock()
	p.healthz.stop()
	p.running.Wait()
}

func (p *Proxy) dropPorts(wanted []Port) {
	keep := map[portKey]bool{}
	for _, port := range wanted {
		keep[portKey{port.Protocol, port.Number}] = true
	}
	for key, f := range p.ports {
		if !keep[key] {
			f.stop()
			delete(p.ports, key)
		}
	}
}

func (p *Proxy) bindPorts(wanted []Port) error {
	var errs []error
	for _, port := range wanted {
		key := portKey{port.Protocol, port.Number}
		if f, ok := p.ports[key]; ok {
			f.update(port)
			continue
		}
		f, err := p.listen(port)
		if err != nil {
			errs = append(errs, fmt.Errorf("proxy of node %s: node port of Service %s: %w", p.config.Node, port.Service, err))
			continue
		}
		p.ports[key] = f
	}
	return errors.Join(errs...)
}

func (p *Proxy) listen(port Port) (forwarder, error) {
	if port.Protocol == corev1.ProtocolUDP {
		return p.listenUDP(port)
	}
	return p.listenTCP(port)
}

// source is the address that an endpoint of port sees.
func (p *Proxy) source(port Port, client netip.Addr) netip.Addr {
	if port.Local {
		return client
	}
	return p.config.Address
}
