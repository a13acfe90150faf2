package cluster

import (
	"fmt"
	"net/netip"

	"github.com/google/uuid"
)

// The addresses are the same in every cluster: nothing but its own network namespaces ever sees them.
//
//	outside client ── 198.51.100.0/24 ── edge ── 10.200.0.0/24 ── control plane, nodes ── pods of 10.244.i.0/24
//	                                      │
//	                                      └ floating IPs, 203.0.113.0/24
//
// The client is outside the /16 of the nodes, as Kubernetes' own tests of source addresses want it.
var (
	lan         = netip.MustParsePrefix("10.200.0.0/24")
	outside     = netip.MustParsePrefix("198.51.100.0/24")
	floatingIPs = netip.MustParsePrefix("203.0.113.0/24")
	pods        = netip.MustParsePrefix("10.244.0.0/16")
	clusterIPs  = netip.MustParsePrefix("10.96.0.0/16")

	edgeOnLAN     = netip.MustParseAddr("10.200.0.1")
	controlPlane  = netip.MustParseAddr("10.200.0.2")
	snatAddress   = netip.MustParseAddr("10.200.0.3") // of the edge, too: what pods see when the edge hides a client
	edgeOnOutside = netip.MustParseAddr("198.51.100.1")
	clusterDNS    = netip.MustParseAddr("10.96.0.10")
)

// Ports of what the cluster's own parts serve.
const (
	apiServerPort = 6443
	nsxPort       = 443 // of the edge
	vCenterPort   = 443 // of the control plane's machine
)

// How many there can be.
const (
	MaxNodes = 9
	// Clients is the number of addresses of the outside client, for who asks as several.
	Clients = 4
)

// Topology is the plan of a cluster: what its machines are called and which addresses they have. Machines are network
// namespaces; the number tells clusters that run at the same time apart.
type Topology struct {
	Number int
	Nodes  int
}

// Place is a machine of the cluster, from which traffic can come: the name of its network namespace.
type Place string

func (t Topology) place(name string) Place { return Place(t.prefix() + name) }

// prefix begins the names of everything that the kernel keeps for this cluster: network namespaces and cgroups.
func (t Topology) prefix() string { return fmt.Sprintf("%s%d-", namePrefix, t.Number) }

// namePrefix begins the names of all clusters.
const namePrefix = "nsxt-e2e-"

// Edge is NSX's edge: it routes between the nodes and the outside, and has the floating IPs.
func (t Topology) Edge() Place { return t.place("edge") }

// ControlPlane is the machine of the API server, CoreDNS and vCenter.
func (t Topology) ControlPlane() Place { return t.place("cp") }

// Client is the machine outside, beyond the edge.
func (t Topology) Client() Place { return t.place("client") }

// Node is the i-th node, from 1.
func (t Topology) Node(i int) Place { return t.place(t.NodeName(i)) }

// Places are all machines.
func (t Topology) Places() []Place {
	places := []Place{t.Edge(), t.ControlPlane(), t.Client()}
	for i := 1; i <= t.Nodes; i++ {
		places = append(places, t.Node(i))
	}
	return places
}

// NodeName is the name of the i-th node's Node and VM.
func (t Topology) NodeName(i int) string { return fmt.Sprintf("node-%d", i) }

// NodeAddress is the i-th node's address.
func (t Topology) NodeAddress(i int) netip.Addr { return host(lan, 10+i) }

// NodeUUID is what the i-th node's machine and VM have as BIOS UUID.
func (t Topology) NodeUUID(i int) string {
	return uuid.NewSHA1(uuid.NameSpaceDNS, []byte(string(t.Node(i)))).String()
}

// NodePods is the prefix of the pods of the i-th node.
func (t Topology) NodePods(i int) netip.Prefix {
	a := pods.Addr().As4()
	a[2] = byte(i)
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// ClientAddress is the i-th address of the client, from 1 to Clients.
func (t Topology) ClientAddress(i int) netip.Addr { return host(outside, 9+i) }

// FloatingIPs is the prefix of all floating IPs.
func (t Topology) FloatingIPs() netip.Prefix { return floatingIPs }

// SNATAddress is what a node sees in place of a client's address when NSX translates it.
func (t Topology) SNATAddress() netip.Addr { return snatAddress }

// host is the i-th address of a prefix of 24 bits.
func host(p netip.Prefix, i int) netip.Addr {
	a := p.Addr().As4()
	a[3] = byte(i)
	return netip.AddrFrom4(a)
}
