package nsx

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"
)

// Claim says how sure it is that the allocation of a virtual server's address is ours.
type Claim string

const (
	// Unclaimed: the address is not allocated in its IP pool.
	Unclaimed Claim = "unclaimed"
	// Claimed: the address is allocated, and by us: the virtual server is attached, or our own ALLOCATE said so.
	Claimed Claim = "claimed"
	// Doubtful: the address is allocated and the virtual server not attached, and nothing in memory says who allocated it:
	// an earlier run of the controller, or somebody else.
	Doubtful Claim = "doubtful"
	// Refused: NSX said that the address is somebody else's allocation.
	Refused Claim = "refused"
)

// ObservedVirtualServer is a virtual server of ours as it is in NSX.
type ObservedVirtualServer struct {
	// VirtualServer as NSX has it. LBService is empty while it is attached to none; Pool is zero when its pool is none that
	// the controller made.
	VirtualServer
	// PoolID of the pool it forwards to, MonitorID of that pool's monitor; empty for none.
	PoolID, MonitorID string
	Claim             Claim
}

// Attached tells whether the virtual server carries traffic: it is in a load-balancer service.
func (v ObservedVirtualServer) Attached() bool { return v.LBService != "" }

// ObservedPool is a pool that serves one Service alone.
type ObservedPool struct {
	ID        string
	Pool      Pool
	MonitorID string
}

// Observed is everything that one Service has in NSX.
type Observed struct {
	Owner Owner
	// VirtualServers in ascending order of id.
	VirtualServers []ObservedVirtualServer
	// Pools and Monitors made for this Service alone, in ascending order of id.
	Pools    []ObservedPool
	Monitors []string
}

// Empty tells that nothing is there.
func (o Observed) Empty() bool {
	return len(o.VirtualServers) == 0 && len(o.Pools) == 0 && len(o.Monitors) == 0
}

// IPPool is an NSX IP pool from which addresses are taken.
type IPPool struct {
	// ID in NSX and Name in the cloud config; a pool that only tags still name has no Name.
	ID, Name string
	// Exclusive: only controllers of this kind allocate from it.
	Exclusive bool
	// Ranges of addresses that NSX hands out, ascending.
	Ranges []netipx.IPRange
	// ReleaseDelay is how long a released address may stay listed, or be refused.
	ReleaseDelay time.Duration
	// Problem says why the pool cannot be used, for people: not in NSX, no ranges. Empty when it can.
	Problem string
}

// LBServiceRoom is a load-balancer service that a class names, and the room in it.
type LBServiceRoom struct {
	// Key is how the cloud config names it: an id or display name, or the TierKey of a gateway.
	Key string
	// ID in NSX; empty for one that is yet to be made in its tier-1 gateway.
	ID string
	// Free is how many more virtual servers fit.
	Free int
	// Problem says why it cannot be used, for people. Empty when it can.
	Problem string
}

// TierKey is the Key of a load-balancer service that the controller makes in a tier-1 gateway.
func TierKey(tier1, size string) string { return "tier1/" + tier1 + "/" + size }

// ParseTierKey takes a TierKey apart; ok is false for any other key.
func ParseTierKey(key string) (tier1, size string, ok bool) {
	rest, ok := strings.CutPrefix(key, "tier1/")
	if !ok {
		return "", "", false
	}
	i := strings.LastIndexByte(rest, '/')
	if i <= 0 {
		return "", "", false
	}
	return rest[:i], rest[i+1:], true
}

// addressUse is what the inventory knows of one address.
type addressUse struct {
	carriers []string // ids of the virtual servers that carry it, anybody's
}

func (u *addressUse) add(id string) {
	if !slices.Contains(u.carriers, id) {
		u.carriers = append(u.carriers, id)
	}
}

func (u *addressUse) remove(id string) {
	u.carriers = slices.DeleteFunc(u.carriers, func(c string) bool { return c == id })
}

func byID[T any](id func(T) string) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(id(a), id(b)) }
}

// unmap strips the IPv4-in-IPv6 form, so that one address has one key.
func unmap(a netip.Addr) netip.Addr { return a.Unmap() }
