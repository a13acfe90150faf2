package dataplane_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// scene is a virtual server of one port, with two backends.
type scene struct {
	*network
	plane    *dataplane.Plane
	backends [2]*backend
	vip      netip.AddrPort
	vs       dataplane.VirtualServer
}

func newScene(tb testing.TB, protocol dataplane.Protocol, opts dataplane.Options) *scene {
	tb.Helper()
	s := &scene{network: newNetwork()}
	if !opts.SNATAddress.IsValid() {
		opts.SNATAddress = s.addr(snatHost)
	}
	for i := range s.backends {
		addr := s.addr(byte(21 + i))
		s.backends[i] = newBackend(tb, addr, s.freePort(tb, addr))
	}
	s.vip = netip.AddrPortFrom(s.addr(vipHost), s.freePort(tb, s.addr(vipHost)))
	s.vs = dataplane.VirtualServer{
		ID: "vs", Address: s.vip.Addr(), Protocol: protocol,
		Ports: []dataplane.PortMap{{Listen: s.vip.Port()}},
		Pool:  &dataplane.Pool{ID: "pool", Members: members(s.backends[:]...)},
	}
	s.plane = newPlane(tb, opts)
	return s
}

// with returns the virtual server after an edit; its pool is a copy.
func (s *scene) with(edit func(vs *dataplane.VirtualServer)) dataplane.VirtualServer {
	vs := s.vs
	pool := *s.vs.Pool
	pool.Members = append([]dataplane.Member(nil), pool.Members...)
	vs.Pool = &pool
	edit(&vs)
	return vs
}

// wasReset tells whether an error is what a client sees when its connection is reset.
func wasReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func TestTCPForwardsToMembersInTurn(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.vs)
	got := map[string]int{}
	for range 10 {
		c := mustConnect(t, s.addr(clientHost), s.vip)
		if err := c.echo("hello"); err != nil {
			t.Fatal(err)
		}
		got[c.name]++
	}
	if want := map[string]int{s.backends[0].name: 5, s.backends[1].name: 5}; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

func TestSourceAddressThatMembersSee(t *testing.T) {
	for _, protocol := range []dataplane.Protocol{dataplane.TCP, dataplane.UDP} {
		for _, snat := range []dataplane.SNAT{dataplane.AutoMap, dataplane.Transparent} {
			t.Run(fmt.Sprint(protocol, "/", snat), func(t *testing.T) {
				s := newScene(t, protocol, dataplane.Options{})
				apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.Pool.SNAT = snat }))
				want := map[dataplane.SNAT]netip.Addr{
					dataplane.AutoMap: s.addr(snatHost), dataplane.Transparent: s.addr(clientHost),
				}[snat]
				var seen netip.Addr
				if protocol == dataplane.TCP {
					seen = mustConnect(t, s.addr(clientHost), s.vip).seen
				} else {
					var err error
					if _, seen, _, err = ask(udpClient(t, s.addr(clientHost), s.vip), "ping", patience); err != nil {
						t.Fatal(err)
					}
				}
				if seen != want {
					t.Errorf("the backend saw %v, want %v", seen, want)
				}
			})
		}
	}
}

// needIPv6 skips a test on a host without ::1.
func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("the host has no ::1: %v", err)
	}
	l.Close()
}

func TestIPv6(t *testing.T) {
	needIPv6(t)
	for _, snat := range []dataplane.SNAT{dataplane.AutoMap, dataplane.Transparent} {
		t.Run(string(snat), func(t *testing.T) {
			s := newScene(t, dataplane.TCP, dataplane.Options{}) // with an IPv4 SNAT address
			local := netip.IPv6Loopback()
			vip := netip.AddrPortFrom(local, s.freePort(t, local))
			b := newBackend(t, local, s.freePort(t, local))
			apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
				vs.Address, vs.Ports = vip.Addr(), []dataplane.PortMap{{Listen: vip.Port()}}
				vs.Pool.Members, vs.Pool.SNAT = members(b), snat
				vs.Pool.Monitors = []dataplane.Monitor{{ID: "m", Type: dataplane.MonitorTCP}}
			}))
			memberStates(t, s.plane, up)
			if c := mustConnect(t, netip.Addr{}, vip); c.seen != local {
				t.Errorf("the backend saw %v", c.seen)
			}
			if reason := s.plane.Status().Pools[0].Reason; reason != "" {
				t.Errorf("reason %q", reason)
			}
		})
	}
}

func TestHalfClose(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.vs)
	c := mustConnect(t, s.addr(clientHost), s.vip)
	fmt.Fprint(c, "the last words")
	c.CloseWrite()
	if got, err := io.ReadAll(c.in); string(got) != "the last words" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestMemberPorts(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	second := s.freePort(t, s.addr(vipHost))
	vs := s.with(func(vs *dataplane.VirtualServer) {
		vs.Pool.Members = []dataplane.Member{{Address: s.backends[0].at.Addr()}} // no port of its own
		vs.Ports = []dataplane.PortMap{
			{Listen: s.vip.Port(), Member: s.backends[0].at.Port()},
			{Listen: second}, // the same port on the member
		}
	})
	other := newBackend(t, s.backends[0].at.Addr(), second)
	apply(t, s.plane, vs)
	mustConnect(t, netip.Addr{}, s.vip)
	mustConnect(t, netip.Addr{}, netip.AddrPortFrom(s.vip.Addr(), second))
	if got := [2]int64{s.backends[0].conns.Load(), other.conns.Load()}; got != [2]int64{1, 1} {
		t.Errorf("connections %v, want one each", got)
	}
}

func TestDialFailureTriesTheNextMember(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	s.backends[0].stop()
	apply(t, s.plane, s.vs)
	for range 4 {
		if c := mustConnect(t, netip.Addr{}, s.vip); c.name != s.backends[1].name {
			t.Errorf("%s answered", c.name)
		}
	}
	if refused := s.plane.Status().Pools[0].Members[0].Counters.RefusedConnections; refused == 0 {
		t.Error("no refused connection is counted for the dead member")
	}
}

func TestNoMemberResetsTheConnection(t *testing.T) {
	for name, edit := range map[string]func(*dataplane.VirtualServer){
		"no pool":         func(vs *dataplane.VirtualServer) { vs.Pool = nil },
		"no members":      func(vs *dataplane.VirtualServer) { vs.Pool.Members = nil },
		"nobody answers":  func(vs *dataplane.VirtualServer) { vs.Pool.Members[0].Port, vs.Pool.Members[1].Port = 1, 1 },
		"all are drained": func(vs *dataplane.VirtualServer) { drain(vs.Pool, dataplane.GracefulDisabled, 0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, dataplane.TCP, dataplane.Options{})
			apply(t, s.plane, s.with(edit))
			if _, err := connect(t, netip.Addr{}, s.vip); !wasReset(err) {
				t.Errorf("connecting ends with %v, want a reset", err)
			}
			eventually(t, func() error {
				if c := s.plane.Status().VirtualServers[0].Counters; c.RefusedConnections != 1 || c.CurrentConnections != 0 {
					return fmt.Errorf("counters %+v", c)
				}
				return nil
			})
		})
	}
}

func TestUDPForwardsEachClientToOneMember(t *testing.T) {
	s := newScene(t, dataplane.UDP, dataplane.Options{})
	apply(t, s.plane, s.vs)
	got := map[string]int{}
	for range 4 {
		conn := udpClient(t, s.addr(clientHost), s.vip)
		var first string
		for i := range 3 {
			name, _, echoed, err := ask(conn, fmt.Sprint("ping", i), patience)
			if err != nil || echoed != fmt.Sprint("ping", i) {
				t.Fatalf("answer %q, %v", echoed, err)
			}
			if first == "" {
				first = name
			}
			if name != first {
				t.Errorf("the client's datagrams went to %s and %s", first, name)
			}
		}
		got[first]++
	}
	if want := map[string]int{s.backends[0].name: 2, s.backends[1].name: 2}; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(want, got))
	}
}

func TestUDPLargestDatagram(t *testing.T) {
	s := newScene(t, dataplane.UDP, dataplane.Options{})
	apply(t, s.plane, s.vs)
	sent := strings.Repeat("x", 65000)
	if _, _, echoed, err := ask(udpClient(t, s.addr(clientHost), s.vip), sent, patience); err != nil || echoed != sent {
		t.Errorf("got %d bytes back, %v", len(echoed), err)
	}
}

func TestUDPFlowsAreBounded(t *testing.T) {
	s := newScene(t, dataplane.UDP, dataplane.Options{MaxFlows: 3})
	apply(t, s.plane, s.vs)
	var first net.Conn
	for range 8 {
		conn := udpClient(t, s.addr(clientHost), s.vip)
		if first == nil {
			first = conn
		}
		if _, _, _, err := ask(conn, "ping", patience); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		if c := s.plane.Status().VirtualServers[0].Counters; c.CurrentConnections != 3 || c.TotalConnections != 8 {
			return fmt.Errorf("counters %+v, want 3 flows of 8", c)
		}
		return nil
	})
	if _, _, _, err := ask(first, "again", patience); err != nil {
		t.Errorf("a client whose flow was forgotten gets no new one: %v", err)
	}
}

func TestUDPMemberThatListensAgain(t *testing.T) {
	s := newScene(t, dataplane.UDP, dataplane.Options{})
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.Pool.Members = vs.Pool.Members[:1] }))
	conn := udpClient(t, s.addr(clientHost), s.vip)
	if _, _, _, err := ask(conn, "ping", patience); err != nil {
		t.Fatal(err)
	}
	s.backends[0].udp.Close()
	if _, _, _, err := ask(conn, "nobody", 50*time.Millisecond); err == nil {
		t.Fatal("a closed backend answered")
	}
	udp, err := net.ListenPacket("udp", s.backends[0].at.String())
	if err != nil {
		t.Fatal(err)
	}
	again := &backend{name: "again", udp: udp}
	done := make(chan struct{})
	go func() { again.serveUDP(); close(done) }()
	defer func() { udp.Close(); <-done }()
	if name, _, _, err := ask(conn, "ping", patience); err != nil || name != "again" {
		t.Errorf("got %q, %v", name, err)
	}
}

func TestConcurrentConnections(t *testing.T) {
	const clients = 200
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.vs)
	var wg sync.WaitGroup
	errs := make(chan error, clients)
	allIn := make(chan struct{})
	var in sync.WaitGroup
	in.Add(clients)
	for i := range clients {
		wg.Go(func() {
			c, err := connect(t, s.addr(clientHost), s.vip)
			in.Done()
			if err != nil {
				errs <- err
				return
			}
			<-allIn
			for j := range 5 {
				if err := c.echo(fmt.Sprintf("%d/%d %s", i, j, strings.Repeat("x", 4000))); err != nil {
					errs <- err
					return
				}
			}
			c.Close()
		})
	}
	in.Wait()
	if st := s.plane.Status(); st.VirtualServers[0].Counters.CurrentConnections != clients {
		t.Errorf("%+v, want %d connections", st.VirtualServers[0].Counters, clients)
	}
	close(allIn)
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	eventually(t, func() error {
		st := s.plane.Status()
		vs, pool := st.VirtualServers[0].Counters, st.Pools[0].Counters
		if vs.CurrentConnections != 0 || vs.MaxConnections != clients || vs.TotalConnections != clients || vs.RefusedConnections != 0 {
			return fmt.Errorf("counters %+v", vs)
		}
		if vs != pool {
			return errors.New("the only pool's counters differ from the virtual server's: " + cmp.Diff(vs, pool))
		}
		for _, m := range st.Pools[0].Members {
			if m.Counters.TotalConnections != clients/2 || m.Counters.CurrentConnections != 0 {
				return fmt.Errorf("member counters %+v", m.Counters)
			}
		}
		if vs.BytesIn < clients*5*4000 || vs.BytesOut <= vs.BytesIn {
			return fmt.Errorf("bytes %+v", vs)
		}
		return nil
	})
}

func TestCloseWaitsAndResets(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.vs)
	c := mustConnect(t, netip.Addr{}, s.vip)
	s.plane.Close()
	if err := c.echo("hello"); !wasReset(err) {
		t.Errorf("after Close: %v, want a reset", err)
	}
	if err := s.plane.Apply(t.Context(), dataplane.Config{}); !errors.Is(err, dataplane.ErrClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
	s.plane.Close() // harmless
}

// drain sets the admin state of the members at some positions.
func drain(p *dataplane.Pool, state dataplane.AdminState, at ...int) {
	for _, i := range at {
		p.Members[i].AdminState = state
	}
}

func BenchmarkTCPConnections(b *testing.B) {
	s := newScene(b, dataplane.TCP, dataplane.Options{})
	apply(b, s.plane, s.vs)
	b.ResetTimer()
	for b.Loop() {
		conn, err := net.Dial("tcp", s.vip.String())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 64)); err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conns/s")
}

func BenchmarkTCPThroughput(b *testing.B) {
	s := newScene(b, dataplane.TCP, dataplane.Options{})
	apply(b, s.plane, s.vs)
	c := mustConnect(b, netip.Addr{}, s.vip)
	c.SetDeadline(time.Time{})
	const size = 64 << 10
	out, in := make([]byte, size), make([]byte, size)
	b.SetBytes(2 * size)
	for b.Loop() {
		if _, err := c.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.in, in); err != nil {
			b.Fatal(err)
		}
	}
}
