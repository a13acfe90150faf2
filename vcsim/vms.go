package vcsim

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// firstNIC is the device key of a VM's first network adapter.
const firstNIC = 4000

// machine is what a VM's own state says of it.
type machine struct {
	ref       types.ManagedObjectReference
	hostName  string
	addresses []netip.Addr
	on        bool
}

// update makes vCenter see the machine as it is.
func (m *machine) update(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	addresses := m.addresses
	if !m.on {
		addresses = nil
	}
	ctx.WithLock(vm, func() { ctx.Update(vm, append(power(m.on), guest(m.hostName, addresses)...)) })
}

// AddVM creates a VM on the named host, without tags. Its UUID and addresses may be those of another VM, as after a
// careless copy in vCenter, but its name may not.
func (s *Server) AddVM(host string, vm VM) error {
	if len(vm.Tags) > 0 {
		return fmt.Errorf("vCenter simulator: VM %s: tags are attached at the start only", vm.Name)
	}
	return s.createVMs(host, []VM{vm.withDefaults()})
}

// RemoveVM destroys a VM, whether it is on or off.
func (s *Server) RemoveVM(name string) error {
	return s.change(name, func(ctx *simulator.Context, vm *simulator.VirtualMachine, _ *machine) error {
		var unregister soap.HasFault
		ctx.WithLock(vm, func() {
			ctx.Update(vm, power(false))
			// Clients cannot tell this from Destroy, which in the simulator deletes the files in a task that nobody
			// can wait for, and that races with what comes next. They stay until Close.
			unregister = vm.UnregisterVM(ctx, &types.UnregisterVM{This: vm.Self})
		})
		if unregister.Fault() != nil {
			return errors.New(faultText(unregister))
		}
		delete(s.vms, name)
		return nil
	})
}

// SetPower switches a VM on or off. Switched off it keeps its host name and reports no address, because its VMware
// Tools no longer run.
func (s *Server) SetPower(name string, on bool) error {
	return s.change(name, func(ctx *simulator.Context, vm *simulator.VirtualMachine, m *machine) error {
		m.on = on
		m.update(ctx, vm)
		return nil
	})
}

// SetAddresses changes what VMware Tools report while the VM is on, each address on a network adapter of its own.
func (s *Server) SetAddresses(name string, addresses ...netip.Addr) error {
	return s.change(name, func(ctx *simulator.Context, vm *simulator.VirtualMachine, m *machine) error {
		m.addresses = addresses
		m.update(ctx, vm)
		return nil
	})
}

func (s *Server) change(name string, f func(*simulator.Context, *simulator.VirtualMachine, *machine) error) error {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	m, ok := s.vms[name]
	if !ok {
		return fmt.Errorf("vCenter simulator: no VM is named %q", name)
	}
	vm, err := object[*simulator.VirtualMachine](s, m.ref)
	if err == nil {
		err = f(s.context(), vm, m)
	}
	if err != nil {
		return fmt.Errorf("vCenter simulator: VM %s: %w", name, err)
	}
	return nil
}

// createVMs creates VMs on a host. It starts all tasks before it waits for the first, because the simulator polls
// for the end of a task in steps of 10 ms.
func (s *Server) createVMs(host string, vms []VM) error {
	s.inventory.Lock()
	defer s.inventory.Unlock()
	at, ok := s.hosts[host]
	if !ok {
		return fmt.Errorf("vCenter simulator: no host is named %q", host)
	}
	folder, err := object[*simulator.Folder](s, at.folder)
	if err != nil {
		return err
	}
	tasks := make([]types.ManagedObjectReference, len(vms))
	for i, vm := range vms {
		if _, taken := s.vms[vm.Name]; taken {
			return fmt.Errorf("vCenter simulator: a VM is already named %q", vm.Name)
		}
		create := folder.CreateVMTask(s.context(), &types.CreateVM_Task{
			This: folder.Self,
			Pool: at.pool,
			Host: &at.host,
			Config: types.VirtualMachineConfigSpec{
				Name:     vm.Name,
				Uuid:     vm.UUID,
				NumCPUs:  vm.CPUs,
				MemoryMB: vm.MemoryMB,
				GuestId:  vm.GuestID,
				Files:    &types.VirtualMachineFileInfo{VmPathName: "[" + datastore + "]"},
			},
		}).(*methods.CreateVM_TaskBody)
		if create.Fault_ != nil {
			return fmt.Errorf("vCenter simulator: create VM %s: %s", vm.Name, faultText(create))
		}
		tasks[i] = create.Res.Returnval
	}
	for i, vm := range vms {
		result, err := s.wait(tasks[i])
		if err != nil {
			return fmt.Errorf("vCenter simulator: create VM %s: %w", vm.Name, err)
		}
		ref, ok := result.(types.ManagedObjectReference)
		if !ok {
			return fmt.Errorf("vCenter simulator: create VM %s: the task returned a %T", vm.Name, result)
		}
		created, err := object[*simulator.VirtualMachine](s, ref)
		if err != nil {
			return fmt.Errorf("vCenter simulator: create VM %s: %w", vm.Name, err)
		}
		m := &machine{ref: ref, hostName: vm.HostName, addresses: vm.Addresses, on: !vm.PoweredOff}
		m.update(s.context(), created)
		s.vms[vm.Name] = m
	}
	return nil
}

// power is the change of a VM's properties when it is switched on or off.
func power(on bool) []types.PropertyChange {
	state, tools := types.VirtualMachinePowerStatePoweredOff, types.VirtualMachineToolsRunningStatusGuestToolsNotRunning
	if on {
		state, tools = types.VirtualMachinePowerStatePoweredOn, types.VirtualMachineToolsRunningStatusGuestToolsRunning
	}
	return []types.PropertyChange{
		{Name: "runtime.powerState", Val: state},
		{Name: "summary.runtime.powerState", Val: state},
		{Name: "guest.toolsRunningStatus", Val: string(tools)},
		{Name: "summary.guest.toolsRunningStatus", Val: string(tools)},
	}
}

// guest is the change of a VM's properties when VMware Tools report.
func guest(hostName string, addresses []netip.Addr) []types.PropertyChange {
	nics := make([]types.GuestNicInfo, len(addresses))
	primary := ""
	for i, addr := range addresses {
		text := addr.String()
		if primary == "" {
			primary = text
		}
		nics[i] = types.GuestNicInfo{
			Network:        "VM Network",
			IpAddress:      []string{text},
			Connected:      true,
			DeviceConfigId: int32(firstNIC + i),
			IpConfig: &types.NetIpConfigInfo{IpAddress: []types.NetIpConfigInfoIpAddress{{
				IpAddress:    text,
				PrefixLength: int32(addr.BitLen()),
				State:        string(types.NetIpConfigInfoIpAddressStatusPreferred),
			}}},
		}
	}
	return []types.PropertyChange{
		{Name: "guest.hostName", Val: hostName},
		{Name: "summary.guest.hostName", Val: hostName},
		{Name: "guest.ipAddress", Val: primary},
		{Name: "summary.guest.ipAddress", Val: primary},
		{Name: "guest.net", Val: nics},
	}
}
