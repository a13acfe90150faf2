package vcsim

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/uuid"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Inventory is what a vCenter holds. The zero values of VM are filled in when it is parsed or started.
type Inventory struct {
	Datacenters []Datacenter `json:"datacenters"`
}

// Datacenter is a datacenter and its clusters.
type Datacenter struct {
	Name string `json:"name"`
	// Tags maps the name of a tag category to the tag attached to the datacenter: "k8s-region" to "region-1".
	Tags     map[string]string `json:"tags,omitempty"`
	Clusters []Cluster         `json:"clusters,omitempty"`
}

// Cluster is a vSphere cluster and its hosts.
type Cluster struct {
	Name  string            `json:"name"`
	Tags  map[string]string `json:"tags,omitempty"`
	Hosts []Host            `json:"hosts,omitempty"`
}

// Host is an ESXi host and the VMs that run on it. Its name is unique in the vCenter.
type Host struct {
	Name string            `json:"name"`
	Tags map[string]string `json:"tags,omitempty"`
	VMs  []VM              `json:"vms,omitempty"`
}

// VM is the virtual machine of a node. Its name is unique in the vCenter.
type VM struct {
	Name string            `json:"name"`
	Tags map[string]string `json:"tags,omitempty"`
	// UUID is the BIOS UUID, which the kubelet reports as the node's systemUUID. The default is derived from
	// the name, so it is the same at every start.
	UUID string `json:"uuid,omitempty"`
	// HostName is the DNS name that VMware Tools report. The default is Name.
	HostName string `json:"hostName,omitempty"`
	// Addresses are what VMware Tools report while the VM is on, each on a network adapter of its own.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// PoweredOff is true for a VM that is switched off.
	PoweredOff bool `json:"poweredOff,omitempty"`
	// CPUs defaults to 2.
	CPUs int32 `json:"cpus,omitempty"`
	// MemoryMB defaults to 4096.
	MemoryMB int64 `json:"memoryMB,omitempty"`
	// GuestID is a vSphere guest operating system identifier. The default is ubuntu64Guest.
	GuestID string `json:"guestID,omitempty"`
}

// Load reads an inventory from a YAML file.
func Load(file string) (Inventory, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Inventory{}, fmt.Errorf("vCenter inventory: %w", err)
	}
	inv, err := Parse(data)
	if err != nil {
		return Inventory{}, fmt.Errorf("%s: %w", file, err)
	}
	return inv, nil
}

// Parse reads an inventory from YAML, fills in the defaults and validates it. A key that is not known is an
// error, because a misspelt key would silently give another inventory.
func Parse(data []byte) (Inventory, error) {
	document, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return Inventory{}, fmt.Errorf("vCenter inventory: %w", err)
	}
	var inv Inventory
	strict, err := json.UnmarshalStrict(document, &inv)
	if err := errors.Join(append(strict, err)...); err != nil {
		return Inventory{}, fmt.Errorf("vCenter inventory: %w", err)
	}
	return inv.complete()
}

// Generate makes the inventory of a cluster with one node for each list of addresses: node-1, node-2 and so on,
// dealt in turn to the zones zone-1, zone-2 and so on of region-1. A zone is a cluster with one host, esx-1 and
// so on; the region is the datacenter dc-1.
func Generate(zones int, addresses [][]netip.Addr) Inventory {
	zones = max(1, zones)
	dc := Datacenter{Name: "dc-1", Tags: map[string]string{"k8s-region": "region-1"}}
	for z := range zones {
		cluster := Cluster{
			Name:  fmt.Sprintf("cluster-%d", z+1),
			Tags:  map[string]string{"k8s-zone": fmt.Sprintf("zone-%d", z+1)},
			Hosts: []Host{{Name: fmt.Sprintf("esx-%d", z+1)}},
		}
		for n := z; n < len(addresses); n += zones {
			vm := VM{Name: fmt.Sprintf("node-%d", n+1), Addresses: addresses[n]}
			cluster.Hosts[0].VMs = append(cluster.Hosts[0].VMs, vm.withDefaults())
		}
		dc.Clusters = append(dc.Clusters, cluster)
	}
	return Inventory{Datacenters: []Datacenter{dc}}
}

// VMs lists all VMs, in the order of the inventory.
func (inv Inventory) VMs() []VM {
	var vms []VM
	for _, dc := range inv.Datacenters {
		for _, cluster := range dc.Clusters {
			for _, host := range cluster.Hosts {
				vms = append(vms, host.VMs...)
			}
		}
	}
	return vms
}

func (vm VM) withDefaults() VM {
	if vm.UUID == "" {
		vm.UUID = uuid.NewSHA1(uuid.NameSpaceDNS, []byte(vm.Name)).String()
	}
	if vm.HostName == "" {
		vm.HostName = vm.Name
	}
	if vm.CPUs == 0 {
		vm.CPUs = 2
	}
	if vm.MemoryMB == 0 {
		vm.MemoryMB = 4096
	}
	if vm.GuestID == "" {
		vm.GuestID = "ubuntu64Guest"
	}
	return vm
}

// complete returns a copy with the defaults filled in, or all that is wrong with the inventory.
func (inv Inventory) complete() (Inventory, error) {
	var errs []error
	seen := map[string]string{}
	unique := func(path, kind, scope, value string) {
		key := kind + "\x00" + scope + "\x00" + value
		switch first, again := seen[key]; {
		case value == "":
			errs = append(errs, fmt.Errorf("%s: the %s is empty", path, kind))
		case again:
			errs = append(errs, fmt.Errorf("%s: %s %q is already used by %s", path, kind, value, first))
		default:
			seen[key] = path
		}
	}

	out := Inventory{}
	for d, dc := range inv.Datacenters {
		dcPath := fmt.Sprintf("datacenters[%d]", d)
		unique(dcPath, "datacenter name", "", dc.Name)
		dc.Clusters = append([]Cluster(nil), dc.Clusters...)
		for c, cluster := range dc.Clusters {
			clusterPath := fmt.Sprintf("%s.clusters[%d]", dcPath, c)
			unique(clusterPath, "cluster name", dc.Name, cluster.Name)
			cluster.Hosts = append([]Host(nil), cluster.Hosts...)
			for h, host := range cluster.Hosts {
				hostPath := fmt.Sprintf("%s.hosts[%d]", clusterPath, h)
				unique(hostPath, "host name", "", host.Name)
				host.VMs = append([]VM(nil), host.VMs...)
				for v, vm := range host.VMs {
					vmPath := fmt.Sprintf("%s.vms[%d]", hostPath, v)
					unique(vmPath, "VM name", "", vm.Name)
					vm = vm.withDefaults()
					id, err := uuid.Parse(vm.UUID)
					if err != nil {
						errs = append(errs, fmt.Errorf("%s: BIOS UUID %q: %w", vmPath, vm.UUID, err))
					}
					vm.UUID = strings.ToLower(id.String())
					unique(vmPath, "BIOS UUID", "", vm.UUID)
					for _, addr := range vm.Addresses {
						unique(vmPath, "address", "", addr.String())
					}
					host.VMs[v] = vm
				}
				cluster.Hosts[h] = host
			}
			dc.Clusters[c] = cluster
		}
		out.Datacenters = append(out.Datacenters, dc)
	}
	if len(errs) > 0 {
		return Inventory{}, fmt.Errorf("vCenter inventory: %w", errors.Join(errs...))
	}
	return out, nil
}
