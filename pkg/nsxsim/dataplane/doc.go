// Package dataplane is a user-space NSX load balancer: it listens on the addresses of virtual servers,
// probes the members of their pools and forwards TCP connections and UDP datagrams to them.
//
// It owns sockets, health state and counters. It is told the full desired state by [Plane.Apply] and tells
// what became of it by [Plane.Status]. It never reads or writes NSX objects, knows no API, allocates no
// addresses and configures no interface: an address that the host does not have cannot be bound, and the
// virtual server's status says so.
//
// What happens to connections when the desired state changes:
//
//   - A virtual server that is gone or has another address loses its listeners and its connections (they are
//     reset) at once; so does a single port that is gone.
//   - One that is disabled loses its listeners, so that new connections are refused. TCP connections that there
//     are live on, as in NSX; UDP flows end with the listener that they answer through.
//   - A virtual server that moves to another pool keeps its listeners and its TCP connections, which stay with
//     the pool that they began with, even when that is gone; its UDP flows choose a member of the new pool with
//     their next datagram.
//   - A member that is gone or DISABLED loses its connections ([Options.DisabledKeepsConnections] has it
//     otherwise); GRACEFUL_DISABLED keeps them and gets no new ones, except from clients that source-IP
//     persistence ties to it.
//   - The settings, rules and pools of a layer 7 virtual server hold from the next request on, also of clients that
//     are connected. A member that is gone or DISABLED loses the requests that it serves; their clients are told.
//   - A member that is DOWN keeps its TCP connections, gets no new ones and loses its UDP flows.
package dataplane
