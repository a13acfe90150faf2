package dataplane

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// listening serves each connection to it with a function, and gives where it listens.
func listening(t *testing.T, config *tls.Config, serve func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			serve(conn)
			conn.Close()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// look probes a target as a monitor with NSX's defaults does.
func look(t *testing.T, m Monitor, target netip.AddrPort) error {
	t.Helper()
	p := Pool{Monitors: []Monitor{m}}.withDefaults()
	p.ID = "pool"
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	return probe(t.Context(), dialAny, netip.Addr{}, &p.Monitors[0], target)
}

func dialAny(ctx context.Context, network string, target netip.AddrPort) (net.Conn, error) {
	return dial(ctx, network, netip.Addr{}, target)
}

// explained holds an error against what it must say; "": there must be none.
func explained(err error, cause string) error {
	switch {
	case cause == "" && err != nil:
		return err
	case cause != "" && (err == nil || !strings.Contains(err.Error(), cause)):
		return fmt.Errorf("got %v, want %q", err, cause)
	}
	return nil
}

func TestTCPProbes(t *testing.T) {
	for name, tt := range map[string]struct {
		serve func(net.Conn)
		m     Monitor
		cause string
	}{
		"connects":       {func(net.Conn) {}, Monitor{}, ""},
		"sends only":     {func(c net.Conn) { bufio.NewReader(c).ReadString('\n') }, Monitor{Send: "hello\n"}, ""},
		"is greeted":     {func(c net.Conn) { io.WriteString(c, "220 ready") }, Monitor{Receive: "220"}, ""},
		"asks":           {func(c net.Conn) { line, _ := bufio.NewReader(c).ReadString('\n'); io.WriteString(c, "you said "+line) }, Monitor{Send: "ping\n", Receive: "said ping"}, ""},
		"in two parts":   {func(c net.Conn) { io.WriteString(c, "22"); io.WriteString(c, "0 ready") }, Monitor{Receive: "220 r"}, ""},
		"other answer":   {func(c net.Conn) { io.WriteString(c, "421 busy") }, Monitor{Receive: "220"}, `lacks "220"`},
		"no answer":      {func(net.Conn) {}, Monitor{Receive: "220"}, `lacks "220"`},
		"late":           {func(c net.Conn) { c.Read(make([]byte, 1)) }, Monitor{Receive: "220", Timeout: 30 * time.Millisecond}, "no answer within 30ms"},
		"without an end": {func(c net.Conn) { io.Copy(c, endless{}) }, Monitor{Receive: "220"}, `lacks "220"`},
	} {
		t.Run(name, func(t *testing.T) {
			tt.m.Type = MonitorTCP
			if err := explained(look(t, tt.m, listening(t, nil, tt.serve)), tt.cause); err != nil {
				t.Error(err)
			}
		})
	}
}

// A dial that gives up by its own clock is a probe without an answer, too.
func TestProbeWhoseDialTakesTooLong(t *testing.T) {
	for _, late := range []error{os.ErrDeadlineExceeded, context.DeadlineExceeded} {
		dial := func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: late}
		}
		m := &Monitor{Type: MonitorTCP, Timeout: time.Hour}
		err := probe(t.Context(), dial, netip.Addr{}, m, netip.MustParseAddrPort("127.0.0.1:80"))
		if err := explained(err, "TCP 127.0.0.1:80: no answer within 1h0m0s"); err != nil {
			t.Error(err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// What an HTTP monitor sends, to the byte.
func TestHTTPProbesRequest(t *testing.T) {
	for name, tt := range map[string]struct {
		m    Monitor
		want string // with the target for HOST
	}{
		"default": {Monitor{}, "GET / HTTP/1.1\r\nConnection: close\r\nHost: HOST\r\nUser-Agent: nsx-lb-monitor\r\n\r\n"},
		"all": {Monitor{Method: "POST", URL: "/ready?all=1", Body: "x=1", Headers: map[string]string{"host": "app.example", "X-Probe": "me"}},
			"POST /ready?all=1 HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\nHost: app.example\r\nUser-Agent: nsx-lb-monitor\r\nX-Probe: me\r\n\r\nx=1"},
		"HTTP/1.0":           {Monitor{Version: HTTP10}, "GET / HTTP/1.0\r\nConnection: close\r\nUser-Agent: nsx-lb-monitor\r\n\r\n"},
		"HTTP/1.0 to a name": {Monitor{Version: HTTP10, Headers: map[string]string{"Host": "app.example"}}, "GET / HTTP/1.0\r\nConnection: close\r\nHost: app.example\r\nUser-Agent: nsx-lb-monitor\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			target := listening(t, nil, func(c net.Conn) {
				buf := make([]byte, 4096)
				n, _ := c.Read(buf)
				got <- string(buf[:n])
				io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nfine")
			})
			tt.m.Type, tt.m.ResponseBody = MonitorHTTP, "fine"
			if err := look(t, tt.m, target); err != nil {
				t.Error(err)
			}
			if got, want := <-got, strings.ReplaceAll(tt.want, "HOST", target.String()); got != want {
				t.Errorf("sent %q, want %q", got, want)
			}
		})
	}
}

func TestHTTPSProbes(t *testing.T) {
	root, other := NewTestAuthority(t, "root", nil), NewTestAuthority(t, "other", nil)
	deep := NewTestAuthority(t, "lower", NewTestAuthority(t, "middle", root))
	member := func(c Certificate, edit func(*tls.Config)) netip.AddrPort {
		config, err := (&TLS{Certificates: []Certificate{c}}).toClient()
		if err != nil {
			t.Fatal(err)
		}
		if edit != nil {
			edit(config)
		}
		return listening(t, config, func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
	}
	short, long := root.Issue(t, "member"), deep.Issue(t, "member")
	for name, tt := range map[string]struct {
		target netip.AddrPort
		tls    *TLS
		cause  string
	}{
		"any certificate":   {member(short, nil), nil, ""},
		"signed":            {member(short, nil), &TLS{VerifyPeer: true, CAs: other.PEM + root.PEM}, ""},
		"signed by another": {member(short, nil), &TLS{VerifyPeer: true, CAs: other.PEM}, "unknown authority"},
		"through others":    {member(long, nil), &TLS{VerifyPeer: true, CAs: root.PEM, ChainDepth: 2}, ""},
		"through too many":  {member(long, nil), &TLS{VerifyPeer: true, CAs: root.PEM, ChainDepth: 1}, "chain is too long"},
		"protocol of both":  {member(short, nil), &TLS{Protocols: []string{"TLS_V1_2"}}, ""},
		"no protocol in common": {member(short, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS13, tls.VersionTLS13 }), nil,
			"protocol version not supported"},
		"no cipher in common": {member(short, func(c *tls.Config) {
			c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		}), &TLS{Ciphers: []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_UNKNOWN"}}, "handshake failure"},
		"certificate of its own": {member(short, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }),
			&TLS{Certificates: []Certificate{other.Issue(t, "monitor")}}, ""},
		"certificate that it lacks": {member(short, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), nil, "certificate required"},
	} {
		t.Run(name, func(t *testing.T) {
			err := look(t, Monitor{Type: MonitorHTTPS, TLS: tt.tls}, tt.target)
			if name == "certificate that it lacks" && err != nil {
				return // by which alert the member says so is its own affair
			}
			if err := explained(err, tt.cause); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTLSThatCannotBe(t *testing.T) {
	for name, m := range map[string]*TLS{
		"no authority": {VerifyPeer: true}, "bad key": {Certificates: []Certificate{{Chain: "x", Key: "very secret"}}},
		"SSL only": {Protocols: []string{"SSL_V3"}}, "no cipher": {Ciphers: []string{"TLS_UNKNOWN"}},
	} {
		p := Pool{ID: "p", Monitors: []Monitor{{Type: MonitorHTTPS, TLS: m}}}.withDefaults()
		err := p.check()
		if !errors.Is(err, ErrInvalid) || strings.Contains(fmt.Sprintf("%v %+v %#v", err, m, m), "very secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// There must be a port in the member or in the monitor: NSX looks nowhere else.
func TestProbesWithoutAPort(t *testing.T) {
	for _, kind := range []MonitorType{MonitorHTTP, MonitorHTTPS, MonitorTCP, MonitorUDP} {
		err := look(t, Monitor{Type: kind, Send: "x", Receive: "x"}, netip.MustParseAddrPort("127.0.0.1:0"))
		if err := explained(err, "neither the member nor the monitor has a port"); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestICMPProbes(t *testing.T) {
	for _, target := range []string{"127.0.0.1", "::1"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := probeICMP(ctx, netip.Addr{}, netip.MustParseAddr(target), 56)
		if errors.Is(err, errUnprobed) {
			t.Logf("%s: %v", target, err) // what comes of it then, TestUnprobedCountsAsASuccess tells
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}

// What else comes to the host does not fill a raw socket's buffer while it waits for the reply.
func TestRawSocketsGetRepliesOnly(t *testing.T) {
	conn, to, err := openICMP(netip.Addr{}, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Skip(err)
	}
	defer conn.Close()
	if _, raw := to.(*net.IPAddr); !raw || runtime.GOOS != "linux" {
		t.Skip("the kernel picks out the replies of ping sockets by itself; on other systems it cannot be told to")
	}
	filter, err := conn.IPv4PacketConn().ICMPFilter()
	if err != nil {
		t.Fatal(err)
	}
	if filter.WillBlock(ipv4.ICMPTypeEchoReply) || !filter.WillBlock(ipv4.ICMPTypeDestinationUnreachable) {
		t.Errorf("the filter is %+v", filter)
	}
}

func TestUnprobedCountsAsASuccess(t *testing.T) {
	m := &Monitor{Rise: 1, Fall: 1}
	v := newVerdict(&Options{})
	v.record(m, fmt.Errorf("ping: %w", errUnprobed), time.Now())
	if !v.up || !v.unprobed || v.cause != "" {
		t.Errorf("%+v", v)
	}
	v.record(m, errors.New("no answer"), time.Now())
	if v.up || v.unprobed {
		t.Errorf("%+v", v)
	}
}
