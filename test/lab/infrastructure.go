package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/nodeagent"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

// What NSX has. Tiny is a pool of one address, to run out of.
const (
	lbServiceName = "lab"
	PoolFloating  = "floating"
	PoolTiny      = "tiny"
)

// leaseDuration of the nodes' leases: a machine that is off is NotReady soon.
const leaseDuration = 8 * time.Second

// startNSX starts an NSX with a tier-1 router, a load balancer service on it, and two IP pools.
func (l *Lab) startNSX() error {
	o := nsxsim.Options{
		Admin:                true,
		AllowLoopbackMembers: true,
		DataPlane:            &dataplane.Options{SNATAddress: l.Block.SNAT()},
	}
	if l.options.EditNSX != nil {
		l.options.EditNSX(&o)
	}
	sim, err := nsxsim.New(o)
	if err != nil {
		return err
	}
	if err := l.furnishNSX(sim); err != nil {
		sim.Close()
		return err
	}
	server, err := sim.Listen(nsxsim.ListenOptions{})
	if err != nil {
		sim.Close()
		return err
	}
	l.NSX = server
	return os.WriteFile(l.nsxCAFile(), server.CA, 0o600)
}

func (l *Lab) furnishNSX(sim *nsxsim.Sim) error {
	tier1, err := sim.AddTier1("tier-1")
	if err != nil {
		return err
	}
	_, err1 := sim.AddLBService(lbServiceName, "LARGE", tier1.ID())
	_, err2 := sim.AddIPPool(PoolFloating, l.Block.FloatingIPs().String(),
		fmt.Sprintf("%s-%s", l.Block.FloatingIP(1), l.Block.FloatingIP(l.options.PoolSize)))
	_, err3 := sim.AddIPPool(PoolTiny, l.Block.SpareIPs().String(), fmt.Sprintf("%s-%s", l.Block.SpareIP(1), l.Block.SpareIP(1)))
	return errors.Join(err1, err2, err3)
}

// inventory is a VM for each node, dealt to the zones in turn.
func (l *Lab) inventory() vcsim.Inventory {
	var addresses [][]netip.Addr
	for i := 1; i <= l.options.Nodes; i++ {
		addresses = append(addresses, []netip.Addr{l.Block.Node(i)})
	}
	return vcsim.Generate(l.options.Zones, addresses)
}

// startVCenter starts a vCenter that has the VMs.
func (l *Lab) startVCenter(ctx context.Context) error {
	server, err := vcsim.Start(ctx, l.inventory(), vcsim.Options{})
	if err != nil {
		return err
	}
	l.VCenter = server
	return os.WriteFile(l.vcenterCAFile(), server.CA(), 0o600)
}

func (l *Lab) nsxCAFile() string     { return filepath.Join(l.Dir, "nsx-ca.pem") }
func (l *Lab) vcenterCAFile() string { return filepath.Join(l.Dir, "vcenter-ca.pem") }

// startNodes switches on the machine of each VM.
func (l *Lab) startNodes(ctx context.Context) error {
	var nodes []nodeagent.Node
	for _, vm := range l.inventory().VMs() {
		nodes = append(nodes, l.nodeOf(vm))
	}
	var err error
	l.Agent, err = nodeagent.Start(ctx, l.Client, nodes, nodeagent.Options{LeaseDuration: leaseDuration})
	return err
}

// nodeOf is the node that runs on a VM.
func (l *Lab) nodeOf(vm vcsim.VM) nodeagent.Node {
	address := vm.Addresses[0]
	return nodeagent.Node{
		Name: vm.Name, Address: address, SystemUUID: vm.UUID,
		Pods: l.Block.Pods(int(address.As4()[3])),
	}
}
