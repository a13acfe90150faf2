package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// errSource is in the error of a dial that failed for its source address, not for its target.
var errSource = errors.New("source address cannot be used")

// dialFromSNAT connects to target from the load balancer's own address.
func (p *Plane) dialFromSNAT(ctx context.Context, network string, target netip.AddrPort) (net.Conn, error) {
	source := p.opts.SNATAddress
	if source.Is4() != target.Addr().Is4() {
		source = netip.Addr{}
	}
	return dial(ctx, network, source, target)
}

// dial connects to target from an address, if it is valid, and a port of the host's choice.
func dial(ctx context.Context, network string, source netip.Addr, target netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{}
	if source.IsValid() {
		if source.Is4() != target.Addr().Is4() {
			return nil, fmt.Errorf("dial %v from %v: other address family: %w", target, source, errSource)
		}
		// The port is chosen on connect: a bound one would be taken for all targets at once.
		d.Control = chooseSourcePortLate
		switch from := netip.AddrPortFrom(source, 0); network {
		case "tcp":
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		case "udp":
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	conn, err := d.DialContext(ctx, network, target.String())
	if err != nil && source.IsValid() && refusesSource(err) {
		return nil, fmt.Errorf("%w: %w", errSource, err)
	}
	return conn, err
}

// refusesSource tells whether the host cannot send from the source address: it is not its own (bind fails), or
// it has no way from there to the target (EINVAL on connect).
func refusesSource(err error) bool {
	var call *os.SyscallError
	return errors.As(err, &call) && (call.Syscall == "bind" || errors.Is(call.Err, syscall.EINVAL))
}

// reset closes a connection so that a TCP peer gets a RST.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}
