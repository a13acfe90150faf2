package chaos

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

// TestDegraded: one thing after the other that the controller needs is slow, refuses or is gone. What is live stays as
// it is, and all goes on without a restart of the controller when the thing is back.
func TestDegraded(t *testing.T) {
	t.Parallel()
	c := start(t, lab.Options{})
	watch := c.watchAddresses()
	foreign := c.addForeign()
	c.makeProgress("first")
	for _, tt := range []struct {
		name string
		// fail makes the thing fail, and returns what mends it.
		fail func() (mend func())
	}{
		{"NSX hangs", func() func() {
			c.NSX.Faults().Pause()
			return c.NSX.Faults().Resume
		}},
		{"NSX closes every connection", func() func() { return c.fault(nsxsim.Rule{Path: "**", Drop: true}) }},
		{"NSX is read-only", func() func() {
			return c.fault(nsxsim.Rule{Method: "POST,PUT,DELETE", Path: "/**", Status: 403, Code: 403, Text: "read-only"})
		}},
		{"half of all NSX calls fail, before or after they were done", func() func() {
			before := c.fault(nsxsim.Rule{Probability: 0.25, Status: 503, Code: 98})
			after := c.fault(nsxsim.Rule{Probability: 0.25, When: nsxsim.AfterCommit, Drop: true})
			return func() { before(); after() }
		}},
		{"NSX throttles", func() func() { return c.fault(nsxsim.Rule{Every: 2, Status: 429, Code: 102, RetryAfter: 1}) }},
		{"the sessions of NSX end", func() func() { c.NSX.EndSessions(); return func() {} }},
		{"the password of NSX is changed, and the Secret later", func() func() {
			c.must(c.NSX.SetPassword(nsxsim.DefaultUsername, "An0therOne!"))
			return func() { c.setSecret("nsxt-credentials", "An0therOne!") }
		}},
		{"the API server stands still, and the lease runs out", func() func() {
			c.must(syscall.Kill(c.ControlPlanePID(), syscall.SIGSTOP))
			return func() { c.must(syscall.Kill(c.ControlPlanePID(), syscall.SIGCONT)) }
		}},
	} {
		ok := t.Run(tt.name, func(t *testing.T) {
			outer := c.T
			c.T = t
			defer func() { c.T = outer }()
			before := c.externalIPs()
			mend := tt.fail()
			name := fmt.Sprintf("while-%d", len(before))
			creating, cancel := context.WithTimeout(c.ctx, 3*time.Second)
			_, err := c.services().Create(creating, web(name), metav1.CreateOptions{})
			cancel()
			c.during(8*time.Second, func() {
				if live := c.attached(); len(live) < len(before) {
					t.Fatalf("%d virtual servers are live, of %d", len(live), len(before))
				}
			})
			mend()
			if err != nil {
				c.poll("the API server answers", func() bool {
					_, err := c.services().Create(c.ctx, web(name), metav1.CreateOptions{})
					return err == nil || apierrors.IsAlreadyExists(err) // done when the API server woke up
				})
			}
			c.poll(name+" has an EXTERNAL-IP", func() bool {
				// A controller whose lease ran out ends, as it must; a kubelet starts it again.
				if c.Controller.Err() != nil {
					c.must(c.Controller.Start())
				}
				svc, err := c.services().Get(c.ctx, name, metav1.GetOptions{})
				return err == nil && len(svc.Status.LoadBalancer.Ingress) > 0
			})
			for uid, ip := range before {
				if now := c.externalIPs()[uid]; now != ip {
					t.Errorf("an EXTERNAL-IP went from %s to %q", ip, now)
				}
			}
		})
		if !ok {
			return
		}
	}
	c.checkAtRest()
	watch()
	c.checkForeign(foreign)
}

// TestVCenterIsGone: no node is taken for deleted because vCenter does not let the controller in.
func TestVCenterIsGone(t *testing.T) {
	t.Parallel()
	c := start(t, lab.Options{})
	c.makeProgress("first")
	nodes := c.nodeNames()
	user, _ := c.VCenter.Credentials()
	c.VCenter.SetCredentials(user, "n3w-secret")
	c.must(c.VCenter.TerminateSessions())
	// A Node that is not ready is looked up in vCenter, to see whether its VM is gone.
	c.must(c.PowerOff(nodes[0]))
	c.during(15*time.Second, func() {
		if now := c.nodeNames(); len(now) != len(nodes) {
			t.Fatalf("of the nodes %v are left %v", nodes, now)
		}
	})
	c.makeProgress("without-vcenter")
	c.setSecret("vcenter-credentials", "n3w-secret")
	c.must(c.PowerOn(c.ctx, nodes[0]))
	c.must(c.AwaitNodes(c.ctx))
	added, err := c.AddNode(c.ctx, len(nodes)+1)
	c.must(err)
	c.poll(added+" is initialized by what vCenter says", func() bool { return c.AwaitNodes(c.ctx) == nil })
	c.checkAtRest()
}

func (c *cluster) nodeNames() (names []string) {
	c.Helper()
	list, err := c.Client.CoreV1().Nodes().List(c.ctx, metav1.ListOptions{})
	c.must(err)
	for _, n := range list.Items {
		names = append(names, n.Name)
	}
	return names
}

func (c *cluster) setSecret(name, password string) {
	c.Helper()
	patch := fmt.Appendf(nil, `{"stringData": {"password": %q}}`, password)
	_, err := c.Client.CoreV1().Secrets("kube-system").Patch(c.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	c.must(err)
}
