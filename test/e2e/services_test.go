//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/visits"
)

// flipWithin is how long requests may fail after a change of policy: until kube-proxy has followed, with its second, and then NSX,
// with two checks a second apart; and two seconds more on a busy machine.
const flipWithin = 6 * time.Second

// TestPolicyFlips changes a Service's policy to and fro under traffic.
func TestPolicyFlips(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.pods("web", s.Nodes[:2]...)
	svc, vip := s.service("web", "web", corev1.ServiceExternalTrafficPolicyCluster)
	s.served(vip)
	crowd := s.crowd(vip)
	s.answered("before", s.pass(crowd, 20))

	for _, policy := range []corev1.ServiceExternalTrafficPolicy{
		corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal,
	} {
		flipped := time.Now()
		s.patch(svc.Name, fmt.Sprintf(`{"spec":{"externalTrafficPolicy":%q}}`, policy))
		s.eventually("visits that began well after the flip", time.Minute, func() error {
			if len(crowd.Visits().Since(flipped.Add(flipWithin))) < 60 {
				return errors.New("too few yet")
			}
			return nil
		})
		made := crowd.Visits().Since(flipped)
		settled := made.Since(flipped.Add(flipWithin))
		s.answered(fmt.Sprintf("%.0f s and more after the flip to %s", flipWithin.Seconds(), policy), settled)
		for _, v := range settled {
			if kept := v.Sees.Addr() == v.Client.Addr(); v.Err == nil && kept != (policy == corev1.ServiceExternalTrafficPolicyLocal) {
				t.Fatalf("with policy %s, %.1f s after the flip, the pod sees %v, and the client is %v", policy, v.Began.Sub(flipped).Seconds(), v.Sees, v.Client)
			}
		}
		if policy == corev1.ServiceExternalTrafficPolicyLocal {
			if shares := s.shares(s.crossed(vip, settled)); shares[s.Nodes[2].Name] > 0 {
				t.Errorf("with policy Local the edge sent connections to %s, which has no pod: %v", s.Nodes[2].Name, shares)
			}
		}
		s.keeps(svc.Name, vip)
		t.Logf("to %s: %d of %d visits failed%s", policy, len(made.Failed()), len(made), lastFailure(made, flipped))
	}
}

// lastFailure says when the last of visits that failed began.
func lastFailure(made visits.Visits, since time.Time) string {
	failed := made.Failed()
	if len(failed) == 0 {
		return ""
	}
	last := slices.MaxFunc(failed, func(a, b visits.Visit) int { return a.Began.Compare(b.Began) })
	return fmt.Sprintf(", the last one began %.1f s after", last.Began.Sub(since).Seconds())
}

// TestTwentyServices has many Services of both policies share one pool of addresses, and deletes them in random order.
func TestTwentyServices(t *testing.T) {
	t.Parallel()
	const services = 20
	s := newStage(t)
	s.pods("web", s.Nodes...)
	vips := map[string]netip.Addr{}
	policies := []corev1.ServiceExternalTrafficPolicy{corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal}
	for i := range services {
		name := fmt.Sprintf("web-%d", i)
		_, err := s.Client.CoreV1().Services(s.namespace).Create(s.ctx, loadBalancer(name, "web", policies[i%2]), metav1.CreateOptions{})
		s.must(err)
	}
	var order []string
	for i := range services {
		name := fmt.Sprintf("web-%d", i)
		_, vip := s.addressed(name)
		for other, v := range vips {
			if v == vip {
				t.Fatalf("%s and %s both have %v", name, other, vip)
			}
		}
		vips[name] = vip
		order = append(order, name)
	}
	for _, vip := range vips {
		s.served(vip)
	}
	allocated := s.allocated()
	for name, vip := range vips {
		if !slices.Contains(allocated, vip.String()) {
			t.Errorf("%v of %s is not allocated", vip, name)
		}
	}

	seed := uint64(time.Now().UnixNano())
	t.Logf("order of deletion of seed %d", seed)
	rand.New(rand.NewPCG(seed, seed)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	watched := order[len(order)-1] // the last one to go, all the time under traffic
	crowd := s.crowd(vips[watched])
	for i, name := range order[:len(order)-1] {
		s.must(s.Client.CoreV1().Services(s.namespace).Delete(s.ctx, name, metav1.DeleteOptions{}))
		s.eventually(name+" is gone, and NSX has nothing of it", addressWithin, func() error {
			if n := len(s.virtualServers(vips[name])); n > 0 {
				return fmt.Errorf("%v has %d virtual servers", vips[name], n)
			}
			if slices.Contains(s.allocated(), vips[name].String()) {
				return fmt.Errorf("%v is allocated", vips[name])
			}
			return nil
		})
		// One of those that are left, another one each time.
		left := order[i+1+i%(len(order)-i-1)]
		if v := s.visit(s.ctx, 1, vips[left]); v.Err != nil {
			t.Errorf("after the deletion of %s, %s does not answer: %v", name, left, v.Err)
		}
		s.keeps(left, vips[left])
	}
	made := crowd.GoHome()
	s.answered("while all others were deleted", made)
	s.must(s.Client.CoreV1().Services(s.namespace).Delete(s.ctx, watched, metav1.DeleteOptions{}))
	s.eventually("the last one's address is given back", addressWithin, func() error {
		if slices.Contains(s.allocated(), vips[watched].String()) {
			return fmt.Errorf("%v is allocated", vips[watched])
		}
		return nil
	})
	// The edge follows NSX a moment later, and a Service of another test may have the address by then.
	s.eventually(fmt.Sprintf("%v answers no more", vips[watched]), addressWithin, func() error {
		v := s.visit(s.ctx, 1, vips[watched])
		if v.Err == nil && !slices.Contains(s.allocated(), vips[watched].String()) {
			return fmt.Errorf("%s did", v.Pod)
		}
		return nil
	})
}
