// Package nftables is an NSX load balancer in the kernel of the network namespace that it runs in, the edge: a router
// between clients and members. It takes the same configuration as package dataplane, and gives the same statuses.
//
// It owns nftables' tables named nsxsim of the families ip and ip6, local routes of protocol 78, and the connections that
// connection tracking has marked 0x4e000000 and up. It changes nothing else: not the host's sysctls (net.ipv4.ip_forward
// must be 1), interfaces, or other tables. Close removes all of it; New replaces what a process that was killed has left.
//
// How a connection finds its member: a map of services (protocol, address, port) leads to the chain of the virtual server,
// if it has limits, an access list or persistence, or else to that of its pool. The pool's chain takes a mark from a map of
// turns (or of slots of a hash); the mark stands for the member, in the connection from then on, and two more maps have the
// member's address and the port to go with it. So no packet walks past other virtual servers' rules, a change of a
// pool's members is a change of that pool's maps and chain, and each change of the configuration is one transaction, before
// and after which two more make what it leads to and remove what nothing leads to any more: a connection is served by what
// was there before, or by what is there after.
//
// Health is package dataplane's: a Plane of that package checks the members, and serves the virtual servers of layer 7 by
// sockets. All else that it documents about changes holds here, too: what is to be cut is deleted from connection tracking,
// and answered with a reset when either side goes on.
//
// What differs from package dataplane:
//
//   - Least-connection algorithms are round robins, with the weights.
//   - Transparent pools show the client's address and port; members must route their answers by the edge.
//   - Members are of the family of their virtual server's address.
//   - Access lists drop; what is over a limit, or finds no member, is rejected: TCP by a reset, UDP by ICMP.
//   - Passive monitors see nothing.
//   - A limit of a virtual server's connections that changes counts only those from then on.
//   - The limit of a member's connections is looked at with each Options.Housekeeping.
//   - The time-out of persistence runs from the client's last packet, and a full table takes no further clients.
//   - Bytes are counted with the headers of IP and TCP or UDP, and there are no rates.
package nftables

import "errors"

// ErrUnavailable is in the error of New when this process or this kernel cannot have such a data plane.
var ErrUnavailable = errors.New("no nftables data plane here")
