package vcsim

import (
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// searchIndex stands in for govmomi's SearchIndex in the searches for VMs. Like vCenter, and unlike govmomi's, it
// ignores the case of a UUID and looks only into the datacenter that it is given; and it waits while a VM is being
// created, for govmomi's simulator publishes a VM before it has finished writing it.
type searchIndex struct {
	*simulator.SearchIndex
	// inventory is the lock that is held for writing while a VM is created or destroyed.
	inventory *sync.RWMutex
}

func (s *searchIndex) FindAllByUuid(ctx *simulator.Context, req *types.FindAllByUuid) soap.HasFault {
	if !req.VmSearch {
		return s.SearchIndex.FindAllByUuid(ctx, req)
	}
	body := &methods.FindAllByUuidBody{}
	instance := req.InstanceUuid != nil && *req.InstanceUuid
	refs, fault := s.find(ctx, req.Datacenter, func(vm *simulator.VirtualMachine) bool {
		id := vm.Config.Uuid
		if instance {
			id = vm.Config.InstanceUuid
		}
		return strings.EqualFold(id, req.Uuid)
	})
	if fault != nil {
		body.Fault_ = fault
		return body
	}
	body.Res = &types.FindAllByUuidResponse{Returnval: refs}
	return body
}

func (s *searchIndex) FindByUuid(ctx *simulator.Context, req *types.FindByUuid) soap.HasFault {
	all := types.FindAllByUuid(*req)
	found := s.FindAllByUuid(ctx, &all).(*methods.FindAllByUuidBody)
	body := &methods.FindByUuidBody{Fault_: found.Fault_}
	if found.Res != nil {
		body.Res = &types.FindByUuidResponse{Returnval: first(found.Res.Returnval)}
	}
	return body
}

func (s *searchIndex) FindAllByDnsName(ctx *simulator.Context, req *types.FindAllByDnsName) soap.HasFault {
	if !req.VmSearch {
		return s.SearchIndex.FindAllByDnsName(ctx, req)
	}
	body := &methods.FindAllByDnsNameBody{}
	refs, fault := s.find(ctx, req.Datacenter, func(vm *simulator.VirtualMachine) bool {
		return vm.Guest != nil && strings.EqualFold(vm.Guest.HostName, req.DnsName)
	})
	if fault != nil {
		body.Fault_ = fault
		return body
	}
	body.Res = &types.FindAllByDnsNameResponse{Returnval: refs}
	return body
}

func (s *searchIndex) FindByDnsName(ctx *simulator.Context, req *types.FindByDnsName) soap.HasFault {
	all := types.FindAllByDnsName(*req)
	found := s.FindAllByDnsName(ctx, &all).(*methods.FindAllByDnsNameBody)
	body := &methods.FindByDnsNameBody{Fault_: found.Fault_}
	if found.Res != nil {
		body.Res = &types.FindByDnsNameResponse{Returnval: first(found.Res.Returnval)}
	}
	return body
}

// find lists the VMs that match, in a fixed order, in one datacenter or in all.
func (s *searchIndex) find(ctx *simulator.Context, dc *types.ManagedObjectReference, match func(*simulator.VirtualMachine) bool) ([]types.ManagedObjectReference, *soap.Fault) {
	if dc != nil && ctx.Map.Get(*dc) == nil {
		return nil, simulator.Fault("the datacenter is gone", &types.ManagedObjectNotFound{Obj: *dc})
	}
	s.inventory.RLock()
	defer s.inventory.RUnlock()

	var refs []types.ManagedObjectReference
	for _, entity := range ctx.Map.All("VirtualMachine") {
		vm, ok := entity.(*simulator.VirtualMachine)
		if !ok || dc != nil && !within(ctx.Map, vm, *dc) {
			continue
		}
		ctx.WithLock(vm, func() {
			if match(vm) {
				refs = append(refs, vm.Self)
			}
		})
	}
	slices.SortFunc(refs, func(a, b types.ManagedObjectReference) int { return strings.Compare(a.Value, b.Value) })
	return refs, nil
}

// within says whether an ancestor of the entity is the object ref.
func within(registry *simulator.Registry, entity mo.Entity, ref types.ManagedObjectReference) bool {
	for parent := entity.Entity().Parent; parent != nil; {
		if *parent == ref {
			return true
		}
		ancestor, ok := registry.Get(*parent).(mo.Entity)
		if !ok {
			return false
		}
		parent = ancestor.Entity().Parent
	}
	return false
}

func first(refs []types.ManagedObjectReference) *types.ManagedObjectReference {
	if len(refs) == 0 {
		return nil
	}
	return &refs[0]
}
