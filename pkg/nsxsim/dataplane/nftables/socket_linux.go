package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket is one to netfilter in the kernel, which is done with a message when sending it returns.
type socket struct {
	fd  int
	buf []byte
}

// headerSize is that of a netlink message and of the header of netfilter that follows.
const headerSize = 20

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return &socket{fd, make([]byte, 64<<10)}, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// encode makes a message. Its sequence number is still 0.
func encode(kind uint16, flags netlink.HeaderFlags, family uint8, resource uint16, attributes []byte) []byte {
	b := make([]byte, 0, headerSize+len(attributes))
	b = binary.NativeEndian.AppendUint32(b, uint32(headerSize+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, uint16(netlink.Request|flags))
	b = append(b, make([]byte, 8)...) // sequence number and port
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, attributes...)
}

func (s *socket) send(b []byte) error {
	return unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive gives the messages of one datagram to visit: their kind, sequence number and what follows the netlink header.
func (s *socket) receive(flags int, visit func(kind uint16, sequence int, body []byte) error) error {
	n, _, err := unix.Recvfrom(s.fd, s.buf, flags)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(s.fd, s.buf, flags)
	}
	if err != nil {
		return err
	}
	for b := s.buf[:n]; len(b) >= headerSize; {
		length := int(binary.NativeEndian.Uint32(b))
		if length < headerSize || length > len(b) {
			return fmt.Errorf("a netlink message of %d bytes in %d", length, len(b))
		}
		err := visit(binary.NativeEndian.Uint16(b[4:]), int(binary.NativeEndian.Uint32(b[8:])), b[16:length])
		if err != nil {
			return err
		}
		b = b[min(aligned(length), len(b)):]
	}
	return nil
}

// errorIn is what a message of the kind NLMSG_ERROR says; nil is an acknowledgement.
func errorIn(body []byte) error {
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// errDone ends a dump, or a wait for an acknowledgement.
var errDone = errors.New("done")

// request sends a message and gives what is answered to visit, until the dump or the acknowledgement that it asks for is over.
func (s *socket) request(message []byte, visit func(body []byte)) error {
	if err := s.send(message); err != nil {
		return err
	}
	for {
		err := s.receive(0, func(kind uint16, _ int, body []byte) error {
			switch kind {
			case unix.NLMSG_DONE:
				return errDone
			case unix.NLMSG_ERROR:
				if err := errorIn(body); err != nil {
					return err
				}
				return errDone
			}
			visit(body)
			return nil
		})
		switch {
		case errors.Is(err, errDone):
			return nil
		case err != nil:
			return err
		}
	}
}

func aligned(n int) int { return (n + 3) &^ 3 }

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, aligned(len(b))-len(b))...)
}

// attributesOf gives kinds and values. What is malformed, which the kernel never sends, ends them.
func attributesOf(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) > 4 {
			n := int(binary.NativeEndian.Uint16(b))
			if n <= 4 || n > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n]) {
				return
			}
			b = b[min(aligned(n), len(b)):]
		}
	}
}
