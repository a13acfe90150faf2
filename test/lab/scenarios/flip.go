package scenarios

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
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
	clusterPool := s.poolOf(ip)

	c := s.crowd(at)
	s.wantAnswers("policy Cluster", s.passBy(c, 40))

	// To Local. A node without endpoints answers no more at once, and gets requests until NSX has found out.
	patched := time.Now()
	s.setPolicy(name, corev1.ServiceExternalTrafficPolicyLocal)
	s.eventually("a pool of the Service's own", ipWithin, func() error {
		if s.poolOf(ip) == clusterPool {
			return fmt.Errorf("it is still %s", clusterPool)
		}
		return nil
	})
	// NSX asks another node when one refuses, so that few requests or none are lost. What others would lose is counted.
	without := func(members map[string]member) (refused, total int) {
		for name, address := range nodes {
			if !slices.Contains(with, name) {
				refused += members[address].Statistics.Refused
				total += members[address].Statistics.Total
			}
		}
		return refused, total
	}
	refused, lastRefused := 0, time.Duration(0)
	s.eventually("only "+strings.Join(with, " and ")+" UP", s.verdictWithin(), func() error {
		members := s.members(ip)
		if n, _ := without(members); n != refused {
			refused, lastRefused = n, time.Since(patched)
		}
		return onlyUp(members, nodes, with)
	})
	down := time.Since(patched)
	if down > s.verdictWithin() {
		s.fail("nodes without endpoints were DOWN %.1f s after the patch, want within %v", down.Seconds(), s.verdictWithin())
	}
	settled := s.members(ip)
	for _, v := range s.passBy(c, 40) {
		switch {
		case v.err != nil:
			s.fail("policy Local: a request failed %.1f s after the patch: %w", v.began.Sub(patched).Seconds(), v.err)
		case v.answer.Client.Addr() != v.client:
			s.fail("policy Local: the pod sees %s, want the client's own address %s", v.answer.Client.Addr(), v.client)
		case !slices.Contains(with, v.answer.Node):
			s.fail("policy Local: %s answers, whose node has no endpoint", v.answer.Node)
		}
	}
	refusedThen, totalThen := without(settled)
	refusedNow, totalNow := without(s.members(ip))
	if refusedNow != refusedThen || totalNow != totalThen {
		s.fail("%d connections to DOWN nodes, %d of them refused, want none", totalNow-totalThen+refusedNow-refusedThen, refusedNow-refusedThen)
	}
	var lost time.Duration
	during := c.visits()
	for _, v := range during.failed() {
		lost = max(lost, v.began.Sub(patched))
		if v.ended.Before(patched) || lost > s.verdictWithin() {
			s.fail("a request failed that was begun %.1f s after the patch to Local, want within %v: %w",
				v.began.Sub(patched).Seconds(), s.verdictWithin(), v.err)
		}
	}
	s.saw("to Local: %d of %d requests failed", len(during.failed()), len(during))
	if lost > 0 {
		s.saw("the last of them %.1f s after the patch", lost.Seconds())
	}
	s.saw("nodes without endpoints refused %d connections, the last one after %.1f s", refused, lastRefused.Seconds())
	s.saw("only %s UP after %.1f s", strings.Join(slices.Compact(slices.Sorted(slices.Values(with))), " and "), down.Seconds())

	// To Cluster. Every node answers before NSX hears of it. What is in flight outlives its pool.
	localPool := s.poolOf(ip)
	monitors := s.NSX.Get(nsxsim.KindPool, localPool).Strings("active_monitor_ids")
	long := s.hold(ip, 12)
	patched = time.Now()
	s.setPolicy(name, corev1.ServiceExternalTrafficPolicyCluster)
	s.eventually("the old pool and its monitor are gone", ipWithin, func() error {
		for _, o := range slices.Concat(s.NSX.List(nsxsim.KindPool), s.NSX.List(nsxsim.KindMonitor)) {
			if o.ID() == localPool || slices.Contains(monitors, o.ID()) {
				return fmt.Errorf("%s is there", o.String("display_name"))
			}
		}
		return nil
	})
	gone := time.Since(patched)
	everyNode := make([]string, 0, len(nodes))
	for name := range nodes {
		everyNode = append(everyNode, name)
	}
	s.onlyUp(ip, nodes, everyNode)
	for _, v := range s.passBy(c, 40) {
		if from := v.answer.Client.Addr(); v.err == nil && !s.Block.Nodes().Contains(from) {
			s.fail("policy Cluster: the pod sees %s, want a node's address", from)
		}
	}
	s.wantAnswers("long requests, from Local to Cluster", long.end())
	back := c.goHome()[len(during):]
	s.wantAnswers("from Local to Cluster", back)
	s.saw("to Cluster: none of %d, nor of %d long ones in flight", len(back), len(long.made))
	s.saw("old pool and monitor gone after %.1f s", gone.Seconds())
	if got := addressOf(s.service(name)); got != ip {
		s.fail("EXTERNAL-IP is now %s, was %s", got, ip)
	}
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
