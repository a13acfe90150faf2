package chaos

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	v1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

const services = 20

// cluster is a lab whose NSX takes its time, so that a signal finds the controller in the middle of its work.
type cluster struct {
	*testing.T
	*lab.Lab
	ctx  context.Context
	pool string
}

func start(t *testing.T, o lab.Options) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a whole cluster")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	l, err := lab.Start(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	c := &cluster{T: t, Lab: l, ctx: ctx}
	for _, p := range l.NSX.List(nsxsim.KindIPPool) {
		if p.String("display_name") == "floating" {
			c.pool = p.ID()
		}
	}
	c.fault(nsxsim.Rule{Method: "POST,PUT,DELETE", Delay: nsxsim.Duration(40 * time.Millisecond)})
	return c
}

// create creates Services of type LoadBalancer.
func (c *cluster) create() {
	c.Helper()
	for i := range services {
		_, err := c.services().Create(c.ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("web-%d", i)},
			Spec: corev1.ServiceSpec{
				Type:  corev1.ServiceTypeLoadBalancer,
				Ports: []corev1.ServicePort{{Name: "a", Port: 8080, TargetPort: intstr.FromInt32(80)}, {Name: "b", Port: 8443, TargetPort: intstr.FromInt32(80)}},
			},
		}, metav1.CreateOptions{})
		c.must(err)
	}
}

// fault adds a rule, and returns what takes it away.
func (c *cluster) fault(r nsxsim.Rule) (end func()) {
	c.Helper()
	end, err := c.NSX.Faults().Add(r)
	c.must(err)
	return end
}

func (c *cluster) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) poll(what string, ok func() bool) {
	c.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("waited in vain until %s", what)
		}
	}
}

// during checks again and again for a while.
func (c *cluster) during(d time.Duration, check func()) {
	c.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		check()
	}
}

func (c *cluster) services() v1.ServiceInterface { return c.Client.CoreV1().Services("default") }

// ours are the virtual servers in NSX.
func (c *cluster) ours() []nsxsim.Object {
	all := c.NSX.List(nsxsim.KindVirtualServer)
	return slices.DeleteFunc(all, func(o nsxsim.Object) bool {
		return o.Tags()[nsx.TagServiceUID] == "" || o.String("_create_user") == another
	})
}

// attached are the ids of all virtual servers that carry traffic.
func (c *cluster) attached() (ids []string) {
	for _, s := range c.NSX.List(nsxsim.KindLBService) {
		ids = append(ids, s.Strings("virtual_server_ids")...)
	}
	return ids
}

// externalIPs are the addresses that Services show, by Service.
func (c *cluster) externalIPs() map[string]string {
	c.Helper()
	list, err := c.services().List(c.ctx, metav1.ListOptions{})
	c.must(err)
	ips := map[string]string{}
	for _, svc := range list.Items {
		for _, in := range svc.Status.LoadBalancer.Ingress {
			ips[string(svc.UID)] = in.IP
		}
	}
	return ips
}

// checkLive wants that many Services, each on one virtual server that is attached, and the allocations to be the
// EXTERNAL-IPs.
func (c *cluster) checkLive(services int) {
	c.Helper()
	c.poll("every Service has an EXTERNAL-IP", func() bool { return len(c.externalIPs()) == services })
	ips, attached := c.externalIPs(), c.attached()
	seen := map[string]bool{}
	for _, vs := range c.ours() {
		uid := vs.Tags()[nsx.TagServiceUID]
		switch {
		case seen[uid]:
			c.Errorf("Service %s has two virtual servers", uid)
		case ips[uid] != vs.String("ip_address"):
			c.Errorf("virtual server of %s has %s, and the Service shows %s", uid, vs.String("ip_address"), ips[uid])
		case !slices.Contains(attached, vs.ID()):
			c.Errorf("virtual server of %s is not attached", uid)
		}
		seen[uid] = true
	}
	if len(seen) != services || len(attached) != services {
		c.Errorf("%d Services have virtual servers and %d are attached, want %d", len(seen), len(attached), services)
	}
	c.checkAllocations(ips)
}

func (c *cluster) checkAllocations(ips map[string]string) {
	c.Helper()
	want := []string{}
	for _, ip := range ips {
		want = append(want, ip)
	}
	got := c.NSX.Allocations(c.pool)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		c.Errorf("allocated are %v, want the EXTERNAL-IPs %v", got, want)
	}
}

func TestKilledInTheMiddleOfCreations(t *testing.T) {
	c := start(t, lab.Options{})
	c.create()
	c.poll("some are made", func() bool { return len(c.ours()) >= 5 })
	c.must(c.Controller.Kill())
	if n := len(c.externalIPs()); n == services {
		t.Fatalf("all %d were done before the kill: the test proves nothing", n)
	}
	c.must(c.Controller.Start())
	c.checkLive(services)
}

// TestToldToEndInTheMiddle: after a SIGTERM no call was cut off, and nothing of what was begun is half done.
func TestToldToEndInTheMiddle(t *testing.T) {
	c := start(t, lab.Options{})
	c.create()
	c.poll("some are made", func() bool { return len(c.ours()) >= 5 })
	if n := len(c.attached()); n == services {
		t.Fatalf("all %d were done before the signal: the test proves nothing", n)
	}
	c.must(c.Controller.Stop(c.ctx))
	for _, e := range c.NSX.Journal().Entries() {
		if e.Status == 0 {
			t.Errorf("%s %s was cut off", e.Method, e.Path)
		}
	}
	attached, made := c.attached(), map[string]string{}
	for _, vs := range c.ours() {
		made[vs.ID()] = vs.String("ip_address")
		if !slices.Contains(attached, vs.ID()) {
			t.Errorf("virtual server %s is half done", vs.String("display_name"))
		}
	}
	c.checkAllocations(made)
	c.must(c.Controller.Start())
	c.checkLive(services)
}

func TestTwoLabsDoNotMeet(t *testing.T) {
	a, b := start(t, lab.Options{}), start(t, lab.Options{})
	a.create()
	a.checkLive(services)
	if n := len(b.ours()); n != 0 {
		t.Errorf("the other lab's NSX has %d virtual servers", n)
	}
	b.create()
	b.checkLive(services)
	for _, ip := range a.externalIPs() {
		if slices.Contains(b.NSX.Allocations(b.pool), ip) {
			t.Errorf("both labs have %s", ip)
		}
	}
}
