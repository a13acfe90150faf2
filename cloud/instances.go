package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
	nodehelpers "k8s.io/cloud-provider/node/helpers"
	nodeutil "k8s.io/component-helpers/node/util"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
)

// vmFinder finds the VMs of nodes; *vcenter.Client does. An error that matches vcenter.ErrNotFound is, from ByUUID,
// the proof that there is no such VM.
type vmFinder interface {
	ByUUID(ctx context.Context, biosUUID string) (vcenter.VM, error)
	ByName(ctx context.Context, hostName string) (vcenter.VM, error)
	// Locate returns the VM with its zone and region.
	Locate(ctx context.Context, vm vcenter.VM) (vcenter.VM, error)
}

// instances is the cloudprovider.InstancesV2 of nodes on vSphere.
//
// The node lifecycle controller deletes a NotReady Node as soon as InstanceExists says false, and skips it on an
// error. So false is said only when every vCenter has shown that it has no VM with the node's BIOS UUID.
type instances struct {
	vms   vmFinder
	nodes config.Nodes
}

var _ cloudprovider.InstancesV2 = (*instances)(nil)

// newInstances returns the instances that vms finds, with the node addresses that nodes selects.
func newInstances(vms vmFinder, nodes config.Nodes) *instances {
	return &instances{vms: vms, nodes: nodes}
}

// InstanceExists says whether the node's VM exists, on or off. What is not proven is an error.
func (i *instances) InstanceExists(ctx context.Context, node *corev1.Node) (bool, error) {
	_, err := i.find(ctx, node)
	if errors.Is(err, vcenter.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// InstanceShutdown says whether the node's VM exists and is off or suspended.
func (i *instances) InstanceShutdown(ctx context.Context, node *corev1.Node) (bool, error) {
	vm, err := i.find(ctx, node)
	return err == nil && !vm.PoweredOn, err
}

// InstanceMetadata returns provider id, type, addresses, zone and region. It never returns nil without an error. All
// but the addresses are applied once, when the node is initialised, so a part that cannot be had is an error, and the
// node stays uninitialised until it can.
func (i *instances) InstanceMetadata(ctx context.Context, node *corev1.Node) (*cloudprovider.InstanceMetadata, error) {
	vm, err := i.find(ctx, node)
	if err != nil {
		return nil, err
	}
	addresses, err := i.addresses(node, vm)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	located, err := i.vms.Locate(ctx, vm)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	for _, tag := range []string{located.Zone, located.Region} {
		if problems := validation.IsValidLabelValue(tag); len(problems) > 0 {
			return nil, fmt.Errorf("node %s: the zone or region tag %q of VM %s cannot be a label: %s", node.Name, tag, vm.Name, problems[0])
		}
	}
	id := node.Spec.ProviderID
	if id == "" {
		id = vcenter.ProviderID(vm.UUID)
	}
	if _, err := vcenter.ParseProviderID(id); err != nil {
		return nil, fmt.Errorf("node %s: VM %s: %w", node.Name, vm.Name, err) // never to be corrected once it is set
	}
	return &cloudprovider.InstanceMetadata{
		ProviderID:    id,
		InstanceType:  instanceType(vm),
		NodeAddresses: addresses,
		Zone:          located.Zone,
		Region:        located.Region,
	}, nil
}

// find returns the node's VM: by its provider id, else by the systemUUID that the kubelet reports, else by its name.
// Its error matches vcenter.ErrNotFound only on the proof that the VM does not exist.
func (i *instances) find(ctx context.Context, node *corev1.Node) (vcenter.VM, error) {
	vm, err := i.lookUp(ctx, node)
	if err != nil {
		return vcenter.VM{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	return vm, nil
}

func (i *instances) lookUp(ctx context.Context, node *corev1.Node) (vcenter.VM, error) {
	if id := node.Spec.ProviderID; id != "" {
		uuid, err := vcenter.ParseProviderID(id)
		if err != nil {
			return vcenter.VM{}, err
		}
		return i.vms.ByUUID(ctx, uuid)
	}
	uuid := node.Status.NodeInfo.SystemUUID
	if uuid == "" {
		vm, err := i.vms.ByName(ctx, node.Name)
		if errors.Is(err, vcenter.ErrNotFound) {
			// No proof, for a VM that is off or runs no VMware Tools reports no name to find it by. So not wrapped.
			err = fmt.Errorf("cannot tell whether its VM exists, without a provider id or systemUUID: %v", err)
		}
		return vm, err
	}
	vm, err := i.vms.ByUUID(ctx, uuid)
	if errors.Is(err, vcenter.ErrNotFound) && !uninitialized(node) {
		// No cloud provider was asked to initialise the node, and none has: it may well be a machine outside of
		// vSphere, whose absence there proves nothing. So not wrapped.
		err = fmt.Errorf("it was not started for a cloud provider: %v", err)
	}
	return vm, err
}

// uninitialized says whether the node waits for a cloud provider to initialise it.
func uninitialized(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == cloudproviderapi.TaintExternalCloudProvider
	})
}

// addresses returns the addresses of the VM as those of its Node. The address that the kubelet was started with comes
// first, and the VM must have it.
func (i *instances) addresses(node *corev1.Node, vm vcenter.VM) ([]corev1.NodeAddress, error) {
	if len(vm.Addresses) == 0 {
		return nil, fmt.Errorf("VM %s reports no usable address: is it on, with VMware Tools running?", vm.Name)
	}
	provided, annotated := node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr]
	chosen := map[netip.Addr]bool{} // by the kubelet
	if annotated {
		ips, err := nodeutil.ParseNodeIPAnnotation(provided)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", cloudproviderapi.AnnotationAlphaProvidedIPAddr, err)
		}
		for _, ip := range ips {
			addr, ok := netip.AddrFromSlice(ip)
			if addr = addr.Unmap(); !ok || !slices.Contains(vm.Addresses, addr) {
				return nil, fmt.Errorf("the kubelet was started with node IP %s, which VM %s does not report: it has %v", ip, vm.Name, vm.Addresses)
			}
			chosen[addr] = true
		}
	}

	var out []corev1.NodeAddress
	for _, addr := range vm.Addresses {
		kind := addressType(i.nodes, addr)
		if kind == "" && chosen[addr] {
			kind = corev1.NodeInternalIP
		}
		if kind != "" {
			out = append(out, corev1.NodeAddress{Type: kind, Address: addr.String()})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("none of the addresses %v of VM %s is in a configured node network", vm.Addresses, vm.Name)
	}
	// The host name goes last, and the kubelet's own is kept if VMware Tools report none.
	if vm.HostName != "" {
		out = append(out, corev1.NodeAddress{Type: corev1.NodeHostName, Address: vm.HostName})
	}
	if !annotated {
		return out, nil
	}
	return nodehelpers.GetNodeAddressesFromNodeIP(provided, out)
}

// addressType returns the type of a node's address, empty if it is in no network. Without internal networks, what is
// not external is internal.
func addressType(nodes config.Nodes, addr netip.Addr) corev1.NodeAddressType {
	in := func(networks []netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	switch {
	case in(nodes.InternalNetworks):
		return corev1.NodeInternalIP
	case in(nodes.ExternalNetworks):
		return corev1.NodeExternalIP
	case len(nodes.InternalNetworks) == 0:
		return corev1.NodeInternalIP
	}
	return ""
}

// instanceType names the size and system of a VM, as in vsphere-vm.cpu-4.mem-8gb.os-ubuntu. It is the value of a
// label.
func instanceType(vm vcenter.VM) string {
	memory := fmt.Sprintf("%dmb", vm.MemoryMB)
	if vm.MemoryMB%1024 == 0 {
		memory = fmt.Sprintf("%dgb", vm.MemoryMB/1024)
	}
	system := strings.ToLower(strings.TrimSuffix(vm.GuestID, "Guest"))
	system = strings.TrimSuffix(system, "64")
	system = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, system), "-")
	if system == "" {
		system = "unknown"
	}
	label := fmt.Sprintf("vsphere-vm.cpu-%d.mem-%s.os-%s", vm.CPUs, memory, system)
	return strings.TrimRight(label[:min(len(label), validation.LabelValueMaxLength)], "-")
}
