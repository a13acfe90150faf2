package nftables

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that are ours: no routing daemon has this number.
const routeProtocol netlink.RouteProtocol = 78

// addresses are those of virtual servers, and for SNAT, that this host answers for: local routes, which make the kernel answer ARP (for
// IPv6: take what is routed here) and pings, and let sockets be bound, without being any interface's address.
type addresses struct {
	handle  *netlink.Handle
	claimed map[netip.Prefix]bool // true: by a route of ours
}

// newAddresses removes the routes that an earlier process has left.
func newAddresses() (*addresses, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	a := &addresses{handle, map[netip.Prefix]bool{}}
	if err := a.forgetOld(); err != nil {
		handle.Close()
		return nil, err
	}
	return a, nil
}

func (a *addresses) forgetOld() error {
	for _, number := range []int{unix.AF_INET, unix.AF_INET6} {
		old, err := a.handle.RouteListFiltered(number, &netlink.Route{Protocol: routeProtocol, Table: unix.RT_TABLE_LOCAL},
			netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("listing local routes: %w", err)
		}
		for _, r := range old {
			if err := a.handle.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("removing the route %v, left over: %w", r.Dst, err)
			}
		}
	}
	return nil
}

// claim makes this host answer for addresses.
func (a *addresses) claim(address netip.Prefix) error {
	if _, known := a.claimed[address]; known {
		return nil
	}
	switch err := a.handle.RouteAdd(routeTo(address)); {
	case errors.Is(err, unix.EEXIST): // an address of the host's own, which stays when the virtual server goes
		a.claimed[address] = false
	case err != nil:
		return fmt.Errorf("adding a local route to %v: %w", address, err)
	default:
		a.claimed[address] = true
	}
	return nil
}

// close gives all back.
func (a *addresses) close() error {
	err := a.releaseBut(nil)
	a.handle.Close()
	return err
}

// releaseBut gives back all but those wanted.
func (a *addresses) releaseBut(wanted map[netip.Prefix]bool) error {
	var errs []error
	for address, ours := range a.claimed {
		if wanted[address] {
			continue
		}
		delete(a.claimed, address)
		if !ours {
			continue
		}
		if err := a.handle.RouteDel(routeTo(address)); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("removing the local route to %v: %w", address, err))
		}
	}
	return errors.Join(errs...)
}

// loopback is the index of lo, in any network namespace.
const loopback = 1

func routeTo(address netip.Prefix) *netlink.Route {
	scope := netlink.SCOPE_HOST
	if address.Addr().Is6() {
		scope = netlink.SCOPE_UNIVERSE // IPv6 routes have none
	}
	return &netlink.Route{
		Dst: netipx.PrefixIPNet(address.Masked()), LinkIndex: loopback, Scope: scope,
		Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: routeProtocol,
	}
}

// forwards tells whether this host is a router for the family.
func forwards(f family) bool {
	file := "/proc/sys/net/ipv4/ip_forward"
	if f.number == unix.NFPROTO_IPV6 {
		file = "/proc/sys/net/ipv6/conf/all/forwarding"
	}
	text, err := os.ReadFile(file)
	return err == nil && strings.TrimSpace(string(text)) != "0"
}
