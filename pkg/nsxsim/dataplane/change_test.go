package dataplane_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// connected returns clients of the scene's virtual server, one on each backend.
func (s *scene) connected(t *testing.T) [2]*client {
	t.Helper()
	var clients [2]*client
	for range 2 {
		c := mustConnect(t, s.addr(clientHost), s.vip)
		for i, b := range s.backends {
			if b.name == c.name {
				clients[i] = c
			}
		}
	}
	if clients[0] == nil || clients[1] == nil {
		t.Fatal("two connections went to one member")
	}
	return clients
}

// What each change of a member does to its connection and to that of the other member, and which state it shows.
func TestMemberChanges(t *testing.T) {
	tests := map[string]struct {
		opts  dataplane.Options
		edit  func(p *dataplane.Pool)
		lives bool // the member's connection
		state dataplane.State
	}{
		"GRACEFUL_DISABLED": {
			edit:  func(p *dataplane.Pool) { drain(p, dataplane.GracefulDisabled, 0) },
			lives: true, state: dataplane.StateGracefulDisabled,
		},
		"DISABLED": {
			edit:  func(p *dataplane.Pool) { drain(p, dataplane.Disabled, 0) },
			state: dataplane.StateDisabled,
		},
		"DISABLED, keeping connections": {
			opts:  dataplane.Options{DisabledKeepsConnections: true},
			edit:  func(p *dataplane.Pool) { drain(p, dataplane.Disabled, 0) },
			lives: true, state: dataplane.StateDisabled,
		},
		"removed": {
			edit: func(p *dataplane.Pool) { p.Members = p.Members[1:] },
		},
		"backup from now on": {
			edit:  func(p *dataplane.Pool) { p.Members[0].Backup = true },
			lives: true, state: up,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, dataplane.TCP, tt.opts)
			apply(t, s.plane, s.vs)
			old := s.connected(t)
			apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { tt.edit(vs.Pool) }))

			if err := old[1].echo("untouched"); err != nil {
				t.Errorf("the other member's connection: %v", err)
			}
			if err := old[0].echo("still here"); tt.lives && err != nil || !tt.lives && !wasReset(err) {
				t.Errorf("the member's connection: %v; want it to live: %t", err, tt.lives)
			}
			for range 4 {
				if c := mustConnect(t, s.addr(clientHost), s.vip); c.name != s.backends[1].name {
					t.Errorf("a new connection went to %s", c.name)
				}
			}
			if st := s.plane.Status().Pools[0].Members[0]; tt.state != "" && st.State != tt.state {
				t.Errorf("state %s, want %s", st.State, tt.state)
			}

			apply(t, s.plane, s.vs)
			s.connected(t) // both get new connections again
		})
	}
}

func TestUDPMemberChanges(t *testing.T) {
	for name, tt := range map[string]struct {
		edit  func(p *dataplane.Pool, i int)
		lives bool
	}{
		"GRACEFUL_DISABLED": {func(p *dataplane.Pool, i int) { drain(p, dataplane.GracefulDisabled, i) }, true},
		"DISABLED":          {func(p *dataplane.Pool, i int) { drain(p, dataplane.Disabled, i) }, false},
		"removed":           {func(p *dataplane.Pool, i int) { p.Members = append(p.Members[:i:i], p.Members[i+1:]...) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, dataplane.UDP, dataplane.Options{})
			apply(t, s.plane, s.vs)
			conn := udpClient(t, s.addr(clientHost), s.vip)
			first, _, _, err := ask(conn, "ping", patience)
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			if first == s.backends[1].name {
				i = 1
			}
			apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { tt.edit(vs.Pool, i) }))
			second, _, _, err := ask(conn, "ping", patience)
			if err != nil || (second == first) != tt.lives {
				t.Errorf("after the change %q answers, %v; before, %q", second, err, first)
			}
		})
	}
}

func TestMoveToAnotherPoolKeepsTheListenerAndItsConnections(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.Pool.Members = vs.Pool.Members[:1] }))
	old := mustConnect(t, s.addr(clientHost), s.vip)

	// A client connects all the time while the virtual server moves to and fro.
	done, served := make(chan struct{}), make(chan error)
	var client sync.WaitGroup
	client.Go(func() { s.keepAsking(t, s.addr(clientHost), done, served) })
	for i := range 21 {
		apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
			vs.Pool.ID = fmt.Sprint("pool", i)
			vs.Pool.Members = vs.Pool.Members[i%2 : i%2+1]
		}))
		if err := <-served; err != nil {
			t.Errorf("while the virtual server moved: %v", err)
		}
	}
	close(done)
	client.Wait()
	if err := old.echo("still here"); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
	if c := mustConnect(t, s.addr(clientHost), s.vip); c.name != s.backends[0].name {
		t.Errorf("%s answered", c.name)
	}
	if st := s.plane.Status(); len(st.Pools) != 1 || st.Pools[0].ID != "pool20" || st.VirtualServers[0].PoolID != "pool20" {
		t.Errorf("status %+v", st)
	}
	// The connection still ends with its virtual server.
	apply(t, s.plane)
	if err := old.echo("gone"); !wasReset(err) {
		t.Errorf("after the virtual server was removed: %v", err)
	}
}

// keepAsking connects to the virtual server again and again, and tells each time how it went, until done is closed.
func (s *scene) keepAsking(t *testing.T, from netip.Addr, done <-chan struct{}, served chan<- error) {
	for {
		c, err := connect(t, from, s.vip)
		if err == nil {
			err = c.echo("hello")
			c.Close()
		}
		select {
		case <-done:
			return
		case served <- err:
		}
	}
}

func TestUDPMoveToAnotherPool(t *testing.T) {
	s := newScene(t, dataplane.UDP, dataplane.Options{})
	conn := udpClient(t, s.addr(clientHost), s.vip)
	for i := range 2 {
		apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
			vs.Pool.ID = fmt.Sprint("pool", i)
			vs.Pool.Members = vs.Pool.Members[i : i+1]
		}))
		if name, _, _, err := ask(conn, "ping", patience); err != nil || name != s.backends[i].name {
			t.Errorf("%s answers, %v, want %s", name, err, s.backends[i].name)
		}
	}
}

// What ends a listener frees its port at once and resets its connections; a port that stays keeps its own.
func TestListenersThatEnd(t *testing.T) {
	tests := map[string]struct {
		edit      func(s *scene, vs *dataplane.VirtualServer) // nil: the virtual server is removed
		bothPorts bool
	}{
		"virtual server removed": {nil, true},
		"port removed":           {func(_ *scene, vs *dataplane.VirtualServer) { vs.Ports = vs.Ports[:1] }, false},
		"other address":          {func(s *scene, vs *dataplane.VirtualServer) { vs.Address = s.addr(vipHost + 1) }, true},
	}
	for _, protocol := range []dataplane.Protocol{dataplane.TCP, dataplane.UDP} {
		for name, tt := range tests {
			t.Run(fmt.Sprint(protocol, "/", name), func(t *testing.T) {
				s := newScene(t, protocol, dataplane.Options{})
				second := netip.AddrPortFrom(s.vip.Addr(), s.freePort(t, s.vip.Addr()))
				s.vs.Ports = append(s.vs.Ports, dataplane.PortMap{Listen: second.Port()})
				apply(t, s.plane, s.vs)
				talk := [2]func() error{s.talk(t, s.vip), s.talk(t, second)}
				if err := errors.Join(talk[0](), talk[1]()); err != nil {
					t.Fatal(err)
				}

				if tt.edit == nil {
					apply(t, s.plane)
				} else {
					apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { tt.edit(s, vs) }))
				}
				if err := bindable(protocol, second); err != nil {
					t.Errorf("the port is not free: %v", err)
				}
				if err := talk[1](); err == nil || protocol == dataplane.TCP && !wasReset(err) {
					t.Errorf("the connection ends with %v, want a reset", err)
				}
				if err := talk[0](); (err != nil) != tt.bothPorts {
					t.Errorf("the other port's connection: %v", err)
				}
			})
		}
	}
}

// NSX rejects new connections to a disabled virtual server and goes on with those that there are.
func TestDisabledVirtualServerKeepsItsConnections(t *testing.T) {
	for protocol, lives := range map[dataplane.Protocol]bool{dataplane.TCP: true, dataplane.UDP: false} {
		t.Run(string(protocol), func(t *testing.T) {
			s := newScene(t, protocol, dataplane.Options{})
			apply(t, s.plane, s.vs)
			talk := s.talk(t, s.vip)
			apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.Disabled = true }))
			if err := talk(); (err == nil) != lives {
				t.Errorf("while disabled: %v, want it to live: %t", err, lives)
			}
			if err := bindable(protocol, s.vip); err != nil {
				t.Errorf("the port is not free: %v", err)
			}
			apply(t, s.plane, s.vs)
			if err := s.talk(t, s.vip)(); err != nil {
				t.Errorf("enabled again: %v", err)
			}
			apply(t, s.plane)
			if err := talk(); err == nil {
				t.Error("a connection outlives its virtual server")
			}
		})
	}
}

// talk connects a client and returns a way to exchange a message with a member.
func (s *scene) talk(t *testing.T, to netip.AddrPort) func() error {
	t.Helper()
	if s.vs.Protocol == dataplane.TCP {
		c := mustConnect(t, s.addr(clientHost), to)
		return func() error { return c.echo("hello") }
	}
	conn := udpClient(t, s.addr(clientHost), to)
	return func() error {
		_, _, _, err := ask(conn, "hello", patience)
		return err
	}
}

// bindable tells whether a port is free.
func bindable(protocol dataplane.Protocol, at netip.AddrPort) error {
	var l io.Closer
	var err error
	if protocol == dataplane.TCP {
		l, err = net.Listen("tcp", at.String())
	} else {
		l, err = net.ListenPacket("udp", at.String())
	}
	if err == nil {
		l.Close()
	}
	return err
}

func TestPortsMayChangeHandsInOneApply(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	ports := [2]uint16{s.vip.Port(), s.freePort(t, s.vip.Addr())}
	server := func(id string, port uint16, b int) dataplane.VirtualServer {
		return s.with(func(vs *dataplane.VirtualServer) {
			vs.ID, vs.Ports = id, []dataplane.PortMap{{Listen: port}}
			vs.Pool.ID, vs.Pool.Members = "pool-"+id, vs.Pool.Members[b:b+1]
		})
	}
	for i := range 4 {
		apply(t, s.plane, server("a", ports[i%2], 0), server("b", ports[(i+1)%2], 1))
		for b := range 2 {
			if c := mustConnect(t, netip.Addr{}, netip.AddrPortFrom(s.vip.Addr(), ports[(i+b)%2])); c.name != s.backends[b].name {
				t.Errorf("round %d: %s answers", i, c.name)
			}
		}
	}
}

func TestPortThatCannotBeBound(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	squatter, err := net.Listen("tcp", s.vip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	good := netip.AddrPortFrom(s.vip.Addr(), s.freePort(t, s.vip.Addr()))
	apply(t, s.plane, s.vs, s.with(func(vs *dataplane.VirtualServer) {
		vs.ID, vs.Ports = "good", []dataplane.PortMap{{Listen: good.Port()}}
	}))
	mustConnect(t, netip.Addr{}, good)
	st := s.plane.Status().VirtualServers
	if st[0].State != down || !strings.Contains(st[0].Reason, "address already in use") || st[0].Listeners[0].Error == "" {
		t.Errorf("the virtual server without a port: %+v", st[0])
	}
	if st[1].State != up || st[1].Reason != "" || st[1].Listeners[0].Error != "" {
		t.Errorf("the other virtual server: %+v", st[1])
	}

	squatter.Close() // the port is retried without any Apply
	eventually(t, func() error {
		if st := s.plane.Status().VirtualServers[0]; st.State != up || st.Reason != "" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	mustConnect(t, netip.Addr{}, s.vip)
}

func TestAddressThatTheHostDoesNotHave(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.Address = netip.MustParseAddr("192.0.2.1") }))
	if st := s.plane.Status().VirtualServers[0]; st.State != down || !strings.Contains(st.Reason, "cannot assign requested address") {
		t.Errorf("%+v", st)
	}
}

func TestInvalidVirtualServersLeaveTheOthersAlone(t *testing.T) {
	tests := map[string]struct {
		edit  func(vs *dataplane.VirtualServer)
		fault string
	}{
		"address":       {func(vs *dataplane.VirtualServer) { vs.Address = netip.Addr{} }, "address invalid IP"},
		"protocol":      {func(vs *dataplane.VirtualServer) { vs.Protocol = "SCTP" }, `protocol "SCTP"`},
		"no ports":      {func(vs *dataplane.VirtualServer) { vs.Ports = nil }, "no ports"},
		"port twice":    {func(vs *dataplane.VirtualServer) { vs.Ports = append(vs.Ports, vs.Ports...) }, "given twice"},
		"limits":        {func(vs *dataplane.VirtualServer) { vs.MaxConnections = -1 }, "negative"},
		"access":        {func(vs *dataplane.VirtualServer) { vs.Access = &dataplane.Access{} }, `access action ""`},
		"persistence":   {func(vs *dataplane.VirtualServer) { vs.Persistence = &dataplane.Persistence{Timeout: -1} }, "negative"},
		"other pool":    {func(vs *dataplane.VirtualServer) { vs.Pool.ID, vs.Pool.Members = "pool", nil }, "pool pool is given twice with different contents"},
		"pool id":       {func(vs *dataplane.VirtualServer) { vs.Pool.ID = "" }, "no id"},
		"algorithm":     {func(vs *dataplane.VirtualServer) { vs.Pool.Algorithm = "BEST" }, `algorithm "BEST"`},
		"SNAT":          {func(vs *dataplane.VirtualServer) { vs.Pool.SNAT = "Pool" }, `SNAT "Pool"`},
		"min active":    {func(vs *dataplane.VirtualServer) { vs.Pool.MinActiveMembers = -1 }, "negative"},
		"member":        {func(vs *dataplane.VirtualServer) { vs.Pool.Members[0].Address = netip.Addr{} }, "member address"},
		"member twice":  {func(vs *dataplane.VirtualServer) { vs.Pool.Members[0] = vs.Pool.Members[1] }, "given twice"},
		"weight":        {func(vs *dataplane.VirtualServer) { vs.Pool.Members[0].Weight = -1 }, "negative weight"},
		"admin state":   {func(vs *dataplane.VirtualServer) { vs.Pool.Members[0].AdminState = "OFF" }, `admin state "OFF"`},
		"monitor":       {func(vs *dataplane.VirtualServer) { vs.Pool.Monitors = make([]dataplane.Monitor, 1) }, `type ""`},
		"monitor twice": {func(vs *dataplane.VirtualServer) { vs.Pool.Monitors = twice(dataplane.Monitor{Type: "TCP"}) }, "given twice"},
		"UDP monitor":   {func(vs *dataplane.VirtualServer) { vs.Pool.Monitors = []dataplane.Monitor{{Type: "UDP"}} }, "to send"},
		"interval":      {func(vs *dataplane.VirtualServer) { vs.Pool.Monitors = []dataplane.Monitor{{Type: "TCP", Interval: -1}} }, "negative"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, dataplane.TCP, dataplane.Options{})
			bad := s.with(func(vs *dataplane.VirtualServer) {
				vs.ID, vs.Pool.ID = "bad", "bad-pool"
				vs.Ports = []dataplane.PortMap{{Listen: s.freePort(t, vs.Address)}}
			})
			port := netip.AddrPortFrom(bad.Address, bad.Ports[0].Listen)
			apply(t, s.plane, s.vs, bad) // it was good once
			old := mustConnect(t, netip.Addr{}, s.vip)
			tt.edit(&bad)
			err := s.plane.Apply(t.Context(), dataplane.Config{VirtualServers: []dataplane.VirtualServer{s.vs, bad}})
			if !errors.Is(err, dataplane.ErrInvalid) || !strings.Contains(err.Error(), tt.fault) || !strings.Contains(err.Error(), "virtual server bad") {
				t.Errorf("error %v, want %q", err, tt.fault)
			}
			st := s.plane.Status().VirtualServers
			if st[0].State != up {
				t.Errorf("the good virtual server is %s (%s)", st[0].State, st[0].Reason)
			}
			if st[1].State != down || !strings.Contains(st[1].Reason, tt.fault) {
				t.Errorf("the bad virtual server is %s (%s)", st[1].State, st[1].Reason)
			}
			if err := old.echo("hello"); err != nil {
				t.Error(err)
			}
			if _, err := connect(t, netip.Addr{}, port); err == nil {
				t.Error("the bad virtual server still serves")
			}
		})
	}
}

func twice(m dataplane.Monitor) []dataplane.Monitor { return []dataplane.Monitor{m, m} }

func TestVirtualServerIDsAreUnique(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	err := s.plane.Apply(t.Context(), dataplane.Config{VirtualServers: []dataplane.VirtualServer{s.vs, s.vs, {}}})
	if !errors.Is(err, dataplane.ErrInvalid) {
		t.Errorf("error %v", err)
	}
	mustConnect(t, netip.Addr{}, s.vip)
	if st := s.plane.Status().VirtualServers; len(st) != 1 || st[0].State != up {
		t.Errorf("%+v", st)
	}
}

func TestApplyKeepsACopy(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	vs := s.with(func(*dataplane.VirtualServer) {})
	apply(t, s.plane, vs)
	vs.Pool.Members[0].Address = netip.MustParseAddr("192.0.2.1")
	vs.Ports[0].Listen = 1
	s.vs.Ports[0].Listen = s.vip.Port()
	apply(t, s.plane, s.vs)
	s.connected(t)
}

func TestDisabledVirtualServerAndItsPool(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.Disabled = true }))
	st := s.plane.Status()
	if st.VirtualServers[0].State != dataplane.StateDisabled || st.Pools[0].State != dataplane.StateUnknown {
		t.Errorf("virtual server %s, pool %s", st.VirtualServers[0].State, st.Pools[0].State)
	}
	if _, err := connect(t, netip.Addr{}, s.vip); err == nil {
		t.Error("it serves")
	}
	apply(t, s.plane, s.vs)
	s.connected(t)
}

func TestPersistence(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	s := newScene(t, dataplane.TCP, dataplane.Options{Clock: clock, Housekeeping: time.Second})
	sticky := func(edit func(vs *dataplane.VirtualServer)) dataplane.VirtualServer {
		return s.with(func(vs *dataplane.VirtualServer) {
			vs.Persistence = &dataplane.Persistence{Timeout: time.Minute}
			edit(vs)
		})
	}
	apply(t, s.plane, sticky(func(*dataplane.VirtualServer) {}))
	home := mustConnect(t, s.addr(clientHost), s.vip).name
	at := map[string]int{s.backends[0].name: 0, s.backends[1].name: 1}[home]
	away := s.backends[1-at].name
	goesTo := func(want, why string) {
		t.Helper()
		for range 3 {
			if c := mustConnect(t, s.addr(clientHost), s.vip); c.name != want {
				t.Errorf("%s: the client goes to %s, want %s", why, c.name, want)
			}
		}
	}
	goesTo(home, "tied")
	if c := mustConnect(t, s.addr(clientHost+1), s.vip); c.name != away {
		t.Errorf("another client goes to %s: the turns are not kept", c.name)
	}
	clock.Step(59 * time.Second)
	goesTo(home, "before the timeout")
	clock.Step(59 * time.Second)
	goesTo(home, "as each connection begins the timeout anew")
	clock.Step(time.Hour)
	goesTo(home, "as connections hold the tie")

	apply(t, s.plane, sticky(func(vs *dataplane.VirtualServer) { drain(vs.Pool, dataplane.GracefulDisabled, at) }))
	goesTo(home, "its member is GRACEFUL_DISABLED")
	apply(t, s.plane, sticky(func(vs *dataplane.VirtualServer) {
		vs.Pool.ID = "other"
		drain(vs.Pool, dataplane.GracefulDisabled, at)
	}))
	goesTo(home, "the virtual server moved to another pool with the same members")
	apply(t, s.plane, sticky(func(vs *dataplane.VirtualServer) { drain(vs.Pool, dataplane.Disabled, at) }))
	goesTo(away, "its member is DISABLED")
	apply(t, s.plane, sticky(func(*dataplane.VirtualServer) {}))
	goesTo(away, "its member came back after it was tied to the other")
}

func TestPersistenceExpires(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	s := newScene(t, dataplane.TCP, dataplane.Options{Clock: clock, Housekeeping: time.Second})
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.Persistence = &dataplane.Persistence{} })) // 300 s
	seen := map[string]int{}
	for range 4 {
		c := mustConnect(t, s.addr(clientHost), s.vip)
		seen[c.name]++
		c.Close()
		s.quiet(t)
		clock.Step(300 * time.Second)
	}
	if want := map[string]int{s.backends[0].name: 2, s.backends[1].name: 2}; !cmp.Equal(seen, want) {
		t.Error(cmp.Diff(want, seen))
	}
}

// quiet waits until nobody is connected.
func (s *scene) quiet(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if n := s.plane.Status().VirtualServers[0].Counters.CurrentConnections; n != 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
}

// Virtual servers may share a table of persistence, and then send a client to the same member.
func TestSharedPersistence(t *testing.T) {
	for shared, want := range map[string]bool{"profile": true, "": false} {
		s := newScene(t, dataplane.TCP, dataplane.Options{})
		second := netip.AddrPortFrom(s.vip.Addr(), s.freePort(t, s.vip.Addr()))
		servers := func() []dataplane.VirtualServer {
			one := s.with(func(vs *dataplane.VirtualServer) { vs.Persistence = &dataplane.Persistence{Shared: shared} })
			two := one
			two.ID, two.Ports = "two", []dataplane.PortMap{{Listen: second.Port()}}
			return []dataplane.VirtualServer{one, two}
		}
		apply(t, s.plane, servers()...)
		first := mustConnect(t, s.addr(clientHost), s.vip)
		apply(t, s.plane, servers()...)
		if c := mustConnect(t, s.addr(clientHost), second); (c.name == first.name) != want {
			t.Errorf("table %q: the client goes to %s and to %s", shared, first.name, c.name)
		}
	}
}

// A member that has as many connections as it may is passed over.
func TestMemberLimit(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
		vs.Pool.Members[0].MaxConnections = 1
		vs.Persistence = &dataplane.Persistence{}
	}))
	limited, other := s.backends[0].name, s.backends[1].name
	var held *client
	for host := byte(clientHost); held == nil; host++ {
		if c := mustConnect(t, s.addr(host), s.vip); c.name == limited {
			held = c
		}
	}
	for range 3 {
		if c := mustConnect(t, netip.Addr{}, s.vip); c.name != other {
			t.Errorf("a connection over the limit went to %s", c.name)
		}
	}
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
		for i := range vs.Pool.Members {
			vs.Pool.Members[i].MaxConnections = 1
		}
	}))
	if _, err := connect(t, netip.Addr{}, s.vip); !wasReset(err) {
		t.Errorf("with all at their limit: %v, want a reset", err)
	}
	held.Close()
	eventually(t, func() error {
		c, err := connect(t, netip.Addr{}, s.vip)
		if err == nil && c.name != limited {
			err = fmt.Errorf("it went to %s", c.name)
		}
		return err
	})
}

func TestSorryPool(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	sorry := &dataplane.Pool{ID: "sorry", Members: members(s.backends[1])}
	check := func(want, why string) {
		t.Helper()
		if c := mustConnect(t, netip.Addr{}, s.vip); c.name != want {
			t.Errorf("%s: %s answers, want %s", why, c.name, want)
		}
	}
	set := func(edit func(vs *dataplane.VirtualServer)) {
		t.Helper()
		apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
			vs.SorryPool, vs.Pool.Members = sorry, vs.Pool.Members[:1]
			edit(vs)
		}))
	}
	set(func(*dataplane.VirtualServer) {})
	check(s.backends[0].name, "a member is UP")
	set(func(vs *dataplane.VirtualServer) { drain(vs.Pool, dataplane.GracefulDisabled, 0) })
	check(s.backends[1].name, "no member may be used")
	set(func(vs *dataplane.VirtualServer) { vs.Pool = nil })
	check(s.backends[1].name, "no pool")
	st := s.plane.Status()
	if len(st.Pools) != 1 || st.Pools[0].ID != "sorry" || st.Pools[0].Counters.TotalConnections != 2 {
		t.Errorf("pools: %+v", st.Pools)
	}
}

// Members of another IP version than the virtual server are there, but get nothing.
func TestMembersOfTheOtherIPVersion(t *testing.T) {
	needIPv6(t)
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	local := netip.IPv6Loopback()
	b := newBackend(t, local, s.freePort(t, local))
	vip := netip.AddrPortFrom(local, s.freePort(t, local))
	six := s.vs
	six.ID, six.Address, six.Ports = "six", local, []dataplane.PortMap{{Listen: vip.Port()}}
	six.Pool = &dataplane.Pool{ID: "both", Members: members(s.backends[0], b)}
	four := s.vs
	four.Pool = six.Pool
	apply(t, s.plane, six, four)
	for range 3 {
		if c := mustConnect(t, netip.Addr{}, vip); c.name != b.name {
			t.Errorf("an IPv6 client is served by %s", c.name)
		}
		if c := mustConnect(t, netip.Addr{}, s.vip); c.name != s.backends[0].name {
			t.Errorf("an IPv4 client is served by %s", c.name)
		}
	}
}

func TestIdleTimeout(t *testing.T) {
	for protocol, timeout := range map[dataplane.Protocol]time.Duration{dataplane.TCP: 1800 * time.Second, dataplane.UDP: 300 * time.Second} {
		t.Run(string(protocol), func(t *testing.T) {
			clock := clocktesting.NewFakeClock(time.Now())
			s := newScene(t, protocol, dataplane.Options{Clock: clock, Housekeeping: time.Second})
			apply(t, s.plane, s.vs)
			talk := s.talk(t, s.vip)
			pass := func() {
				if err := talk(); err != nil {
					t.Error(err)
				}
			}
			pass()
			counters := func() dataplane.Counters { return s.plane.Status().VirtualServers[0].Counters }
			clock.Step(timeout - time.Second)
			pass()
			clock.Step(timeout - time.Second)
			if c := counters(); c.CurrentConnections != 1 || c.TotalConnections != 1 {
				t.Errorf("before the timeout: %+v", c)
			}
			clock.Step(time.Second)
			eventually(t, func() error {
				if c := counters(); c.CurrentConnections != 0 {
					return fmt.Errorf("after the timeout: %+v", c)
				}
				return nil
			})
		})
	}
}

func TestLimits(t *testing.T) {
	t.Run("connections", func(t *testing.T) {
		s := newScene(t, dataplane.TCP, dataplane.Options{})
		apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.MaxConnections = 2 }))
		first := s.connected(t)
		if _, err := connect(t, netip.Addr{}, s.vip); !wasReset(err) {
			t.Errorf("the third connection: %v, want a reset", err)
		}
		first[0].CloseWrite()
		io.Copy(io.Discard, first[0])
		eventually(t, func() error {
			_, err := connect(t, netip.Addr{}, s.vip)
			return err
		})
	})
	t.Run("rate", func(t *testing.T) {
		clock := clocktesting.NewFakeClock(time.Now())
		s := newScene(t, dataplane.TCP, dataplane.Options{Clock: clock})
		apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.MaxConnectionRate = 2 }))
		for range 2 {
			s.connected(t)
			if _, err := connect(t, netip.Addr{}, s.vip); !wasReset(err) {
				t.Errorf("the third connection in a second: %v, want a reset", err)
			}
			clock.Step(time.Second)
		}
	})
	t.Run("UDP flows", func(t *testing.T) {
		s := newScene(t, dataplane.UDP, dataplane.Options{})
		apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.MaxConnections = 1 }))
		one, two := udpClient(t, s.addr(clientHost), s.vip), udpClient(t, s.addr(clientHost), s.vip)
		if _, _, _, err := ask(one, "ping", patience); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := ask(two, "ping", 50*time.Millisecond); err == nil {
			t.Error("the second flow is served")
		}
		s.refused(t, 1)
	})
}

// refused waits until so many connections or flows are counted that were not let in: nothing tells a client of UDP.
func (s *scene) refused(t *testing.T, want uint64) {
	t.Helper()
	eventually(t, func() error {
		if c := s.plane.Status().VirtualServers[0].Counters; c.RefusedConnections != want {
			return fmt.Errorf("%d refused, want %d", c.RefusedConnections, want)
		}
		return nil
	})
}

func TestAccess(t *testing.T) {
	for _, protocol := range []dataplane.Protocol{dataplane.TCP, dataplane.UDP} {
		for action, wantNamed := range map[dataplane.AccessAction]bool{dataplane.Allow: true, dataplane.Drop: false} {
			t.Run(string(protocol+" "+dataplane.Protocol(action)), func(t *testing.T) {
				s := newScene(t, protocol, dataplane.Options{})
				named, other := s.addr(clientHost), s.addr(clientHost+1)
				access := func(prefixes ...netip.Prefix) {
					apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
						vs.Access = &dataplane.Access{Action: action, Prefixes: prefixes}
					}))
				}
				check := func(client netip.Addr, want bool) {
					t.Helper()
					if protocol == dataplane.UDP {
						wait := patience
						if !want {
							wait = 100 * time.Millisecond
						}
						if _, _, _, err := ask(udpClient(t, client, s.vip), "x", wait); want != (err == nil) {
							t.Errorf("%v: %v, want an answer: %t", client, err, want)
						}
					} else if _, err := connect(t, client, s.vip); want && err != nil || !want && !wasReset(err) {
						t.Errorf("%v: %v, want it let in: %t", client, err, want)
					}
				}
				access(netip.PrefixFrom(named, 32))
				check(named, wantNamed)
				check(other, !wantNamed)
				s.refused(t, 1)
				access()
				check(named, !wantNamed)
				check(other, !wantNamed)
			})
		}
	}
}

// Who is let in stays in.
func TestAccessOfConnectionsThatThereAre(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	apply(t, s.plane, s.with(func(*dataplane.VirtualServer) {}))
	c := mustConnect(t, s.addr(clientHost), s.vip)
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.Access = &dataplane.Access{Action: dataplane.Allow} }))
	if err := c.echo("still here"); err != nil {
		t.Error(err)
	}
	if _, err := connect(t, s.addr(clientHost), s.vip); !wasReset(err) {
		t.Errorf("a new one: %v, want a reset", err)
	}
}

// Backup members serve only while fewer than MinActiveMembers primary ones are UP.
func TestBackupMembers(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	spare := newBackend(t, s.addr(30), s.freePort(t, s.addr(30)))
	pool := func(minActive int, drained ...int) dataplane.VirtualServer {
		return s.with(func(vs *dataplane.VirtualServer) {
			vs.Pool.Members = members(s.backends[0], s.backends[1], spare)
			vs.Pool.Members[2].Backup = true
			vs.Pool.MinActiveMembers = minActive
			drain(vs.Pool, dataplane.GracefulDisabled, drained...)
		})
	}
	primary, all := [2]string{s.backends[0].name, s.backends[1].name}, []int{0, 1}
	for _, tt := range []struct {
		name  string
		vs    dataplane.VirtualServer
		want  map[string]int // of four connections
		state dataplane.State
	}{
		{"all primary members", pool(0), map[string]int{primary[0]: 2, primary[1]: 2}, up},
		{"one is enough", pool(0, 0), map[string]int{primary[1]: 4}, dataplane.StatePartiallyUp},
		{"one is too few", pool(2, 0), map[string]int{spare.name: 4}, dataplane.StatePrimaryDown},
		{"none", pool(0, all...), map[string]int{spare.name: 4}, dataplane.StatePrimaryDown},
		{"one is too few, but there is no backup", pool(2, 0, 2), map[string]int{primary[1]: 4}, dataplane.StatePartiallyUp},
	} {
		apply(t, s.plane, tt.vs)
		got := map[string]int{}
		for range 4 {
			got[mustConnect(t, netip.Addr{}, s.vip).name]++
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if st := s.plane.Status().Pools[0]; st.State != tt.state || (st.Reason == "") != (st.State == up) {
			t.Errorf("%s: %s (%s), want %s", tt.name, st.State, st.Reason, tt.state)
		}
	}
	s.backends[0].stop()
	s.backends[1].stop()
	apply(t, s.plane, pool(0))
	if c := mustConnect(t, netip.Addr{}, s.vip); c.name != spare.name {
		t.Errorf("when no primary member answers, %s does", c.name)
	}
}

// Whatever changes around it, a virtual server with a member that stays ENABLED serves without a failure.
func TestChurn(t *testing.T) {
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	random := rand.New(rand.NewPCG(1, 2))
	var ports [5]uint16
	for i := range ports {
		ports[i] = s.freePort(t, s.addr(vipHost+1))
	}
	states := []dataplane.AdminState{dataplane.Enabled, dataplane.GracefulDisabled}
	config := func() []dataplane.VirtualServer {
		steady := s.with(func(vs *dataplane.VirtualServer) {
			vs.Pool.Members[1].AdminState = states[random.IntN(2)]
			vs.Pool.Members[0].Weight = random.IntN(5)
			vs.Pool.Algorithm = []dataplane.Algorithm{dataplane.RoundRobin, dataplane.WeightedRoundRobin, dataplane.LeastConnection}[random.IntN(3)]
			vs.Pool.Monitors = []dataplane.Monitor{{ID: "m", Type: dataplane.MonitorTCP, Interval: time.Duration(1+random.IntN(3)) * time.Millisecond}}
		})
		servers := []dataplane.VirtualServer{steady}
		for i, port := range ports {
			if random.IntN(2) == 0 {
				continue
			}
			vs := s.with(func(vs *dataplane.VirtualServer) {
				vs.ID, vs.Address = fmt.Sprint("other", i), s.addr(vipHost+1)
				vs.Protocol = []dataplane.Protocol{dataplane.TCP, dataplane.UDP}[random.IntN(2)]
				vs.Ports = []dataplane.PortMap{{Listen: port}}
				vs.Disabled = random.IntN(4) == 0
				vs.Pool.ID = fmt.Sprint("pool", i)
			})
			if random.IntN(2) == 0 {
				vs.Pool = steady.Pool
			}
			servers = append(servers, vs)
		}
		random.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
		return servers
	}
	apply(t, s.plane, config()...)
	eventually(t, func() error {
		c, err := connect(t, netip.Addr{}, s.vip)
		if err == nil {
			c.Close()
		}
		return err
	})

	done, served := make(chan struct{}), make(chan error)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() { s.keepAsking(t, netip.Addr{}, done, served) })
	}
	for i := range ports { // and others, that may fail, but must do no harm
		to := netip.AddrPortFrom(s.addr(vipHost+1), ports[i])
		clients.Go(func() {
			conn := udpClient(t, s.addr(clientHost), to)
			for {
				select {
				case <-done:
					return
				default:
				}
				// Not for long: while a listener closes, Linux may drop a SYN, or not tell the client that the
				// connection it just made is gone.
				if c, err := net.DialTimeout("tcp", to.String(), 20*time.Millisecond); err == nil {
					c.SetDeadline(time.Now().Add(20 * time.Millisecond))
					c.Read(make([]byte, 1))
					c.Close()
				}
				ask(conn, "ping", time.Millisecond)
			}
		})
	}
	for range 100 {
		apply(t, s.plane, config()...)
		s.plane.Status()
		for range 4 {
			if err := <-served; err != nil {
				t.Error(err)
			}
		}
	}
	close(done)
	clients.Wait()
	apply(t, s.plane, s.vs)
	eventually(t, func() error {
		st := s.plane.Status()
		for _, c := range []dataplane.Counters{st.VirtualServers[0].Counters, st.Pools[0].Counters, st.Pools[0].Members[0].Counters, st.Pools[0].Members[1].Counters} {
			if c.CurrentConnections != 0 || c.TotalConnections == 0 {
				return fmt.Errorf("counters %+v", c)
			}
		}
		return nil
	})
}
