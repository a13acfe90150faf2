//go:build linux

package nftables

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// What a list of the kernel's counters lacks is not counted again when the next one has it.
func TestCountersThatAListLacks(t *testing.T) {
	marks := newMarks()
	mark := marks.of(netip.MustParseAddrPort("10.0.0.1:0"))
	web := service{unix.IPPROTO_TCP, netip.MustParseAddrPort("192.0.2.1:80")}
	key := counted{web, mark}
	by := owned{services: map[service]owner{web: {virtualServer: "web", pool: "nodes"}}, marks: marks}
	l := newLedger()
	look := func(packets ...uint64) uint64 {
		now := map[counted]tally{}
		for _, n := range packets {
			now[key] = tally{packets: n}
		}
		l.credit(connectionsSet, now, by, func(c *dataplane.Counters, t tally) { c.TotalConnections += t.packets })
		return at(l.virtualServers, "web").TotalConnections
	}
	look(10)
	look() // not listed
	if got := look(12); got != 12 {
		t.Errorf("%d connections, want 12", got)
	}
	marks.keep(nil) // the member is gone, and what was counted for it
	look()
	if len(l.seen[connectionsSet]) != 0 {
		t.Errorf("left over: %v", l.seen)
	}
}
