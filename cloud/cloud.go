package cloud

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
)

// Options of a Cloud.
type Options struct {
	Config *config.CloudConfig
	// RenewDeadline of the leader-election lease; 0 without leader election. After a standstill longer than that the
	// process may no longer be the leader, and must not write to NSX.
	RenewDeadline time.Duration
	// Metrics of the calls to NSX; nil for none.
	Metrics *transport.Metrics
	Logger  klog.Logger
}

// Cloud is the cloud provider. It does nothing before Initialize, and must be ended with Shutdown.
type Cloud struct {
	o         Options
	vms       *vcenter.Client // nil without vCenters
	instances cloudprovider.InstancesV2

	// client is set by Initialize; credentials in Secrets are read with it.
	client atomic.Pointer[kubernetes.Interface]
	// nsxUser is the NSX user of the credentials as last read.
	nsxUser atomic.Pointer[string]
	// running is set once the cluster's identity is known.
	running atomic.Pointer[running]
	// ended is set if load balancing ends although the Cloud has not: it says why.
	ended atomic.Pointer[error]

	// ctx is the life of everything that Initialize starts. The framework ends neither its stop channel nor its contexts
	// in an orderly way, so it is a context of our own.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	nodes   nodeSource
	audited auditCounts
	// listServices is set by SetInformers.
	listServices atomic.Pointer[func() ([]*corev1.Service, bool)]
}

// running is what there is once the cluster's identity is known.
type running struct {
	transport *transport.Transport
	inventory *nsx.Inventory
	engine    *lb.Engine
}

var (
	_ cloudprovider.Interface    = (*Cloud)(nil)
	_ cloudprovider.InformerUser = (*Cloud)(nil)
)

// New makes a Cloud. It reads the files that the config names, so that a missing one stops the start, and calls nobody.
func New(o Options) (*Cloud, error) {
	c := &Cloud{o: o}
	c.ctx, c.cancel = context.WithCancel(klog.NewContext(context.Background(), o.Logger))
	if err := c.checkNSX(); err != nil {
		c.cancel()
		return nil, err
	}
	if len(o.Config.VCenters) > 0 {
		vms, err := c.newVCenter()
		if err != nil {
			c.cancel()
			return nil, err
		}
		c.vms = vms
		c.instances = newInstances(vms, o.Config.Nodes)
	}
	return c, nil
}

// Initialize implements cloudprovider.Interface. It is called when the lease has been won. The framework's stop channel
// is not closed when the process is told to end; Shutdown is what ends the work.
func (c *Cloud) Initialize(clientBuilder cloudprovider.ControllerClientBuilder, stop <-chan struct{}) {
	client := clientBuilder.ClientOrDie("nsxt-cloud-provider")
	c.client.Store(&client)
	c.work.Go(func() { c.run(client) })
	c.work.Go(func() {
		select {
		case <-stop:
			c.cancel()
		case <-c.ctx.Done():
		}
	})
}

// callsOfARepair is what most changes by the audit take: pool or monitor, virtual server, address, attachment.
const callsOfARepair = 4

// run finds out which cluster this is, and then keeps its load balancers until the Cloud ends.
func (c *Cloud) run(client kubernetes.Interface) {
	logger := klog.FromContext(c.ctx)
	uid, err := c.clusterUID(client)
	if err != nil {
		return // the Cloud ended
	}
	broadcaster := record.NewBroadcaster(record.WithContext(c.ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	events := eventRecorder{broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "nsxt-cloud-controller-manager"})}

	t, err := c.newTransport()
	if err != nil {
		err = fmt.Errorf("NSX cannot be reached with this configuration: %w", err)
		c.ended.Store(&err)
		logger.Error(err, "Load balancing ended") // New has checked it, so a file has changed since
		return
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), 2*time.Second)
		defer cancel()
		t.Close(ctx)
	}()
	backend := manager.New(manager.Options{
		Transport: t, ClusterName: c.o.Config.Cluster.Name, ClusterUID: uid,
		IPPools: ipPools(c.o.Config), LBServices: lbServices(c.o.Config), User: c.user, Clock: clock.RealClock{},
	})
	engine := lb.New(lb.Options{
		Backend: backend, Config: c.o.Config.LoadBalancer, ClusterUID: uid,
		Services:    c.services,
		AuditReads:  func(ctx context.Context) context.Context { return transport.WithPriority(ctx, transport.Background) },
		AuditWrites: func(ctx context.Context) (context.Context, error) { return t.Prepay(ctx, callsOfARepair) },
		Audited:     c.audited.add,
		Clock:       clock.RealClock{}, Random: rand.Float64, Record: events.record,
	})
	r := &running{t, backend.Inventory(), engine}
	c.running.Store(r)
	c.work.Go(func() { c.keepPinging(c.ctx, r, backend) })
	c.nodes.subscribe(engine.NodesChanged)
	logger.Info("Load balancing on NSX", "cluster", c.o.Config.Cluster.Name, "clusterUID", uid, "managers", c.o.Config.NSX.Managers)
	if err := engine.Run(c.ctx); err != nil && !errors.Is(err, context.Canceled) {
		logger.Error(err, "Load balancing ended")
	}
}

// clusterUID is what ownership in NSX goes by: the configured cluster id, or the UID of kube-system, which lives as long
// as the cluster. It waits until the API server tells.
func (c *Cloud) clusterUID(client kubernetes.Interface) (string, error) {
	if id := c.o.Config.Cluster.ID; id != "" {
		return id, nil
	}
	var uid string
	err := wait.PollUntilContextCancel(c.ctx, 2*time.Second, true, func(ctx context.Context) (bool, error) {
		ns, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			klog.FromContext(ctx).Error(err, "Reading the namespace kube-system, whose UID identifies the cluster")
			return false, nil
		}
		uid = string(ns.UID)
		return true, nil
	})
	return uid, err
}

// Shutdown ends the Cloud in order: what is being done for Services comes to its end, then no further write to NSX goes
// out and those that are out get their answers, then everything that Initialize started ends. What ctx leaves no time for
// is cut off, which the next leader takes up: see pkg/nsx/manager.
func (c *Cloud) Shutdown(ctx context.Context) error {
	var errs []error
	if r := c.running.Load(); r != nil {
		errs = append(errs, r.engine.Stop(ctx))
		r.transport.CloseWrites()
		if err := r.transport.Drain(ctx); err != nil {
			errs = append(errs, fmt.Errorf("waiting for the last writes to NSX: %w", err))
		}
	}
	c.cancel()
	c.work.Wait()
	if c.vms != nil {
		if closeErr := c.vms.Close(ctx); closeErr != nil {
			klog.FromContext(c.ctx).V(2).Info("Logging out of vCenter failed", "err", closeErr)
		}
	}
	return errors.Join(errs...)
}

// ProviderName implements cloudprovider.Interface.
func (c *Cloud) ProviderName() string { return names.Provider }

// HasClusterID implements cloudprovider.Interface: every object in NSX carries the cluster's UID.
func (c *Cloud) HasClusterID() bool { return true }

// LoadBalancer implements cloudprovider.Interface.
func (c *Cloud) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return loadBalancer{c}, true }

// InstancesV2 implements cloudprovider.Interface. Without vCenters in the config there are none.
func (c *Cloud) InstancesV2() (cloudprovider.InstancesV2, bool) {
	return c.instances, c.instances != nil
}

// Instances implements cloudprovider.Interface: InstancesV2 is what serves.
func (c *Cloud) Instances() (cloudprovider.Instances, bool) { return nil, false }

// Zones implements cloudprovider.Interface: InstancesV2 is what serves.
func (c *Cloud) Zones() (cloudprovider.Zones, bool) { return nil, false }

// Clusters implements cloudprovider.Interface.
func (c *Cloud) Clusters() (cloudprovider.Clusters, bool) { return nil, false }

// Routes implements cloudprovider.Interface.
func (c *Cloud) Routes() (cloudprovider.Routes, bool) { return nil, false }
