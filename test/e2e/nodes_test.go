//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
)

const (
	// downWithin is how long NSX sends connections to a node that is dead: two checks, a second apart and of a second each,
	// and as long again on a busy machine.
	downWithin = 6 * time.Second
	// rebootWithin bounds a node's way back.
	rebootWithin = 3 * time.Minute
)

// TestNodeExcluded labels a node that is as well as the others so that load balancers leave it alone, under traffic.
func TestNodeExcluded(t *testing.T) {
	s := newStage(t)
	last := s.Nodes[len(s.Nodes)-1]
	s.pods("web", s.Nodes...)
	for _, policy := range []corev1.ServiceExternalTrafficPolicy{corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal} {
		t.Run(string(policy), func(t *testing.T) {
			s := s.in(t)
			svc, vip := s.service("web-"+strings.ToLower(string(policy)), "web", policy)
			s.served(vip)
			crowd := s.crowd(vip)
			s.toAll(crowd)

			s.label(last, corev1.LabelNodeExcludeBalancers, `""`)
			s.eventually("the edge sends nothing to "+last.Name, time.Minute, func() error {
				flows, err := s.crossing(vip, s.pass(crowd, 60))
				if n := s.shares(flows)[last.Name]; n > 0 {
					err = fmt.Errorf("it sent %d connections", n)
				}
				return err
			})
			s.label(last, corev1.LabelNodeExcludeBalancers, "null")
			s.eventually("the edge sends to "+last.Name+" again", time.Minute, func() error {
				flows, err := s.crossing(vip, s.pass(crowd, 60))
				if err == nil && s.shares(flows)[last.Name] == 0 {
					err = errors.New("it does not")
				}
				return err
			})
			s.answered("while "+last.Name+" was excluded and came back", crowd.GoHome())
			s.keeps(svc.Name, vip)
		})
	}
}

func (s *stage) label(n *cluster.Node, key, value string) {
	s.Helper()
	patch := func(ctx context.Context, value string) error {
		_, err := s.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, key, value), metav1.PatchOptions{})
		return err
	}
	s.must(patch(s.ctx, value))
	if value != "null" {
		s.Cleanup(func() { s.must(patch(context.WithoutCancel(s.ctx), "null")) }) // however the test ends
	}
}

// TestNodeDrained drains a node as for an upgrade, under traffic.
func TestNodeDrained(t *testing.T) {
	s := newStage(t)
	s.excused = ending // of a controller on that node
	s.deployment("web", 2)
	vips := map[string]netip.Addr{}
	for _, policy := range []corev1.ServiceExternalTrafficPolicy{corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal} {
		name := "web-" + strings.ToLower(string(policy))
		_, vips[name] = s.service(name, "web", policy)
	}
	crowds := map[string]crowd{}
	for name, vip := range vips {
		s.served(vip)
		crowds[name] = s.crowd(vip)
	}
	// An address may answer by one member alone: it is not to be the one that goes.
	nodes := s.nodesOf("web")
	s.eventually("NSX finds all pods", verdictWithin, func() error { return s.up(vips["web-local"], nodes...) })
	drained := nodes[0]
	t.Logf("draining %s", drained.Name)
	s.Cleanup(func() { s.must(s.Uncordon(context.WithoutCancel(s.ctx), drained)) })
	s.must(s.Drain(s.ctx, drained))
	for name := range vips {
		s.pass(crowds[name], 60)
	}
	s.must(s.Uncordon(s.ctx, drained))
	for name, vip := range vips {
		s.pass(crowds[name], 60)
		made := crowds[name].GoHome()
		s.answered(fmt.Sprintf("%s while %s was drained", name, drained.Name), made)
		s.keeps(name, vip)
		t.Logf("%s: %d visits, %d failed", name, len(made), len(made.Failed()))
	}
}

// deployment starts replicas of a web server on different nodes, and waits until they are available.
func (s *stage) deployment(app string, replicas int32) {
	s.Helper()
	labels := &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	pod := webPod()
	pod.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
		{LabelSelector: labels, TopologyKey: corev1.LabelHostname},
	}}}
	_, err := s.Client.AppsV1().Deployments(s.namespace).Create(s.ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: labels,
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels.MatchLabels}, Spec: pod},
		},
	}, metav1.CreateOptions{})
	s.must(err)
	s.eventually("Deployment "+app+" is available", podWithin, func() error {
		d, err := s.Client.AppsV1().Deployments(s.namespace).Get(s.ctx, app, metav1.GetOptions{})
		if err == nil && d.Status.AvailableReplicas != replicas {
			err = fmt.Errorf("%d of %d replicas are available", d.Status.AvailableReplicas, replicas)
		}
		return err
	})
}

// nodesOf are the nodes that have pods of an app, one at least.
func (s *stage) nodesOf(app string) (nodes []*cluster.Node) {
	s.Helper()
	list, err := s.Client.CoreV1().Pods(s.namespace).List(s.ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	s.must(err)
	if len(list.Items) == 0 {
		s.Fatalf("there is no pod of %s", app)
	}
	for _, pod := range list.Items {
		n, err := s.Node(pod.Spec.NodeName)
		s.must(err)
		nodes = append(nodes, n)
	}
	return nodes
}

// TestNodePoweredOff cuts the power of a node under traffic, and gives it back. Only visits that the edge had sent to that node
// may fail, and it must stop to send any there.
func TestNodePoweredOff(t *testing.T) {
	s := newStage(t)
	s.excused = ending // of a controller on that node
	last := s.Nodes[len(s.Nodes)-1]
	s.pods("web", s.Nodes[:len(s.Nodes)-1]...)
	// With policy Cluster kube-proxy on any node sends to pods anywhere: to those of the dead node too, until Kubernetes knows.
	// That is not the load balancer's: the dead node has a pod of the Service with policy Local only.
	s.pods("everywhere", s.Nodes...)
	vips := map[string]netip.Addr{}
	_, vips["web-cluster"] = s.service("web-cluster", "web", corev1.ServiceExternalTrafficPolicyCluster)
	_, vips["web-local"] = s.service("web-local", "everywhere", corev1.ServiceExternalTrafficPolicyLocal)
	crowds := map[string]crowd{}
	for name, vip := range vips {
		s.served(vip)
		crowds[name] = s.crowd(vip)
		s.toAll(crowds[name])
	}

	s.Cleanup(func() { s.must(s.PowerOn(context.WithoutCancel(s.ctx), last)) })
	off := time.Now()
	s.must(s.PowerOff(s.ctx, last))
	for name, vip := range vips {
		s.eventually("visits that began well after the end of "+last.Name, time.Minute, func() error {
			if n := len(crowds[name].Visits().Since(off.Add(downWithin + visitTimeout))); n < 60 {
				return fmt.Errorf("%d were made", n)
			}
			return nil
		})
		made := crowds[name].Visits()
		flows := s.flows(vip)
		failed := made.Failed()
		for _, v := range failed {
			f, known := flows[v.Client]
			switch {
			case !known:
				t.Errorf("%s: the edge knows nothing of the visit of %s, which failed: %v", name, at(v, off), v.Err)
			case f.member.Addr() != last.Address:
				t.Errorf("%s: the visit of %s failed, which the edge sent to %v: %v", name, at(v, off), f.member, v.Err)
			case v.Began.After(off.Add(downWithin)):
				t.Errorf("%s: the visit of %s was sent to the dead node %v: %v", name, at(v, off), f.member, v.Err)
			}
		}
		t.Logf("%s: %d of %d visits failed, which were on their way to %s%s", name, len(failed), len(made), last.Name, lastFailure(made, off))
		s.keeps(name, vip)
	}

	on := time.Now()
	s.must(s.PowerOn(s.ctx, last))
	ctx, cancel := context.WithTimeout(s.ctx, rebootWithin)
	defer cancel()
	s.must(s.AwaitReady(ctx))
	// Whether it has a pod or not, its kube-proxy answers with policy Cluster.
	s.eventually(last.Name+" gets connections again", time.Minute, func() error {
		flows, err := s.crossing(vips["web-cluster"], s.pass(crowds["web-cluster"], 60))
		if err == nil && s.shares(flows)[last.Name] == 0 {
			err = errors.New("it gets none")
		}
		return err
	})
	for name := range vips {
		s.answered(name+" after "+last.Name+" came back", crowds[name].GoHome().Since(on))
	}
	t.Logf("%s was back after %.0f s", last.Name, time.Since(on).Seconds())
}
