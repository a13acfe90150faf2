package world

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Cluster is a Kubernetes cluster: what its users say it should be, and at most one process of the controller.
type Cluster struct {
	Name, UID string
	// Config is the loadBalancer section of the cloud config. A process has it as it is when the process starts.
	Config config.LoadBalancer

	w       *World
	kube    *kube
	process *process

	mu sync.Mutex
	// fail chooses what happens to a call; calls are those since it was set.
	fail  func(Call) *Fault
	calls []Call
	// sent counts requests that are the same in everything.
	sent map[uint64]int
	// events are those recorded since the beginning.
	events []lb.Event
}

// The classes of a cluster's config as it is at first.
const (
	// ClassDefault has its addresses from PoolFloating and its virtual servers in LBFirst.
	ClassDefault = "default"
	// ClassGateway has the same addresses, and a load-balancer service that is made on the cluster's own gateway.
	ClassGateway = "gateway"
)

const clusterConfig = `
apiVersion: nsxt.io/v1alpha1
kind: CloudConfig
cluster: {name: %[1]s}
nsx:
  managers: [https://nsx.example.com]
  credentials: {file: /credentials}
loadBalancer:
  ipPools: [{name: floating, exclusive: %[2]t}, {name: spare, exclusive: %[2]t}]
  classes:
  - name: default
    ipPools: [floating]
    loadBalancerServices: [lb-1]
  - name: gateway
    ipPools: [floating]
    tier1Gateways: [{id: %[3]s}]
`

func newCluster(w *World, name string) *Cluster {
	cfg, err := config.Parse("world", fmt.Appendf(nil, clusterConfig, name, w.o.Exclusive, Gateway(name)))
	if err != nil {
		panic(err) // the text above
	}
	c := &Cluster{Name: name, UID: "uid-of-" + name, Config: cfg.LoadBalancer, w: w, sent: map[uint64]int{}}
	c.kube = newKube(c)
	return c
}

// process is one run of the controller, and of the framework around it.
type process struct {
	c         *Cluster
	engine    *lb.Engine
	backend   *manager.Backend
	transport *transport.Transport
	framework *framework
	config    config.LoadBalancer

	// killed is closed by die.
	killed chan struct{}
	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// Start starts a process of the controller, having ended the one before. It does not wait until it is ready.
func (c *Cluster) Start() {
	c.Kill()
	c.say("start")
	p := &process{c: c, config: c.Config, killed: make(chan struct{})}
	p.config.IPPools, p.config.Classes = slices.Clone(c.Config.IPPools), slices.Clone(c.Config.Classes)
	var err error
	if p.transport, err = transport.New(transport.Options{
		Managers: []string{"https://nsx.example.com"},
		Credentials: func(context.Context) (transport.Credentials, error) {
			return transport.Credentials{Username: userOf(c.Name), Password: password}, nil
		},
		Timeout: callTimeout, Base: link{p},
		Rand: func() float64 { return c.w.random(c.Name + " transport") },
	}); err != nil {
		panic(err) // the options are our own
	}
	p.backend = manager.New(manager.Options{
		Transport: early{c, p.transport}, ClusterName: c.Name, ClusterUID: c.UID, Clock: clock.RealClock{},
		IPPools: ipPools(p.config), LBServices: lbServices(p.config),
	})
	p.engine = lb.New(lb.Options{
		Backend: orderly{p.backend, c}, Config: p.config, ClusterUID: c.UID, Clock: clock.RealClock{},
		Services: func() ([]*corev1.Service, bool) { return c.kube.listed(), true },
		AuditReads: func(ctx context.Context) context.Context {
			return transport.WithPriority(ctx, transport.Background)
		},
		AuditWrites: func(ctx context.Context) (context.Context, error) { return p.transport.Prepay(ctx, 4) },
		Random:      func() float64 { return c.w.random(c.Name + " engine") },
		Record:      p.record,
	})
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	p.ctx, p.cancel = ctx, cancel
	p.framework = newFramework(ctx, p)
	p.work.Go(func() { _ = p.engine.Run(ctx) }) // nil, when ctx ends
	c.process = p
	c.kube.tellNodes()
	for _, svc := range c.kube.list() {
		p.framework.changed(svc.Name)
	}
}

func ipPools(c config.LoadBalancer) []manager.IPPool {
	var out []manager.IPPool
	for _, p := range c.IPPools {
		out = append(out, manager.IPPool{Name: p.Name, ID: p.ID, Exclusive: p.Exclusive})
	}
	return out
}

func lbServices(c config.LoadBalancer) []string {
	var keys []string
	for _, class := range c.Classes {
		keys = append(keys, class.LoadBalancerServices...)
		for _, t := range class.Tier1Gateways {
			keys = append(keys, nsx.TierKey(t.ID, string(t.Size)))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// die ends a process as a SIGKILL does: nothing of it reaches NSX or the API server any more. It does not wait.
func (p *process) die() {
	p.once.Do(func() {
		p.c.say("dies")
		close(p.killed)
		p.cancel()
	})
}

func (p *process) dead() bool {
	select {
	case <-p.killed:
		return true
	default:
		return false
	}
}

func (p *process) record(e lb.Event) {
	if p.dead() {
		return
	}
	p.c.mutter("event %s: %s", e.Reason, e.Message)
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.events = append(p.c.events, e)
}

// Kill ends the process, if there is one, and returns when nothing of it runs any more.
func (c *Cluster) Kill() {
	p := c.process
	if p == nil {
		return
	}
	p.die()
	p.work.Wait()
	p.framework.wait()
	p.transport.Close(context.Background())
	c.process = nil
}

// Stop ends the process as on SIGTERM: what is being done for Services comes to its end, as far as ten seconds suffice.
func (c *Cluster) Stop() {
	p := c.process
	if p == nil {
		return
	}
	c.say("stop")
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	_ = p.engine.Stop(ctx) // what it does not suffice for is cut off, as the product does
	p.transport.CloseWrites()
	_ = p.transport.Drain(ctx) // the same
	c.Kill()
}

// Dead tells whether no process runs: none was started, or it died of a fault.
func (c *Cluster) Dead() bool { return c.process == nil || c.process.dead() }

// Ready tells whether the process has read NSX and knows the nodes.
func (c *Cluster) Ready() bool { return !c.Dead() && c.process.engine.Ready() == nil }

// Audit lets the process compare NSX with what Services want, now. It does nothing when none runs.
func (c *Cluster) Audit() {
	if c.Dead() {
		return
	}
	if _, err := c.process.engine.Audit(c.process.ctx, config.AuditModeRepair); err != nil {
		c.say("audit: %v", err)
	}
}

// Fail lets calls of the cluster's controller fail from now on, as choose says: nil for no fault. It is called for each
// call in turn. A nil choose ends all faults.
func (c *Cluster) Fail(choose func(Call) *Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail, c.calls = choose, nil
}

// FailNth lets the n-th call from now on have a fault.
func (c *Cluster) FailNth(n int, f Fault) {
	c.Fail(func(call Call) *Fault {
		if call.N == n {
			return &f
		}
		return nil
	})
}

// next counts a call and chooses what happens to it.
func (c *Cluster) next(call Call) *Fault {
	c.mu.Lock()
	call.N = len(c.calls) + 1
	c.calls = append(c.calls, call)
	choose := c.fail
	c.mu.Unlock()
	if choose == nil {
		return nil
	}
	return choose(call)
}

// Calls are those that got as far as NSX since the last Fail.
func (c *Cluster) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Events are those recorded since the beginning.
func (c *Cluster) Events() []lb.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

func (c *Cluster) say(format string, args ...any) {
	c.w.Say("%s: %s", c.Name, fmt.Sprintf(format, args...))
}

// mutter is say for what is said again and again while somebody waits.
func (c *Cluster) mutter(format string, args ...any) {
	c.w.say(true, "%s: %s", c.Name, fmt.Sprintf(format, args...))
}

// Owns tells whether an object in NSX is the cluster's.
func (c *Cluster) Owns(o nsxsim.Object) bool { return o.Tags()[nsx.TagClusterUID] == c.UID }
