//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
)

// verdictWithin bounds the time from a change on a node to the state of its member: kube-proxy's second, two checks a second
// apart, and the readiness of pods, on a busy machine.
const verdictWithin = 30 * time.Second

// TestMonitors asks the nodes what NSX's monitors ask them, from the same place, while pods come and go, and compares the answers
// with the states that NSX has the members in.
func TestMonitors(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := s.pods("web", s.Nodes[0])
	svc, vip := s.service("web", "web", corev1.ServiceExternalTrafficPolicyLocal)
	agree := func(what string, nodes ...*cluster.Node) {
		t.Helper()
		took := s.eventually(what, verdictWithin, func() error {
			for _, n := range s.Nodes {
				want := http.StatusServiceUnavailable
				for _, w := range nodes {
					if w == n {
						want = http.StatusOK
					}
				}
				if got, err := s.probe(n, svc.Spec.HealthCheckNodePort); err != nil {
					return err
				} else if got != want {
					return fmt.Errorf("%s answers %d on its healthCheckNodePort, want %d", n.Name, got, want)
				}
			}
			return s.up(vip, nodes...)
		})
		t.Logf("%s: NSX agrees after %.1f s", what, took.Seconds())
	}
	agree("a pod on "+s.Nodes[0].Name, s.Nodes[0])
	s.served(vip)
	crowd := s.crowd(vip)
	s.answered("one pod", s.pass(crowd, 20))

	s.pods("web", s.Nodes[2])
	agree("a second one on "+s.Nodes[2].Name, s.Nodes[0], s.Nodes[2])
	s.answered("two pods", s.pass(crowd, 20))

	// It goes on answering for a while, which is enough for NSX to see.
	s.must(s.Client.CoreV1().Pods(s.namespace).Delete(s.ctx, first[0].Name, metav1.DeleteOptions{}))
	agree("the first one ends", s.Nodes[2])
	s.eventually("connections go to "+s.Nodes[2].Name+" alone", verdictWithin, func() error {
		if shares := s.sharesNow(crowd); len(shares) != 1 || shares[s.Nodes[2].Name] == 0 {
			return fmt.Errorf("they went to %v", shares)
		}
		return nil
	})
	s.answered("while pods came and went", crowd.GoHome())
}

// probe asks a node's port for /healthz from the edge.
func (s *stage) probe(n *cluster.Node, port int32) (status int, err error) {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: s.Topology.Edge().DialContext, DisableKeepAlives: true}}
	answer, err := client.Get(fmt.Sprintf("http://%s:%d/healthz", n.Address, port))
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}
