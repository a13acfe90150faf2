package scenarios

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// clusterIP is row 1.
func clusterIP(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-clusterip.yaml")
	s.endpoints("nginx-svc", 2)
	table := s.kubectl("get", "service", "nginx-svc")
	ip, err := netip.ParseAddr(s.column(table, "CLUSTER-IP"))
	s.need(err)
	if !s.Block.ClusterIPs().Contains(ip) {
		s.fail("cluster IP %s is not of %s", ip, s.Block.ClusterIPs())
	}
	if got := s.column(table, "EXTERNAL-IP"); got != "<none>" {
		s.fail("EXTERNAL-IP is %s, want <none>", got)
	}
	s.saw("cluster IP %s, 2 endpoints, EXTERNAL-IP <none>", ip)
	s.untouched()
}

// headless is row 2.
func headless(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-headless.yaml")
	s.endpoints("nginx-headless", 2)
	table := s.kubectl("get", "service", "nginx-headless")
	if got := s.column(table, "CLUSTER-IP"); got != "None" {
		s.fail("CLUSTER-IP is %s, want None", got)
	}
	s.saw("CLUSTER-IP None")
	s.untouched()
}

// loadBalancer is row 3.
func loadBalancer(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-clusterip.yaml")
	s.kubectl("apply", "-f", "service-loadbalancer.yaml")
	s.wantLoadBalancer("nginx-svc")
}

// wantLoadBalancer checks all that a user sees of a Service of type LoadBalancer with one port and two pods.
func (s *Stage) wantLoadBalancer(name string) string {
	s.endpoints(name, 2)
	ip := s.externalIP(name)
	port := s.service(name).Spec.Ports[0]
	table := s.kubectl("get", "service", name)
	if got := s.column(table, "EXTERNAL-IP"); got != ip {
		s.fail("kubectl shows EXTERNAL-IP %s, want %s", got, ip)
	}
	want := fmt.Sprintf("%d:%d/TCP", port.Port, port.NodePort)
	if got := s.column(table, "PORT(S)"); got != want {
		s.fail("kubectl shows ports %s, want %s", got, want)
	}
	s.saw("%s", want)
	s.answersFromBoth(url("http", ip, int(port.Port)))
	at := "http://" + ip
	if port.Port != 80 {
		at = url("http", ip, int(port.Port))
	}
	if out := s.curl(at); !strings.HasPrefix(out, "pod: "+s.namespace+"/nginx-") {
		s.fail("curl %s says %q", at, out)
	}
	return ip
}

// nodePort is row 4.
func nodePort(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-nodeport.yaml")
	s.endpoints("nginx-svc", 2)
	s.untouched()
	s.everyNodeAnswers("nginx-svc")

	s.kubectl("apply", "-f", "service-loadbalancer.yaml")
	ip := s.wantLoadBalancer("nginx-svc")

	s.kubectl("apply", "-f", "service-nodeport.yaml")
	s.eventually("EXTERNAL-IP goes with the type", ipWithin, func() error {
		if got := addressOf(s.service("nginx-svc")); got != "" {
			return fmt.Errorf("it is still %s", got)
		}
		return nil
	})
	s.noTrace()
	if s.allocated(ip) {
		s.fail("%s is still allocated", ip)
	}
	s.saw("back to NodePort: %s is free, no NSX object is left", ip)
	s.everyNodeAnswers("nginx-svc")
}

// everyNodeAnswers checks a Service of type NodePort.
func (s *Stage) everyNodeAnswers(name string) {
	if got := s.column(s.kubectl("get", "service", name), "EXTERNAL-IP"); got != "<none>" {
		s.fail("EXTERNAL-IP is %s, want <none>", got)
	}
	nodes := s.nodeAddresses()
	for _, address := range nodes {
		s.answers(url("http", address, int(s.service(name).Spec.Ports[0].NodePort)), 2)
	}
	s.saw("%d nodes answer", len(nodes))
}

// expose is row 5.
func expose(s *Stage) {
	// Not a pod: expose would take its labels for the selector, and Kubernetes 1.35 and later label a pod with the zone
	// of its node.
	s.kubectl("create", "deployment", "web", "--image=nginx", "--port=9090")
	s.kubectl("expose", "deployment", "web", "--name=web-svc", "--type=NodePort", "--port=80", "--target-port=9090")
	s.endpoints("web-svc", 1)
	s.kubectl("run", "web-2", "--image=nginx", "--port=9090", "--labels=app=web")
	s.endpoints("web-svc", 2)
	s.saw("endpoints from 1 to 2")
	for _, address := range s.nodeAddresses() {
		s.answersFromBoth(url("http", address, int(s.service("web-svc").Spec.Ports[0].NodePort)))
		break
	}
	s.untouched()
}

// edit is row 7. The editor is sed.
func edit(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-nodeport.yaml")
	s.endpoints("nginx-svc", 2)
	http, https := 8080, int(s.ports.HTTPS)
	s.env = append(s.env, "KUBE_EDITOR=sed -i"+
		fmt.Sprintf(` -e 's/^    port: [0-9]*$/    port: %d\n    name: http/'`, http)+
		fmt.Sprintf(` -e '/^  selector:/i\  - name: https\n    port: %d\n    targetPort: https'`, https)+
		` -e 's/^  type: NodePort$/  type: LoadBalancer/'`)
	s.kubectl("edit", "service", "nginx-svc")
	ip := s.externalIP("nginx-svc")

	servers := s.virtualServers(ip)
	want := []string{fmt.Sprint(http), fmt.Sprint(https)}
	if len(servers) != 1 || !slices.Equal(slices.Sorted(slices.Values(servers[0].Strings("ports"))), slices.Sorted(slices.Values(want))) {
		s.fail("virtual servers of %s: %v, want one with ports %v", ip, servers, want)
	}
	s.saw("one virtual server with ports %s", strings.Join(want, " and "))
	s.answersFromBoth(url("http", ip, http))
	s.answersFromBoth(url("https", ip, https))
	s.curl("-k", url("https", ip, https))
}

// deletion is row 13.
func deletion(s *Stage) {
	s.kubectl("apply", "-f", "nginx.yaml", "-f", "service-loadbalancer.yaml")
	ip := s.wantLoadBalancer("nginx-svc")
	s.kubectl("delete", "service", "nginx-svc")
	s.freed(ip)

	const many = 8
	var ips []string
	for i := range many {
		s.kubectl("expose", "deployment", "nginx", fmt.Sprintf("--name=nginx-%d", i), "--type=LoadBalancer",
			fmt.Sprintf("--port=%d", s.ports.HTTP), "--target-port=80", "--labels=app=many")
	}
	for i := range many {
		ips = append(ips, s.externalIP(fmt.Sprintf("nginx-%d", i)))
	}
	s.kubectl("delete", "service", "-l", "app=many")
	s.freed(ips...)
	s.seen = []string{"one and then 8 Services deleted", "their IPs are free", "no NSX object is left"}
}

// freed checks that floating IPs are back in their pool and nothing of their Services is left in NSX.
func (s *Stage) freed(ips ...string) {
	s.noTrace()
	for _, ip := range ips {
		if s.allocated(ip) {
			s.fail("%s is still allocated", ip)
		}
	}
}
