package nsx_test

import (
	"net/netip"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Room that is promised to one Service is not there for another, whatever it is called by, until it is used or let go.
func TestReserveRoom(t *testing.T) {
	inv := nsx.NewInventory()
	tier := nsx.TierKey("t1", "SMALL")
	inv.SetRoom(nsx.LBServiceRoom{Key: tier, Free: 3})
	a, b := nsx.Owner{UID: "a"}, nsx.Owner{UID: "b"}
	free := func(key string, want int) {
		t.Helper()
		if r := inv.Room(key); r.Free != want || r.Problem != "" {
			t.Errorf("room of %s: %+v, want %d", key, r, want)
		}
	}
	reserve := func(o nsx.Owner, key string, n int, want bool) {
		t.Helper()
		if r, ok := inv.ReserveRoom(o, key, n); ok != want {
			t.Errorf("reserving %d in %s: %v, %+v", n, key, ok, r)
		}
	}
	reserve(a, "unknown", 1, false)
	reserve(a, tier, 1, true)
	reserve(a, tier, 1, true) // of another family, in the same plan
	reserve(b, tier, 2, false)
	free(tier, 1)

	// The service is made; what was promised of it by its key stays promised, also when its id is one of its keys.
	inv.PutLBService(nsx.LBServiceRecord{ID: "lb", Keys: []string{tier, "lb"}, Capacity: 3})
	free(tier, 1)
	free("lb", 1)
	reserve(b, "lb", 1, true)
	free(tier, 0)

	// What is attached is not promised any more.
	for _, id := range []string{"vs-1", "vs-2"} {
		inv.PutVirtualServer(nsx.VirtualServerRecord{Owner: a, VirtualServer: nsx.VirtualServer{ID: id, Address: netip.MustParseAddr("10.0.0.1")}})
	}
	inv.PutLBService(nsx.LBServiceRecord{ID: "lb", Keys: []string{tier, "lb"}, Capacity: 3, VirtualServers: []string{"vs-1", "vs-2"}})
	free("lb", 0)
	inv.Unreserve(b)
	free("lb", 1)
	inv.Unreserve(a)
	free("lb", 1)

	// More than what is attached already.
	reserve(a, "lb", 1, true)
	free("lb", 0)
	inv.PutLBService(nsx.LBServiceRecord{ID: "lb", Keys: []string{tier}, VirtualServers: []string{"vs-1", "vs-2"}})
	free("lb", nsx.Unlimited)
}
