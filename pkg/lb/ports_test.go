package lb

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// drawPorts draws some of the ports 1 to n, in ascending order.
func drawPorts(t *rapid.T, label string, n int) []nsx.PortMap {
	var out []nsx.PortMap
	for i, yes := range rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, label) {
		if yes {
			out = append(out, nsx.PortMap{Port: uint16(i + 1), NodePort: uint16(30000 + i + rapid.IntRange(0, 1).Draw(t, "node port"))})
		}
	}
	return out
}

// Each wanted port is in exactly one virtual server, in the one that had it if any did; none has more than fit, and none
// is made that is not needed.
func TestDistribute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wanted := drawPorts(t, "wanted", 60)
		// What is held, without overlaps: each port in at most one of up to five virtual servers.
		held := make([][]nsx.PortMap, rapid.IntRange(0, 5).Draw(t, "virtual servers"))
		home := map[uint16]int{}
		for _, p := range drawPorts(t, "held", 60) {
			if len(held) == 0 {
				break
			}
			if i := rapid.IntRange(0, len(held)-1).Draw(t, "home"); len(held[i]) < nsx.MaxPorts {
				held[i] = append(held[i], p)
				home[p.Port] = i
			}
		}
		kept, fresh := distribute(wanted, held)
		if len(kept) != len(held) {
			t.Fatalf("%d kept of %d", len(kept), len(held))
		}
		var got []nsx.PortMap
		room := 0
		for i, ports := range slices.Concat(kept, fresh) {
			if len(ports) > nsx.MaxPorts || !slices.IsSortedFunc(ports, nsx.ComparePorts) || (i >= len(kept) && len(ports) == 0) {
				t.Fatalf("virtual server %d with ports %v", i, ports)
			}
			for _, p := range ports {
				if h, ok := home[p.Port]; ok && h != i {
					t.Fatalf("port %d moves from %d to %d", p.Port, h, i)
				}
			}
			got = append(got, ports...)
			if i < len(kept) {
				room += nsx.MaxPorts - len(ports)
			}
		}
		slices.SortFunc(got, nsx.ComparePorts)
		if !slices.Equal(got, wanted) {
			t.Fatalf("ports %v, want %v", got, wanted)
		}
		if len(fresh) > 0 && room > 0 {
			t.Fatalf("%d new virtual servers, while there was room for %d ports", len(fresh), room)
		}
		there := slices.Concat(kept, fresh)
		if again, more := distribute(wanted, there); len(more) > 0 || !slices.EqualFunc(again, there, slices.Equal) {
			t.Fatalf("distributing again moves ports: %v, then %v and %v", there, again, more)
		}
	})
}
