package dataplane_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

const (
	up       = dataplane.StateUp
	down     = dataplane.StateDown
	interval = 10 * time.Millisecond
)

// monitored gives the scene's pool a monitor with short times.
func (s *scene) monitored(m dataplane.Monitor) dataplane.VirtualServer {
	m.ID, m.Interval = "monitor", interval
	if m.Timeout == 0 {
		m.Timeout = patience
	}
	return s.with(func(vs *dataplane.VirtualServer) { vs.Pool.Monitors = []dataplane.Monitor{m} })
}

func TestTrafficFollowsHealth(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	port := s.freePort(t, s.backends[0].at.Addr())
	health := [2]*healthServer{}
	for i, b := range s.backends {
		health[i] = newHealthServer(t, b.at.Addr(), port, http.StatusOK, false)
	}
	apply(t, s.plane, s.monitored(dataplane.Monitor{Type: dataplane.MonitorHTTP, Port: port, URL: "/healthz", Fall: 2, Rise: 2}))
	memberStates(t, s.plane, up, up)
	if from := health[0].from.Load(); from != s.addr(snatHost) {
		t.Errorf("probed from %v, want %v", from, s.addr(snatHost))
	}
	var old *client
	for old == nil || old.name != s.backends[0].name {
		old = mustConnect(t, netip.Addr{}, s.vip)
	}

	health[0].status.Store(http.StatusServiceUnavailable)
	memberStates(t, s.plane, down, up)
	st := s.plane.Status()
	if cause := st.Pools[0].Members[0].FailureCause; !strings.Contains(cause, "/healthz: status 503, not one of [200]") {
		t.Errorf("failure cause %q", cause)
	}
	if st.Pools[0].State != dataplane.StatePartiallyUp || st.VirtualServers[0].State != dataplane.StatePartiallyUp {
		t.Errorf("pool is %s, virtual server is %s", st.Pools[0].State, st.VirtualServers[0].State)
	}
	for range 4 {
		if c := mustConnect(t, netip.Addr{}, s.vip); c.name != s.backends[1].name {
			t.Errorf("a new connection went to %s, which is DOWN", c.name)
		}
	}
	if err := old.echo("still here"); err != nil {
		t.Errorf("the connection to the member that went DOWN: %v", err)
	}

	health[1].status.Store(http.StatusServiceUnavailable)
	memberStates(t, s.plane, down, down)
	if _, err := connect(t, netip.Addr{}, s.vip); !wasReset(err) {
		t.Errorf("with no member UP: %v, want a reset", err)
	}
	if st := s.plane.Status(); st.VirtualServers[0].State != down {
		t.Errorf("virtual server is %s", st.VirtualServers[0].State)
	}

	health[0].status.Store(http.StatusOK)
	memberStates(t, s.plane, up, down)
	if c := mustConnect(t, netip.Addr{}, s.vip); c.name != s.backends[0].name {
		t.Errorf("%s answered, want the member that came back", c.name)
	}
}

func TestUDPFlowLeavesAMemberThatIsDown(t *testing.T) {
	s := newScene(t, dataplane.UDP, dataplane.Options{})
	// The monitor takes the TCP side of the backends' ports for their health.
	apply(t, s.plane, s.monitored(dataplane.Monitor{Type: dataplane.MonitorTCP, Fall: 1}))
	memberStates(t, s.plane, up, up)
	conn := udpClient(t, s.addr(clientHost), s.vip)
	first, _, _, err := ask(conn, "ping", patience)
	if err != nil {
		t.Fatal(err)
	}
	want := []dataplane.State{up, up}
	var other string
	for i, b := range s.backends {
		if b.name == first {
			want[i] = down
			b.tcp.Close()
		} else {
			other = b.name
		}
	}
	memberStates(t, s.plane, want...)
	eventually(t, func() error { // the flow ends a moment after the status says that its member is DOWN
		if name, _, _, err := ask(conn, "ping", time.Second); err != nil || name != other {
			return fmt.Errorf("the flow went on to %q, %v; want %q", name, err, other)
		}
		return nil
	})
}

func TestMonitorTypes(t *testing.T) {
	tests := map[string]struct {
		monitor dataplane.Monitor
		tls     bool
		status  int // of the HTTP server; 0: there is none
		want    dataplane.State
		cause   string
	}{
		"HTTP":               {dataplane.Monitor{Type: dataplane.MonitorHTTP}, false, 200, up, ""},
		"HTTP, other status": {dataplane.Monitor{Type: dataplane.MonitorHTTP, StatusCodes: []int{200, 204}}, false, 204, up, ""},
		"HTTP, redirect":     {dataplane.Monitor{Type: dataplane.MonitorHTTP}, false, 302, down, "status 302"},
		"HTTP, request": {
			dataplane.Monitor{
				Type: dataplane.MonitorHTTP, Method: "POST", URL: "ready?all=1", Body: "x",
				Headers: map[string]string{"X-Probe": "me"}, ResponseBody: "POST /ready?all=1 me",
			}, false, 200, up, "",
		},
		"HTTP, other body":      {dataplane.Monitor{Type: dataplane.MonitorHTTP, ResponseBody: "fine"}, false, 200, down, `body lacks "fine"`},
		"HTTP, nobody there":    {dataplane.Monitor{Type: dataplane.MonitorHTTP}, false, 0, down, "connection refused"},
		"HTTP to a TLS server":  {dataplane.Monitor{Type: dataplane.MonitorHTTP}, true, 200, down, "status 400"},
		"HTTPS":                 {dataplane.Monitor{Type: dataplane.MonitorHTTPS}, true, 200, up, ""},
		"HTTPS to plain server": {dataplane.Monitor{Type: dataplane.MonitorHTTPS}, false, 200, down, "does not look like a TLS handshake"},
		"TCP":                   {dataplane.Monitor{Type: dataplane.MonitorTCP}, false, 200, up, ""},
		"TCP, nobody there":     {dataplane.Monitor{Type: dataplane.MonitorTCP}, false, 0, down, "connection refused"},
		"ICMP":                  {dataplane.Monitor{Type: dataplane.MonitorICMP}, false, 0, up, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, dataplane.TCP, dataplane.Options{})
			addr := s.backends[0].at.Addr()
			tt.monitor.Port = s.freePort(t, addr)
			if tt.status != 0 {
				newHealthServer(t, addr, tt.monitor.Port, tt.status, tt.tls)
			}
			vs := s.monitored(tt.monitor)
			vs.Pool.Members = vs.Pool.Members[:1]
			apply(t, s.plane, vs)
			eventually(t, func() error {
				m := s.plane.Status().Pools[0].Members[0]
				if m.State != tt.want || !strings.Contains(m.FailureCause, tt.cause) || (tt.cause == "") != (m.FailureCause == "") {
					return fmt.Errorf("%s (%s), want %s (%s)", m.State, m.FailureCause, tt.want, tt.cause)
				}
				return nil
			})
		})
	}
}

func TestUDPMonitor(t *testing.T) {
	for name, tt := range map[string]struct {
		receive string
		stopped bool
		want    dataplane.State
		cause   string
	}{
		"answer":       {"marco", false, up, ""},
		"other answer": {"polo", false, down, `lacks "polo"`},
		"nobody there": {"marco", true, down, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, dataplane.UDP, dataplane.Options{})
			if tt.stopped {
				s.backends[0].stop()
			}
			vs := s.monitored(dataplane.Monitor{Type: dataplane.MonitorUDP, Send: "marco", Receive: tt.receive})
			vs.Pool.Members = vs.Pool.Members[:1]
			apply(t, s.plane, vs)
			eventually(t, func() error {
				m := s.plane.Status().Pools[0].Members[0]
				if m.State != tt.want || !strings.Contains(m.FailureCause, tt.cause) || m.LastCheck.IsZero() {
					return fmt.Errorf("%s (%s)", m.State, m.FailureCause)
				}
				return nil
			})
		})
	}
}

func TestProbeTimeout(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	// A server that takes connections and never answers.
	mute, err := net.Listen("tcp", netip.AddrPortFrom(s.backends[0].at.Addr(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	vs := s.monitored(dataplane.Monitor{
		Type: dataplane.MonitorHTTP, Timeout: 30 * time.Millisecond,
		Port: netip.MustParseAddrPort(mute.Addr().String()).Port(),
	})
	vs.Pool.Members = vs.Pool.Members[:1]
	apply(t, s.plane, vs)
	eventually(t, func() error {
		if cause := s.plane.Status().Pools[0].Members[0].FailureCause; !strings.HasSuffix(cause, "no answer within 30ms") {
			return fmt.Errorf("failure cause %q", cause)
		}
		return nil
	})
}

func TestAllMonitorsMustSucceed(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	addr := s.backends[0].at.Addr()
	good := newHealthServer(t, addr, s.freePort(t, addr), 200, false)
	bad := newHealthServer(t, addr, s.freePort(t, addr), 500, false)
	vs := s.with(func(vs *dataplane.VirtualServer) {
		vs.Pool.Members = vs.Pool.Members[:1]
		for _, h := range []*healthServer{good, bad} {
			vs.Pool.Monitors = append(vs.Pool.Monitors, dataplane.Monitor{
				ID: fmt.Sprint(len(vs.Pool.Monitors)), Type: dataplane.MonitorHTTP, Port: h.at.Port(), Interval: interval,
			})
		}
	})
	apply(t, s.plane, vs)
	eventually(t, func() error {
		m := s.plane.Status().Pools[0].Members[0]
		if m.State != down || !strings.HasPrefix(m.FailureCause, "1:GET http://") {
			return fmt.Errorf("%s (%s)", m.State, m.FailureCause)
		}
		return nil
	})
	bad.status.Store(200)
	memberStates(t, s.plane, up)
}

// The port that a monitor probes is its own, else the member's.
func TestMonitoredPort(t *testing.T) {
	for name, edit := range map[string]func(vs *dataplane.VirtualServer, port uint16){
		"monitor": func(vs *dataplane.VirtualServer, port uint16) {
			vs.Pool.Monitors[0].Port, vs.Pool.Members[0].Port, vs.Ports[0].Member = port, 1, 2
		},
		"member": func(vs *dataplane.VirtualServer, port uint16) {
			vs.Pool.Members[0].Port, vs.Ports[0].Member = port, 2
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, dataplane.TCP, dataplane.Options{})
			vs := s.monitored(dataplane.Monitor{Type: dataplane.MonitorTCP})
			vs.Pool.Members = vs.Pool.Members[:1]
			vs.Ports = slices.Clone(vs.Ports)
			edit(&vs, s.backends[0].at.Port())
			apply(t, s.plane, vs)
			memberStates(t, s.plane, up)
		})
	}
}

// With a clock that stands still there is one probe, at once; each interval brings one more, and fall and rise
// counts are kept to the probe.
func TestIntervalFallAndRise(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	s := newScene(t, dataplane.TCP, dataplane.Options{Clock: clock, Housekeeping: time.Hour})
	addr := s.backends[0].at.Addr()
	health := newHealthServer(t, addr, s.freePort(t, addr), 200, false)
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
		vs.Pool.Members = vs.Pool.Members[:1]
		vs.Pool.Monitors = []dataplane.Monitor{{ID: "m", Type: dataplane.MonitorHTTP, Port: health.at.Port()}} // 5 s, 3, 3
	}))
	member := func() dataplane.MemberStatus { return s.plane.Status().Pools[0].Members[0] }
	// probed waits until the n-th probe is in the status.
	probed := func(n int64) dataplane.State {
		t.Helper()
		eventually(t, func() error {
			if got := health.probes.Load(); got != n || !member().LastCheck.Equal(clock.Now()) {
				return fmt.Errorf("%d probes, the last at %v", got, member().LastCheck)
			}
			return nil
		})
		return member().State
	}
	if st := probed(1); st != up {
		t.Errorf("after the first success: %s", st)
	}
	clock.Step(4999 * time.Millisecond)
	if n := health.probes.Load(); n != 1 {
		t.Errorf("%d probes before the interval was over", n)
	}
	n := int64(1)
	changes := func(status int, want ...dataplane.State) {
		t.Helper()
		health.status.Store(int64(status))
		for i, state := range want {
			clock.Step(5 * time.Second) // the prober set its timer before the last probe
			n++
			if st := probed(n); st != state {
				t.Errorf("after answer %d with %d: %s, want %s", i+1, status, st, state)
			}
		}
	}
	changes(500, up, up)
	changes(200, up)
	changes(500, up, up, down)
	if changed := member().LastChange; !changed.Equal(clock.Now()) {
		t.Errorf("last change %v, want now, %v", changed, clock.Now())
	}
	changes(200, down, down)
	changes(500, down)
	changes(200, down, down, up)
}

func TestStateBeforeTheFirstCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		opts dataplane.Options
		want dataplane.State
	}{
		"DOWN":         {dataplane.Options{}, down},
		"UP by option": {dataplane.Options{InitiallyUp: true}, up},
	} {
		t.Run(name, func(t *testing.T) {
			// A server that takes connections and never answers keeps the first probe from ending.
			s := newScene(t, dataplane.TCP, tt.opts)
			mute, err := net.Listen("tcp", netip.AddrPortFrom(s.backends[0].at.Addr(), 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer mute.Close()
			vs := s.monitored(dataplane.Monitor{
				Type: dataplane.MonitorHTTP, Timeout: time.Hour,
				Port: netip.MustParseAddrPort(mute.Addr().String()).Port(),
			})
			vs.Pool.Members = vs.Pool.Members[:1]
			apply(t, s.plane, vs)
			m := s.plane.Status().Pools[0].Members[0]
			if m.State != tt.want || !m.LastCheck.IsZero() || (m.State == down) != (m.FailureCause == "not checked yet") {
				t.Errorf("%+v", m)
			}
		})
	}
}

// One pool on many virtual servers is probed once for each member.
func TestSharedPoolIsProbedOnce(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	s := newScene(t, dataplane.TCP, dataplane.Options{Clock: clock})
	addr := s.backends[0].at.Addr()
	health := newHealthServer(t, addr, s.freePort(t, addr), 200, false)
	var servers []dataplane.VirtualServer
	for i := range 5 {
		servers = append(servers, s.with(func(vs *dataplane.VirtualServer) {
			vs.ID = fmt.Sprint("vs", i)
			vs.Ports = []dataplane.PortMap{{Listen: s.freePort(t, vs.Address)}}
			vs.Pool.Members = vs.Pool.Members[:1]
			vs.Pool.Monitors = []dataplane.Monitor{{ID: "m", Type: dataplane.MonitorHTTP, Port: health.at.Port()}}
		}))
	}
	apply(t, s.plane, servers...)
	memberStates(t, s.plane, up)
	// Neither equal contents nor fewer virtual servers begin it anew.
	apply(t, s.plane, servers...)
	apply(t, s.plane, servers[2:]...)
	st := s.plane.Status()
	if n := health.probes.Load(); n != 1 || len(st.Pools) != 1 || len(st.VirtualServers) != 3 {
		t.Errorf("%d probes for %d pools and %d virtual servers", n, len(st.Pools), len(st.VirtualServers))
	}
}

// A monitor that is edited goes on from what was known: no member goes DOWN for it.
func TestEditedMonitorKeepsTheVerdict(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	s := newScene(t, dataplane.TCP, dataplane.Options{Clock: clock})
	vs := s.monitored(dataplane.Monitor{Type: dataplane.MonitorTCP})
	apply(t, s.plane, vs)
	memberStates(t, s.plane, up, up)
	edited := s.monitored(dataplane.Monitor{Type: dataplane.MonitorTCP, Port: 1, Fall: 5})
	apply(t, s.plane, edited)
	for _, m := range s.plane.Status().Pools[0].Members {
		if m.State != up {
			t.Errorf("%v is %s (%s)", m.Address, m.State, m.FailureCause)
		}
	}
	// And without monitors all members are UP.
	apply(t, s.plane, s.vs)
	memberStates(t, s.plane, up, up)
}

// restlessClock moves on with each look at it.
type restlessClock struct{ *clocktesting.FakeClock }

func (c restlessClock) Now() time.Time {
	c.Step(time.Millisecond)
	return c.FakeClock.Now()
}

func TestHealthChangesWithTheProbeThatShowsIt(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{Clock: restlessClock{clocktesting.NewFakeClock(time.Now())}, Housekeeping: time.Hour})
	vs := s.monitored(dataplane.Monitor{Type: dataplane.MonitorTCP})
	vs.Pool.Monitors[0].Interval = time.Hour
	apply(t, s.plane, vs)
	memberStates(t, s.plane, up, up)
	for _, m := range s.plane.Status().Pools[0].Members {
		if !m.LastChange.Equal(m.LastCheck) {
			t.Errorf("%v was checked at %v and changed at %v", m.Address, m.LastCheck, m.LastChange)
		}
	}
}

// Who is told that health has changed can act before others see it.
func TestHealthChangedComesBeforeTheStatus(t *testing.T) {
	told := make(chan struct{})
	s := newScene(t, dataplane.TCP, dataplane.Options{HealthChanged: sync.OnceFunc(func() { told <- struct{}{} })})
	vs := s.monitored(dataplane.Monitor{Type: dataplane.MonitorTCP})
	vs.Pool.Members = vs.Pool.Members[:1]
	apply(t, s.plane, vs)
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		for s.plane.Status().Pools[0].Members[0].State != up {
			time.Sleep(time.Millisecond)
		}
	}()
	select {
	case <-seen:
		t.Error("the status has it before")
	case <-time.After(50 * time.Millisecond):
	}
	<-told
	<-seen
}

func TestHealthChangesAreLogged(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	logger := funcr.New(func(_, args string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, args)
	}, funcr.Options{Verbosity: 1})
	s := newScene(t, dataplane.TCP, dataplane.Options{Logger: logger})
	apply(t, s.plane, s.monitored(dataplane.Monitor{Type: dataplane.MonitorTCP}))
	memberStates(t, s.plane, up, up)
	s.plane.Close() // all that will be logged is logged
	changes := slices.DeleteFunc(lines, func(line string) bool { return !strings.Contains(line, "Member health changed") })
	if len(changes) != 2 {
		t.Errorf("logged %q", changes)
	}
}
