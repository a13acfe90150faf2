package nodeproxy_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/echo"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/nodeproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a proxy on a node of a block, and two pods that answer TCP on port 80 and UDP on port 53.
type fixture struct {
	*nodeproxy.Proxy
	t     *testing.T
	block *block.Block
	clock *clocktesting.FakePassiveClock
	real  map[netip.AddrPort]netip.AddrPort
}

var (
	pod1 = netip.MustParseAddrPort("10.0.1.1:80")
	pod2 = netip.MustParseAddrPort("10.0.2.1:80")
	dns1 = netip.MustParseAddrPort("10.0.1.1:53")
	dns2 = netip.MustParseAddrPort("10.0.2.1:53")
	gone = netip.MustParseAddrPort("10.0.9.9:80") // nobody's
)

const number = 30080

func start(t *testing.T) *fixture {
	t.Helper()
	b, err := block.Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Release() })
	f := &fixture{t: t, block: b, real: map[netip.AddrPort]netip.AddrPort{}}
	f.clock = clocktesting.NewFakePassiveClock(time.Now())
	serve := func(s *echo.Server, err error) netip.AddrPort {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s.Addr()
	}
	f.real[pod1] = serve(echo.HTTP(echo.Identity{Pod: "default/pod-1", Node: here}, nil))
	f.real[pod2] = serve(echo.HTTP(echo.Identity{Pod: "default/pod-2", Node: there}, nil))
	f.real[dns1] = serve(echo.UDP(echo.Identity{Pod: "default/pod-1", Node: here}))
	f.real[dns2] = serve(echo.UDP(echo.Identity{Pod: "default/pod-2", Node: there}))
	p, err := nodeproxy.Start(f.config(f.clock))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	f.Proxy = p
	return f
}

func (f *fixture) config(c clock.PassiveClock) nodeproxy.Config {
	return nodeproxy.Config{
		Node: here, Address: f.block.Node(1), Clock: c,
		Locate: func(_ corev1.Protocol, pod netip.AddrPort) (netip.AddrPort, bool) {
			real, ok := f.real[pod]
			return real, ok
		},
	}
}

func (f *fixture) apply(plan nodeproxy.Plan) {
	f.t.Helper()
	if err := f.Apply(plan); err != nil {
		f.t.Fatal(err)
	}
}

func tcp(endpoints ...netip.AddrPort) nodeproxy.Port {
	return nodeproxy.Port{Service: web, Protocol: corev1.ProtocolTCP, Number: number, Endpoints: endpoints}
}

func udp(endpoints ...netip.AddrPort) nodeproxy.Port {
	return nodeproxy.Port{Service: web, Protocol: corev1.ProtocolUDP, Number: number, Endpoints: endpoints}
}

func ports(p ...nodeproxy.Port) nodeproxy.Plan { return nodeproxy.Plan{Ports: p} }

// dial connects to a port of the node as the i-th client.
func (f *fixture) dial(client int, network string, port uint16) (net.Conn, error) {
	d := net.Dialer{Timeout: time.Minute, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.block.Client(client), 0))}
	if network == "udp4" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.block.Client(client), 0))
	}
	conn, err := d.Dial(network, netip.AddrPortFrom(f.block.Node(1), port).String())
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
	}
	return conn, err
}

// ask sends one request on a connection of its own, or a datagram.
func (f *fixture) ask(client int, network string) (echo.Answer, error) {
	conn, err := f.dial(client, network, number)
	if err != nil {
		return echo.Answer{}, err
	}
	defer func() { _ = conn.Close() }()
	return askOn(conn, network)
}

func askOn(conn net.Conn, network string) (echo.Answer, error) {
	if network == "udp4" {
		if _, err := conn.Write([]byte("hello")); err != nil {
			return echo.Answer{}, err
		}
		buf := make([]byte, 1500)
		n, err := conn.Read(buf)
		if err != nil {
			return echo.Answer{}, err
		}
		return echo.Parse(string(buf[:n]))
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return echo.Answer{}, err
	}
	body, err := io.ReadAll(conn)
	if err != nil {
		return echo.Answer{}, err
	}
	return echo.Parse(string(body))
}

func (f *fixture) mustAsk(client int, network string) echo.Answer {
	f.t.Helper()
	a, err := f.ask(client, network)
	if err != nil {
		f.t.Fatalf("%s: %v", network, err)
	}
	return a
}

func TestSourceAddressByPolicy(t *testing.T) {
	f := start(t)
	for _, local := range []bool{false, true} {
		want := f.block.Node(1)
		if local {
			want = f.block.Client(7)
		}
		plan := ports(tcp(pod1), udp(dns1))
		for i := range plan.Ports {
			plan.Ports[i].Local = local
		}
		f.apply(plan)
		for _, network := range []string{"tcp4", "udp4"} {
			if got := f.mustAsk(7, network).Client.Addr(); got != want {
				t.Errorf("local %t, %s: the pod sees %s, want %s", local, network, got, want)
			}
		}
	}
}

func TestEndpointsTakeTurns(t *testing.T) {
	f := start(t)
	f.apply(ports(tcp(pod1, pod2), udp(dns1, dns2)))
	for _, network := range []string{"tcp4", "udp4"} {
		pods := map[string]int{}
		for i := range 6 { // datagrams from one port would be one flow, and the kernel may give a port twice
			pods[f.mustAsk(i+1, network).Pod]++
		}
		if pods["default/pod-1"] != 3 || pods["default/pod-2"] != 3 {
			t.Errorf("%s: 6 requests went to %v", network, pods)
		}
	}
}

func TestAffinityKeepsAClientForItsTime(t *testing.T) {
	f := start(t)
	port := tcp(pod1, pod2)
	port.Affinity = time.Hour
	f.apply(ports(port))
	first := f.mustAsk(1, "tcp4").Pod
	for range 3 {
		f.clock.SetTime(f.clock.Now().Add(59 * time.Minute)) // each use counts anew
		if got := f.mustAsk(1, "tcp4").Pod; got != first {
			t.Fatalf("client moved from %s to %s", first, got)
		}
	}
	if got := f.mustAsk(2, "tcp4").Pod; got == first {
		t.Errorf("another client got %s as well, out of turn", got)
	}
	f.clock.SetTime(f.clock.Now().Add(time.Hour))
	pods := map[string]bool{}
	for i := range 2 {
		pods[f.mustAsk(10+i, "tcp4").Pod] = true
	}
	if len(pods) != 2 {
		t.Errorf("new clients all got %v", pods)
	}
}

func TestNoEndpointNoListener(t *testing.T) {
	f := start(t)
	f.apply(ports(tcp(pod1), udp(dns1)))
	f.mustAsk(1, "tcp4")
	f.mustAsk(1, "udp4")
	f.apply(nodeproxy.Plan{})
	for _, network := range []string{"tcp4", "udp4"} {
		if _, err := f.ask(1, network); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s without endpoints: %v, want connection refused", network, err)
		}
	}
	f.apply(ports(tcp(pod2), udp(dns2)))
	for _, network := range []string{"tcp4", "udp4"} {
		if got := f.mustAsk(1, network).Pod; got != "default/pod-2" {
			t.Errorf("%s: answered by %s", network, got)
		}
	}
}

func TestPodThatIsGoneResets(t *testing.T) {
	f := start(t)
	f.apply(ports(tcp(gone)))
	if a, err := f.ask(1, "tcp4"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%+v, %v, want connection reset", a, err)
	}
}

func TestConnectionsOutliveTheirRule(t *testing.T) {
	f := start(t)
	f.apply(ports(tcp(pod1)))
	conn, err := f.dial(1, "tcp4", number)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	exchange := func() error {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		_, err := conn.Read(buf)
		return err
	}
	if err := exchange(); err != nil {
		t.Fatal(err)
	}
	f.apply(nodeproxy.Plan{})
	if err := exchange(); err != nil {
		t.Errorf("the connection ended with its rule: %v", err)
	}
	f.Close()
	if err := exchange(); err == nil {
		t.Error("the connection outlived the proxy")
	}
}

func TestFlowsFollowTheirRule(t *testing.T) {
	f := start(t)
	f.apply(ports(udp(dns1)))
	conn, err := f.dial(1, "udp4", number)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, step := range []struct {
		port nodeproxy.Port
		want string
	}{{udp(dns1), "default/pod-1"}, {udp(dns1, dns2), "default/pod-1"}, {udp(dns2), "default/pod-2"}} {
		f.apply(ports(step.port))
		a, err := askOn(conn, "udp4")
		if err != nil || a.Pod != step.want {
			t.Errorf("endpoints %v: %s, %v, want %s", step.port.Endpoints, a.Pod, err, step.want)
		}
	}
}

func TestPortThatCannotBeBoundIsNamedAndTriedAgain(t *testing.T) {
	f := start(t)
	thief, err := net.Listen("tcp4", netip.AddrPortFrom(f.block.Node(1), number).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = thief.Close() }()
	plan := ports(tcp(pod1), udp(dns1))
	err = f.Apply(plan)
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("Apply: %v, want address in use", err)
	}
	t.Log(err)
	f.mustAsk(1, "udp4") // the others are served
	_ = thief.Close()
	f.apply(plan)
	f.mustAsk(1, "tcp4")

	if other, err := nodeproxy.Start(f.config(f.clock)); !errors.Is(err, syscall.EADDRINUSE) {
		other.Close()
		t.Errorf("two proxies on one node: %v", err)
	}
}

// status asks a health check of the node.
func (f *fixture) status(port uint16, path string) (int, string) {
	f.t.Helper()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://%s%s", netip.AddrPortFrom(f.block.Node(1), port), path))
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHealthCheckNodePort(t *testing.T) {
	f := start(t)
	for _, n := range []int{2, 0, 1} {
		f.apply(nodeproxy.Plan{Checks: []nodeproxy.HealthCheck{{Service: web, Number: 31000, LocalEndpoints: n}}})
		want := http.StatusOK
		if n == 0 {
			want = http.StatusServiceUnavailable
		}
		code, body := f.status(31000, "/healthz")
		wantBody := fmt.Sprintf(`{"localEndpoints":%d,"service":{"name":"web","namespace":"default"},"serviceProxyHealthy":true}`+"\n", n)
		if code != want || body != wantBody {
			t.Errorf("%d endpoints: %d %s", n, code, body)
		}
	}
	f.apply(nodeproxy.Plan{})
	if code, _ := f.status(31000, "/healthz"); code != 0 {
		t.Errorf("the health check of no Service answers %d", code)
	}
}

func TestHealthzTellsWhetherTheNodeIsEligible(t *testing.T) {
	f := start(t)
	for _, eligible := range []bool{true, false, true} {
		f.SetEligible(eligible)
		want := http.StatusOK
		if !eligible {
			want = http.StatusServiceUnavailable
		}
		if code, body := f.status(nodeproxy.HealthzPort, "/healthz"); code != want {
			t.Errorf("eligible %t: %d %s", eligible, code, body)
		}
		if code, _ := f.status(nodeproxy.HealthzPort, "/livez"); code != http.StatusOK {
			t.Errorf("livez %d: it is about the proxy alone", code)
		}
	}
}
