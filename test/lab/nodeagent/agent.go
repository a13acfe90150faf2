// Package nodeagent plays the nodes of a lab, all of them in one process: what a kubelet and a kube-proxy do for the API
// server and for clients from outside the cluster.
//
// As a kubelet with --cloud-provider=external does, it registers Nodes with the taint for uninitialized ones, renews
// their leases, and runs the Pods that are bound to them: each container port that a Pod declares is a real listener of
// package echo. As kube-proxy does, it serves node ports and health checks (package nodeproxy). Images, commands, init
// containers, probes, volumes, cluster IPs, logs and exec are not played: a container is up at once, and it uses all of
// its grace period to end.
package nodeagent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/nodeproxy"
)

// ErrNoSuchNode is the answer to a name that is no node's.
var ErrNoSuchNode = errors.New("no such node")

const (
	// podWorkers is how many Pods are looked after at once.
	podWorkers = 4
	// bindRetry is how soon a port that could not be bound is tried again.
	bindRetry = time.Second
)

// Node is a machine with its kubelet and kube-proxy.
type Node struct {
	Name string
	// Address is a loopback address of this machine. Node ports and health checks are served on it.
	Address netip.Addr
	// Pods is where the addresses of the node's Pods come from: not loopback, because EndpointSlices refuse that.
	Pods netip.Prefix
	// SystemUUID is what the kubelet reads from the firmware: the BIOS UUID of a virtual machine.
	SystemUUID string
	Labels     map[string]string // besides those of every kubelet
}

// Options of an Agent. The zero value is usable.
type Options struct {
	// LeaseDuration is how long a node's lease lasts, at least a second; it is renewed after a quarter of it. 0: 40 s,
	// the kubelet's default.
	LeaseDuration time.Duration
	// Clock for leases, grace periods and time stamps; nil: the real one.
	Clock clock.WithTicker
}

// Agent runs nodes until it is closed.
type Agent struct {
	client  kubernetes.Interface
	options Options
	clock   clock.WithTicker

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	informers  informers.SharedInformerFactory
	pods       corelisters.PodLister
	services   corelisters.ServiceLister
	nodes      corelisters.NodeLister
	slices     discoverylisters.EndpointSliceLister
	podQueue   workqueue.TypedRateLimitingInterface[types.NamespacedName]
	proxyDirty chan struct{} // holds a token while the proxies' plans may be out of date

	routes      routes
	certificate func() (*tls.Certificate, error)

	// power is held while machines are switched on and off.
	power sync.Mutex
	// mu protects the fields below. It is held for moments, never during a call to the API server.
	mu       sync.Mutex
	machines map[string]*machine
	podsUp   map[types.NamespacedName]*runningPod
	problem  error // why ports could not be bound, at the last try
}

// Start registers the nodes and returns when their Pods and node ports are served as far as the API server knows them.
// Its context bounds the start; the Agent runs until Close. Raise the client's rate limit: every node shares it.
func Start(ctx context.Context, client kubernetes.Interface, nodes []Node, o Options) (*Agent, error) {
	if o.LeaseDuration == 0 {
		o.LeaseDuration = 40 * time.Second
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	a := &Agent{
		client: client, options: o, clock: o.Clock,
		proxyDirty:  make(chan struct{}, 1),
		certificate: sync.OnceValues(selfSigned),
		machines:    map[string]*machine{},
		podsUp:      map[types.NamespacedName]*runningPod{},
	}
	a.podQueue = workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 5*time.Second),
		workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{Clock: o.Clock})
	a.ctx, a.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := a.watch(ctx); err != nil {
		a.Close()
		return nil, err
	}
	a.running.Go(a.runProxies)
	for range podWorkers {
		a.running.Go(a.runPods)
	}
	for _, n := range nodes {
		if err := a.AddNode(ctx, n); err != nil {
			a.Close()
			return nil, err
		}
	}
	return a, nil
}

// watch starts the informers and waits until they have seen everything.
func (a *Agent) watch(ctx context.Context) error {
	a.informers = informers.NewSharedInformerFactoryWithOptions(a.client, 0, informers.WithTransform(dropManagedFields))
	core, discovery := a.informers.Core().V1(), a.informers.Discovery().V1()
	a.pods, a.services, a.nodes = core.Pods().Lister(), core.Services().Lister(), core.Nodes().Lister()
	a.slices = discovery.EndpointSlices().Lister()

	podChanged := onChange(func(obj any) {
		if name, err := cache.DeletionHandlingObjectToName(obj); err == nil {
			a.podQueue.Add(types.NamespacedName{Namespace: name.Namespace, Name: name.Name})
		}
	})
	proxyChanged := onChange(func(any) { a.touchProxies() })
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.Pods().Informer(), podChanged},
		{core.Services().Informer(), proxyChanged},
		{core.Nodes().Informer(), proxyChanged},
		{discovery.EndpointSlices().Informer(), proxyChanged},
	} {
		if _, err := w.informer.AddEventHandler(w.handler); err != nil {
			return fmt.Errorf("node agent: %w", err)
		}
	}
	a.informers.Start(a.ctx.Done())
	for kind, synced := range a.informers.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("node agent: reading %v: %w", kind, context.Cause(ctx))
		}
	}
	return nil
}

// AddNode switches on a machine that was not there before.
func (a *Agent) AddNode(ctx context.Context, n Node) error {
	a.mu.Lock()
	if _, exists := a.machines[n.Name]; exists {
		a.mu.Unlock()
		return fmt.Errorf("node %s: exists already", n.Name)
	}
	a.machines[n.Name] = newMachine(n)
	a.mu.Unlock()
	return a.StartNode(ctx, n.Name)
}

// StartNode switches a machine on: it registers if its Node is gone, reports Ready and runs its Pods. It does nothing if
// the machine is on.
func (a *Agent) StartNode(ctx context.Context, name string) error {
	m, err := a.machine(name)
	if err != nil {
		return err
	}
	a.power.Lock()
	defer a.power.Unlock()
	if err := a.switchOn(ctx, m); err != nil {
		return fmt.Errorf("node %s: %w", name, err)
	}
	a.touchProxies()
	return a.syncPodsOf(name)
}

// StopNode switches a machine off, without a word to the API server: its ports are closed, all connections cut, and its
// lease runs out. It does nothing if the machine is off.
func (a *Agent) StopNode(name string) error {
	m, err := a.machine(name)
	if err != nil {
		return err
	}
	a.power.Lock()
	defer a.power.Unlock()
	a.switchOff(m)
	return nil
}

// RemoveNode switches a machine off for good. Its Node stays, for the controllers to delete.
func (a *Agent) RemoveNode(name string) error {
	if err := a.StopNode(name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.machines, name)
	return nil
}

// Problem says why ports of nodes could not be bound; nil when all are. They are tried again every second.
func (a *Agent) Problem() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.problem
}

// Close switches all machines off and waits for all goroutines. The Node objects stay.
func (a *Agent) Close() {
	a.stop()
	a.podQueue.ShutDown()
	a.running.Wait()
	if a.informers != nil {
		a.informers.Shutdown()
	}
	a.power.Lock()
	defer a.power.Unlock()
	a.mu.Lock()
	machines := make([]*machine, 0, len(a.machines))
	for _, m := range a.machines {
		machines = append(machines, m)
	}
	a.mu.Unlock()
	for _, m := range machines {
		a.switchOff(m)
	}
}

func (a *Agent) machine(name string) (*machine, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok := a.machines[name]
	if !ok {
		return nil, fmt.Errorf("node %s: %w", name, ErrNoSuchNode)
	}
	return m, nil
}

// touchProxies has the proxies' plans made anew.
func (a *Agent) touchProxies() {
	select {
	case a.proxyDirty <- struct{}{}:
	default:
	}
}

// runProxies keeps the proxies of all machines up to date.
func (a *Agent) runProxies() {
	retry := a.clock.NewTicker(bindRetry)
	defer retry.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-a.proxyDirty:
		case <-retry.C():
			if a.Problem() == nil {
				continue
			}
		}
		err := a.applyPlans()
		a.mu.Lock()
		changed := err != nil && (a.problem == nil || a.problem.Error() != err.Error())
		a.problem = err
		a.mu.Unlock()
		if changed {
			klog.FromContext(a.ctx).Error(err, "Not all ports of the nodes are served")
		}
	}
}

// applyPlans makes a plan for each machine and has its proxy apply it.
func (a *Agent) applyPlans() error {
	services, err := a.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("node agent: %w", err)
	}
	endpointSlices, err := a.slices.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("node agent: %w", err)
	}
	var errs []error
	proxies := a.proxies()
	for _, name := range slices.Sorted(maps.Keys(proxies)) {
		proxy := proxies[name]
		node, err := a.nodes.Get(name)
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("node agent: %w", err))
			continue
		}
		proxy.SetEligible(err == nil && eligible(node))
		errs = append(errs, proxy.Apply(nodeproxy.MakePlan(name, services, endpointSlices)))
	}
	return errors.Join(errs...)
}

// proxies are those of the machines that are on.
func (a *Agent) proxies() map[string]*nodeproxy.Proxy {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]*nodeproxy.Proxy{}
	for name, m := range a.machines {
		if m.on != nil {
			all[name] = m.on.proxy
		}
	}
	return all
}

// toBeDeletedTaint marks a node that the cluster autoscaler is about to remove.
const toBeDeletedTaint = "ToBeDeletedByClusterAutoscaler"

// eligible says whether a node may get load balancer traffic (KEP-3836).
func eligible(node *corev1.Node) bool {
	return node.DeletionTimestamp.IsZero() &&
		!slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == toBeDeletedTaint })
}

func onChange(f func(obj any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{AddFunc: f, UpdateFunc: func(_, obj any) { f(obj) }, DeleteFunc: f}
}

// dropManagedFields saves memory: nobody here reads them.
func dropManagedFields(obj any) (any, error) {
	if o, err := meta.Accessor(obj); err == nil {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// selfSigned makes the certificate of HTTPS ports.
func selfSigned() (*tls.Certificate, error) {
	certPEM, keyPEM, err := certutil.GenerateSelfSignedCertKey("lab", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("certificate of pods: %w", err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	return &cert, err
}
