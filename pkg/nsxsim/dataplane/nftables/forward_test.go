//go:build linux

package nftables_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

func TestForwardsToAllMembers(t *testing.T) {
	w := newWorld(t)
	for _, protocol := range []dataplane.Protocol{dataplane.TCP, dataplane.UDP} {
		t.Run(string(protocol), func(t *testing.T) {
			p := newPlane(t, dataplane.Options{})
			apply(t, p, web(func(vs *dataplane.VirtualServer) { vs.Protocol = protocol }))
			network := map[dataplane.Protocol]string{dataplane.TCP: "tcp", dataplane.UDP: "udp"}[protocol]
			got := w.spread(t, network, clientA, vip+":80", 9)
			if diff := cmp.Diff(map[string]int{"node-1": 3, "node-2": 3, "node-3": 3}, got); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSourceThatMembersSee(t *testing.T) {
	w := newWorld(t)
	for _, network := range []string{"tcp", "udp"} {
		for _, c := range []struct {
			name   string
			opts   dataplane.Options
			change func(*dataplane.VirtualServer)
			want   string
		}{
			{"automap", dataplane.Options{}, func(*dataplane.VirtualServer) {}, "10.200.1.1"},
			{"automap with an address", dataplane.Options{SNATAddress: netip.MustParseAddr("192.0.2.1")}, func(*dataplane.VirtualServer) {}, "192.0.2.1"},
			{"addresses of a pool", dataplane.Options{}, from("203.0.113.7/32"), "203.0.113.7"},
			{"addresses of a pool, of another family", dataplane.Options{}, from("2001:db8:113::/64"), "10.200.1.1"},
			{"an address on the member's cable", dataplane.Options{}, from("10.200.1.77/32"), "10.200.1.77"},
			{"transparent", dataplane.Options{}, transparent, clientB},
		} {
			t.Run(network+" "+c.name, func(t *testing.T) {
				p := newPlane(t, c.opts)
				vs := web(with(nodes(1)), c.change)
				if network == "udp" {
					udp(&vs)
				}
				apply(t, p, vs)
				_, from, failure := w.once(t, network, clientB, vip+":80")
				if failure != "" || from.Addr().String() != c.want {
					t.Errorf("the member sees %v (%s), want %s", from, failure, c.want)
				}
			})
		}
	}
}

// from makes connections come from addresses.
func from(prefixes ...string) func(*dataplane.VirtualServer) {
	return func(vs *dataplane.VirtualServer) {
		for _, p := range prefixes {
			vs.Pool.SNATAddresses = append(vs.Pool.SNATAddresses, netip.MustParsePrefix(p))
		}
	}
}

func TestClientsShareTheAddressesOfAPool(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	prefixes := []string{"203.0.113.0/30", "203.0.113.8/31", "203.0.113.32/32"}
	apply(t, p, web(from(prefixes...)))
	for _, client := range []string{clientA, clientB, clientC} {
		used := map[string]bool{}
		for range 4 {
			_, source, failure := w.once(t, "tcp", client, vip+":80")
			if failure != "" {
				t.Fatal(failure)
			}
			for _, p := range prefixes {
				if netip.MustParsePrefix(p).Contains(source.Addr()) {
					used[p] = true
				}
			}
		}
		if len(used) != 1 {
			t.Errorf("connections of %s come from %v, want one of %v", client, used, prefixes)
		}
	}
}

func TestPortsAndMemberPorts(t *testing.T) {
	w := newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		pool := nodes(1)
		pool.Members = append(pool.Members, dataplane.Member{Address: nodeAddress(2), Port: 30081})
		apply(t, p, web(protocol, with(pool), func(vs *dataplane.VirtualServer) {
			vs.Ports = []dataplane.PortMap{{Listen: 80, Member: 30080}, {Listen: 81, Member: 30081}, {Listen: 30080}, {Listen: 82, Member: 9}}
		}))
		for _, port := range []string{":80", ":81", ":30080"} {
			if diff := cmp.Diff(map[string]int{"node-1": 2, "node-2": 2}, w.spread(t, network, clientA, vip+port, 4)); diff != "" {
				t.Errorf("port %s: members (-want +got):\n%s", port, diff)
			}
		}
		// A member's own port goes before that of the virtual server, where nobody listens.
		answers := map[string]int{}
		for range 4 {
			member, _, failure := w.once(t, network, clientA, vip+":82")
			answers[member+failure]++
		}
		if diff := cmp.Diff(map[string]int{"refused": 2, "node-2": 2}, answers); diff != "" {
			t.Errorf("port 82: answers (-want +got):\n%s", diff)
		}
	})
}

func TestWeights(t *testing.T) {
	w := newWorld(t)
	for _, algorithm := range []dataplane.Algorithm{dataplane.WeightedRoundRobin, dataplane.WeightedLeastConnection} {
		p := newPlane(t, dataplane.Options{})
		apply(t, p, web(func(vs *dataplane.VirtualServer) {
			vs.Pool.Algorithm = algorithm
			for i, weight := range []int{10, 20, 30} {
				vs.Pool.Members[i].Weight = weight
			}
		}))
		if diff := cmp.Diff(map[string]int{"node-1": 2, "node-2": 4, "node-3": 6}, w.spread(t, "tcp", clientA, vip+":80", 12)); diff != "" {
			t.Errorf("%s: members (-want +got):\n%s", algorithm, diff)
		}
		p.Close()
	}
}

func TestIPHash(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	hash := func(vs *dataplane.VirtualServer) { vs.Pool.Algorithm = dataplane.IPHash }
	apply(t, p, web(hash))
	before := map[string]string{}
	for _, client := range []string{clientA, clientB, clientC} {
		before[client] = w.theOne(t, "tcp", client, vip+":80")
	}
	gone := before[clientA]
	apply(t, p, web(with(nodes(without(number(gone))...)), hash))
	for client, member := range before {
		if got := w.theOne(t, "tcp", client, vip+":80"); (got == member) != (member != gone) {
			t.Errorf("%s is served by %s when %s is gone, by %s before", client, got, gone, member)
		}
	}
}

// What the edge itself asks is served as well.
func TestClientOnTheEdge(t *testing.T) {
	newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		apply(t, p, web(protocol))
		conn, err := dial(Dial{Network: network, To: vip + ":80"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got, err := ask(conn, "hello", patience); err != nil {
			t.Errorf("%q: %v", got, err)
		}
		if _, err := dial(Dial{Network: "tcp", To: vip + ":81"}); err == nil || failure(err) != "refused" {
			t.Errorf("a port that nobody serves: %v", err)
		}
	})
}

func TestIPv6(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	const vip6 = "2001:db8:1::10"
	pool := &dataplane.Pool{ID: "six", Members: []dataplane.Member{{Address: addrOf("2001:db8:201::2")}, {Address: addrOf("2001:db8:202::2")}}}
	const client = "2001:db8:192::3"
	for snat, wantClient := range map[dataplane.SNAT]bool{dataplane.AutoMap: false, dataplane.Transparent: true} {
		both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
			pool.SNAT = snat
			apply(t, p, web(protocol, with(pool), persistent(time.Minute), access(dataplane.Allow, client+"/128"), func(vs *dataplane.VirtualServer) {
				vs.Address = addrOf(vip6)
			}))
			seen := map[string]bool{}
			for range 4 {
				_, from, failure := w.once(t, network, client, "["+vip6+"]:80")
				if failure != "" {
					t.Fatal(failure)
				}
				seen[from.Addr().String()] = true
			}
			if len(seen) != 1 || seen[client] != wantClient {
				t.Errorf("%s: the member sees %v", snat, seen)
			}
			a := call[Dial, Answer](t, w.client, "Dial", Dial{Network: "tcp", From: "2001:db8:192::2", To: "[" + vip6 + "]:80", Short: true})
			if network == "tcp" && a.Failure != "timeout" {
				t.Errorf("a client that is not let in: %q", a.Failure)
			}
		})
	}
}

// A connection without packets is forgotten after a time: a UDP flow may get another member then, and TCP is reset.
func TestIdleTimeout(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	idle := func(d time.Duration) func(*dataplane.VirtualServer) {
		return func(vs *dataplane.VirtualServer) { vs.IdleTimeout = d }
	}
	short := web(idle(2 * time.Second))
	shortUDP := web(udp, idle(2*time.Second), func(vs *dataplane.VirtualServer) { vs.ID = "udp" })
	long := web(func(vs *dataplane.VirtualServer) { vs.ID, vs.Ports[0].Listen = "long", 81 })
	apply(t, p, short, shortUDP, long)
	stays := w.dial(t, "tcp", clientA, vip+":81")
	stays.member()
	flow := w.dial(t, "udp", clientA, vip+":80")
	first := flow.member()
	tcp := w.dial(t, "tcp", clientA, vip+":80")
	count := func(i int) uint64 { return p.Status().VirtualServers[i].Counters.CurrentConnections }
	eventually(t, "those with a short time-out are gone", func() bool { return count(0) == 0 && count(1) == 0 })
	if got := flow.member(); got == first {
		t.Errorf("%s gets the flow again, want the next turn's", got)
	}
	if _, _, failure := tcp.ask(); failure != "reset" {
		t.Errorf("the TCP connection: %q, want a reset", failure)
	}
	stays.member()
	apply(t, p, web(idle(3*time.Second)), long) // time-outs come and go
	w.dial(t, "tcp", clientA, vip+":80").member()
}
