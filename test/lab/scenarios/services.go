package scenarios

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/echo"
)

// ipWithin is how soon a Service has its EXTERNAL-IP.
const ipWithin = 10 * time.Second

// service reads a Service.
func (s *Stage) service(name string) *corev1.Service {
	svc, err := s.Client.CoreV1().Services(s.namespace).Get(s.ctx, name, metav1.GetOptions{})
	s.need(err)
	return svc
}

// externalIP waits until a Service has its EXTERNAL-IP, which must be of the pool "floating" and allocated from it.
func (s *Stage) externalIP(name string) string {
	var ip string
	took := s.eventually("EXTERNAL-IP of "+name, ipWithin, func() error {
		ip = addressOf(s.service(name))
		if ip == "" {
			return fmt.Errorf("pending: %s", s.eventsOf(name))
		}
		return nil
	})
	if addr, err := netip.ParseAddr(ip); err != nil || !s.Block.FloatingIPs().Contains(addr) {
		s.fail("EXTERNAL-IP %q is not of the floating pool %s", ip, s.Block.FloatingIPs())
	}
	if !s.allocated(ip) {
		s.fail("EXTERNAL-IP %s is not allocated in NSX", ip)
	}
	s.saw("EXTERNAL-IP %s after %.1f s", ip, took.Seconds())
	return ip
}

// addressOf is a Service's EXTERNAL-IP, or nothing.
func addressOf(svc *corev1.Service) string {
	if in := svc.Status.LoadBalancer.Ingress; len(in) > 0 {
		return in[0].IP
	}
	return ""
}

// eventsOf is the messages of the events of a Service.
func (s *Stage) eventsOf(name string) string {
	list, err := s.Client.CoreV1().Events(s.namespace).List(s.ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Service,involvedObject.name=" + name})
	s.need(err)
	var lines []string
	for _, e := range list.Items {
		lines = append(lines, fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Message))
	}
	return strings.Join(lines, "; ")
}

// column reads a column of what kubectl get shows of one object.
func (s *Stage) column(table, name string) string {
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 2 {
		s.fail("kubectl get shows %d lines, want 2:\n%s", len(lines), table)
	}
	// No cell of kubectl's has a gap of two blanks in it.
	gap := regexp.MustCompile(`\s{2,}`)
	i := slices.Index(gap.Split(strings.TrimSpace(lines[0]), -1), name)
	cells := gap.Split(strings.TrimSpace(lines[1]), -1)
	if i < 0 || i >= len(cells) {
		s.fail("kubectl get shows no %s:\n%s", name, table)
	}
	return cells[i]
}

// endpoints waits until a Service has n ready endpoints, and returns the nodes that they are on.
func (s *Stage) endpoints(name string, n int) []string {
	var nodes []string
	s.eventually(fmt.Sprintf("%d endpoints of %s", n, name), 20*time.Second, func() error {
		list, err := s.Client.DiscoveryV1().EndpointSlices(s.namespace).List(s.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
		if err != nil {
			return err
		}
		nodes = nil
		for _, slice := range list.Items {
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready != nil && *e.Conditions.Ready {
					nodes = append(nodes, *e.NodeName)
				}
			}
		}
		if len(nodes) != n {
			return fmt.Errorf("there are %d", len(nodes))
		}
		return nil
	})
	return nodes
}

// url names a port of an address.
func url(scheme, ip string, port int) string {
	return fmt.Sprintf("%s://%s", scheme, net.JoinHostPort(ip, fmt.Sprint(port)))
}

// answers makes n requests, each on a connection of its own, all of which must be answered. At first it waits for an
// answer: NSX takes a moment to listen.
func (s *Stage) answers(url string, n int) []echo.Answer {
	var all []echo.Answer
	s.eventually("an answer of "+url, ipWithin, func() error {
		_, err := s.HTTPGet(s.ctx, url)
		return err
	})
	for range n {
		a, err := s.HTTPGet(s.ctx, url)
		s.need(err)
		all = append(all, a)
	}
	return all
}

// answersFromBoth checks that two pods answer.
func (s *Stage) answersFromBoth(url string) {
	pods := map[string]int{}
	for _, a := range s.answers(url, 12) {
		pods[a.Pod]++
	}
	if len(pods) != 2 {
		s.fail("%s: answers from %d pods, want 2: %v", url, len(pods), pods)
	}
	s.saw("both pods answer")
}

// nodeAddresses are the nodes' addresses by name.
func (s *Stage) nodeAddresses() map[string]string {
	nodes, err := s.Client.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
	s.need(err)
	all := map[string]string{}
	for _, n := range nodes.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				all[n.Name] = a.Address
			}
		}
	}
	return all
}
