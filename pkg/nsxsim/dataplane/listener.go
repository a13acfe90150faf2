package dataplane

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// listener is one port of a virtual server.
type listener struct {
	vs   *virtualServer
	port uint16

	// Guarded by vs.mu.
	socket io.Closer // nil: not bound
	err    error     // why not

	// UDP flows by client.
	flowsMu sync.Mutex
	flows   map[netip.AddrPort]*flow
}

// open binds the port and begins to serve it.
func (l *listener) open(ctx context.Context, address netip.Addr, protocol Protocol) error {
	at := netip.AddrPortFrom(address, l.port).String()
	plane := l.vs.plane
	var config net.ListenConfig
	if protocol == UDP {
		conn, err := config.ListenPacket(ctx, "udp", at)
		if err != nil {
			return err
		}
		socket := conn.(*net.UDPConn)
		l.socket = socket
		l.flows = map[netip.AddrPort]*flow{}
		plane.running.Go(func() { l.receive(socket) })
		return nil
	}
	config.SetMultipathTCP(false) // its sockets cannot be reset
	ln, err := config.Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	l.socket = ln
	plane.running.Go(func() { l.accept(ln.(*net.TCPListener)) })
	return nil
}

// accept serves TCP clients until the listener is closed.
func (l *listener) accept(ln *net.TCPListener) {
	for {
		conn, err := ln.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // too many open files, or a client that has gone again
			l.vs.plane.pause()
			continue
		}
		s := l.vs.admit(l, unmap(conn.RemoteAddr().(*net.TCPAddr).AddrPort()))
		if s == nil {
			reset(conn)
			continue
		}
		l.vs.plane.running.Go(func() { s.serve(conn) })
	}
}

// serve connects a TCP client with a member until both are done.
func (s *session) serve(client *net.TCPConn) {
	defer s.end()
	if !s.own(client) {
		return
	}
	if with := s.listener.vs.serving(); with != nil {
		s.serveHTTP(client, with)
		return
	}
	server := s.connect()
	if server == nil {
		s.listener.vs.counters.refused.Add(1)
		s.abort()
		return
	}
	s.splice(client, server.(*net.TCPConn))
}

// pause lets a moment pass before an operation that failed is tried again.
func (p *Plane) pause() {
	select {
	case <-p.ctx.Done():
	case <-time.After(10 * time.Millisecond):
	}
}

// unmap turns an IPv4 address in IPv6 clothes into itself.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
