package nodeagent

import (
	"context"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"k8s.io/component-helpers/apimachinery/lease"
	nodeutil "k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/nodeproxy"
)

// machine is a node's machine, on or off. The Agent's lock protects its fields.
type machine struct {
	node      Node
	on        *boot // nil: off
	addresses *addresses
}

// boot is the time from switching a machine on to switching it off.
type boot struct {
	proxy   *nodeproxy.Proxy
	id      string
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newMachine(n Node) *machine { return &machine{node: n, addresses: newAddresses(n.Pods)} }

// switchOn returns when the Node is registered and reported Ready. The caller holds a.power.
func (a *Agent) switchOn(ctx context.Context, m *machine) error {
	if m.on != nil || a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	proxy, err := nodeproxy.Start(nodeproxy.Config{
		Node: m.node.Name, Address: m.node.Address, Clock: a.clock, Locate: a.routes.locate,
	})
	if err != nil {
		return err
	}
	b := &boot{proxy: proxy, id: uuid.NewString()}
	if err := a.register(ctx, m.node, b.id); err != nil {
		proxy.Close()
		return err
	}
	bootCtx, stop := context.WithCancel(a.ctx)
	b.stop = stop
	renewer := a.leaseOf(bootCtx, m.node.Name)
	b.running.Go(func() { renewer.Run(bootCtx) })
	b.running.Go(func() { a.reportStatus(bootCtx, m.node, b.id) })
	a.mu.Lock()
	m.on = b
	a.mu.Unlock()
	return nil
}

// switchOff returns when nothing of the machine runs any more. The caller holds a.power.
func (a *Agent) switchOff(m *machine) {
	a.mu.Lock()
	b := m.on
	m.on = nil
	var pods []*runningPod
	for name, p := range a.podsUp {
		if p.machine == m {
			pods = append(pods, p)
			delete(a.podsUp, name)
		}
	}
	a.mu.Unlock()
	if b == nil {
		return
	}
	b.stop()
	b.proxy.Close()
	for _, p := range pods {
		a.kill(p)
	}
	b.running.Wait()
}

// register makes the Node, as a kubelet that starts does, or reports the status of the one that is there.
func (a *Agent) register(ctx context.Context, n Node, bootID string) error {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: n.Name,
			Labels: map[string]string{
				corev1.LabelHostname:   n.Name,
				corev1.LabelOSStable:   runtime.GOOS,
				corev1.LabelArchStable: runtime.GOARCH,
			},
			Annotations: map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: n.Address.String()},
		},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{
			Key: cloudproviderapi.TaintExternalCloudProvider, Value: "true", Effect: corev1.TaintEffectNoSchedule,
		}}},
	}
	maps.Copy(node.Labels, n.Labels)
	node.Status = nodeStatus(node.Status, n, bootID, metav1.NewTime(a.clock.Now()))
	_, err := a.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return wrap("register", err)
	}
	node, err = a.client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return wrap("register", err)
	}
	return a.patchStatus(node, n, bootID)
}

// reportStatus corrects the Node's status when it is not what the machine says: the node controller takes Ready away
// from nodes whose lease ran out.
func (a *Agent) reportStatus(ctx context.Context, n Node, bootID string) {
	ticker := a.clock.NewTicker(a.options.LeaseDuration / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
		node, err := a.nodes.Get(n.Name)
		if apierrors.IsNotFound(err) {
			continue // deleted; a kubelet registers at its start only
		}
		if err == nil {
			err = a.patchStatus(node, n, bootID)
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "Node status not reported", "node", n.Name)
		}
	}
}

func (a *Agent) patchStatus(node *corev1.Node, n Node, bootID string) error {
	wanted := node.DeepCopy()
	wanted.Status = nodeStatus(wanted.Status, n, bootID, metav1.NewTime(a.clock.Now()))
	if equality.Semantic.DeepEqual(node.Status, wanted.Status) {
		return nil
	}
	_, _, err := nodeutil.PatchNodeStatus(a.client.CoreV1(), types.NodeName(n.Name), node, wanted)
	return wrap("report status", err)
}

// nodeStatus is status with all that a kubelet says about its node. The addresses are the cloud's to say.
func nodeStatus(status corev1.NodeStatus, n Node, bootID string, now metav1.Time) corev1.NodeStatus {
	status = *status.DeepCopy()
	status.Capacity = corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("4"),
		corev1.ResourceMemory:           resource.MustParse("8Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("50Gi"),
		corev1.ResourcePods:             resource.MustParse("110"),
	}
	status.Allocatable = status.Capacity.DeepCopy()
	status.NodeInfo = corev1.NodeSystemInfo{
		SystemUUID:              n.SystemUUID,
		MachineID:               n.SystemUUID,
		BootID:                  bootID,
		KernelVersion:           "simulated",
		OSImage:                 "simulated",
		ContainerRuntimeVersion: "lab://1.0.0",
		KubeletVersion:          "v1.36.3",
		OperatingSystem:         runtime.GOOS,
		Architecture:            runtime.GOARCH,
	}
	for _, c := range []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory", Message: "kubelet has sufficient memory available"},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasNoDiskPressure", Message: "kubelet has no disk pressure"},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientPID", Message: "kubelet has sufficient PID available"},
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"},
	} {
		i := slices.IndexFunc(status.Conditions, func(old corev1.NodeCondition) bool { return old.Type == c.Type })
		switch {
		case i < 0:
			c.LastHeartbeatTime, c.LastTransitionTime = now, now
			status.Conditions = append(status.Conditions, c)
		case status.Conditions[i].Status != c.Status:
			c.LastHeartbeatTime, c.LastTransitionTime = now, now
			status.Conditions[i] = c
		}
	}
	return status
}

// leaseOf renews the lease of a node, as long as the Node is there.
func (a *Agent) leaseOf(ctx context.Context, name string) lease.Controller {
	seconds := int32(math.Ceil(a.options.LeaseDuration.Seconds()))
	own := func(l *coordinationv1.Lease) error {
		if len(l.OwnerReferences) > 0 {
			return nil
		}
		node, err := a.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		l.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Node", Name: name, UID: node.UID,
		}}
		return nil
	}
	return lease.NewController(a.clock, a.client, name, seconds, nil, a.options.LeaseDuration/4, name, corev1.NamespaceNodeLease, own)
}

// wrap says what was tried, or nothing if it went well.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
