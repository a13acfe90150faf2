package scenarios

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/visits"
)

// flip is row 10.
func flip(s *Stage) {
	const name = "nginx-svc"
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-loadbalancer.yaml")
	with := s.endpoints(name, 2)
	ip := s.externalIP(name)
	at := url("http", ip, int(s.ports.HTTP))
	s.answers(at, 1)
	nodes := s.nodeAddresses()

	c := s.crowd(at)
	s.wantAnswers("policy Cluster", s.passBy(c, 40))
	s.toLocal(name, ip, nodes, with, c)
	s.toCluster(name, ip, nodes, c)
	if got := addressOf(s.service(name)); got != ip {
		s.fail("EXTERNAL-IP is now %s, was %s", got, ip)
	}
}

// toLocal changes the policy of a Service with endpoints on some nodes. A node without endpoints refuses connections at
// once, and NSX makes them until it has found out.
func (s *Stage) toLocal(service, ip string, nodes map[string]string, with []string, c *visits.Crowd) {
	clusterPool := s.poolOf(ip)
	// NSX asks another node when one refuses, so that few requests or none are lost. What others would lose is counted.
	without := func() (refused, total int) {
		members := s.members(ip)
		for name, address := range nodes {
			if !slices.Contains(with, name) {
				refused += members[address].Statistics.Refused
				total += members[address].Statistics.Total
			}
		}
		return refused, total
	}

	began := time.Now()
	s.setPolicy(service, corev1.ServiceExternalTrafficPolicyLocal)
	patched := time.Now()
	s.eventually("a pool of the Service's own", s.verdictWithin(), func() error {
		if s.poolOf(ip) == clusterPool {
			return fmt.Errorf("it is still %s", clusterPool)
		}
		return nil
	})
	refused, last := 0, time.Duration(0)
	s.eventually("only "+strings.Join(with, " and ")+" UP", s.verdictWithin(), func() error {
		if n, _ := without(); n != refused {
			refused, last = n, time.Since(patched)
		}
		return onlyUp(s.members(ip), nodes, with)
	})
	down := time.Since(patched)
	if down > s.verdictWithin() {
		s.fail("nodes without endpoints were DOWN %.1f s after the patch, want within %v", down.Seconds(), s.verdictWithin())
	}

	var settled visits.Visits
	s.eventually("no connection to nodes without endpoints", ipWithin, func() error {
		refused, total := without()
		settled = s.passBy(c, 40)
		if r, t := without(); r != refused || t != total {
			return fmt.Errorf("%d were made and %d refused", t-total, r-refused)
		}
		return nil
	})
	s.wantAnswers("policy Local", settled)
	for _, v := range settled {
		if from := v.Sees.Addr(); from != v.Client.Addr() {
			s.fail("policy Local: the pod sees %s, want the client's own address %s", from, v.Client.Addr())
		}
		if !slices.Contains(with, v.Node) {
			s.fail("policy Local: %s answers, whose node has no endpoint", v.Node)
		}
	}

	made := c.Visits()
	failed := made.Failed()
	for _, v := range failed {
		if after := v.Began.Sub(patched); v.Ended.Before(began) || after > s.verdictWithin() {
			s.fail("a request that was begun %.1f s after the patch to Local failed, want none but within %v: %w",
				after.Seconds(), s.verdictWithin(), v.Err)
		}
	}
	s.saw("to Local: %d of %d requests failed", len(failed), len(made))
	if len(failed) > 0 {
		s.saw("the last of them %.1f s after the patch", failed[len(failed)-1].Began.Sub(patched).Seconds())
	}
	s.saw("nodes without endpoints refused %d connections, the last one after %.1f s, and were DOWN after %.1f s",
		refused, last.Seconds(), down.Seconds())
}

// toCluster changes the policy of a Service back. Every node answers before NSX hears of it, and what is in flight
// outlives its pool, so that nothing is lost.
func (s *Stage) toCluster(service, ip string, nodes map[string]string, c *visits.Crowd) {
	localPool := s.poolOf(ip)
	monitors := s.NSX.Get(nsxsim.KindPool, localPool).Strings("active_monitor_ids")
	long := s.hold(ip, 12)
	before := len(c.Visits())

	s.setPolicy(service, corev1.ServiceExternalTrafficPolicyCluster)
	gone := s.eventually("the old pool and its monitor are gone", ipWithin, func() error {
		for _, o := range slices.Concat(s.NSX.List(nsxsim.KindPool), s.NSX.List(nsxsim.KindMonitor)) {
			if o.ID() == localPool || slices.Contains(monitors, o.ID()) {
				return fmt.Errorf("%s is there", o.String("display_name"))
			}
		}
		return nil
	})
	s.onlyUp(ip, nodes, slices.Sorted(maps.Keys(nodes)))
	settled := s.passBy(c, 40)
	held := long.end()
	made := c.GoHome()[before:]
	s.wantAnswers("from Local to Cluster", made)
	for _, v := range settled {
		if from := v.Sees.Addr(); !s.Block.Nodes().Contains(from) {
			s.fail("policy Cluster: the pod sees %s, want a node's address", from)
		}
	}
	s.wantAnswers("long requests, from Local to Cluster", held)
	s.saw("to Cluster: none of %d, nor of %d long ones in flight", len(made), len(held))
	s.saw("old pool and monitor gone after %.1f s", gone.Seconds())
}

func (s *Stage) setPolicy(service string, policy corev1.ServiceExternalTrafficPolicy) {
	s.kubectl("patch", "service", service, "-p", fmt.Sprintf(`{"spec":{"externalTrafficPolicy":%q}}`, policy))
}

// poolOf is the pool of an address's only virtual server.
func (s *Stage) poolOf(ip string) string {
	servers := s.virtualServers(ip)
	if len(servers) != 1 {
		s.fail("%s has %d virtual servers, want 1", ip, len(servers))
	}
	return servers[0].String("pool_id")
}
