package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Connection tracking keeps connections where they are. What is to be cut is removed there: what either side sends next
// finds no connection, and is refused. The kernel picks out those with marks of ours, which may be few among many.

// Messages and attributes of connection tracking that x/sys/unix does not have.
const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOriginal = 1
	ctaTupleReply    = 2
	ctaProtoInfo     = 4
	ctaMark          = 8
	ctaID            = 12
	ctaMarkMask      = 21

	ctaTupleAddresses = 1
	ctaAddressV4Dest  = 2
	ctaAddressV6Dest  = 4

	ctaTupleProtocol   = 2
	ctaProtocolNumber  = 1
	ctaProtocolSource  = 2
	ctaProtocolDest    = 3
	ctaProtoInfoTCP    = 1
	ctaProtoInfoTCPNow = 1

	tcpTimeWait = 7
	tcpClose    = 8
)

// connections calls visit for each, and removes the ones for which it returns false.
func connections(visit func(connection) bool) error {
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer s.close()
	filter := append(attribute(ctaMark, binary.BigEndian.AppendUint32(nil, markOurs)),
		attribute(ctaMarkMask, binary.BigEndian.AppendUint32(nil, markMask))...)
	var cut [][]byte
	err = s.request(encode(ctGet, netlink.Dump, unix.AF_UNSPEC, 0, filter), func(body []byte) {
		if c, ours := parseConnection(body); ours && !visit(c) {
			key := append(attribute(ctaTupleOriginal|unix.NLA_F_NESTED, c.original), attribute(ctaID, c.id)...)
			cut = append(cut, encode(ctDelete, netlink.Acknowledge, c.family, 0, key))
		}
	})
	if err != nil {
		return fmt.Errorf("listing tracked connections: %w", err)
	}
	for _, message := range cut {
		if err := s.request(message, func([]byte) {}); err != nil && !errors.Is(err, unix.ENOENT) { // ended meanwhile
			return fmt.Errorf("cutting a connection: %w", err)
		}
	}
	return nil
}

// parseConnection reads one, and tells whether it is of ours.
func parseConnection(message []byte) (c connection, ours bool) {
	if len(message) < 4 {
		return c, false
	}
	c.family, c.open = message[0], true
	for kind, value := range attributesOf(message[4:]) {
		switch kind {
		case ctaTupleOriginal:
			c.original = value
			var address netip.Addr
			var port uint16
			for kind, value := range attributesOf(value) {
				for part, value := range attributesOf(value) {
					switch {
					case kind == ctaTupleAddresses && (part == ctaAddressV4Dest || part == ctaAddressV6Dest):
						address, _ = netip.AddrFromSlice(value)
					case kind == ctaTupleProtocol && part == ctaProtocolNumber:
						c.service.protocol = value[0]
					case kind == ctaTupleProtocol && part == ctaProtocolDest:
						port = binary.BigEndian.Uint16(value)
					}
				}
			}
			c.service.address = netip.AddrPortFrom(address, port)
		case ctaTupleReply:
			for kind, value := range attributesOf(value) {
				for part, value := range attributesOf(value) {
					if kind == ctaTupleProtocol && part == ctaProtocolSource {
						c.port = binary.BigEndian.Uint16(value)
					}
				}
			}
		case ctaProtoInfo:
			for kind, value := range attributesOf(value) {
				for part, value := range attributesOf(value) {
					if kind == ctaProtoInfoTCP && part == ctaProtoInfoTCPNow {
						c.open = value[0] != tcpTimeWait && value[0] != tcpClose
					}
				}
			}
		case ctaMark:
			c.mark = binary.BigEndian.Uint32(value)
		case ctaID:
			c.id = value
		}
	}
	return c, c.mark&markMask == markOurs && c.id != nil
}
