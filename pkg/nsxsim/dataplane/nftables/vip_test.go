//go:build linux

package nftables_test

import (
	"testing"

	google "github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

func TestTheEdgeAnswersForAddressesOfVirtualServers(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	ping := func(to string, short bool) string {
		return call[Ping, Answer](t, w.client, "Ping", Ping{to, short}).Text
	}
	const onTheClientsCable = "192.0.2.200" // found by ARP
	if got := ping(vip, true) + ping(onTheClientsCable, true); got != "" {
		t.Fatalf("before anything is served, %s answers", got)
	}
	onCable := web(func(vs *dataplane.VirtualServer) { vs.ID, vs.Address = "on-cable", addrOf(onTheClientsCable) })
	apply(t, p, web(), onCable)
	for _, address := range []string{vip, onTheClientsCable} {
		// The client asks by ARP again only after some seconds, as nobody answered before.
		eventually(t, address+" answers pings", func() bool { return ping(address, true) == address })
		if member, _, failure := w.once(t, "tcp", clientA, address+":80"); member == "" {
			t.Errorf("%s: %s", address, failure)
		}
		for _, network := range []string{"tcp", "udp"} {
			if _, _, failure := w.once(t, network, clientA, address+":81"); failure != "refused" {
				t.Errorf("a port that nobody serves, %s: %s", network, failure)
			}
		}
	}
	disabled := web(func(vs *dataplane.VirtualServer) { vs.Disabled = true })
	apply(t, p, disabled)
	if got := ping(vip, true) + ping(onTheClientsCable, true); got != "" {
		t.Errorf("when it is given back or disabled, %s answers", got)
	}
	apply(t, p, web())
	if got := ping(vip, false); got != vip {
		t.Errorf("enabled again, %q answers", got)
	}
}

func TestAnAddressOfTheEdgesOwnStays(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	const own = "192.0.2.1"
	apply(t, p, web(func(vs *dataplane.VirtualServer) { vs.Address = addrOf(own) }))
	if member, _, failure := w.once(t, "tcp", clientA, own+":80"); member == "" {
		t.Error(failure)
	}
	apply(t, p)
	if got := call[Ping, Answer](t, w.client, "Ping", Ping{To: own}).Text; got != own {
		t.Errorf("%q answers", got)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	w := newWorld(t)
	before := traces(t)
	p := newPlane(t, dataplane.Options{})
	apply(t, p, web())
	c := w.dial(t, "tcp", clientA, vip+":80")
	c.member()
	p.Close()
	if after := traces(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if f.Mark != 0 {
			t.Errorf("left over: %v", f)
		}
	}
}

// A process that was killed leaves its tables and addresses; the next one begins anew.
func TestTakesOverWhatWasLeft(t *testing.T) {
	w := newWorld(t)
	killed := newPlane(t, dataplane.Options{})
	apply(t, killed, web())
	c := w.dial(t, "tcp", clientA, vip+":80")
	c.member()
	next := newPlane(t, dataplane.Options{})
	if got := call[Ping, Answer](t, w.client, "Ping", Ping{vip, true}).Text; got != "" {
		t.Errorf("%s still answers", got)
	}
	apply(t, next, web(with(nodes(2))))
	if _, _, failure := c.ask(); failure != "reset" {
		t.Errorf("a connection from before: %q, want a reset", failure)
	}
	if member, _, failure := w.once(t, "tcp", clientA, vip+":80"); member != "node-2" {
		t.Errorf("%q serves (%s)", member, failure)
	}
}

// Somebody who flushes nftables stops the traffic, until the next change.
func TestTablesThatSomebodyDeleted(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	apply(t, p, web())
	c := w.dial(t, "tcp", clientA, vip+":80")
	c.member()
	conn := &google.Conn{}
	conn.DelTable(&google.Table{Name: "nsxsim", Family: google.TableFamilyIPv4})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	apply(t, p, web(with(nodes(2, 3))), web(func(vs *dataplane.VirtualServer) { vs.ID, vs.Ports[0].Listen, vs.Pool.ID = "new", 81, "new" }))
	for _, port := range []string{":80", ":81"} {
		if member, _, failure := w.once(t, "tcp", clientA, vip+port); member == "" {
			t.Errorf("port %s: %s", port, failure)
		}
	}
	for _, d := range differences(t, p) {
		t.Error(d)
	}
	if got := p.Status().VirtualServers[0].Counters.TotalConnections; got == 0 {
		t.Error("what was counted is lost")
	}
}
