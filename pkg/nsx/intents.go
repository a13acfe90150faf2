package nsx

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// Intent is one change to what a Service has in NSX: a Publish, Update, Withdraw or Collect. Its String is one line a
// virtual server or object, for dry runs and golden files.
type Intent interface {
	fmt.Stringer
	// Service that the change is for.
	Service() Owner
}

// Publish makes virtual servers live: their pool and monitor, the virtual server, its address and its place in a
// load-balancer service. One with an ID is taken up where an earlier try ended, and moved if its address differs.
type Publish struct {
	Owner          Owner
	VirtualServers []VirtualServer
	// Asked are the addresses that the user asked for: no other will do in place of one of these.
	Asked []netip.Addr
	// Published are the addresses that the Service's status shows: proof that they were its own.
	Published []string
}

// Update changes virtual servers that are live, in the order given, and leaves their addresses.
type Update struct {
	Owner          Owner
	VirtualServers []VirtualServer
	// Changes says for people what differs, one for each virtual server.
	Changes []string
}

// Withdraw takes virtual servers out of their load-balancer service, gives their addresses back and deletes them.
type Withdraw struct {
	Owner          Owner
	VirtualServers []ObservedVirtualServer
	// Published are the addresses that the Service's status shows: proof that they were its own.
	Published []string
}

// Collect deletes pools and monitors of a Service which nothing uses any more.
type Collect struct {
	Owner    Owner
	Pools    []string
	Monitors []string
}

// Service implements Intent.
func (p Publish) Service() Owner { return p.Owner }

// Service implements Intent.
func (u Update) Service() Owner { return u.Owner }

// Service implements Intent.
func (w Withdraw) Service() Owner { return w.Owner }

// Service implements Intent.
func (c Collect) Service() Owner { return c.Owner }

func (p Publish) String() string {
	var b strings.Builder
	for _, v := range p.VirtualServers {
		fmt.Fprintf(&b, "publish %s: %s in %s, class %s, %s", p.Owner, v, v.LBService, v.Class, v.Pool)
		if v.Sources.Restricted {
			fmt.Fprintf(&b, ", %s", v.Sources)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (u Update) String() string {
	var b strings.Builder
	for i, v := range u.VirtualServers {
		fmt.Fprintf(&b, "update %s: %s: %s\n", u.Owner, v, u.Changes[i])
	}
	return b.String()
}

func (w Withdraw) String() string {
	var b strings.Builder
	for _, v := range w.VirtualServers {
		fmt.Fprintf(&b, "withdraw %s: %s\n", w.Owner, v.VirtualServer)
	}
	return b.String()
}

func (c Collect) String() string {
	var b strings.Builder
	for _, id := range c.Pools {
		fmt.Fprintf(&b, "collect %s: pool %s\n", c.Owner, id)
	}
	for _, id := range c.Monitors {
		fmt.Fprintf(&b, "collect %s: monitor %s\n", c.Owner, id)
	}
	return b.String()
}

// Backend does the I/O: it brings intents to NSX and keeps the Inventory true. It is safe for concurrent use; the caller
// makes sure that one Service's intents do not overlap.
//
// A write whose outcome is unknown makes the Service unsettled: Settle looks it up before anything else is done for it.
type Backend interface {
	// Inventory is what the cluster has in NSX, as last read and kept by what was written.
	Inventory() *Inventory
	// Load reads the inventory anew, by paged lists alone. Until it has succeeded once, every other call fails.
	Load(ctx context.Context) error
	// Settle looks up writes for the Service whose outcome is unknown. It costs nothing when there are none, and returns a
	// RetryAt when it is too early to look.
	Settle(ctx context.Context, o Owner) error
	// Apply carries out one intent. It may be called again after any error, with a plan made anew from the Inventory.
	// ErrAlreadyAllocated asks the caller to choose another address.
	Apply(ctx context.Context, i Intent) error
	// SetNodes makes the nodes the members of every shared pool and of the node group: one write for each that is in use
	// and differs. Later pools are made with them.
	SetNodes(ctx context.Context, nodes []Node) error
	// Tidy deletes what the cluster shared and no Service uses any more, so that nothing is left when the last one goes. It
	// costs nothing when there is no such thing. Call it after a change that takes something out of use.
	Tidy(ctx context.Context) error
	// Reclaim releases an address of an exclusive IP pool that no virtual server records, after a fresh look. It does
	// nothing when somebody records it by then, or it is not allocated any more.
	Reclaim(ctx context.Context, pool string, addr netip.Addr) error
	// SharedDrift is what others changed of what the cluster shares: the members of its pools and the node group, which the
	// next SetNodes puts right. It makes no call: Load has read everything.
	SharedDrift(ctx context.Context) []Finding
	// PoolHealth is what NSX's health checks say of the pools of ours that carry traffic, by one call for each load-balancer
	// service.
	PoolHealth(ctx context.Context) ([]PoolHealth, error)
	// RefreshAddresses reads the use of one IP pool of the cloud config again: its ranges, its allocations, and the virtual
	// servers if one that is somebody else's keeps an address of it that is not allocated any more.
	RefreshAddresses(ctx context.Context, pool string) error
	// RefreshRoom reads the load-balancer services and their capacity again.
	RefreshRoom(ctx context.Context) error
}
