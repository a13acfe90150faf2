//go:build linux

package nftables_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// patience is how long a host waits for an answer that should come.
const patience = 30 * time.Second

// silence is how long nothing must come when nothing should.
const silence = 150 * time.Millisecond

// A host is a process in a network namespace of its own, which does what it is told by RPC on its standard streams.

func serveHost() {
	h := &Host{listeners: map[string]io.Closer{}, conns: map[int]net.Conn{}}
	server := rpc.NewServer()
	if err := server.Register(h); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server.ServeConn(stdio{os.Stdin, os.Stdout})
}

type stdio struct {
	io.Reader
	io.WriteCloser
}

// Host is what a host can be told.
type Host struct {
	mu        sync.Mutex
	listeners map[string]io.Closer
	conns     map[int]net.Conn
	last      int
	load      *load
}

// Serve answers on a port, with who asks for each line or datagram, and what.
type Serve struct {
	Network, Address, Name string
}

// Serve starts to serve.
func (h *Host) Serve(s Serve, _ *struct{}) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.Network == "udp" {
		conn, err := net.ListenPacket("udp", s.Address)
		if err != nil {
			return err
		}
		h.listeners[s.Network+s.Address] = conn
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				fmt.Fprintf(writerTo{conn, from}, "%s %v %s", s.Name, from, buf[:n])
			}
		}()
		return nil
	}
	ln, err := net.Listen("tcp", s.Address)
	if err != nil {
		return err
	}
	h.listeners[s.Network+s.Address] = ln
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if _, err := fmt.Fprintf(conn, "%s %v %s\n", s.Name, conn.RemoteAddr(), lines.Text()); err != nil {
						return
					}
				}
			}()
		}
	}()
	return nil
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

// Stop ends what Serve began; what is connected stays so.
func (h *Host) Stop(s Serve, _ *struct{}) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.listeners[s.Network+s.Address]
	delete(h.listeners, s.Network+s.Address)
	return l.Close()
}

// Dial is a connection to make.
type Dial struct {
	Network, From, To string
	Short             bool // silence is what is awaited
}

// Answer is what came of something, or why nothing.
type Answer struct {
	Conn    int
	Text    string
	Failure string // "refused", "reset", "timeout", "closed", or an error's text
}

// Dial makes a connection.
func (h *Host) Dial(d Dial, a *Answer) error {
	conn, err := dial(d)
	if err != nil {
		a.Failure = failure(err)
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	a.Conn = h.last
	h.conns[a.Conn] = conn
	return nil
}

func dial(d Dial) (net.Conn, error) {
	dialer := net.Dialer{Timeout: patience}
	if d.Short {
		dialer.Timeout = silence
	}
	switch {
	case d.From == "":
	case d.Network == "udp":
		return dialUDP(dialer, d)
	default:
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(d.From), 0))
	}
	return dialer.Dial(d.Network, d.To)
}

// flows counts the UDP flows of this host.
var flows atomic.Uint32

// dialUDP gives each flow a port that no other had for long: one of a port of the kernel's choice, which may have been
// another's a moment ago, is that one to the edge.
func dialUDP(dialer net.Dialer, d Dial) (net.Conn, error) {
	const first, n = 1024, 28 << 10 // below those of the kernel's choice
	for {
		from := netip.AddrPortFrom(netip.MustParseAddr(d.From), uint16(first+flows.Add(1)%n))
		dialer.LocalAddr = net.UDPAddrFromAddrPort(from)
		conn, err := dialer.Dial(d.Network, d.To)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return conn, err
		}
	}
}

// Ask is something to send on a connection.
type Ask struct {
	Conn  int
	Text  string
	Short bool // silence is what is awaited
	ToEnd bool // all is read, until the connection ends
}

// Ask sends a line or a datagram, and reads the answer.
func (h *Host) Ask(q Ask, a *Answer) error {
	h.mu.Lock()
	conn := h.conns[q.Conn]
	h.mu.Unlock()
	a.Conn = q.Conn
	wait := patience
	if q.Short {
		wait = silence
	}
	var err error
	if a.Text, err = ask(conn, q.Text, wait); err != nil {
		a.Failure = failure(err)
	}
	if q.ToEnd && err == nil {
		rest, err := io.ReadAll(conn)
		a.Text += string(rest)
		return err
	}
	return nil
}

func ask(conn net.Conn, text string, wait time.Duration) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, text+"\n"); err != nil {
		return "", err
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	return strings.TrimSpace(string(buf[:n])), err
}

// Close closes a connection, if it is not closed yet.
func (h *Host) Close(conn int, _ *struct{}) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.conns[conn]; c != nil {
		delete(h.conns, conn)
		return c.Close()
	}
	return nil
}

func failure(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF):
		return "closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return err.Error()
}

// Ping is an address to send an ICMP echo request to.
type Ping struct {
	To    string
	Short bool // silence is what is awaited
}

// Ping sends it and awaits the answer to it, and to no earlier one.
func (h *Host) Ping(p Ping, a *Answer) error {
	h.mu.Lock()
	h.last++
	sequence := h.last % (1 << 16)
	h.mu.Unlock()
	conn, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
	if err != nil {
		return err
	}
	defer conn.Close()
	echo := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: sequence, Data: []byte("ping")}}
	b, err := echo.Marshal(nil)
	if err != nil {
		return err
	}
	wait := patience
	if p.Short {
		wait = silence
	}
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := conn.WriteTo(b, &net.IPAddr{IP: net.ParseIP(p.To)}); err != nil {
		a.Failure = failure(err)
		return nil
	}
	for buf := make([]byte, 1500); ; {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			a.Failure = failure(err)
			return nil
		}
		if m, err := icmp.ParseMessage(1, buf[:n]); err == nil && m.Type == ipv4.ICMPTypeEchoReply {
			if echo, ok := m.Body.(*icmp.Echo); ok && echo.Seq == sequence {
				a.Text = from.String()
				return nil
			}
		}
	}
}

// load is many clients that ask one after the other.
type load struct {
	stop     chan struct{}
	running  sync.WaitGroup
	asked    atomic.Int64
	mu       sync.Mutex
	failures []string
}

// Load is what a load did.
type Load struct {
	Asked    int64
	Failures []string
}

// StartLoad begins to ask on new connections over and over, and on one for each client that stays.
func (h *Host) StartLoad(d Dial, _ *struct{}) error {
	l := &load{stop: make(chan struct{})}
	h.load = l
	for i := range 4 {
		l.running.Go(func() {
			kept, err := dial(d)
			if err != nil {
				l.fail(err)
				return
			}
			defer kept.Close()
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if _, err := ask(kept, "kept", patience); err != nil {
					l.fail(fmt.Errorf("on the connection that stays: %w", err))
					return
				}
				conn, err := dial(d)
				if err == nil {
					_, err = ask(conn, fmt.Sprint("client ", i), patience)
					if tcp, ok := conn.(*net.TCPConn); ok {
						tcp.SetLinger(0) // a reset: the port is free again at once
					}
					conn.Close()
				}
				if err != nil {
					l.fail(err)
				}
				l.asked.Add(1)
			}
		})
	}
	return nil
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, err.Error())
}

// Asked tells how much the load has asked by now.
func (h *Host) Asked(_ struct{}, r *Load) error {
	r.Asked = h.load.asked.Load()
	return nil
}

// StopLoad ends it.
func (h *Host) StopLoad(_ struct{}, r *Load) error {
	close(h.load.stop)
	h.load.running.Wait()
	*r = Load{h.load.asked.Load(), h.load.failures}
	return nil
}

// host is a Host seen from the edge.
type host struct {
	name    string
	process *exec.Cmd
	rpc     *rpc.Client
	input   io.Closer
}

func startHost(name string) (*host, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &host{name: name, process: exec.Command(self)}
	h.process.Env = append(os.Environ(), roleEnv+"="+roleHost)
	h.process.Stderr = os.Stderr
	h.process.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET} // it ends with its standard input
	in, err := h.process.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := h.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := h.process.Start(); err != nil {
		return nil, fmt.Errorf("starting the host %s: %w", name, err)
	}
	h.input = in
	h.rpc = rpc.NewClient(stdio{out, in})
	return h, nil
}

func (h *host) stop() error {
	return errors.Join(h.rpc.Close(), h.process.Wait())
}

// call tells a host something.
func call[A, R any](t testing.TB, h *host, method string, args A) R {
	t.Helper()
	var reply R
	if err := h.rpc.Call("Host."+method, args, &reply); err != nil {
		t.Fatalf("%s: %s(%v): %v", h.name, method, args, err)
	}
	return reply
}
