package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

// poll is how often a condition is looked at.
const poll = 50 * time.Millisecond

// AwaitNodes waits until every machine's Node is Ready and initialized: it has its provider id, its address and its
// zone, and Pods are scheduled to it.
func (l *Lab) AwaitNodes(ctx context.Context) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		if err := l.Err(); err != nil {
			return false, err
		}
		last = l.checkNodes(ctx)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

func (l *Lab) checkNodes(ctx context.Context) error {
	nodes, err := l.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(nodes.Items) == 0 {
		return errors.New("no node has registered")
	}
	for _, n := range nodes.Items {
		if err := checkNode(&n); err != nil {
			return fmt.Errorf("node %s is %w", n.Name, err)
		}
	}
	return nil
}

func checkNode(n *corev1.Node) error {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	tainted := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == cloudproviderapi.TaintExternalCloudProvider || t.Key == corev1.TaintNodeNotReady
	})
	addressed := slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeInternalIP })
	switch {
	case !ready:
		return errors.New("not Ready")
	case tainted || n.Spec.ProviderID == "" || !addressed || n.Labels[corev1.LabelTopologyZone] == "":
		return fmt.Errorf("not initialized: taints %v, provider id %q, addresses %v, zone %q",
			n.Spec.Taints, n.Spec.ProviderID, n.Status.Addresses, n.Labels[corev1.LabelTopologyZone])
	}
	return nil
}

// AddNode makes the VM of node i in the first zone and switches it on; i is a number that no node has had, at most
// block.MaxNodes. It returns the node's name, before the controller has initialized it.
func (l *Lab) AddNode(ctx context.Context, i int) (string, error) {
	vm := vcsim.VM{Name: fmt.Sprintf("node-%d", i), UUID: uuid.NewString(), Addresses: []netip.Addr{l.Block.Node(i)}}
	if err := l.VCenter.AddVM("esx-1", vm); err != nil {
		return "", err
	}
	return vm.Name, l.Agent.AddNode(ctx, l.nodeOf(vm))
}

// RemoveNode destroys the VM of a node. Its Node stays, for the controller to delete.
func (l *Lab) RemoveNode(name string) error {
	return errors.Join(l.Agent.RemoveNode(name), l.VCenter.RemoveVM(name))
}

// PowerOff switches the VM of a node off.
func (l *Lab) PowerOff(name string) error {
	return errors.Join(l.Agent.StopNode(name), l.VCenter.SetPower(name, false))
}

// PowerOn switches the VM of a node on.
func (l *Lab) PowerOn(ctx context.Context, name string) error {
	return errors.Join(l.VCenter.SetPower(name, true), l.Agent.StartNode(ctx, name))
}
