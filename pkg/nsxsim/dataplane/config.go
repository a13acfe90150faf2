package dataplane

import (
	"net/netip"
	"time"
)

// Config is the full desired state of a Plane. What it does not name does not exist.
type Config struct {
	// VirtualServers in the order in which Status reports them. Ids are unique.
	VirtualServers []VirtualServer
}

// Protocol of a virtual server, as in LbVirtualServer.ip_protocol: one of the two, never both.
type Protocol string

// Protocols.
const (
	TCP Protocol = "TCP"
	UDP Protocol = "UDP"
)

// VirtualServer is one address and protocol with its ports, and the pool that serves them.
type VirtualServer struct {
	ID       string
	Address  netip.Addr
	Protocol Protocol
	Ports    []PortMap
	// Pool may be shared: virtual servers whose pools have the same ID share its members, their health and
	// their counters, and must give equal contents. Members of another IP version than Address are not used.
	// Nil: every connection is reset, every datagram dropped.
	Pool *Pool
	// SorryPool serves where no member of Pool can. Nil: there is none.
	SorryPool *Pool
	// Persistence by source address, shared by all ports of the virtual server; nil: none.
	Persistence *Persistence
	// HTTP makes a TCP virtual server one of layer 7, which understands the requests that it passes on; nil: layer 4.
	HTTP *HTTP
	// Access by client address; nil: everybody.
	Access *Access
	// MaxConnections (TCP connections or UDP flows) at once; further ones are reset or dropped. 0: no limit.
	MaxConnections int
	// MaxConnectionRate is the limit of new connections or flows a second. 0: no limit.
	MaxConnectionRate int
	// IdleTimeout after which a connection is reset or a flow forgotten. 0: NSX's defaults, 1800 s for TCP
	// (LbFastTcpProfile) and 300 s for UDP (LbFastUdpProfile).
	IdleTimeout time.Duration
	// Disabled: no listeners; the state is DISABLED. TCP connections that there are live on.
	Disabled bool
	// Offloaded: somebody else carries the traffic, so that there are no listeners. Its pool is checked all the same, and
	// its state is the pool's.
	Offloaded bool
}

// PortMap is a port of a virtual server and the port of the members that serves it (the position-wise pair of
// LbVirtualServer.ports and default_pool_member_ports).
type PortMap struct {
	Listen uint16
	// Member is used for members that have no port of their own; 0: the Listen port.
	Member uint16
}

// Persistence ties a client's address to a member, as LbSourceIpPersistenceProfile does.
type Persistence struct {
	// Timeout after the client's last connection ended. 0: 300 s.
	Timeout time.Duration
	// Shared is the name of a table that all virtual servers with that name have in common; "": one of its own.
	Shared string
	// NoPurge: while the table is full, new clients are not tied, instead of those that would expire first let go.
	NoPurge bool
}

// Access lets clients in or keeps them out by address, as access_list_control does when their connections or flows
// begin. What was let in before an Access forbade it lives on. NSX drops what it keeps out; a Plane that accepts
// TCP connections before it can look at them resets them.
type Access struct {
	Action AccessAction
	// Prefixes the action applies to; all other clients get the opposite. With none, ALLOW lets nobody in.
	Prefixes []netip.Prefix
}

// AccessAction is what happens to the clients that an Access names.
type AccessAction string

// Access actions.
const (
	Allow AccessAction = "ALLOW"
	Drop  AccessAction = "DROP"
)

// Algorithm by which a pool distributes new connections and flows. The names are those of LbPool.algorithm.
type Algorithm = string

// Algorithms. The empty Algorithm is ROUND_ROBIN.
const (
	RoundRobin              Algorithm = "ROUND_ROBIN"
	WeightedRoundRobin      Algorithm = "WEIGHTED_ROUND_ROBIN"
	LeastConnection         Algorithm = "LEAST_CONNECTION"
	WeightedLeastConnection Algorithm = "WEIGHTED_LEAST_CONNECTION"
	IPHash                  Algorithm = "IP_HASH"
)

// SNAT says with which source address members see a client.
type SNAT string

// SNAT modes. The empty SNAT is AutoMap.
const (
	// AutoMap: the load balancer's own address, Options.SNATAddress.
	AutoMap SNAT = "AutoMap"
	// Transparent: the client's address, with a port of the load balancer's. Where the host cannot send from
	// the client's address the connection is made as with AutoMap, and the pool's status says so.
	Transparent SNAT = "Transparent"
)

// Pool is a set of members and the way to check and use them.
type Pool struct {
	ID        string
	Algorithm Algorithm
	Members   []Member
	// Monitors must all succeed for a member to be UP; a pool without monitors takes its members as UP.
	Monitors []Monitor
	// Passive, when set, takes members that fail clients' connections for DOWN.
	Passive *Passive
	SNAT    SNAT
	// SNATAddresses take the place of the load balancer's own address with AutoMap, as LbSnatIpPool has it. A Plane of
	// this package, which may not have them, uses its own all the same.
	SNATAddresses []netip.Prefix
	// MinActiveMembers is the number of primary members that must be UP; with fewer, backup members serve,
	// if any is UP. 0: 1.
	MinActiveMembers int
}

// Passive is a passive monitor, as LbPassiveMonitor has it: it sends no probes.
type Passive struct {
	MaxFails int           // connections in a row that fail and make a member DOWN; 0: 5
	Timeout  time.Duration // for which it is DOWN, until it is tried again; 0: 5 s
}

// AdminState is what the administrator wants of a member.
type AdminState string

// Admin states. The empty AdminState is ENABLED.
const (
	Enabled          AdminState = "ENABLED"
	Disabled         AdminState = "DISABLED"
	GracefulDisabled AdminState = "GRACEFUL_DISABLED"
)

// Member is a server of a pool. Address and Port together identify it within the pool.
type Member struct {
	Address netip.Addr
	// Port of the member; 0: the member port of the virtual server's PortMap.
	Port       uint16
	Weight     int // for the weighted algorithms; 0: 1
	AdminState AdminState
	// Backup members serve only while fewer than MinActiveMembers primary ones are UP.
	Backup bool
	// MaxConnections at once, after which the member is passed over. 0: no limit.
	MaxConnections int
}

// MonitorType says how a monitor probes. The names are NSX's, without the "Lb...Monitor" around them.
type MonitorType = string

// Monitor types.
const (
	MonitorHTTP  MonitorType = "HTTP"
	MonitorHTTPS MonitorType = "HTTPS"
	MonitorTCP   MonitorType = "TCP" // succeeds on connect, or when what is answered to Send contains Receive
	MonitorUDP   MonitorType = "UDP" // sends Send and expects an answer that contains Receive
	// MonitorICMP sends echo requests. A host that allows neither ping sockets nor raw ones cannot: then it counts
	// as a success, and the pool's status says so.
	MonitorICMP MonitorType = "ICMP"
)

// Monitor is an active health check. Zero values stand for the defaults of NSX.
type Monitor struct {
	ID   string // unique in its pool
	Type MonitorType
	// Port to probe; 0: the member's own port. Without that either, all probes but ICMP's fail, as in NSX.
	Port     uint16
	Interval time.Duration // from the start of a probe to the start of the next; 0: 5 s
	Timeout  time.Duration // of one probe; 0: 15 s
	Fall     int           // failures in a row that make a member DOWN; 0: 3
	Rise     int           // successes in a row that make a member UP again; 0: 3

	// HTTP and HTTPS. Redirects are not followed.
	Version      HTTPVersion       // "": HTTP11
	Method       string            // "": GET
	URL          string            // path and query; "": "/"
	Headers      map[string]string // "Host" sets the request's host
	Body         string            // of the request
	StatusCodes  []int             // that count as success; empty: 200
	ResponseBody string            // that the response must contain, within its first 64 KiB; "": anything
	TLS          *TLS              // of HTTPS; nil: any certificate is taken, NSX's default

	// TCP and UDP. Receive may be anywhere in the answer.
	Send    string
	Receive string

	DataLength int // of ICMP: bytes of data in the echo request
}
