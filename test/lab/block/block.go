// Package block gives each lab on this machine a block of loopback addresses of its own, 127.N.0.0/16, so that any
// number of labs run side by side without meeting.
//
// It owns the plan of a block: which address is a node's, a client's, the load balancer's. It never binds any of them.
package block

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// The second octet of the blocks' addresses.
const (
	First = 16
	Last  = 254
)

// What a block has room for.
const (
	MaxNodes       = 200
	MaxClients     = 250
	MaxFloatingIPs = 254
)

// ErrTaken says that the block, or every one of them, is in use.
var ErrTaken = errors.New("taken by another lab")

// Block is a block of addresses, held until it is released or the process ends.
type Block struct {
	number byte
	lock   net.Listener
}

// Take takes the lowest free block.
func Take() (*Block, error) {
	for n := First; n <= Last; n++ {
		b, err := TakeNumber(n)
		if errors.Is(err, ErrTaken) {
			continue
		}
		return b, err
	}
	return nil, fmt.Errorf("blocks 127.%d to 127.%d: %w", First, Last, ErrTaken)
}

// TakeNumber takes the block 127.n.0.0/16, n from First to Last, or fails with ErrTaken.
//
// The lock is an abstract Unix socket: it has the same scope as the addresses, which is the network namespace, whatever
// user or directory a lab runs with, and the kernel releases it with the process.
func TakeNumber(n int) (*Block, error) {
	if n < First || n > Last {
		return nil, fmt.Errorf("block 127.%d: want %d to %d", n, First, Last)
	}
	lock, err := net.Listen("unix", fmt.Sprintf("@cloud-provider-nsxt-lab/127.%d", n))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("block 127.%d: %w", n, ErrTaken)
	case err != nil:
		return nil, fmt.Errorf("lock of block 127.%d: %w", n, err)
	}
	return &Block{number: byte(n), lock: lock}, nil
}

// Release lets others take the block.
func (b *Block) Release() error { return b.lock.Close() }

// Number is N of 127.N.0.0/16.
func (b *Block) Number() int { return int(b.number) }

// String is the block's prefix.
func (b *Block) String() string { return b.Prefix().String() }

// Prefix is all of the block.
func (b *Block) Prefix() netip.Prefix { return netip.PrefixFrom(b.addr(0, 0), 16) }

// SNAT is the address the load balancer talks to nodes with.
func (b *Block) SNAT() netip.Addr { return b.addr(0, 2) }

// Node is the address of the i-th node, from 1 to MaxNodes.
func (b *Block) Node(i int) netip.Addr { return b.addr(1, byte(i)) }

// Nodes is the prefix of all nodes' addresses.
func (b *Block) Nodes() netip.Prefix { return netip.PrefixFrom(b.addr(1, 0), 24) }

// FloatingIP is the i-th floating IP, from 1 to MaxFloatingIPs.
func (b *Block) FloatingIP(i int) netip.Addr { return b.addr(100, byte(i)) }

// FloatingIPs is the prefix of all floating IPs.
func (b *Block) FloatingIPs() netip.Prefix { return netip.PrefixFrom(b.addr(100, 0), 24) }

// SpareIP is the i-th address, from 1 to MaxFloatingIPs, for floating IPs of further pools.
func (b *Block) SpareIP(i int) netip.Addr { return b.addr(101, byte(i)) }

// SpareIPs is the prefix of all of those.
func (b *Block) SpareIPs() netip.Prefix { return netip.PrefixFrom(b.addr(101, 0), 24) }

// Controller is the address that the controller's own port, for health and metrics, is on.
func (b *Block) Controller() netip.Addr { return b.addr(0, 3) }

// Client is the address of the i-th client from outside the cluster, from 1 to MaxClients.
func (b *Block) Client(i int) netip.Addr { return b.addr(200, byte(i)) }

// Pods is the prefix of the pods of the i-th node. The API server refuses loopback addresses in EndpointSlices, so pods
// have addresses that no interface of the machine has.
func (b *Block) Pods(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, b.number, byte(i), 0}), 24)
}

// ClusterIPs is where cluster IPs come from: beside the pods of all nodes.
func (b *Block) ClusterIPs() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, b.number, 240, 0}), 20)
}

func (b *Block) addr(c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{127, b.number, c, d}) }
