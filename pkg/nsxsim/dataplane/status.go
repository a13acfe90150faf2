package dataplane

import (
	"net/netip"
	"time"
)

// State of a virtual server, pool or member, in NSX's words.
type State string

// States.
const (
	StateUp               State = "UP"
	StatePartiallyUp      State = "PARTIALLY_UP"      // virtual server, pool: some, not all primary members are UP
	StatePrimaryDown      State = "PRIMARY_DOWN"      // virtual server, pool: backup members serve
	StateDown             State = "DOWN"              // no member is UP; a virtual server also: a port cannot be bound
	StateUnknown          State = "UNKNOWN"           // pool: on no enabled virtual server
	StateDisabled         State = "DISABLED"          // virtual server, member
	StateGracefulDisabled State = "GRACEFUL_DISABLED" // member
	// StateDetached is never reported by a Plane, as what is detached is not in its Config: it is here for
	// callers that report objects in no load-balancer service in the same words.
	StateDetached State = "DETACHED"
)

// Status is what became of the Config, at one moment for each object.
type Status struct {
	VirtualServers []VirtualServerStatus // in the Config's order
	Pools          []PoolStatus          // in the order in which the virtual servers name them
}

// VirtualServerStatus is the state of a virtual server: the state of its pool, if all its ports are bound.
type VirtualServerStatus struct {
	ID        string
	State     State
	Reason    string // why it is not UP, or not what was asked for; "": nothing to say
	PoolID    string // "": no pool
	Listeners []ListenerStatus
	Counters  Counters
	// Persistent is the number of clients that source-IP persistence ties to members.
	Persistent int
}

// ListenerStatus tells whether a port of a virtual server is bound.
type ListenerStatus struct {
	Port  uint16
	Error string // why it is not bound; "": bound
}

// PoolStatus is the state of a pool and its members.
type PoolStatus struct {
	ID       string
	State    State
	Reason   string
	Members  []MemberStatus // in the Config's order
	Counters Counters
}

// MemberStatus is the state of a member: its admin state unless ENABLED, else its health.
type MemberStatus struct {
	Address netip.Addr
	Port    uint16 // as configured: 0 when the virtual server's member port is used
	Backup  bool
	State   State
	// FailureCause says what is wrong with its health, whatever its admin state; "": nothing.
	FailureCause string
	LastCheck    time.Time // end of the last probe of any monitor; zero: none yet
	LastChange   time.Time // when its health last changed; zero: never
	Counters     Counters
}

// Counters of TCP connections or UDP flows. In is from the client to the member, Out the other way.
type Counters struct {
	CurrentConnections uint64
	MaxConnections     uint64 // the most that there were at once
	TotalConnections   uint64
	RefusedConnections uint64 // virtual server: by a limit, by Access, or for want of a member; pool, member: failed dials
	BytesIn            uint64
	BytesOut           uint64
	PacketsIn          uint64 // datagrams, or pieces of TCP streams as they were read
	PacketsOut         uint64
	HTTPRequests       uint64 // of layer 7 virtual servers
	DroppedByAccess    uint64 // virtual server: connections and datagrams that Access kept out
	DroppedByRules     uint64 // virtual server: connections that rules dropped
	Rates              Rates
}

// Rates are counts a second, averaged over the last five seconds.
type Rates struct {
	BytesIn, BytesOut, PacketsIn, PacketsOut float64
	Connections                              float64 // that began
	Requests                                 float64
}
