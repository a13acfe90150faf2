package lb

import (
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// distribute spreads the wanted ports over virtual servers, given the ports that the present ones hold in the order in
// which they are to be used. A port stays in the virtual server that has it; new ones fill up those that stay in use, then
// those that would be left empty, then fresh ones. kept has the ports for each of held, empty for one that is not needed;
// fresh has the ports for each virtual server to be made. wanted must be in ascending order, and so are the results.
func distribute(wanted []nsx.PortMap, held [][]nsx.PortMap) (kept, fresh [][]nsx.PortMap) {
	kept = make([][]nsx.PortMap, len(held))
	var rest []nsx.PortMap
	for _, p := range wanted {
		i := slices.IndexFunc(held, func(h []nsx.PortMap) bool {
			return slices.ContainsFunc(h, func(q nsx.PortMap) bool { return q.Port == p.Port })
		})
		if i >= 0 && len(kept[i]) < nsx.MaxPorts {
			kept[i] = append(kept[i], p)
		} else {
			rest = append(rest, p)
		}
	}
	fill := func(i int) {
		n := min(nsx.MaxPorts-len(kept[i]), len(rest))
		kept[i] = append(kept[i], rest[:n]...)
		rest = rest[n:]
	}
	inUse := make([]bool, len(held))
	for i := range held {
		inUse[i] = len(kept[i]) > 0
	}
	for i := range held {
		if inUse[i] {
			fill(i)
		}
	}
	for i := range held {
		if !inUse[i] {
			fill(i)
		}
		slices.SortFunc(kept[i], nsx.ComparePorts)
	}
	for chunk := range slices.Chunk(rest, nsx.MaxPorts) {
		fresh = append(fresh, slices.Clone(chunk))
	}
	return kept, fresh
}
