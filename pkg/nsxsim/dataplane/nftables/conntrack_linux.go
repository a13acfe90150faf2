package nftables

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Connection tracking keeps connections where they are. What is to be cut is removed there: what the client sends next
// finds no connection, and is refused.

// connection is one that carries a mark of ours.
type connection struct {
	service service
	mark    uint32
	port    uint16 // of the member
	open    bool   // not TCP's TIME_WAIT or CLOSE, of which only traces are left
}

// TCP states of connection tracking in which a connection is over.
const (
	tcpTimeWait = 7
	tcpClose    = 8
)

func asConnection(f *netlink.ConntrackFlow) (connection, bool) {
	if f.Mark&markMask != markOurs {
		return connection{}, false
	}
	c := connection{
		service: service{f.Forward.Protocol, netip.AddrPortFrom(addressOf(f.Forward.DstIP), f.Forward.DstPort)},
		mark:    f.Mark, port: f.Reverse.SrcPort, open: true,
	}
	if tcp, ok := f.ProtoInfo.(*netlink.ProtoInfoTCP); ok {
		c.open = tcp.State != tcpTimeWait && tcp.State != tcpClose
	}
	return c, true
}

func addressOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// connections calls visit for those of a family, and removes the ones for which it returns false.
func connections(f family, visit func(connection) bool) error {
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(f.number), filter(func(flow *netlink.ConntrackFlow) bool {
		c, ours := asConnection(flow)
		return ours && !visit(c)
	}))
	if err != nil {
		return fmt.Errorf("connection tracking of %s: %w", f.name, err)
	}
	return nil
}

// filter is a function as the library wants it.
type filter func(*netlink.ConntrackFlow) bool

func (f filter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }
