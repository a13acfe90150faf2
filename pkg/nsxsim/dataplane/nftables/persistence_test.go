//go:build linux

package nftables_test

import (
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// persistent ties clients to members for some time.
func persistent(timeout time.Duration) func(*dataplane.VirtualServer) {
	return func(vs *dataplane.VirtualServer) { vs.Persistence = &dataplane.Persistence{Timeout: timeout} }
}

// theOne that answers all of some requests.
func (w *world) theOne(t *testing.T, network, from, to string) string {
	t.Helper()
	got := w.spread(t, network, from, to, 4)
	if len(got) != 1 {
		t.Fatalf("%s is served by %v, want one member", from, got)
	}
	for member := range got {
		return member
	}
	return ""
}

func TestPersistenceTiesClientsToMembers(t *testing.T) {
	w := newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		ports := func(vs *dataplane.VirtualServer) {
			vs.Ports = append(vs.Ports, dataplane.PortMap{Listen: 81, Member: 30081})
		}
		apply(t, p, web(protocol, persistent(time.Minute), ports))
		members := map[string]bool{}
		for _, client := range []string{clientA, clientB, clientC} {
			one := w.theOne(t, network, client, vip+":80")
			if got := w.theOne(t, network, client, vip+":81"); got != one {
				t.Errorf("%s is served by %s on another port, and by %s before", client, got, one)
			}
			members[one] = true
		}
		if got := p.Status().VirtualServers[0].Persistent; got != 3 {
			t.Errorf("%d clients are tied by the status, want 3", got)
		}
		if len(members) != 3 {
			t.Errorf("three clients are served by %v", members)
		}

		// A tie outlives changes that do not concern its member.
		one := w.theOne(t, network, clientA, vip+":80")
		apply(t, p, web(protocol, persistent(time.Minute), ports, with(nodes(number(one), without(number(one))[0]))))
		if got := w.theOne(t, network, clientA, vip+":80"); got != one {
			t.Errorf("%s is served by %s when another member is gone, and by %s before", clientA, got, one)
		}
		// A member that drains still serves those tied to it, and nobody else.
		draining := web(protocol, persistent(time.Minute), ports, inState(number(one), dataplane.GracefulDisabled))
		apply(t, p, draining)
		if got := w.theOne(t, network, clientA, vip+":80"); got != one {
			t.Errorf("%s is served by %s when %s drains", clientA, got, one)
		}
		// One that is gone is forgotten, also when it comes again.
		apply(t, p, web(protocol, persistent(time.Minute), ports, with(nodes(without(number(one))...))))
		other := w.theOne(t, network, clientA, vip+":80")
		apply(t, p, web(protocol, persistent(time.Minute), ports))
		if got := w.theOne(t, network, clientA, vip+":80"); got != other {
			t.Errorf("%s is served by %s when %s comes again, and by %s before", clientA, got, one, other)
		}
	})
}

func TestPersistenceToMemberThatIsDown(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	apply(t, p, web(persistent(time.Minute), checked))
	one := w.theOne(t, "tcp", clientA, vip+":80")
	node := w.nodes[number(one)-1]
	listens := Serve{"tcp", ":30080", node.name}
	call[Serve, struct{}](t, node, "Stop", listens)
	var other string
	eventually(t, "another serves", func() bool {
		member, _, failure := w.once(t, "tcp", clientA, vip+":80")
		other = member
		return failure == "" && member != one
	})
	call[Serve, struct{}](t, node, "Serve", listens)
	eventually(t, one+" is UP", func() bool {
		return p.Status().Pools[0].Members[number(one)-1].State == dataplane.StateUp
	})
	if got := w.theOne(t, "tcp", clientA, vip+":80"); got != other {
		t.Errorf("%s serves when it is UP again, %s did before", got, other)
	}
}

// The time-out runs from the last packet of the client's.
func TestPersistenceTimesOut(t *testing.T) {
	w := newWorld(t)
	const timeout = time.Second
	// steady tells whether the client was never idle for the time-out, which is the kernel's and does not wait for a
	// busy machine.
	steady := func() bool {
		p := newPlane(t, dataplane.Options{})
		defer p.Close()
		apply(t, p, web(persistent(timeout)))
		begin := time.Now()
		c := w.dial(t, "tcp", clientA, vip+":80")
		one, last := c.member(), begin
		for time.Since(begin) < 2*timeout {
			now := time.Now()
			c.member() // traffic renews the time-out
			if time.Since(last) > timeout {
				return false
			}
			last = now
		}
		got, _, _ := w.once(t, "tcp", clientA, vip+":80")
		if time.Since(last) > timeout {
			return false
		}
		if got != one {
			t.Errorf("%s serves a client with traffic, %s did before", got, one)
		}
		eventually(t, "the client is tied no more", func() bool { return p.Status().VirtualServers[0].Persistent == 0 })
		if got, _, _ := w.once(t, "tcp", clientA, vip+":80"); got == one {
			t.Errorf("%s serves a client that was idle, want the next turn's", got)
		}
		return true
	}
	eventually(t, "a client that is never idle", steady)
}

func TestPersistenceIsTheVirtualServersOwn(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	other := web(persistent(time.Minute), func(vs *dataplane.VirtualServer) { vs.ID, vs.Ports[0].Listen = "other", 81 })
	apply(t, p, web(persistent(time.Minute)), other)
	one := w.theOne(t, "tcp", clientA, vip+":80")
	if got := w.theOne(t, "tcp", clientA, vip+":81"); got == one {
		t.Errorf("both are served by %s, want the next turn's", got)
	}
}

func TestSharedPersistence(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	shared := func(vs *dataplane.VirtualServer) {
		vs.Persistence = &dataplane.Persistence{Timeout: time.Minute, Shared: "profile"}
	}
	other := web(shared, func(vs *dataplane.VirtualServer) {
		vs.ID, vs.Ports[0], vs.Pool.ID = "other", dataplane.PortMap{Listen: 81, Member: 30081}, "other"
	})
	apply(t, p, web(shared), other)
	for _, client := range []string{clientA, clientB, clientC} {
		one := w.theOne(t, "tcp", client, vip+":80")
		if got := w.theOne(t, "tcp", client, vip+":81"); got != one {
			t.Errorf("%s is served by %s and by %s", client, one, got)
		}
	}
}
