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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// takeoverWithin bounds the time without a leader: the lease's 15 s, and a start.
	takeoverWithin = 2 * time.Minute
	// nsxDownFor is how long NSX's managers answer nothing but errors.
	nsxDownFor = 2 * time.Minute
)

// visited has Services of both policies under traffic.
func (s *stage) visited() (vips map[string]netip.Addr, goHome func(during string)) {
	s.Helper()
	s.pods("web", s.Nodes...)
	vips = map[string]netip.Addr{}
	crowds := map[string]crowd{}
	for _, policy := range []corev1.ServiceExternalTrafficPolicy{corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal} {
		name := "web-" + strings.ToLower(string(policy))
		_, vips[name] = s.service(name, "web", policy)
		s.served(vips[name])
		crowds[name] = s.crowd(vips[name])
	}
	return vips, func(during string) {
		s.Helper()
		for name, crowd := range crowds {
			s.pass(crowd, 20)
			made := crowd.GoHome()
			s.answered(name+" "+during, made)
			s.keeps(name, vips[name])
			s.Logf("%s: %d visits, %d failed", name, len(made), len(made.Failed()))
		}
	}
}

// TestControllerKilled kills the leading controller's process under traffic, in the middle of work. Another one takes over.
func TestControllerKilled(t *testing.T) {
	s := newStage(t)
	s.excused = ending
	vips, goHome := s.visited()
	killed := time.Now()
	_, err := s.Client.CoreV1().Services(s.namespace).Create(s.ctx, loadBalancer("late", "web", corev1.ServiceExternalTrafficPolicyLocal), metav1.CreateOptions{})
	s.must(err)
	pod, err := s.KillLeader(s.ctx)
	s.must(err)
	t.Logf("killed %s on %s", pod.Name, pod.Spec.NodeName)
	s.works("late", killed)
	goHome("while the controller was killed")
	s.must(s.AwaitReady(s.ctx))
	s.sole(vips)
}

// TestControllerReplaced deletes the leading controller's Pod under traffic, as an update of its Deployment does.
func TestControllerReplaced(t *testing.T) {
	s := newStage(t)
	s.excused = ending
	vips, goHome := s.visited()
	pod, err := s.Leader(s.ctx)
	s.must(err)
	replaced := time.Now()
	s.must(s.Client.CoreV1().Pods(pod.Namespace).Delete(s.ctx, pod.Name, metav1.DeleteOptions{}))
	_, err = s.Client.CoreV1().Services(s.namespace).Create(s.ctx, loadBalancer("late", "web", corev1.ServiceExternalTrafficPolicyCluster), metav1.CreateOptions{})
	s.must(err)
	s.works("late", replaced)
	goHome("while the controller was replaced")
	s.must(s.AwaitReady(s.ctx))
	s.sole(vips)
}

// works waits until a Service that was made when there was no leader is served.
func (s *stage) works(name string, since time.Time) {
	s.Helper()
	var vip netip.Addr
	s.eventually(name+" has an address from a new leader", takeoverWithin, func() error {
		svc, err := s.Client.CoreV1().Services(s.namespace).Get(s.ctx, name, metav1.GetOptions{})
		if err == nil {
			vip = addressOf(svc)
		}
		if err == nil && !vip.IsValid() {
			err = errors.New("it has none")
		}
		return err
	})
	s.Logf("%s got its address after %.1f s", name, time.Since(since).Seconds())
	s.served(vip)
}

// sole checks that each address has one virtual server.
func (s *stage) sole(vips map[string]netip.Addr) {
	s.Helper()
	for name, vip := range vips {
		if n := len(s.virtualServers(vip)); n != 1 {
			s.Errorf("%s, %v, has %d virtual servers", name, vip, n)
		}
	}
}

// ending tells the errors that the framework logs when a controller is ended: of its lease, and of its server, which it gives
// no time to see requests to their end.
func ending(line string) bool {
	return strings.Contains(line, "leaderelection") || strings.Contains(line, "leader election") || strings.Contains(line, "Failed to shutdown server")
}

// TestNSXDown has NSX's API refuse everything for minutes, under traffic. Pods move meanwhile: the edge follows by itself. What
// was asked for meanwhile is done afterwards.
func TestNSXDown(t *testing.T) {
	s := newStage(t)
	vips, goHome := s.visited()
	moving := s.pods("moving", s.Nodes[0])
	_, follows := s.service("moving", "moving", corev1.ServiceExternalTrafficPolicyLocal)
	s.served(follows)

	s.Cleanup(func() { s.must(s.NSX.Up(context.WithoutCancel(s.ctx))) })
	// All that the controller says about NSX from now on is true.
	s.excused = func(line string) bool { return strings.Contains(line, "NSX") || strings.Contains(line, "503") }
	down := time.Now()
	s.must(s.NSX.Down(s.ctx))
	_, err := s.Client.CoreV1().Services(s.namespace).Create(s.ctx, loadBalancer("late", "web", corev1.ServiceExternalTrafficPolicyCluster), metav1.CreateOptions{})
	s.must(err)
	s.pods("moving", s.Nodes[1])
	crowd := s.crowd(follows)
	// The old pod goes when the edge has found the new one: nothing else would serve in between.
	s.eventually("the edge finds the new pod", time.Minute, func() error {
		if shares := s.sharesNow(crowd); shares[s.Nodes[1].Name] == 0 {
			return fmt.Errorf("connections went to %v, want some on %s", shares, s.Nodes[1].Name)
		}
		return nil
	})
	s.must(s.Client.CoreV1().Pods(s.namespace).Delete(s.ctx, moving[0].Name, metav1.DeleteOptions{}))
	s.eventually("the edge follows the pods", time.Minute, func() error {
		if shares := s.sharesNow(crowd); len(shares) != 1 || shares[s.Nodes[1].Name] == 0 {
			return fmt.Errorf("connections went to %v, want all on %s", shares, s.Nodes[1].Name)
		}
		return nil
	})
	s.eventually("NSX has been down for long", nsxDownFor+time.Minute, func() error {
		if since := time.Since(down); since < nsxDownFor {
			return fmt.Errorf("for %v", since)
		}
		return nil
	})
	svc, err := s.Client.CoreV1().Services(s.namespace).Get(s.ctx, "late", metav1.GetOptions{})
	s.must(err)
	if a := addressOf(svc); a.IsValid() {
		t.Errorf("Service late got %v with NSX down", a)
	}
	up := time.Now()
	s.must(s.NSX.Up(s.ctx))
	s.works("late", up)
	s.answered("while pods moved with NSX down", crowd.GoHome())
	goHome("while NSX was down")
	s.sole(vips)
}
