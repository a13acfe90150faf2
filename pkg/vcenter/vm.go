package vcenter

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// VM is a virtual machine as vCenter reported it.
type VM struct {
	// UUID is the BIOS UUID that vCenter shows, in lower case.
	UUID string
	// Name is the name in vCenter's inventory, HostName the DNS name that VMware Tools report.
	Name, HostName string
	// Addresses are what VMware Tools report of the VM's connected network adapters, without link-local ones:
	// by adapter, IPv4 first, the primary address before the others. It is empty while the VM is off.
	Addresses []netip.Addr
	// PoweredOn is false for a VM that is off or suspended.
	PoweredOn bool
	// CPUs is the number of virtual CPUs, MemoryMB the memory in MiB.
	CPUs, MemoryMB int
	// GuestID is the configured guest operating system, such as ubuntu64Guest.
	GuestID string
	// Zone and Region are set by Locate, each empty if no tag says it.
	Zone, Region string
	// VCenter is the host name of the vCenter that has the VM.
	VCenter string

	server *server
	ref    types.ManagedObjectReference
	host   *types.ManagedObjectReference
}

// vmProperties are the properties that newVM reads. They are in the VM's summary where possible, because its
// configuration is unset while its datastore is not accessible.
var vmProperties = []string{
	"name", "summary.config.uuid", "summary.config.numCpu", "summary.config.memorySizeMB", "summary.config.guestId",
	"runtime.powerState", "runtime.host", "guest.hostName", "guest.ipAddress", "guest.net",
}

func newVM(s *server, vm mo.VirtualMachine) VM {
	out := VM{
		UUID:      strings.ToLower(vm.Summary.Config.Uuid),
		Name:      vm.Name,
		PoweredOn: vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn,
		CPUs:      int(vm.Summary.Config.NumCpu),
		MemoryMB:  int(vm.Summary.Config.MemorySizeMB),
		GuestID:   vm.Summary.Config.GuestId,
		VCenter:   s.name,
		server:    s,
		ref:       vm.Self,
		host:      vm.Runtime.Host,
	}
	if vm.Guest != nil {
		out.HostName = vm.Guest.HostName
		out.Addresses = addresses(*vm.Guest, s.opts.AllowLoopback)
	}
	return out
}

// addresses lists the usable addresses of the guest in an order that does not depend on the order of the report.
func addresses(guest types.GuestInfo, allowLoopback bool) []netip.Addr {
	type reported struct {
		nic     int32
		addr    netip.Addr
		primary bool
	}
	var all []reported
	for _, nic := range guest.Net {
		// A negative key marks an interface that exists in the guest only, such as the bridge of a container
		// network: its addresses are the same on every node.
		if nic.DeviceConfigId < 0 || !nic.Connected {
			continue
		}
		for _, text := range nic.IpAddress {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			addr = addr.Unmap().WithZone("")
			if usable(addr, allowLoopback) && !unready(nic.IpConfig, text) {
				all = append(all, reported{nic.DeviceConfigId, addr, text == guest.IpAddress})
			}
		}
	}
	slices.SortFunc(all, func(a, b reported) int {
		return cmp.Or(
			cmp.Compare(a.nic, b.nic),
			cmp.Compare(a.addr.BitLen(), b.addr.BitLen()),
			-cmp.Compare(rank(a.primary), rank(b.primary)),
			a.addr.Compare(b.addr),
		)
	})
	var out []netip.Addr
	for _, r := range all {
		if !slices.Contains(out, r.addr) {
			out = append(out, r.addr)
		}
	}
	return out
}

func rank(primary bool) int {
	if primary {
		return 1
	}
	return 0
}

func usable(addr netip.Addr, allowLoopback bool) bool {
	if addr.IsLoopback() {
		return allowLoopback
	}
	return !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLinkLocalUnicast()
}

// unready says whether the guest itself does not use the address, for instance because another machine has it.
func unready(config *types.NetIpConfigInfo, address string) bool {
	if config == nil {
		return false
	}
	for _, ip := range config.IpAddress {
		if ip.IpAddress != address {
			continue
		}
		switch types.NetIpConfigInfoIpAddressStatus(ip.State) {
		case types.NetIpConfigInfoIpAddressStatusDuplicate, types.NetIpConfigInfoIpAddressStatusInvalid,
			types.NetIpConfigInfoIpAddressStatusInaccessible, types.NetIpConfigInfoIpAddressStatusTentative:
			return true
		}
	}
	return false
}
