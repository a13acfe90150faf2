package dataplane_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen. Where it happens, nothing takes long, but for a machine that is
// busy with something else.
const patience = 30 * time.Second

// discard keeps net/http from writing to stderr what clients do wrong on purpose.
var discard = log.New(io.Discard, "", 0)

// network is a block of loopback addresses, chosen at random so that tests do not meet.
type network struct {
	a, b  byte
	given map[uint16]bool // ports
}

func newNetwork() *network {
	return &network{a: byte(64 + rand.IntN(160)), b: byte(rand.IntN(256)), given: map[uint16]bool{}}
}

func (n *network) addr(last byte) netip.Addr { return netip.AddrFrom4([4]byte{127, n.a, n.b, last}) }

// Addresses within a network.
const (
	vipHost    = 10
	snatHost   = 2
	clientHost = 200
)

// freePort returns a port that is free at an address for TCP and UDP, and that was not given before.
func (n *network) freePort(tb testing.TB, addr netip.Addr) uint16 {
	tb.Helper()
	for {
		l, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			tb.Fatal(err)
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		u, err := net.ListenPacket("udp", netip.AddrPortFrom(addr, port).String())
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		if !n.given[port] {
			n.given[port] = true
			return port
		}
	}
}

func newPlane(tb testing.TB, opts dataplane.Options) *dataplane.Plane {
	tb.Helper()
	if opts.Housekeeping == 0 {
		opts.Housekeeping = 20 * time.Millisecond
	}
	opts.DialTimeout = patience
	p := dataplane.New(opts)
	tb.Cleanup(p.Close)
	return p
}

func apply(tb testing.TB, p *dataplane.Plane, servers ...dataplane.VirtualServer) {
	tb.Helper()
	if err := p.Apply(tb.Context(), dataplane.Config{VirtualServers: servers}); err != nil {
		tb.Fatal(err)
	}
}

// eventually waits until a condition holds; it fails with what the condition says is wrong.
func eventually(tb testing.TB, condition func() error) {
	tb.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			tb.Fatalf("still after %v: %v", patience, err)
		}
	}
}

// memberStates waits until the members of the first pool have these states.
func memberStates(tb testing.TB, p *dataplane.Plane, want ...dataplane.State) {
	tb.Helper()
	eventually(tb, func() error {
		st := p.Status()
		if len(st.Pools) == 0 || len(st.Pools[0].Members) != len(want) {
			return fmt.Errorf("status %+v, want members %v", st, want)
		}
		for i, m := range st.Pools[0].Members {
			if m.State != want[i] {
				return fmt.Errorf("member %d is %s (%s), want %s", i, m.State, m.FailureCause, want[i])
			}
		}
		return nil
	})
}

// backend is a server on an address of the network, for TCP and UDP on one port. To a TCP client it says its name and the
// client's address in a line, and then echoes; a datagram it answers with the same line and the datagram.
type backend struct {
	name    string
	at      netip.AddrPort
	conns   atomic.Int64 // TCP connections it got
	tcp     net.Listener
	udp     net.PacketConn
	running sync.WaitGroup
}

func newBackend(tb testing.TB, addr netip.Addr, port uint16) *backend {
	tb.Helper()
	at := netip.AddrPortFrom(addr, port)
	b := &backend{name: addr.String(), at: at}
	var err error
	if b.tcp, err = net.Listen("tcp", at.String()); err != nil {
		tb.Fatal(err)
	}
	if b.udp, err = net.ListenPacket("udp", at.String()); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.running.Go(func() { b.serveTCP(ctx) })
	b.running.Go(b.serveUDP)
	tb.Cleanup(func() {
		cancel()
		b.stop()
		b.running.Wait()
	})
	return b
}

// stop closes the listening sockets; connections live on.
func (b *backend) stop() {
	b.tcp.Close()
	b.udp.Close()
}

func (b *backend) serveTCP(ctx context.Context) {
	for {
		conn, err := b.tcp.Accept()
		if err != nil {
			return
		}
		b.conns.Add(1)
		b.running.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			fmt.Fprintf(conn, "%s %s\n", b.name, host(conn.RemoteAddr()))
			io.Copy(conn, conn)
		})
	}
}

func (b *backend) serveUDP() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := b.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		b.udp.WriteTo(fmt.Appendf(nil, "%s %s\n%s", b.name, host(from), buf[:n]), from)
	}
}

func host(a net.Addr) netip.Addr { return netip.MustParseAddrPort(a.String()).Addr() }

// members makes a member of each backend.
func members(backends ...*backend) []dataplane.Member {
	var ms []dataplane.Member
	for _, b := range backends {
		ms = append(ms, dataplane.Member{Address: b.at.Addr(), Port: b.at.Port()})
	}
	return ms
}

// client is a TCP client that was greeted by a backend.
type client struct {
	*net.TCPConn
	in   *bufio.Reader
	name string     // of the backend
	seen netip.Addr // the client's address as the backend sees it
}

// connect connects from an address of the network (if it is valid) to a virtual server.
func connect(tb testing.TB, from netip.Addr, to netip.AddrPort) (*client, error) {
	d := net.Dialer{Timeout: patience}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	conn, err := d.Dial("tcp", to.String())
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c := &client{TCPConn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	c.name, c.seen, _, err = parseGreeting(line)
	return c, err
}

func mustConnect(tb testing.TB, from netip.Addr, to netip.AddrPort) *client {
	tb.Helper()
	c, err := connect(tb, from, to)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// echo sends a line and expects it back.
func (c *client) echo(line string) error {
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	got, err := c.in.ReadString('\n')
	if err != nil {
		return err
	}
	if got != line+"\n" {
		return fmt.Errorf("sent %q, got %q", line, got)
	}
	return nil
}

// udpClient returns a socket connected to a virtual server.
func udpClient(tb testing.TB, from netip.Addr, to netip.AddrPort) net.Conn {
	tb.Helper()
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a datagram and returns the backend that answered, the address it saw and the datagram it echoed.
func ask(conn net.Conn, datagram string, wait time.Duration) (name string, seen netip.Addr, echoed string, err error) {
	conn.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(conn, datagram); err != nil {
		return "", netip.Addr{}, "", err
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	if err != nil {
		return "", netip.Addr{}, "", err
	}
	return parseGreeting(string(buf[:n]))
}

// parseGreeting takes apart what a backend says first, and what follows it.
func parseGreeting(s string) (name string, seen netip.Addr, rest string, err error) {
	line, rest, _ := strings.Cut(s, "\n")
	name, address, _ := strings.Cut(line, " ")
	seen, err = netip.ParseAddr(address)
	return name, seen, rest, err
}

// healthServer answers HTTP health checks with a status that can be changed.
type healthServer struct {
	at     netip.AddrPort
	status atomic.Int64
	from   atomic.Value // netip.Addr of the last prober
	probes atomic.Int64
}

func newHealthServer(tb testing.TB, addr netip.Addr, port uint16, status int, secure bool) *healthServer {
	tb.Helper()
	h := &healthServer{}
	h.status.Store(int64(status))
	var config *tls.Config
	if secure {
		config = &tls.Config{}
	}
	h.at = serveHTTP(tb, netip.AddrPortFrom(addr, port), config, func(w http.ResponseWriter, r *http.Request) {
		h.from.Store(netip.MustParseAddrPort(r.RemoteAddr).Addr())
		h.probes.Add(1)
		w.WriteHeader(int(h.status.Load()))
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL, r.Header.Get("X-Probe"))
	})
	return h
}

// serveHTTP starts a web server on an address and port, of which 0 is a free one, and gives where it is. Without
// certificates in config it has one of httptest's.
func serveHTTP(tb testing.TB, at netip.AddrPort, config *tls.Config, serve http.HandlerFunc) netip.AddrPort {
	tb.Helper()
	listener, err := net.Listen("tcp", at.String())
	if err != nil {
		tb.Fatal(err)
	}
	srv := &httptest.Server{Listener: listener, TLS: config, Config: &http.Server{Handler: serve, ErrorLog: discard}}
	if config != nil {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	tb.Cleanup(srv.Close)
	return netip.MustParseAddrPort(listener.Addr().String())
}

// browser is an HTTP client at an address, with connections of its own. It follows no redirects.
func browser(tb testing.TB, from netip.Addr, config *tls.Config) *http.Client {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// fetch sends a request, to the host that the header names if it does, and gives the answer and its body.
func fetch(tb testing.TB, client *http.Client, method, url, body string, header http.Header) (*http.Response, string) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header, req.Host = header, header.Get("Host")
	resp, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp, string(text)
}
