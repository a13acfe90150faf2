package nodeproxy

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
)

// tcpPort is a node port for TCP.
type tcpPort struct {
	proxy    *Proxy
	listener *net.TCPListener
	balancer *balancer
	port     atomic.Pointer[Port]
}

func (p *Proxy) listenTCP(port Port) (forwarder, error) {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.config.Address, port.Number)))
	if err != nil {
		return nil, err
	}
	t := &tcpPort{proxy: p, listener: l, balancer: newBalancer(p.config.Clock)}
	t.port.Store(&port)
	p.running.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return // stopped
			}
			p.running.Go(func() { t.forward(conn) })
		}
	})
	return t, nil
}

func (t *tcpPort) update(port Port) { t.port.Store(&port) }

func (t *tcpPort) stop() { _ = t.listener.Close() }

// forward connects a client with an endpoint until one of them or the Proxy ends it.
func (t *tcpPort) forward(client *net.TCPConn) {
	p, port := t.proxy, *t.port.Load()
	from := client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	endpoint, err := p.dial(p.ctx, port, t.balancer.choose(port, from), from)
	if err != nil {
		reset(client) // what the client of a pod that refuses sees
		return
	}
	splice(p.ctx, client, endpoint.(*net.TCPConn))
}

// dial connects to an endpoint, from the address it shall see.
func (p *Proxy) dial(ctx context.Context, port Port, endpoint netip.AddrPort, client netip.Addr) (net.Conn, error) {
	real, ok := p.config.Locate(port.Protocol, endpoint)
	if !ok {
		return nil, &net.AddrError{Err: "no pod has this address", Addr: endpoint.String()}
	}
	source := netip.AddrPortFrom(p.source(port, client), 0)
	if port.Protocol == corev1.ProtocolUDP {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(source)}
		return d.DialContext(ctx, "udp4", real.String())
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(source)}
	return d.DialContext(ctx, "tcp4", real.String())
}

// splice copies both ways until both ends are done, one of them fails, or ctx ends.
func splice(ctx context.Context, a, b *net.TCPConn) {
	cut := func() { reset(a); reset(b) }
	defer context.AfterFunc(ctx, cut)()
	var halves sync.WaitGroup
	half := func(to, from *net.TCPConn) {
		if _, err := io.Copy(to, from); err != nil {
			cut()
			return
		}
		_ = to.CloseWrite() // the other half goes on, and finds out if this fails
	}
	halves.Go(func() { half(a, b) })
	halves.Go(func() { half(b, a) })
	halves.Wait()
	_, _ = a.Close(), b.Close()
}

// reset ends a connection with an RST.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
