//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
)

// inventory is all that NSX holds.
func (s *stage) inventory() nsxsim.Inventory {
	s.Helper()
	all, err := s.NSX.Objects(s.ctx)
	s.must(err)
	return all
}

// virtualServers are those of an address.
func (s *stage) virtualServers(vip netip.Addr) (found []nsxsim.Object) {
	s.Helper()
	for _, o := range s.inventory().Objects {
		if o.String("kind") == string(nsxsim.KindVirtualServer) && o.String("ip_address") == vip.String() {
			found = append(found, o)
		}
	}
	return found
}

// allocated are the addresses that are taken from NSX's pools.
func (s *stage) allocated() (addresses []string) {
	s.Helper()
	for _, a := range s.inventory().Allocations {
		addresses = append(addresses, a.Address)
	}
	slices.Sort(addresses)
	return addresses
}

// poolOf is the pool that serves an address.
func (s *stage) poolOf(vip netip.Addr) string {
	s.Helper()
	servers := s.virtualServers(vip)
	if len(servers) != 1 {
		s.Fatalf("%v has %d virtual servers, want 1", vip, len(servers))
	}
	return servers[0].String("pool_id")
}

// members are the states of the members of the pool that serves an address, by node.
func (s *stage) members(vip netip.Addr) map[string]string {
	s.Helper()
	pool, service := s.poolOf(vip), ""
	for _, o := range s.inventory().Objects {
		if o.String("kind") == string(nsxsim.KindLBService) {
			service = o.ID()
		}
	}
	var answer struct {
		Members []struct {
			Address string `json:"ip_address"`
			Status  string `json:"status"`
		} `json:"members"`
	}
	s.must(s.NSX.Get(s.ctx, fmt.Sprintf("/api/v1/loadbalancer/services/%s/pools/%s/status?source=realtime", service, pool), &answer))
	states := map[string]string{}
	for _, m := range answer.Members {
		name := m.Address
		if n := s.nodeAt(m.Address); n != nil {
			name = n.Name
		}
		states[name] = m.Status
	}
	return states
}

// up checks that of the members of an address's pool only those of some nodes are UP.
func (s *stage) up(vip netip.Addr, nodes ...*cluster.Node) error {
	s.Helper()
	states := s.members(vip)
	up := slices.Sorted(maps.Keys(states))
	up = slices.DeleteFunc(up, func(name string) bool { return states[name] != "UP" })
	var want []string
	for _, n := range nodes {
		want = append(want, n.Name)
	}
	slices.Sort(want)
	if !slices.Equal(up, want) {
		return fmt.Errorf("members %v: want those of %v UP, and no other", states, want)
	}
	return nil
}

// nodeAt is the node with an address; nil when there is none.
func (s *stage) nodeAt(address string) *cluster.Node {
	for _, n := range s.Nodes {
		if n.Address.String() == address {
			return n
		}
	}
	return nil
}
