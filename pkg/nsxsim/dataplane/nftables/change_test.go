//go:build linux

package nftables_test

import (
	"slices"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// inState gives the pool a member in a state.
func inState(number int, state dataplane.AdminState) func(*dataplane.VirtualServer) {
	return func(vs *dataplane.VirtualServer) {
		for i := range vs.Pool.Members {
			if vs.Pool.Members[i].Address == nodeAddress(number) {
				vs.Pool.Members[i].AdminState = state
			}
		}
	}
}

// checked gives the pool a monitor that connects to port 30080.
func checked(vs *dataplane.VirtualServer) {
	vs.Pool.Monitors = []dataplane.Monitor{{ID: "connect", Type: dataplane.MonitorTCP, Port: 30080, Interval: 20 * time.Millisecond, Timeout: patience, Fall: 1, Rise: 1}}
}

// number of a node, by its name.
func number(node string) int { return int(node[len(node)-1] - '0') }

func without(node int) []int {
	return slices.DeleteFunc([]int{1, 2, 3}, func(n int) bool { return n == node })
}

func both(t *testing.T, test func(t *testing.T, network string, protocol func(*dataplane.VirtualServer))) {
	t.Run("tcp", func(t *testing.T) { test(t, "tcp", func(*dataplane.VirtualServer) {}) })
	t.Run("udp", func(t *testing.T) { test(t, "udp", udp) })
}

func TestDrainingMemberKeepsConnectionsAndGetsNoNewOnes(t *testing.T) {
	w := newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		apply(t, p, web(protocol))
		c := w.dial(t, network, clientA, vip+":80")
		member := c.member()
		apply(t, p, web(protocol, inState(number(member), dataplane.GracefulDisabled)))
		if got := w.spread(t, network, clientA, vip+":80", 6); got[member] != 0 {
			t.Errorf("%s drains and gets new connections: %v", member, got)
		}
		if got := c.member(); got != member {
			t.Errorf("the connection is with %s, was with %s", got, member)
		}
		apply(t, p, web(protocol))
		if got := w.spread(t, network, clientA, vip+":80", 6); got[member] != 2 {
			t.Errorf("%s is enabled again and gets %v", member, got)
		}
	})
}

// What a member that is removed or disabled has is cut: a TCP client gets a reset, a UDP client another member.
func TestRemovedMemberLosesItsConnections(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(member int) func(*dataplane.VirtualServer){
		"removed":  func(member int) func(*dataplane.VirtualServer) { return with(nodes(without(member)...)) },
		"disabled": func(member int) func(*dataplane.VirtualServer) { return inState(member, dataplane.Disabled) },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
				p := newPlane(t, dataplane.Options{})
				apply(t, p, web(protocol))
				var lost, kept []caller
				first := w.dial(t, network, clientA, vip+":80")
				member := first.member()
				for range 6 {
					if c := w.dial(t, network, clientA, vip+":80"); c.member() == member {
						lost = append(lost, c)
					} else {
						kept = append(kept, c)
					}
				}
				apply(t, p, web(protocol, change(number(member))))
				for _, c := range append(lost, first) {
					got, _, failure := c.ask()
					if network == "tcp" && failure != "reset" {
						t.Errorf("the connection with %s: %q %s, want a reset", member, got, failure)
					}
					if network == "udp" && (failure != "" || got == member) {
						t.Errorf("the flow to %s: %q %s, want another member", member, got, failure)
					}
				}
				for _, c := range kept {
					if _, _, failure := c.ask(); failure != "" {
						t.Errorf("a connection with another member: %s", failure)
					}
				}
			})
		})
	}
}

func TestDisabledMemberKeepsItsConnectionsWhenAsked(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{DisabledKeepsConnections: true})
	apply(t, p, web())
	c := w.dial(t, "tcp", clientA, vip+":80")
	member := c.member()
	apply(t, p, web(inState(number(member), dataplane.Disabled)))
	if got := c.member(); got != member {
		t.Errorf("the connection is with %s, was with %s", got, member)
	}
	if got := w.spread(t, "tcp", clientA, vip+":80", 4); got[member] != 0 {
		t.Errorf("%s is disabled and gets new connections: %v", member, got)
	}
}

// A member that fails its checks gets nothing new and loses its UDP flows; TCP connections may still be served, as a
// node serves those with pods that terminate.
func TestMemberThatIsDown(t *testing.T) {
	w := newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		apply(t, p, web(protocol, checked))
		c := w.dial(t, network, clientA, vip+":80")
		member := c.member()
		node := w.nodes[number(member)-1]
		listens := Serve{"tcp", ":30080", node.name}
		state := func() dataplane.State { return p.Status().Pools[0].Members[number(member)-1].State }

		call[Serve, struct{}](t, node, "Stop", listens)
		restart := func() { call[Serve, struct{}](t, node, "Serve", listens) }
		eventually(t, member+" is DOWN", func() bool { return state() == dataplane.StateDown })
		if got := w.spread(t, network, clientA, vip+":80", 6); got[member] != 0 {
			t.Errorf("%s is DOWN and gets new connections: %v", member, got)
		}
		got, _, failure := c.ask()
		if network == "tcp" && got != member {
			t.Errorf("the connection: %q %s, want it to live on", got, failure)
		}
		if network == "udp" && (failure != "" || got == member) {
			t.Errorf("the flow: %q %s, want another member", got, failure)
		}
		if got := p.Status().VirtualServers[0].State; got != dataplane.StatePartiallyUp {
			t.Errorf("the virtual server is %s", got)
		}
		restart()
		eventually(t, member+" serves again", func() bool { return w.spread(t, network, clientA, vip+":80", 3)[member] == 1 })
	})
}

func TestNobodyToServe(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*dataplane.VirtualServer){
		"no pool":         with(nil),
		"no members":      with(nodes()),
		"members drain":   func(vs *dataplane.VirtualServer) { vs.Pool = nodes(1); inState(1, dataplane.GracefulDisabled)(vs) },
		"members are off": func(vs *dataplane.VirtualServer) { vs.Pool = nodes(1); inState(1, dataplane.Disabled)(vs) },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
				p := newPlane(t, dataplane.Options{})
				apply(t, p, web(protocol, change))
				if _, _, failure := w.once(t, network, clientA, vip+":80"); failure != "refused" {
					t.Errorf("a connection: %q, want it refused", failure)
				}
				if got := p.Status().VirtualServers[0]; got.State != dataplane.StateDown || got.Counters.RefusedConnections == 0 {
					t.Errorf("the status is %+v", got)
				}
			})
		})
	}
}

func TestVirtualServerThatGoes(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*dataplane.VirtualServer){
		"another port":   func(vs *dataplane.VirtualServer) { vs.Ports[0].Listen = 81 },
		"another layer":  func(vs *dataplane.VirtualServer) { vs.Protocol = dataplane.TCP; vs.HTTP = &dataplane.HTTP{} },
		"another server": func(vs *dataplane.VirtualServer) { vs.Address = addrOf("198.51.100.99") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t, dataplane.Options{})
			other := web(func(vs *dataplane.VirtualServer) { vs.ID, vs.Ports[0].Listen = "other", 8080 }) // keeps the address
			apply(t, p, web(), other)
			c := w.dial(t, "tcp", clientA, vip+":80")
			c.member()
			kept := w.dial(t, "tcp", clientA, vip+":8080")
			kept.member()
			apply(t, p, web(change), other)
			if _, _, failure := c.ask(); failure != "reset" {
				t.Errorf("its connection: %q, want a reset", failure)
			}
			kept.member()
		})
	}
}

// TCP connections stay with the pool that they began with; UDP flows go to the new one.
func TestVirtualServerMovesToAnotherPool(t *testing.T) {
	w := newWorld(t)
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			protocol := func(vs *dataplane.VirtualServer) {
				if network == "udp" {
					udp(vs)
				}
			}
			p := newPlane(t, dataplane.Options{})
			old := web(protocol, with(nodes(1)))
			keeps := web(protocol, with(nodes(1)), func(vs *dataplane.VirtualServer) { vs.ID, vs.Ports[0].Listen = "keeps-the-pool", 81 })
			apply(t, p, old, keeps)
			c := w.dial(t, network, clientA, vip+":80")
			c.member()
			next := nodes(2)
			next.ID = "next"
			apply(t, p, web(protocol, with(next)), keeps)
			want := map[string]string{"tcp": "node-1", "udp": "node-2"}[network]
			if got := c.member(); got != want {
				t.Errorf("what was there is with %s, want %s", got, want)
			}
			if got := w.spread(t, network, clientA, vip+":80", 3); got["node-2"] != 3 {
				t.Errorf("what is new is with %v", got)
			}
			apply(t, p, web(protocol, with(next)))
			if _, _, failure := c.ask(); network == "tcp" && failure != "reset" {
				t.Errorf("with its member gone from all pools: %q, want a reset", failure)
			}
		})
	}
}

func TestBackupMembers(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	pool := func(states ...dataplane.AdminState) func(*dataplane.VirtualServer) {
		return func(vs *dataplane.VirtualServer) {
			vs.Pool.MinActiveMembers = 2
			vs.Pool.Members[2].Backup = true
			for i, s := range states {
				vs.Pool.Members[i].AdminState = s
			}
		}
	}
	apply(t, p, web(pool()))
	if got := w.spread(t, "tcp", clientA, vip+":80", 4); got["node-3"] != 0 {
		t.Errorf("with enough primary members: %v", got)
	}
	apply(t, p, web(pool(dataplane.Disabled)))
	if got := w.spread(t, "tcp", clientA, vip+":80", 4); got["node-3"] != 4 {
		t.Errorf("with too few primary members: %v", got)
	}
	if got := p.Status().Pools[0].State; got != dataplane.StatePrimaryDown {
		t.Errorf("the pool is %s", got)
	}
	apply(t, p, web(pool(dataplane.Disabled, dataplane.Enabled, dataplane.Disabled)))
	if got := w.spread(t, "tcp", clientA, vip+":80", 4); got["node-2"] != 4 {
		t.Errorf("without backup members: %v", got)
	}
}

// One that is disabled refuses; its TCP connections live on, its UDP flows do not.
func TestDisabledVirtualServer(t *testing.T) {
	w := newWorld(t)
	disabled := func(vs *dataplane.VirtualServer) { vs.Disabled = true }
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		other := web(protocol, func(vs *dataplane.VirtualServer) { vs.ID, vs.Ports[0].Listen = "other", 8080 }) // keeps the address
		apply(t, p, web(protocol), other)
		c := w.dial(t, network, clientA, vip+":80")
		member := c.member()
		apply(t, p, web(protocol, disabled), other)
		if _, _, failure := w.once(t, network, clientA, vip+":80"); failure != "refused" {
			t.Errorf("a connection: %q, want it refused", failure)
		}
		if got, _, failure := c.ask(); (network == "tcp") != (got == member) {
			t.Errorf("what there was: %q %s", got, failure)
		}
		apply(t, p, web(protocol, disabled)) // the address is given back
		if network == "tcp" {
			if got := c.member(); got != member {
				t.Errorf("what there was, without the address, is with %s, was with %s", got, member)
			}
		}
		apply(t, p)
		a := call[Ask, Answer](t, w.client, "Ask", Ask{Conn: c.id, Text: "hello", Short: true})
		if a.Failure == "" {
			t.Error("what there was lives on when the virtual server is gone")
		}
	})
}

func TestSorryPool(t *testing.T) {
	w := newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		sorry := nodes(3)
		sorry.ID = "sorry"
		server := func(state dataplane.AdminState) dataplane.VirtualServer {
			return web(protocol, with(nodes(1)), inState(1, state), func(vs *dataplane.VirtualServer) { vs.SorryPool = sorry })
		}
		apply(t, p, server(dataplane.Enabled))
		c := w.dial(t, network, clientA, vip+":80")
		if got := c.member(); got != "node-1" {
			t.Errorf("%s serves", got)
		}
		apply(t, p, server(dataplane.GracefulDisabled))
		if got := w.spread(t, network, clientA, vip+":80", 2); got["node-3"] != 2 {
			t.Errorf("when the pool cannot serve: %v", got)
		}
		if got := c.member(); got != "node-1" {
			t.Errorf("what there was is with %s", got)
		}
		if got := p.Status().Pools[1]; got.ID != "sorry" || got.Counters.TotalConnections != 2 {
			t.Errorf("the sorry pool: %+v", got)
		}
		apply(t, p, server(dataplane.Enabled))
		if got := w.spread(t, network, clientA, vip+":80", 2); got["node-1"] != 2 {
			t.Errorf("when the pool serves again: %v", got)
		}
	})
}

// Members that have as many connections as they may are passed over, a moment after.
func TestLimitOfAMembersConnections(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{Housekeeping: 5 * time.Millisecond})
	limited := func(vs *dataplane.VirtualServer) { vs.Pool.Members[0].MaxConnections = 1 }
	apply(t, p, web(with(nodes(1, 2)), limited))
	var held []caller
	for range 4 {
		c := w.dial(t, "tcp", clientA, vip+":80")
		if c.member() == "node-1" {
			held = append(held, c)
		}
	}
	eventually(t, "the member is passed over", func() bool { return w.spread(t, "tcp", clientA, vip+":80", 4)["node-1"] == 0 })
	for _, c := range held {
		if got := c.member(); got != "node-1" {
			t.Errorf("what the member has is with %s", got)
		}
		c.close()
	}
	eventually(t, "the member serves again", func() bool { return w.spread(t, "tcp", clientA, vip+":80", 4)["node-1"] > 0 })
}
