package scenarios

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/visits"
)

// spread is the Deployment nginx with a pod on each of several nodes.
//
//go:embed spread.yaml
var spread string

// leave is row 11. A node is added that a pod will be on, and one that is cordoned and has none: this one will die.
func leave(s *Stage) {
	added, remove := s.addNodes(2)
	defer remove()
	drained, dying := added[0], added[1]
	s.kubectl("cordon", dying)
	nodes := s.nodeAddresses()

	pods := len(nodes) - 1
	s.need(os.WriteFile(filepath.Join(s.dir, "spread.yaml"), fmt.Appendf(nil, spread, pods), 0o600))
	s.kubectl("apply", "-f", "spread.yaml", "-f", "service-loadbalancer.yaml")
	s.endpoints("nginx-svc", pods)
	ip := s.externalIP("nginx-svc")
	everyNode := make([]string, 0, len(nodes))
	for name := range nodes {
		everyNode = append(everyNode, name)
	}
	at := url("http", ip, int(s.ports.HTTP))
	s.answers(at, 1)
	s.onlyUp(ip, nodes, everyNode)
	// So many in flight that some are on each node and each pod: both are taken in turn.
	many := 4 * len(nodes)

	c := s.crowd(at)
	s.podLeaves(ip, drained, many)
	s.nodeIsDrained(ip, drained, nodes[drained], many)
	s.nodeIsMarked(ip, drained, nodes[drained], many, c)
	s.need(s.PowerOff(drained))
	s.kubectl("delete", "node", drained)
	s.noMember(ip, nodes[drained])
	s.passBy(c, 40)
	s.wantAnswers("a pod and a node that left", c.Visits())
	s.saw("none of %d requests failed", len(c.Visits()))

	s.nodeDies(ip, dying, nodes[dying], many, c)

	// All pods at once: until they end, they serve.
	began := time.Now()
	s.kubectl("scale", "deployment", "nginx", "--replicas=0")
	s.eventually("every endpoint terminates and serves", ipWithin, func() error {
		for _, e := range s.endpointList("nginx-svc") {
			if !servesOn(e) {
				return fmt.Errorf("the endpoint of %s has conditions %s", podOf(e), conditions(e))
			}
		}
		return nil
	})
	s.passBy(c, 20)
	s.wantAnswers("when all endpoints terminate", c.Visits().Since(began))
	if len(s.endpointList("nginx-svc")) == 0 {
		s.fail("no endpoint is left, want all of them to terminate")
	}
	s.saw("terminating endpoints alone serve on")
	c.GoHome()
}

// podLeaves deletes a pod, but not of a certain node, while it has requests in flight.
func (s *Stage) podLeaves(ip, not string, many int) {
	var pod string
	for _, e := range s.endpointList("nginx-svc") {
		if *e.NodeName != not {
			pod = podOf(e)
		}
	}
	long := s.hold(ip, many)
	s.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=10")
	s.eventually("the endpoint of "+pod+" terminates and serves", ipWithin, func() error {
		for _, e := range s.endpointList("nginx-svc") {
			if podOf(e) == pod && servesOn(e) {
				return nil
			}
		}
		return errors.New("it does not")
	})
	leaving := time.Now()
	made := long.end()
	s.wantAnswers("long requests while a pod is deleted", made)
	inFlight := 0
	for _, v := range made {
		if v.Pod == s.namespace+"/"+pod && v.Ended.After(leaving) {
			inFlight++
		}
	}
	if inFlight == 0 {
		s.fail("no request was in flight on pod %s", pod)
	}
	s.saw("a deleted pod is serving and terminating and ends %d requests in flight", inFlight)
}

// nodeIsDrained cordons and drains a node that has a pod.
func (s *Stage) nodeIsDrained(ip, node, address string, many int) {
	writes := writesOf(s.NSX.Sim)
	s.kubectl("cordon", node)
	long := s.hold(ip, many)
	began := time.Now()
	s.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--grace-period=7", "--timeout=30s")
	made := long.end()
	s.wantAnswers("long requests while a node is drained", made)
	inFlight := slices.DeleteFunc(slices.Clone(made), func(v visits.Visit) bool {
		there := v.Node == node || v.Sees.Addr().String() == address
		return !there || v.Ended.Before(began)
	})
	if len(inFlight) == 0 {
		s.fail("no request was in flight on %s", node)
	}
	for _, e := range s.endpointList("nginx-svc") {
		if *e.NodeName == node {
			s.fail("%s is drained and has the endpoint of %s", node, podOf(e))
		}
	}
	if n := writesOf(s.NSX.Sim) - writes; n != 0 {
		s.fail("cordon and drain made %d writes to NSX, want none", n)
	}
	if status := s.members(ip)[address].Status; status != "UP" {
		s.fail("the member of a node that was cordoned and drained is %q, want UP", status)
	}
	s.saw("cordon and drain leave NSX alone, %d requests in flight there end", len(inFlight))
}

// nodeIsMarked marks a node as the cluster autoscaler does with one that it is about to delete.
func (s *Stage) nodeIsMarked(ip, node, address string, many int, c *visits.Crowd) {
	long := s.hold(ip, many)
	began := time.Now()
	s.kubectl("taint", "node", node, "ToBeDeletedByClusterAutoscaler=lab:NoSchedule")
	s.eventually(node+" takes no new connections", ipWithin, func() error {
		if status := s.members(ip)[address].Status; status != "GRACEFUL_DISABLED" {
			return fmt.Errorf("its member is %q", status)
		}
		return nil
	})
	marked := time.Now()
	s.eventually("no new connection to "+node, ipWithin, func() error {
		before := s.members(ip)[address].Statistics.Total
		s.passBy(c, 40)
		if n := s.members(ip)[address].Statistics.Total - before; n != 0 {
			return fmt.Errorf("there were %d", n)
		}
		return nil
	})
	made := long.end()
	s.wantAnswers("long requests while a node is marked for deletion", made)
	inFlight := 0
	for _, v := range made {
		if v.Sees.Addr().String() == address && v.Ended.After(marked) {
			inFlight++
		}
	}
	if inFlight == 0 {
		s.fail("no request was in flight through %s", node)
	}
	s.saw("ToBeDeleted: GRACEFUL_DISABLED after %.1f s, %d requests in flight end", marked.Sub(began).Seconds(), inFlight)
}

// nodeDies takes away the power of a node without pods, and then its Node.
func (s *Stage) nodeDies(ip, node, address string, many int, c *visits.Crowd) {
	before, connections := c.Visits(), s.members(ip)[address].Statistics.Total
	long := s.hold(ip, many)
	s.need(s.PowerOff(node))
	dead := time.Now()
	connections = s.members(ip)[address].Statistics.Total - connections
	s.eventually("NSX finds out that "+node+" is dead", s.verdictWithin(), func() error {
		if status := s.members(ip)[address].Status; status != "DOWN" {
			return fmt.Errorf("its member is %q", status)
		}
		return nil
	})
	found := time.Since(dead)
	s.kubectl("delete", "node", node)
	s.noMember(ip, address)
	s.passBy(c, 40)
	cut := long.end().Failed()
	if len(cut) == 0 || len(cut) > connections {
		s.fail("%d long requests were cut when %s died, want 1 to %d, as many as it had connections", len(cut), node, connections)
	}
	made := c.Visits()[len(before):]
	s.wantAnswers("after a node died", made.Since(dead))
	s.saw("a dead node is DOWN after %.1f s: %d long requests and %d short ones were in flight on it and cut, no new one failed",
		found.Seconds(), len(cut), len(made.Failed()))
}

// noMember waits until an address is no member any more.
func (s *Stage) noMember(ip, address string) {
	s.eventually(address+" is no member", ipWithin, func() error {
		if m, is := s.members(ip)[address]; is {
			return fmt.Errorf("it is, and %s", m.Status)
		}
		return nil
	})
}

// addNodes gives the cluster further nodes and waits until they are initialized. remove takes away what is left of them.
func (s *Stage) addNodes(n int) (added []string, remove func()) {
	remove = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Minute)
		defer cancel()
		for _, name := range added {
			err := s.RemoveNode(name)
			if gone := s.Client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(gone) {
				err = errors.Join(err, gone)
			}
			if err != nil && s.failure == nil {
				s.failure = fmt.Errorf("removing %s: %w", name, err)
			}
		}
	}
	next := 1
	for name := range s.nodeAddresses() {
		var i int
		if _, err := fmt.Sscanf(name, "node-%d", &i); err == nil {
			next = max(next, i+1)
		}
	}
	for range n {
		name, err := s.AddNode(s.ctx, next)
		if err != nil {
			remove()
			s.fail("%w", err)
		}
		added = append(added, name)
		next++
	}
	if err := s.AwaitNodes(s.ctx); err != nil {
		remove()
		s.fail("%w", err)
	}
	return added, remove
}

// endpointList lists all endpoints of a Service.
func (s *Stage) endpointList(service string) []discoveryv1.Endpoint {
	list, err := s.Client.DiscoveryV1().EndpointSlices(s.namespace).List(s.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	s.need(err)
	var all []discoveryv1.Endpoint
	for _, slice := range list.Items {
		all = append(all, slice.Endpoints...)
	}
	return all
}

// servesOn says whether an endpoint terminates but serves what it has.
func servesOn(e discoveryv1.Endpoint) bool {
	c := e.Conditions
	return !ptr.Deref(c.Ready, true) && ptr.Deref(c.Serving, false) && ptr.Deref(c.Terminating, false)
}

func conditions(e discoveryv1.Endpoint) string {
	c := e.Conditions
	return fmt.Sprintf("ready %t, serving %t, terminating %t", ptr.Deref(c.Ready, true), ptr.Deref(c.Serving, true), ptr.Deref(c.Terminating, false))
}

// podOf is the name of the pod that an endpoint is.
func podOf(e discoveryv1.Endpoint) string {
	return ptr.Deref(e.TargetRef, corev1.ObjectReference{}).Name
}
