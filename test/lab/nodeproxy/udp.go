package nodeproxy

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// udpIdle is how long a UDP flow is remembered without a datagram in either direction, as conntrack does.
const udpIdle = time.Minute

// udpPort is a node port for UDP.
type udpPort struct {
	proxy    *Proxy
	conn     *net.UDPConn
	balancer *balancer

	mu      sync.Mutex
	port    Port
	stopped bool
	flows   map[netip.AddrPort]*flow
}

// flow is the datagrams of one client's port, all to one endpoint.
type flow struct {
	endpoint netip.AddrPort
	conn     net.Conn
}

func (p *Proxy) listenUDP(port Port) (forwarder, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.config.Address, port.Number)))
	if err != nil {
		return nil, err
	}
	u := &udpPort{proxy: p, conn: conn, balancer: newBalancer(p.config.Clock), port: port, flows: map[netip.AddrPort]*flow{}}
	p.running.Go(u.receive)
	return u, nil
}

// update ends the flows whose endpoint is not usable any more, as kube-proxy clears such entries of conntrack.
func (u *udpPort) update(port Port) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for client, f := range u.flows {
		if port.Local != u.port.Local || !slices.Contains(port.Endpoints, f.endpoint) {
			u.end(client, f)
		}
	}
	u.port = port
}

func (u *udpPort) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	_ = u.conn.Close()
	for client, f := range u.flows {
		u.end(client, f)
	}
}

// end forgets a flow; its goroutine notices. The caller holds the lock.
func (u *udpPort) end(client netip.AddrPort, f *flow) {
	_ = f.conn.Close()
	if u.flows[client] == f {
		delete(u.flows, client)
	}
}

// receive forwards what clients send.
func (u *udpPort) receive() {
	buf := make([]byte, 64<<10)
	for {
		n, client, err := u.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			u.mu.Lock()
			stopped := u.stopped
			u.mu.Unlock()
			if stopped {
				return
			}
			continue // an ICMP error for an earlier answer
		}
		if f := u.flowOf(client); f != nil {
			_ = f.conn.SetReadDeadline(time.Now().Add(udpIdle))
			_, _ = f.conn.Write(buf[:n]) // datagrams may get lost
		}
	}
}

// flowOf returns the flow of a client, a new one if need be, or nil if its endpoint cannot be reached.
func (u *udpPort) flowOf(client netip.AddrPort) *flow {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f, ok := u.flows[client]; ok || u.stopped {
		return f
	}
	endpoint := u.balancer.choose(u.port, client.Addr())
	conn, err := u.proxy.dial(u.proxy.ctx, u.port, endpoint, client.Addr())
	if err != nil {
		return nil
	}
	f := &flow{endpoint: endpoint, conn: conn}
	u.flows[client] = f
	u.proxy.running.Go(func() { u.answer(client, f) })
	return f
}

// answer returns the endpoint's datagrams to the client until the flow ends or idles.
func (u *udpPort) answer(client netip.AddrPort, f *flow) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.conn.Read(buf)
		if err != nil {
			break // idle, ended, or refused by the endpoint: the next datagram begins a new flow
		}
		_ = f.conn.SetReadDeadline(time.Now().Add(udpIdle))
		_, _ = u.conn.WriteToUDPAddrPort(buf[:n], client)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.end(client, f)
}
