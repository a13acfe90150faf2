//go:build linux

package nftables_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

func access(action dataplane.AccessAction, prefixes ...string) func(*dataplane.VirtualServer) {
	return func(vs *dataplane.VirtualServer) {
		vs.Access = &dataplane.Access{Action: action}
		for _, p := range prefixes {
			vs.Access.Prefixes = append(vs.Access.Prefixes, netip.MustParsePrefix(p))
		}
	}
}

func TestAccessLists(t *testing.T) {
	w := newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		for _, c := range []struct {
			name   string
			list   func(*dataplane.VirtualServer)
			letsIn []string
		}{
			{"none", func(*dataplane.VirtualServer) {}, []string{clientA, clientB, clientC}},
			{"ALLOW one", access(dataplane.Allow, clientA+"/32"), []string{clientA}},
			{"ALLOW its neighbours", access(dataplane.Allow, clientB+"/32", clientC+"/32", "192.0.2.5/32"), []string{clientB, clientC}},
			{"ALLOW a prefix", access(dataplane.Allow, "10.0.0.0/8", "192.0.2.2/31"), []string{clientA, clientB}},
			{"ALLOW all", access(dataplane.Allow, "0.0.0.0/0"), []string{clientA, clientB, clientC}},
			{"ALLOW nobody", access(dataplane.Allow), nil},
			{"DROP one", access(dataplane.Drop, clientA+"/32"), []string{clientB, clientC}},
			{"DROP nobody", access(dataplane.Drop), []string{clientA, clientB, clientC}},
			{"DROP all", access(dataplane.Drop, "128.0.0.0/1"), nil},
		} {
			apply(t, p, web(protocol, c.list))
			want := map[string]bool{}
			for _, client := range c.letsIn {
				want[client] = true
			}
			for _, client := range []string{clientA, clientB, clientC} {
				if got := w.letsIn(t, network, client, want[client]); got != want[client] {
					t.Errorf("%s: %s is let in: %t", c.name, client, got)
				}
			}
		}
		if got := p.Status().VirtualServers[0].Counters; got.DroppedByAccess == 0 || got.RefusedConnections < got.DroppedByAccess {
			t.Errorf("the status: %+v", got)
		}
	})
}

// letsIn tells whether a client gets an answer, or nothing at all, for which it does not wait long if that is expected.
func (w *world) letsIn(t *testing.T, network, client string, expected bool) bool {
	t.Helper()
	a := call[Dial, Answer](t, w.client, "Dial", Dial{Network: network, From: client, To: vip + ":80", Short: !expected})
	if a.Failure == "" {
		defer call[int, struct{}](t, w.client, "Close", a.Conn)
		a = call[Ask, Answer](t, w.client, "Ask", Ask{Conn: a.Conn, Text: "hello", Short: !expected})
	}
	if a.Failure != "" && a.Failure != "timeout" {
		t.Errorf("%s: %s, want silence", client, a.Failure)
	}
	return a.Failure == ""
}

func TestAccessListLeavesConnectionsAlone(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	apply(t, p, web())
	c := w.dial(t, "tcp", clientA, vip+":80")
	c.member()
	apply(t, p, web(access(dataplane.Allow)))
	c.member()
}

func TestLimitOfConnections(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	limited := func(vs *dataplane.VirtualServer) { vs.MaxConnections = 2 }
	apply(t, p, web(limited))
	var held []caller
	for range 2 {
		c := w.dial(t, "tcp", clientA, vip+":80")
		c.member()
		held = append(held, c)
	}
	if _, _, failure := w.once(t, "tcp", clientB, vip+":80"); failure != "refused" {
		t.Errorf("the third: %q, want it refused", failure)
	}
	for _, c := range held {
		c.member()
	}
	apply(t, p, web(limited, with(nodes(1, 2)), access(dataplane.Allow, "192.0.2.0/24"), persistent(time.Minute))) // the count goes on
	if _, _, failure := w.once(t, "tcp", clientB, vip+":80"); failure != "refused" {
		t.Errorf("the third after changes: %q, want it refused", failure)
	}
	held[0].close()
	eventually(t, "one may come when one has gone", func() bool {
		_, _, failure := w.once(t, "tcp", clientB, vip+":80")
		return failure == ""
	})
	if got := p.Status().VirtualServers[0].Counters.RefusedConnections; got < 2 {
		t.Errorf("%d connections refused by the status", got)
	}
}

func TestLimitOfRate(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	apply(t, p, web(func(vs *dataplane.VirtualServer) { vs.MaxConnectionRate = 5 }))
	let := 0
	begin := time.Now()
	for range 50 {
		_, _, failure := w.once(t, "tcp", clientA, vip+":80")
		switch failure {
		case "":
			let++
		case "refused":
		default:
			t.Fatal(failure)
		}
	}
	if most := 5 + int(5*time.Since(begin).Seconds()) + 1; let < 5 || let > most {
		t.Errorf("%d of 50 connections let in within %v, want 5 to %d", let, time.Since(begin), most)
	}
	eventually(t, "time lets connections in", func() bool {
		_, _, failure := w.once(t, "tcp", clientA, vip+":80")
		return failure == ""
	})
}
