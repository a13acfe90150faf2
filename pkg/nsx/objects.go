package nsx

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// MaxPorts is how many ports one virtual server can carry: NSX allows 14 items in default_pool_member_ports.
const MaxPorts = 14

// The scopes of the tags that say whose an object is. Ownership is TagClusterUID with TagServiceUID, never a name.
const (
	// TagCluster carries the cluster's name, for people.
	TagCluster = "nsxt.io/cluster"
	// TagClusterUID carries the UID of the cluster's kube-system namespace, or the configured cluster id.
	TagClusterUID = "nsxt.io/cluster-uid"
	// TagServiceUID carries the UID of the Service that an object serves.
	TagServiceUID = "nsxt.io/service-uid"
	// TagService carries the Service's namespace/name, for people.
	TagService = "nsxt.io/service"
	// TagClass carries the load-balancer class, on virtual servers.
	TagClass = "nsxt.io/class"
	// TagIPPool carries the NSX id of the IP pool that a virtual server's address came from.
	TagIPPool = "nsxt.io/ip-pool"
	// TagShared marks an object that serves the whole cluster, with what it is as its value: see Pool.Key.
	TagShared = "nsxt.io/shared"
)

// Protocol is the transport protocol of a virtual server, as NSX and Kubernetes both write it.
type Protocol string

// The protocols that an L4 virtual server can have. One virtual server never has both.
const (
	TCP Protocol = "TCP"
	UDP Protocol = "UDP"
)

// Family is an IP family, as Kubernetes writes it.
type Family string

// The IP families.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// FamilyOf is the family of an address; IPv4-mapped addresses are IPv4.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// Owner says which Service an object serves.
type Owner struct {
	// UID is the Service's UID: its identity.
	UID string
	// Name is namespace/name, for people.
	Name string
}

func (o Owner) String() string { return o.Name }

// PortMap sends one port of a virtual server to one node port.
type PortMap struct{ Port, NodePort uint16 }

func (p PortMap) String() string { return fmt.Sprintf("%d->%d", p.Port, p.NodePort) }

// SNAT says whose address a node sees as the source of a connection.
type SNAT string

const (
	// AutoMap: an address of the load balancer (LbSnatAutoMap).
	AutoMap SNAT = "AutoMap"
	// Transparent: the client's own address; NSX needs to be on the way back, so one-arm services cannot do it.
	Transparent SNAT = "Transparent"
)

// Monitor is an active HTTP health check of pool members.
type Monitor struct {
	// Port that is probed on each node, and the path of the GET.
	Port uint16
	Path string
	// Interval between probes and Timeout of one; NSX counts both in whole seconds.
	Interval, Timeout time.Duration
	// Fall and Rise: so many probes in a row make a member DOWN, or UP.
	Fall, Rise int
}

func (m Monitor) String() string {
	return fmt.Sprintf("GET :%d%s every %v, timeout %v, fall %d, rise %d", m.Port, m.Path, m.Interval, m.Timeout, m.Fall, m.Rise)
}

// Pool is the backend side of a virtual server: the cluster's nodes, how they are chosen and probed.
type Pool struct {
	Family    Family
	SNAT      SNAT
	Algorithm string
	// Monitor is nil when the class asks for no health check.
	Monitor *Monitor
	// PerService pools serve one Service alone (policy Local): their members are the node group. The others are shared
	// by the whole cluster and hold the nodes as members.
	PerService bool
	// MaxNodes bounds the members taken from the node group (max_ip_list_size); 0 for shared pools.
	MaxNodes int
}

// Key names a pool by what it is: two pools with the same key can serve each other's virtual servers. It is the value of
// TagShared on a shared pool, so it must stay the same from release to release.
func (p Pool) Key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pool %s %s %s", p.Family, p.SNAT, p.Algorithm)
	if p.PerService {
		fmt.Fprintf(&b, " group<=%d", p.MaxNodes)
	}
	if p.Monitor == nil {
		b.WriteString(" unmonitored")
	} else {
		fmt.Fprintf(&b, " GET:%d%s/%d/%d/%d/%d", p.Monitor.Port, p.Monitor.Path, int(p.Monitor.Interval.Seconds()),
			int(p.Monitor.Timeout.Seconds()), p.Monitor.Fall, p.Monitor.Rise)
	}
	return b.String()
}

func (p Pool) String() string {
	who := "shared node pool"
	if p.PerService {
		who = "pool of its own"
	}
	check := "no monitor"
	if p.Monitor != nil {
		check = p.Monitor.String()
	}
	return fmt.Sprintf("%s %s, %s, %s, %s", p.Family, who, p.SNAT, p.Algorithm, check)
}

// Equal tells whether two pools are the same in everything that NSX sees.
func (p Pool) Equal(q Pool) bool { return p.PerService == q.PerService && p.Key() == q.Key() }

// VirtualServer is one virtual server as it should be: one family, one protocol, up to MaxPorts ports.
type VirtualServer struct {
	// ID of the virtual server in NSX; empty for one that is yet to be made.
	ID       string
	Protocol Protocol
	// Address it listens on and the NSX id of the IP pool that the address comes from.
	Address netip.Addr
	IPPool  string
	// Ports in ascending order of Port.
	Ports []PortMap
	Class string
	// LBService is the load-balancer service that it is (to be) attached to: an NSX id, or for one that the controller has
	// yet to make the LBService.Key of a tier-1 gateway.
	LBService string
	// ApplicationProfile is an NSX id: see Inventory.ApplicationProfile for names.
	ApplicationProfile string
	// Affinity is how long a client's address sticks to a node; 0 for none.
	Affinity time.Duration
	// Sources are the clients that are let in.
	Sources Sources
	Pool    Pool
}

// Family of the virtual server's address.
func (v VirtualServer) Family() Family { return FamilyOf(v.Address) }

func (v VirtualServer) String() string {
	ports := make([]string, len(v.Ports))
	for i, p := range v.Ports {
		ports[i] = p.String()
	}
	s := fmt.Sprintf("%s %s %s", v.Address, v.Protocol, strings.Join(ports, ","))
	if v.ID != "" {
		s = v.ID + " " + s
	}
	return s
}

// ComparePorts orders port maps by port.
func ComparePorts(a, b PortMap) int { return cmp.Compare(a.Port, b.Port) }

// AdminState is what a pool does with a member.
type AdminState string

const (
	// Enabled members get connections.
	Enabled AdminState = "ENABLED"
	// GracefulDisabled members keep the connections and persisted clients they have, and get no new ones.
	GracefulDisabled AdminState = "GRACEFUL_DISABLED"
)

// Node is a member of the cluster's node pools.
type Node struct {
	Name string
	// Addresses, at most one of each family.
	Addresses []netip.Addr
	State     AdminState
	// InGroup says whether the node is also in the node group of policy-Local pools, where a member cannot drain: a node
	// leaves the group only after a drain time.
	InGroup bool
}

// Address is the node's address of that family; the zero Addr when it has none.
func (n Node) Address(f Family) netip.Addr {
	i := slices.IndexFunc(n.Addresses, func(a netip.Addr) bool { return FamilyOf(a) == f })
	if i < 0 {
		return netip.Addr{}
	}
	return n.Addresses[i]
}
