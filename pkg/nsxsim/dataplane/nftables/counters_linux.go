package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// The kernel counts by service and member. Who owned a service when is known here: what was counted since the last look
// is credited to the owner of that time.

// counted is what the kernel counts by.
type counted struct {
	service service
	mark    uint32 // 0: connections not served
}

// tally is what the kernel counts.
type tally struct{ packets, bytes uint64 }

// since tells what came since an earlier tally, also when the kernel began anew meanwhile.
func (t tally) since(before tally) tally {
	if t.packets < before.packets {
		return t
	}
	return tally{t.packets - before.packets, t.bytes - before.bytes}
}

// owner of what is counted for a service.
type owner struct{ virtualServer, pool, sorryPool string }

// owned tells what was committed last: whose the services are, and which members the pools have.
type owned struct {
	services map[service]owner
	pools    map[string]map[uint32]bool // marks
	marks    *marks
}

// ownedBy tells whose the services are of virtual servers; of two with the same one, it is the last one's.
func ownedBy(all []served, s survivors) owned {
	by := owned{services: map[service]owner{}, pools: s.tcp, marks: s.marks}
	for _, vs := range all {
		if vs.userSpace {
			continue
		}
		o := owner{virtualServer: vs.ID}
		if vs.Pool != nil {
			o.pool = vs.Pool.ID
		}
		if vs.SorryPool != nil {
			o.sorryPool = vs.SorryPool.ID
		}
		for _, port := range vs.Ports {
			by.services[serviceOf(vs.VirtualServer, port)] = o
		}
	}
	return by
}

// knows tells whether something is counted for a service and a member that are there.
func (by owned) knows(key counted) bool {
	_, served := by.services[key.service]
	return served && (key.mark == 0 || by.marks.byMark[key.mark].IsValid())
}

// differs tells whether a service has another owner than before.
func (by owned) differs(before owned) bool {
	for s, o := range before.services {
		if by.services[s] != o {
			return true
		}
	}
	return false
}

// ledger is what was counted so far.
type ledger struct {
	seen           map[string]map[counted]tally // by set: the kernel's counters at the last look
	virtualServers map[string]*dataplane.Counters
	pools          map[string]*dataplane.Counters
	members        map[string]map[netip.AddrPort]*dataplane.Counters // by pool
}

func newLedger() *ledger {
	return &ledger{
		seen:           map[string]map[counted]tally{},
		virtualServers: map[string]*dataplane.Counters{},
		pools:          map[string]*dataplane.Counters{},
		members:        map[string]map[netip.AddrPort]*dataplane.Counters{},
	}
}

// of gives the counters of all that take part in what is counted.
func (l *ledger) of(key counted, by owned) []*dataplane.Counters {
	o := by.services[key.service]
	if o.virtualServer == "" {
		return nil
	}
	all := []*dataplane.Counters{at(l.virtualServers, o.virtualServer)}
	member := by.marks.byMark[key.mark]
	if !member.IsValid() {
		return all
	}
	pool := o.pool
	if !by.pools[pool][key.mark] && by.pools[o.sorryPool][key.mark] {
		pool = o.sorryPool
	}
	if l.members[pool] == nil {
		l.members[pool] = map[netip.AddrPort]*dataplane.Counters{}
	}
	return append(all, at(l.pools, pool), at(l.members[pool], member))
}

func at[K comparable](counters map[K]*dataplane.Counters, key K) *dataplane.Counters {
	if counters[key] == nil {
		counters[key] = &dataplane.Counters{}
	}
	return counters[key]
}

// look reads the kernel's counters, and credits what is new.
func (l *ledger) look(by owned) error {
	var errs []error
	for name, credit := range map[string]func(*dataplane.Counters, tally){
		connectionsSet: func(c *dataplane.Counters, t tally) { c.TotalConnections += t.packets }, // the first of each
		bytesInSet:     func(c *dataplane.Counters, t tally) { c.BytesIn += t.bytes; c.PacketsIn += t.packets },
		bytesOutSet:    func(c *dataplane.Counters, t tally) { c.BytesOut += t.bytes; c.PacketsOut += t.packets },
		refusedSet:     func(c *dataplane.Counters, t tally) { c.RefusedConnections += t.packets },
		deniedSet: func(c *dataplane.Counters, t tally) {
			c.RefusedConnections += t.packets
			c.DroppedByAccess += t.packets
		},
	} {
		now := map[counted]tally{}
		for _, f := range families() {
			errs = append(errs, read(f, name, now))
		}
		l.credit(name, now, by, credit)
	}
	return errors.Join(errs...)
}

// credit gives what is new in a set's counters to those whom it was counted for. A list of many elements may lack some of
// them, while the kernel makes the set's hash table larger: what is not listed stays as it was seen last.
func (l *ledger) credit(set string, now map[counted]tally, by owned, credit func(*dataplane.Counters, tally)) {
	for key, t := range now {
		if more := t.since(l.seen[set][key]); more.packets > 0 {
			for _, c := range l.of(key, by) {
				credit(c, more)
			}
		}
	}
	for key, t := range l.seen[set] {
		if _, listed := now[key]; !listed && by.knows(key) {
			now[key] = t
		}
	}
	l.seen[set] = now
}

// current takes note of how many connections there are.
func (l *ledger) current(open map[counted]uint64, by owned) {
	var all []*dataplane.Counters
	for _, c := range l.virtualServers {
		all = append(all, c)
	}
	for _, c := range l.pools {
		all = append(all, c)
	}
	for _, members := range l.members {
		for _, c := range members {
			all = append(all, c)
		}
	}
	for _, c := range all {
		c.CurrentConnections = 0
	}
	for key, n := range open {
		for _, c := range l.of(key, by) {
			c.CurrentConnections += n
			c.MaxConnections = max(c.MaxConnections, c.CurrentConnections)
		}
	}
}

// read adds the counters of a set.
func read(f family, name string, to map[counted]tally) error {
	elements, err := elementsOf(f, name)
	if err != nil {
		return err
	}
	for _, e := range elements {
		at := 4 + int(f.bytes)
		if e.Counter == nil || len(e.Key) < at+4 {
			continue
		}
		address, _ := netip.AddrFromSlice(e.Key[4:at])
		key := counted{service: service{e.Key[0], netip.AddrPortFrom(address, binary.BigEndian.Uint16(e.Key[at:]))}}
		if len(e.Key) >= at+8 {
			key.mark = binary.NativeEndian.Uint32(e.Key[at+4:])
		}
		to[key] = tally{e.Counter.Packets, e.Counter.Bytes}
	}
	return nil
}

// forget removes what is known of those that are no more.
func (l *ledger) forget(owners map[service]owner) {
	virtualServers, pools := map[string]bool{}, map[string]bool{}
	for _, o := range owners {
		virtualServers[o.virtualServer], pools[o.pool], pools[o.sorryPool] = true, true, true
	}
	for id := range l.virtualServers {
		if !virtualServers[id] {
			delete(l.virtualServers, id)
		}
	}
	for id := range l.pools {
		if !pools[id] {
			delete(l.pools, id)
			delete(l.members, id)
		}
	}
}

// elementsOf lists a set.
func elementsOf(f family, name string) ([]nftables.SetElement, error) {
	var conn nftables.Conn
	elements, err := conn.GetSetElements(&nftables.Set{
		Table: &nftables.Table{Name: tableName, Family: nftables.TableFamily(f.number)}, Name: name,
	})
	if err != nil {
		return nil, fmt.Errorf("listing %s of %s: %w", name, f.name, err)
	}
	return elements, nil
}

// ties counts the clients that a virtual server's persistence ties to members.
func ties(vs dataplane.VirtualServer) (int, error) {
	for _, f := range families() {
		if f.of(vs.Address) {
			elements, err := elementsOf(f, persistenceMap+tieTable(vs))
			return len(elements), err
		}
	}
	return 0, nil
}
