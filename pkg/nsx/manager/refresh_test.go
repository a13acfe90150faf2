package manager_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// isFree tells whether the inventory would let a Service have an address.
func (w *world) isFree(a netip.Addr) (free bool) {
	nobody := nsx.Owner{UID: "uid-nobody"}
	_, err := w.Inventory().Reserve(nobody, func(is func(string, netip.Addr) bool) (netip.Addr, error) {
		free = is(w.pool, a)
		return a, nil
	})
	w.must(err)
	w.Inventory().Unreserve(nobody)
	return free
}

// TestRefreshFindsWhatAnotherClusterGaveBack: it was allocated, and on a virtual server of theirs; neither is any more. The
// virtual servers are read for that alone.
func TestRefreshFindsWhatAnotherClusterGaveBack(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	other := w.backend("cluster-2")
	w.must(other.Load(t.Context()))
	w.must(other.SetNodes(t.Context(), nodes("x")))
	w.must(other.Apply(t.Context(), nsx.Publish{Owner: owner("theirs"), VirtualServers: []nsx.VirtualServer{w.tcp(1)}}))
	w.must(w.Load(t.Context()))
	addr := netip.MustParseAddr("10.0.0.1")
	refresh := func(wantCalls map[string]int, wantFree bool) {
		t.Helper()
		w.sim.Journal().Reset()
		w.must(w.RefreshAddresses(t.Context(), "floating"))
		if d := cmp.Diff(wantCalls, w.sim.Journal().Counts()); d != "" {
			t.Errorf("calls (-want +got):\n%s", d)
		}
		if got := w.isFree(addr); got != wantFree {
			t.Errorf("free: %t, want %t", got, wantFree)
		}
	}
	refresh(map[string]int{"GET /pools/ip-pools": 1, "GET /pools/ip-pools/{id}/allocations": 1}, false)
	w.must(other.Apply(t.Context(), nsx.Withdraw{Owner: owner("theirs"), VirtualServers: other.Inventory().Observe(owner("theirs")).VirtualServers}))
	refresh(map[string]int{"GET /pools/ip-pools": 1, "GET /pools/ip-pools/{id}/allocations": 1, "GET /loadbalancer/virtual-servers": 1}, true)
	refresh(map[string]int{"GET /pools/ip-pools": 1, "GET /pools/ip-pools/{id}/allocations": 1}, true)
}

// TestRefreshReadsOnePool, and what has become of its ranges.
func TestRefreshReadsOnePool(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.must(w.RefreshAddresses(t.Context(), "nothing of that name"))
	addr := netip.MustParseAddr("10.0.0.9")
	_, err := w.sim.As("somebody").Update(nsxsim.KindIPPool, w.pool, func(o nsxsim.Object) {
		o["subnets"].([]any)[0].(map[string]any)["allocation_ranges"] = []any{map[string]any{"start": "10.0.0.1", "end": "10.0.0.9"}}
	})
	w.must(err)
	_, err = w.sim.As("somebody").Allocate(w.pool, "10.0.0.2")
	w.must(err)
	w.must(w.RefreshAddresses(t.Context(), "floating"))
	p, _ := w.Inventory().IPPool("floating")
	if !p.Ranges[0].Contains(addr) || w.isFree(netip.MustParseAddr("10.0.0.2")) || !p.Exclusive {
		t.Errorf("after a refresh the pool is %+v", p)
	}
}

// TestRefreshRoom finds what others took out of a load-balancer service, and one that was not there before.
func TestRefreshRoom(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.lbServices = []string{"lb", "later"}
	w.restart()
	w.must(w.publish(owner("web"), w.tcp(1)))
	room := func(key string) string {
		if r := w.Inventory().Room(key); r.Problem != "" || r.Free == 0 {
			return r.Problem
		}
		return "room"
	}
	if got := room("later"); got == "room" {
		t.Fatal("there is room where nothing is: the test proves nothing")
	}
	nsxsim.Must(w.sim.AddLBService("later", "SMALL", nsxsim.Must(w.sim.AddTier1("t2")).ID()))
	w.sim.Journal().Reset()
	w.must(w.RefreshRoom(t.Context()))
	if got := room("later"); got != "room" {
		t.Errorf("later: %s", got)
	}
	if d := cmp.Diff(map[string]int{"GET /loadbalancer/services": 1, "GET /loadbalancer/services/{id}/usage": 2}, w.sim.Journal().Counts()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	if r, _ := w.Inventory().LBService("lb"); len(r.VirtualServers) != 1 || r.Capacity != 20 {
		t.Errorf("lb is %+v", r)
	}
}
