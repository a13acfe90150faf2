package dataplane

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// maxDatagram is the size of a buffer that holds any UDP datagram.
const maxDatagram = 1 << 16

// flow is the session of a UDP client: what it sends goes through a socket of its own to one member, what that
// answers goes back from the virtual server's address and port.
type flow struct {
	*session
	member net.Conn
}

// receive forwards the datagrams of all clients until the socket is closed.
func (l *listener) receive(socket *net.UDPConn) {
	plane := l.vs.plane
	buf := plane.datagrams.Get().(*[]byte)
	defer plane.datagrams.Put(buf)
	for {
		n, client, err := socket.ReadFromUDPAddrPort(*buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			plane.pause()
			continue
		}
		l.forward(socket, unmap(client), (*buf)[:n])
	}
}

// forward sends a datagram to the member of the client's flow. A flow that was aborted a moment ago is replaced.
func (l *listener) forward(socket *net.UDPConn, client netip.AddrPort, datagram []byte) {
	for range 2 {
		f := l.flow(client)
		if f == nil {
			f = l.openFlow(socket, client)
		}
		if f == nil || !errors.Is(f.send(datagram), net.ErrClosed) {
			return
		}
		l.dropFlow(f)
	}
}

func (l *listener) flow(client netip.AddrPort) *flow {
	l.flowsMu.Lock()
	defer l.flowsMu.Unlock()
	return l.flows[client]
}

// openFlow makes a flow for a client; nil if it is refused, or if no member is eligible. Only receive calls it.
func (l *listener) openFlow(socket *net.UDPConn, client netip.AddrPort) *flow {
	l.makeRoom()
	s := l.vs.admit(l, client)
	if s == nil {
		return nil
	}
	conn := s.connect()
	if conn == nil {
		l.vs.counters.refused.Add(1)
		s.end()
		return nil
	}
	f := &flow{session: s, member: conn}
	l.flowsMu.Lock()
	l.flows[client] = f
	l.flowsMu.Unlock()
	l.vs.plane.running.Go(func() {
		defer s.end()
		defer l.dropFlow(f)
		f.reply(socket)
	})
	return f
}

// makeRoom ends the flow that was idle longest, if there are as many as there may be.
func (l *listener) makeRoom() {
	l.flowsMu.Lock()
	defer l.flowsMu.Unlock()
	if len(l.flows) < l.vs.plane.opts.MaxFlows {
		return
	}
	var oldest *flow
	for _, f := range l.flows {
		if oldest == nil || f.active.Load() < oldest.active.Load() {
			oldest = f
		}
	}
	oldest.abort()
	delete(l.flows, oldest.client)
}

// dropFlow forgets f, unless the client has another flow by now.
func (l *listener) dropFlow(f *flow) {
	l.flowsMu.Lock()
	defer l.flowsMu.Unlock()
	if l.flows[f.client] == f {
		delete(l.flows, f.client)
	}
}

// send sends a datagram of the client to the member.
func (f *flow) send(datagram []byte) error {
	f.touch()
	_, err := f.member.Write(datagram)
	if errors.Is(err, syscall.ECONNREFUSED) {
		// This is the answer to an earlier datagram, told instead of sending this one.
		_, err = f.member.Write(datagram)
	}
	if err == nil {
		f.countIn(len(datagram))
	}
	return err
}

// reply sends what the member answers to the client until the flow is aborted.
func (f *flow) reply(socket *net.UDPConn) {
	buf := f.plane().datagrams.Get().(*[]byte)
	defer f.plane().datagrams.Put(buf)
	for {
		n, err := f.member.Read(*buf)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			continue // nobody listens there now: the health check's business
		case err != nil:
			return
		}
		f.touch()
		f.countOut(n)
		if _, err := socket.WriteToUDPAddrPort((*buf)[:n], f.client); errors.Is(err, net.ErrClosed) {
			return
		}
	}
}
