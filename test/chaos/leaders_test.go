package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

// TestLeaders: two controllers, of which one leads. Whatever happens to the leader while Services come, change and go,
// nothing is made twice, lost or left.
func TestLeaders(t *testing.T) {
	t.Parallel()
	c := start(t, lab.Options{})
	// A RELEASE whose outcome a kill has left unknown is settled 30 s after this.
	_, err := c.NSX.As(nsxsim.DefaultUsername).Update(nsxsim.KindIPPool, c.pool, func(o nsxsim.Object) { o["ip_release_delay"] = 1000 })
	c.must(err)
	foreign := c.addForeign()
	watch := c.watchAddresses()
	leader, standby := c.Controller, c.AddController()
	c.must(standby.Start())
	churn := c.churn(rand.New(rand.NewPCG(1, 1)), 12)

	for _, step := range []struct {
		name string
		// do leaves the leader's place to the other.
		do func()
	}{
		{"killed", func() {
			c.must(leader.Kill())
			c.makeProgress("after-kill")
			c.must(leader.Start())
		}},
		{"stalled for longer than its lease", func() {
			c.must(leader.Pause())
			c.makeProgress("after-stall")
			c.must(leader.Resume())
			// It has lost the lease: it must end, and a kubelet would start it again.
			c.poll("the leader that was has ended", func() bool { return errors.Is(leader.Err(), lab.ErrControllerEnded) })
			c.must(leader.Start())
		}},
		{"told to end", func() {
			c.must(leader.Stop(c.ctx))
			c.makeProgress("after-end")
			c.must(leader.Start())
		}},
		{"killed again", func() {
			c.must(leader.Kill())
			c.makeProgress("after-second-kill")
			c.must(leader.Start())
		}},
	} {
		t.Logf("the leader is %s", step.name)
		step.do()
		leader, standby = standby, leader
	}
	// A stall that is shorter than the lease leaves it the leader.
	c.must(leader.Pause())
	c.during(2*time.Second, func() {})
	c.must(leader.Resume())
	c.makeProgress("after-short-stall")
	c.must(leader.Err())

	t.Logf("%d changes of Services", churn(100))
	c.checkAtRest()
	watch()
	c.checkForeign(foreign)
}

// makeProgress wants a new Service to get its EXTERNAL-IP, which takes a leader.
func (c *cluster) makeProgress(name string) {
	c.Helper()
	_, err := c.services().Create(c.ctx, web(name), metav1.CreateOptions{})
	c.must(err)
	c.poll(name+" has an EXTERNAL-IP", func() bool {
		svc, err := c.services().Get(c.ctx, name, metav1.GetOptions{})
		return err == nil && len(svc.Status.LoadBalancer.Ingress) > 0
	})
}

func web(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Type:  corev1.ServiceTypeLoadBalancer,
			Ports: []corev1.ServicePort{{Name: "a", Port: 8080, TargetPort: intstr.FromInt32(80)}, {Name: "b", Port: 8443, TargetPort: intstr.FromInt32(80)}},
		},
	}
}

// churn changes Services at random, some a second, until the function that it returns is called; that waits until there were
// so many changes at least, and tells how many there were.
func (c *cluster) churn(r *rand.Rand, names int) (stop func(least int64) int64) {
	ctx, cancel := context.WithCancel(c.ctx)
	var running sync.WaitGroup
	var changes atomic.Int64
	running.Go(func() {
		ticker := time.NewTicker(150 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if err := c.changeOne(ctx, fmt.Sprintf("churn-%d", r.IntN(names)), r.IntN(10)); err == nil {
				changes.Add(1)
			} else if ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
				c.Errorf("changing a Service: %v", err)
			}
		}
	})
	end := func() { cancel(); running.Wait() }
	c.Cleanup(end)
	return func(least int64) int64 {
		c.poll("there were enough changes", func() bool { return changes.Load() >= least })
		end()
		return changes.Load()
	}
}

// changeOne makes a Service that is not there, and changes or deletes one that is.
func (c *cluster) changeOne(ctx context.Context, name string, what int) error {
	svc, err := c.services().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = c.services().Create(ctx, web(name), metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	switch {
	case svc.DeletionTimestamp != nil:
		return nil
	case what < 4:
		err = c.services().Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &svc.UID}})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return err
	case what < 7:
		svc.Spec.Ports[1].Port = 9000 + int32(what)
	case svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal:
		svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyCluster, 0
	default:
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	_, err = c.services().Update(ctx, svc, metav1.UpdateOptions{})
	return err
}

// watchAddresses watches what Services show until the function that it returns is called, which says whether an
// EXTERNAL-IP has changed or gone from a live Service.
func (c *cluster) watchAddresses() (check func()) {
	var mu sync.Mutex
	shown := map[types.UID]string{}
	// by tells which Service of a name showed an address first.
	by := map[string]types.UID{}
	see := func(svc *corev1.Service) {
		mu.Lock()
		defer mu.Unlock()
		ip := ""
		if in := svc.Status.LoadBalancer.Ingress; len(in) > 0 {
			ip = in[0].IP
		}
		was, known := shown[svc.UID]
		switch {
		case !known || was == ip || svc.DeletionTimestamp != nil:
		case by[svc.Name+" "+was] != svc.UID:
			// The framework patches a status by the Service's name. A leader that was stalled right before that may do it afterwards, to
			// a Service that was made anew meanwhile; the leader of the day puts that right.
			c.Logf("%s showed %q, which an earlier Service of its name had, before %q", svc.Name, was, ip)
		default:
			c.Errorf("EXTERNAL-IP of %s went from %q to %q", svc.Name, was, ip)
		}
		if ip != "" {
			shown[svc.UID] = ip
			if first := svc.Name + " " + ip; by[first] == "" {
				by[first] = svc.UID
			}
		}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(c.Client, 0, informers.WithNamespace("default"))
	informer := factory.Core().V1().Services().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { see(o.(*corev1.Service)) },
		UpdateFunc: func(_, o any) { see(o.(*corev1.Service)) },
	})
	c.must(err)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	var once sync.Once
	end := func() { once.Do(func() { cancel(); factory.Shutdown() }) }
	c.Cleanup(end)
	return func() {
		c.Helper()
		end()
		if len(shown) == 0 {
			c.Error("no EXTERNAL-IP was seen")
		}
	}
}

// another user of the same NSX.
const another = "another"

// foreignKinds are what another user of the same NSX has.
var foreignKinds = []nsxsim.Kind{
	nsxsim.KindPool, nsxsim.KindVirtualServer, nsxsim.KindMonitor, nsxsim.KindNSGroup, nsxsim.KindIPSet,
}

// addForeign makes objects of another user, some with the names and tags that ours have but for the cluster's UID, and
// an allocation. It returns them as they are.
func (c *cluster) addForeign() map[string]nsxsim.Object {
	c.Helper()
	other := c.NSX.As(another)
	make := func(k nsxsim.Kind, o nsxsim.Object) nsxsim.Object {
		c.Helper()
		made, err := other.Create(k, o)
		c.must(err)
		return made
	}
	tags := []any{
		map[string]any{"scope": "nsxt.io/cluster", "tag": "lab"},
		map[string]any{"scope": "nsxt.io/cluster-uid", "tag": "11111111-2222-3333-4444-555555555555"},
		map[string]any{"scope": "nsxt.io/service-uid", "tag": "66666666-7777-8888-9999-000000000000"},
		map[string]any{"scope": "nsxt.io/service", "tag": "default/web"},
	}
	make(nsxsim.KindMonitor, nsxsim.Object{"resource_type": "LbHttpMonitor", "tags": tags})
	pool := make(nsxsim.KindPool, nsxsim.Object{"tags": tags, "members": []any{map[string]any{"ip_address": "192.0.2.1", "port": "80"}}})
	make(nsxsim.KindIPSet, nsxsim.Object{"ip_addresses": []any{"192.0.2.1"}, "tags": tags})
	make(nsxsim.KindNSGroup, nsxsim.Object{"tags": tags})
	profiles := c.NSX.List(nsxsim.KindApplicationProfile)
	i := slices.IndexFunc(profiles, func(o nsxsim.Object) bool { return o.String("resource_type") == "LbFastTcpProfile" })
	make(nsxsim.KindVirtualServer, nsxsim.Object{
		"ip_address": "192.0.2.80", "ip_protocol": "TCP", "ports": []any{"80"}, "pool_id": pool.ID(), "tags": tags,
		"application_profile_id": profiles[i].ID(),
	})
	return c.foreign()
}

// foreign are the other user's objects as they are.
func (c *cluster) foreign() map[string]nsxsim.Object {
	out := map[string]nsxsim.Object{}
	for _, k := range foreignKinds {
		for _, o := range c.NSX.List(k) {
			if o.String("_create_user") == another {
				out[o.ID()] = o
			}
		}
	}
	return out
}

func (c *cluster) checkForeign(before map[string]nsxsim.Object) {
	c.Helper()
	if len(before) < len(foreignKinds) {
		c.Errorf("only %d foreign objects", len(before))
	}
	if diff := cmp.Diff(before, c.foreign()); diff != "" {
		c.Errorf("the other user's objects have changed (-before +after):\n%s", diff)
	}
}

// checkAtRest waits until NSX holds what the Services want, and nothing else of ours.
func (c *cluster) checkAtRest() {
	c.Helper()
	var wrong []string
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		before := wrong
		if wrong = c.differences(); len(wrong) == 0 {
			return
		}
		if !slices.Equal(before, wrong) {
			c.Logf("at rest but for: %s", strings.Join(wrong, "; "))
		}
		if time.Now().After(deadline) {
			c.Fatalf("not at rest: %s", strings.Join(wrong, "; "))
		}
	}
}

// differences between what the Services want and what NSX has of ours.
func (c *cluster) differences() (wrong []string) {
	c.Helper()
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	list, err := c.services().List(c.ctx, metav1.ListOptions{})
	c.must(err)
	ours, attached := c.ours(), c.attached()
	var want []string
	for _, svc := range list.Items {
		if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		if svc.DeletionTimestamp != nil {
			say("%s is still being deleted", svc.Name)
			continue
		}
		if len(svc.Status.LoadBalancer.Ingress) != 1 {
			say("%s has no EXTERNAL-IP", svc.Name)
			continue
		}
		ip := svc.Status.LoadBalancer.Ingress[0].IP
		want = append(want, ip)
		i := slices.IndexFunc(ours, func(o nsxsim.Object) bool { return o.Tags()["nsxt.io/service-uid"] == string(svc.UID) })
		if i < 0 {
			say("%s has no virtual server", svc.Name)
			continue
		}
		vs := ours[i]
		ours = slices.Delete(ours, i, i+1)
		var ports, nodePorts []string
		for _, p := range svc.Spec.Ports {
			ports, nodePorts = append(ports, fmt.Sprint(p.Port)), append(nodePorts, fmt.Sprint(p.NodePort))
		}
		switch {
		case vs.String("ip_address") != ip:
			say("%s shows %s, and its virtual server has %s", svc.Name, ip, vs.String("ip_address"))
		case !slices.Contains(attached, vs.ID()):
			say("the virtual server of %s is not attached", svc.Name)
		case !samePairs(vs.Strings("ports"), vs.Strings("default_pool_member_ports"), ports, nodePorts):
			say("the virtual server of %s forwards %v to %v, want %v to %v", svc.Name,
				vs.Strings("ports"), vs.Strings("default_pool_member_ports"), ports, nodePorts)
		}
	}
	for _, vs := range ours {
		say("virtual server %s belongs to no Service", vs.String("display_name"))
	}
	got := c.NSX.Allocations(c.pool)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		say("allocated are %v, want %v", got, want)
	}
	return wrong
}

// samePairs compares ports with their node ports, in whatever order.
func samePairs(gotPorts, gotNodePorts, wantPorts, wantNodePorts []string) bool {
	pair := func(a, b []string) []string {
		out := []string{}
		for i := range min(len(a), len(b)) {
			out = append(out, a[i]+":"+b[i])
		}
		slices.Sort(out)
		return out
	}
	return len(gotPorts) == len(gotNodePorts) && slices.Equal(pair(gotPorts, gotNodePorts), pair(wantPorts, wantNodePorts))
}
