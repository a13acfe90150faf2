//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/visits"
)

// TestPackets proves by the edge's own record of connections, and by what pods see, that clients keep their addresses where they
// should, are tied to a pod, and are kept out.
func TestPackets(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.pods("web", s.Nodes...)
	_, shared := s.service("cluster", "web", corev1.ServiceExternalTrafficPolicyCluster)
	_, local := s.service("local", "web", corev1.ServiceExternalTrafficPolicyLocal)
	_, sticky := s.service("sticky", "web", corev1.ServiceExternalTrafficPolicyLocal, func(svc *corev1.Service) {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	})
	_, guarded := s.service("guarded", "web", corev1.ServiceExternalTrafficPolicyCluster, func(svc *corev1.Service) {
		svc.Spec.LoadBalancerSourceRanges = []string{s.Topology.ClientAddress(1).String() + "/32"}
	})
	for _, vip := range []netip.Addr{shared, local, sticky} {
		s.served(vip)
	}

	t.Run("policy Cluster hides clients", func(t *testing.T) {
		s := s.in(t)
		made := s.spread("policy Cluster", shared)
		for _, f := range s.crossed(shared, made) {
			if f.source.Addr() != s.Topology.SNATAddress() {
				t.Fatalf("the edge sent %v on as %v, want %v", f.client, f.source, s.Topology.SNATAddress())
			}
		}
	})

	t.Run("policy Local shows clients", func(t *testing.T) {
		s := s.in(t)
		made := s.spread("policy Local", local)
		for _, f := range s.crossed(local, made) {
			if f.source.Addr() != f.client.Addr() {
				t.Fatalf("the edge sent %v on as %v", f.client, f.source)
			}
		}
		for _, v := range made {
			if v.Err == nil && v.Sees.Addr() != v.Client.Addr() {
				t.Fatalf("the pod sees %v, the client is %v", v.Sees, v.Client)
			}
		}
	})

	t.Run("affinity ClientIP ties a client to a pod", func(t *testing.T) {
		s := s.in(t)
		s.eventually("all nodes are UP", verdictWithin, func() error { return s.up(sticky, s.Nodes...) })
		made := s.pass(s.crowd(sticky), 60)
		s.answered("affinity", made)
		crossed := s.crossed(sticky, made)
		for i := 1; i <= cluster.Clients; i++ {
			client := s.Topology.ClientAddress(i)
			var members []string
			var own visits.Visits
			for _, v := range made {
				if v.Err == nil && v.Client.Addr() == client {
					own = append(own, v)
					members = append(members, crossed[v.Client].member.String())
				}
			}
			slices.Sort(members)
			if members = slices.Compact(members); len(members) != 1 || len(own.Pods()) != 1 {
				t.Errorf("client %v was sent to %v and answered by %v in %d visits, want one", client, members, own.Pods(), len(own))
			}
		}
	})

	t.Run("source ranges keep clients out at the edge", func(t *testing.T) {
		s := s.in(t)
		if v := s.visit(s.ctx, 1, guarded); v.Err != nil {
			s.eventually("the client in the range gets in", addressWithin, func() error { return s.visit(s.ctx, 1, guarded).Err })
		}
		began := s.flows(guarded)
		for i := 2; i <= cluster.Clients; i++ {
			if v := s.visit(s.ctx, i, guarded); v.Err == nil {
				t.Errorf("client %v, outside the ranges, was answered by %s", v.Client, v.Pod)
			}
		}
		for client, f := range s.flows(guarded) {
			if _, old := began[client]; !old && client.Addr() != s.Topology.ClientAddress(1) {
				t.Errorf("the edge sent a connection of %v, outside the ranges, to %v", client, f.member)
			}
		}
		s.patch("guarded", `{"spec":{"loadBalancerSourceRanges":null}}`)
		s.eventually("everybody gets in without ranges", addressWithin, func() error {
			for i := 1; i <= cluster.Clients; i++ {
				if v := s.visit(s.ctx, i, guarded); v.Err != nil {
					return v.Err
				}
			}
			return nil
		})
	})
}

// spread has a crowd visit an address until all nodes have had connections. All are answered.
func (s *stage) spread(what string, vip netip.Addr) visits.Visits {
	s.Helper()
	crowd := s.crowd(vip)
	s.toAll(crowd)
	made := crowd.GoHome()
	s.answered(what, made)
	return made
}

// crossed are the flows of visits, by client. All of them must have crossed the edge, to a node.
func (s *stage) crossed(vip netip.Addr, made visits.Visits) map[netip.AddrPort]flow {
	s.Helper()
	found, err := s.crossing(vip, made)
	s.must(err)
	return found
}

// crossing is crossed while nodes go, with which the edge forgets connections.
func (s *stage) crossing(vip netip.Addr, made visits.Visits) (map[netip.AddrPort]flow, error) {
	s.Helper()
	all, found := s.flows(vip), map[netip.AddrPort]flow{}
	for _, v := range made {
		f, ok := all[v.Client]
		if !ok {
			return nil, fmt.Errorf("the edge knows nothing of a connection from %v to %v", v.Client, vip)
		}
		if s.nodeAt(f.member.Addr().String()) == nil {
			return nil, fmt.Errorf("the edge sent %v to %v, which is no node", v.Client, f.member)
		}
		found[v.Client] = f
	}
	return found, nil
}

// toAll waits until a crowd's connections are spread over all nodes, which are members for NSX when their monitor says so.
func (s *stage) toAll(c crowd) {
	s.Helper()
	s.eventually("connections go to all nodes", verdictWithin, func() error {
		shares := s.sharesNow(c)
		for _, n := range s.Nodes {
			if shares[n.Name] == 0 {
				return fmt.Errorf("none went to %s: %v", n.Name, shares)
			}
		}
		return nil
	})
}

// shares are the numbers of flows by node.
func (s *stage) shares(flows map[netip.AddrPort]flow) map[string]int {
	shares := map[string]int{}
	for _, f := range flows {
		if n := s.nodeAt(f.member.Addr().String()); n != nil {
			shares[n.Name]++
		}
	}
	return shares
}

// sharesNow has the crowd make some more visits, and counts them by node; nil when the edge knows nothing of one.
func (s *stage) sharesNow(c crowd) map[string]int {
	s.Helper()
	flows, err := s.crossing(c.to, s.pass(c, 30))
	if err != nil {
		return nil
	}
	return s.shares(flows)
}
