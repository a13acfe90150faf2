package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// probeICMP sends an echo request with size bytes of data and waits for the reply. Where the host allows neither
// ping sockets (net.ipv4.ping_group_range) nor raw ones (CAP_NET_RAW), the error is errUnprobed.
func probeICMP(ctx context.Context, source, target netip.Addr, size int) error {
	conn, to, err := openICMP(source, target)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer endWith(ctx, conn)()
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if target.Is6() {
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	// A ping socket puts an id of its own into the request and gets the replies to that alone. A raw one gets all that
	// come to the host.
	echo := &icmp.Echo{ID: rand.IntN(1 << 16), Seq: rand.IntN(1 << 16), Data: make([]byte, size)}
	for i := range echo.Data {
		echo.Data[i] = byte(rand.IntN(1 << 8))
	}
	packet, err := (&icmp.Message{Type: request, Body: echo}).Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(packet, to); err != nil {
		return fmt.Errorf("ICMP %v: %w", target, err)
	}
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("ICMP %v: %w", target, err)
		}
		answer, err := icmp.ParseMessage(request.Protocol(), buf[:n])
		if err != nil || answer.Type != reply || addressOf(from) != target {
			continue
		}
		if got, ok := answer.Body.(*icmp.Echo); ok && got.Seq == echo.Seq && bytes.Equal(got.Data, echo.Data) {
			return nil
		}
	}
}

// openICMP opens a socket for echo requests and gives the target as its address.
func openICMP(source, target netip.Addr) (*icmp.PacketConn, net.Addr, error) {
	networks, local := [2]string{"udp4", "ip4:icmp"}, "0.0.0.0"
	if target.Is6() {
		networks, local = [2]string{"udp6", "ip6:ipv6-icmp"}, "::"
	}
	if source.IsValid() && source.Is4() == target.Is4() {
		local = source.String()
	}
	conn, err := icmp.ListenPacket(networks[0], local)
	if err == nil {
		return conn, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 0)), nil
	}
	raw, rawErr := icmp.ListenPacket(networks[1], local)
	switch {
	case rawErr == nil:
		onlyReplies(raw)
		return raw, &net.IPAddr{IP: target.AsSlice(), Zone: target.Zone()}, nil
	case errors.Is(rawErr, os.ErrPermission) || errors.Is(rawErr, syscall.EPROTONOSUPPORT) || errors.Is(rawErr, syscall.EAFNOSUPPORT):
		return nil, nil, fmt.Errorf("%w: %w", errUnprobed, errors.Join(err, rawErr))
	}
	return nil, nil, fmt.Errorf("ICMP %v: %w", target, rawErr)
}

// onlyReplies keeps from a raw socket all but echo replies, lest what comes to the host crowd out the one that is waited
// for. Where the host cannot, that may happen: the next probe comes soon.
func onlyReplies(conn *icmp.PacketConn) {
	if c := conn.IPv4PacketConn(); c != nil {
		var f ipv4.ICMPFilter
		f.SetAll(true)
		f.Accept(ipv4.ICMPTypeEchoReply)
		_ = c.SetICMPFilter(&f)
	}
	if c := conn.IPv6PacketConn(); c != nil {
		var f ipv6.ICMPFilter
		f.SetAll(true)
		f.Accept(ipv6.ICMPTypeEchoReply)
		_ = c.SetICMPFilter(&f)
	}
}

func addressOf(a net.Addr) netip.Addr {
	var ip net.IP
	switch a := a.(type) {
	case *net.UDPAddr:
		ip = a.IP
	case *net.IPAddr:
		ip = a.IP
	}
	address, _ := netip.AddrFromSlice(ip)
	return address.Unmap()
}
