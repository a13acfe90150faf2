package scenarios

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// sourceCluster is row 8.
func sourceCluster(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-loadbalancer.yaml")
	s.endpoints("nginx-svc", 2)
	ip := s.externalIP("nginx-svc")
	for _, a := range s.answers(url("http", ip, int(s.ports.HTTP)), 8) {
		if from := a.Client.Addr(); !s.Block.Nodes().Contains(from) && from != s.Block.SNAT() {
			s.fail("the pod sees %s, want a node's address or the load balancer's %s", from, s.Block.SNAT())
		}
	}
	s.saw("pods see addresses of nodes")
}

// sourceLocal is row 9.
func sourceLocal(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-loadbalancer.yaml")
	with := s.endpoints("nginx-svc", 2)
	ip := s.externalIP("nginx-svc")
	at := url("http", ip, int(s.ports.HTTP))
	s.answers(at, 1)

	s.kubectl("patch", "service", "nginx-svc", "-p", `{"spec":{"externalTrafficPolicy":"Local"}}`)
	check := int(s.service("nginx-svc").Spec.HealthCheckNodePort)
	if check == 0 {
		s.fail("no healthCheckNodePort")
	}
	nodes := s.nodeAddresses()
	for name, address := range nodes {
		want := "503"
		if slices.Contains(with, name) {
			want = "200"
		}
		s.eventually("health check of "+name, ipWithin, func() error {
			if got := s.curl("-o", "/dev/null", "-w", "%{http_code}", url("http", address, check)+"/healthz"); got != want {
				return fmt.Errorf("it says %s, want %s", got, want)
			}
			return nil
		})
	}
	s.saw("healthCheckNodePort %d says 200 and 503", check)

	took := s.onlyUp(ip, nodes, with)
	before := s.members(ip)
	for _, a := range s.answers(at, 20) {
		if from := a.Client.Addr(); from != s.Block.Client(1) {
			s.fail("the pod sees %s, want the client's own address %s", from, s.Block.Client(1))
		}
		if !slices.Contains(with, a.Node) {
			s.fail("%s answers, whose node has no endpoint", a.Node)
		}
	}
	after := s.members(ip)
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		got := after[nodes[name]].Statistics.Total - before[nodes[name]].Statistics.Total
		if slices.Contains(with, name) != (got > 0) {
			s.fail("%s got %d of the requests; endpoints are on %s", name, got, strings.Join(with, " and "))
		}
	}
	if got := addressOf(s.service("nginx-svc")); got != ip {
		s.fail("EXTERNAL-IP is now %s, was %s", got, ip)
	}
	s.saw("after %.1f s only %s get traffic, pods see the client", took.Seconds(), strings.Join(slices.Compact(slices.Sorted(slices.Values(with))), " and "))
	if p := s.service("nginx-svc").Spec.ExternalTrafficPolicy; p != corev1.ServiceExternalTrafficPolicyLocal {
		s.fail("policy is %s", p)
	}
}

// verdictWithin is how soon NSX has found out what has become of a node: fall count times the monitor's interval, and
// the timeout of a check and a second for the change itself to get there.
func (s *Stage) verdictWithin() time.Duration {
	m := s.monitor()
	return time.Duration(m.FallCount)*m.Interval + m.Timeout + time.Second
}

// onlyUp waits until NSX has found out which nodes of an address are UP, and returns how long that took.
func (s *Stage) onlyUp(ip string, nodes map[string]string, up []string) time.Duration {
	return s.eventually("only "+strings.Join(up, " and ")+" UP", s.verdictWithin(), func() error {
		return onlyUp(s.members(ip), nodes, up)
	})
}

// onlyUp is nil if just some of the nodes are UP and all others DOWN.
func onlyUp(members map[string]member, nodes map[string]string, up []string) error {
	for name, address := range nodes {
		want := "DOWN"
		if slices.Contains(up, name) {
			want = "UP"
		}
		if got := members[address].Status; got != want {
			return fmt.Errorf("%s is %q, want %s", name, got, want)
		}
	}
	return nil
}
