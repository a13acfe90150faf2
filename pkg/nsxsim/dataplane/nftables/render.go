//go:build linux

package nftables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// tableName is that of the tables that are ours, one of each family.
const tableName = "nsxsim"

// Names of sets, maps and chains. Those that end with a dash are followed by an id.
const (
	addressesSet     = "addresses"          // of virtual servers
	servicesMap      = "services"           // service -> chain that serves it
	userSpaceSet     = "user-space"         // services that sockets of this host serve
	portsMap         = "ports"              // service -> port of members that have none of their own
	sourceMap        = "source-addresses"   // service -> chain that changes the source; none: transparent
	idleTimesMap     = "idle-times"         // service -> chain that delivers with another idle time than NSX's default
	rememberedMap    = "remembered"         // service -> chain that remembers the client's member
	targetsMap       = "members"            // mark -> address
	portTargetsMap   = "members-with-ports" // mark -> address and port
	turnsMap         = "turns-"             // of a pool: turn -> mark
	usableSet        = "usable-"            // of a pool: marks of members that persisted clients may use
	persistenceMap   = "persistence-"       // of a virtual server, or shared: client -> mark
	clientsSet       = "clients-"           // of a virtual server: prefixes of its access list
	connectionsSet   = "connections"        // service and mark: counter of connections
	bytesInSet       = "bytes-in"           // service and mark: counter of packets from clients
	bytesOutSet      = "bytes-out"          // service and mark: counter of packets to clients
	refusedSet       = "refused"            // service: counter of connections not served
	deniedSet        = "denied"             // service: counter of connections that its access list kept out
	poolChain        = "pool-"              // chooses a member
	serviceChain     = "service-"           // of a virtual server with limits, an access list or persistence
	limitChain       = "limit-"             // of a virtual server with a limit of connections
	rememberChain    = "remember-"          // by a table of persistence
	deliverChain     = "deliver"            // to the member that the mark names; with an idle time: deliver-NAME
	refuseChain      = "refuse"
	denyChain        = "deny"
	autoMapChain     = "automap"
	serveChain       = "serve" // the base chains from here on
	serveLocalChain  = "serve-local"
	sourceChain      = "source"
	poolSourceChain  = "source-of-" // of a pool with SNAT addresses of its own
	countInChain     = "count-in"
	countOutChain    = "count-out"
	closedPortsChain = "closed-ports"
)

// Marks of connections: each is of one member, in what markMask leaves free.
const (
	markMask = 0xff000000
	markOurs = 0x4e000000
)

// What NSX's application profiles say without being asked.
const (
	defaultTCPIdleTime = 1800 * time.Second
	defaultUDPIdleTime = 300 * time.Second
)

// hashSlots is how many parts of the hash's range a pool's members share.
const hashSlots = 1021

// desired is what the kernel is to do.
type desired struct {
	virtualServers []served
	pools          map[string]choice // by id; those of the virtual servers
	// snatAddress is where AutoMap connections come from, for its family; the others are masqueraded.
	snatAddress netip.Addr
}

// served is a virtual server that is enabled, valid, and alone on its address and ports.
type served struct {
	dataplane.VirtualServer
	userSpace bool // by sockets of this host
}

// choice is a pool as the kernel sees it.
type choice struct {
	algorithm dataplane.Algorithm
	turns     []target // members for new connections
	usable    []target // members for clients that persistence ties to them
	up        []target // those and the ones that have as many connections as they may
	all       []target // those and the ones that only keep connections
}

// target is a member with its mark.
type target struct {
	mark    uint32
	address netip.Addr
	port    uint16 // 0: what the service says
	weight  int
}

// render makes the ruleset. It is pure.
func render(d desired) ruleset {
	var r ruleset
	for i, f := range families() {
		t := newTable(f)
		t.frame(d.snatAddress)
		pools := map[string]bool{}
		for _, vs := range d.virtualServers {
			if !f.of(vs.Address) {
				continue
			}
			t.sets[addressesSet].elements[addressBytes(vs.Address)] = element{}
			if vs.userSpace {
				for _, p := range vs.Ports {
					t.sets[userSpaceSet].elements[serviceOf(vs.VirtualServer, p).bytes()] = element{}
				}
				continue
			}
			t.virtualServer(vs.VirtualServer, d.serving(vs.VirtualServer))
			for _, pool := range poolsOf(vs.VirtualServer) {
				if !pools[pool.ID] {
					pools[pool.ID] = true
					t.pool(pool.ID, d.pools[pool.ID])
				}
			}
		}
		r[i] = t
	}
	return r
}

// frame adds what is there without any virtual server.
func (t *table) frame(snat netip.Addr) {
	f := t.family
	service := concatenation{protocolType, f.address, portType}
	member := concatenation{protocolType, f.address, portType, markType}
	t.set(set{name: addressesSet, key: concatenation{f.address}})
	t.set(set{name: servicesMap, key: service, verdicts: true})
	t.set(set{name: userSpaceSet, key: service})
	t.set(set{name: portsMap, key: service, data: concatenation{portType}, lingers: true})
	t.set(set{name: sourceMap, key: service, verdicts: true})
	t.set(set{name: idleTimesMap, key: service, verdicts: true})
	t.set(set{name: rememberedMap, key: service, verdicts: true})
	t.set(set{name: targetsMap, key: concatenation{markType}, data: concatenation{f.address}, lingers: true})
	t.set(set{name: portTargetsMap, key: concatenation{markType}, data: concatenation{f.address, portType}, lingers: true})
	t.set(set{name: connectionsSet, key: member, dynamic: true})
	t.set(set{name: bytesInSet, key: member, dynamic: true})
	t.set(set{name: bytesOutSet, key: member, dynamic: true})
	t.set(set{name: refusedSet, key: service, dynamic: true})
	t.set(set{name: deniedSet, key: service, dynamic: true})

	tcp := protocolIs("tcp", unix.IPPROTO_TCP)
	udp := protocolIs("udp", unix.IPPROTO_UDP)
	serve := []rule{
		// What is no connection of ours and does not begin one is what is left of one that was cut.
		{tcp, midStream(), in(f.destAddress(), addressesSet), reset()},
		{verdictOf(f.service(), servicesMap)},
	}
	t.chain(serveChain, &hook{"nat", "prerouting", unix.NF_INET_PRE_ROUTING, -100}, serve...)
	t.chain(serveLocalChain, &hook{"nat", "output", unix.NF_INET_LOCAL_OUT, -100}, serve...)
	t.chain(deliverChain, nil, append([]rule{
		{verdictOf(f.service(), idleTimesMap)},
		{tcp, setIdleTime(t.idleTime(unix.IPPROTO_TCP, defaultTCPIdleTime))},
		{udp, setIdleTime(t.idleTime(unix.IPPROTO_UDP, defaultUDPIdleTime))},
	}, f.deliver()...)...)
	t.chain(refuseChain, nil,
		rule{count(f.service(), refusedSet)},
		rule{tcp, reset()},
		rule{f.unreachable()},
	)
	t.chain(denyChain, nil, rule{count(f.service(), deniedSet)}, rule{drop()})
	t.chain(sourceChain, &hook{"nat", "postrouting", unix.NF_INET_POST_ROUTING, 100},
		rule{markIsOurs(), count(f.originalService().and(mark()), connectionsSet)},
		rule{markIsOurs(), verdictOf(f.originalService(), sourceMap)},
	)
	autoMap := masquerade()
	if snat.IsValid() && f.of(snat) {
		autoMap = f.sourceNAT(snat, snat)
	}
	t.chain(autoMapChain, nil, rule{autoMap})
	// What clients send is seen at the end of its way, which that of local ones has, too; what members send, at its beginning.
	t.chain(countInChain, &hook{"filter", "postrouting", unix.NF_INET_POST_ROUTING, 300},
		rule{markIsOurs(), directionIs("original", 0), count(f.originalService().and(mark()), bytesInSet)},
		rule{markIsOurs(), directionIs("original", 0), verdictOf(f.originalService(), rememberedMap)},
	)
	t.chain(countOutChain, &hook{"filter", "prerouting", unix.NF_INET_PRE_ROUTING, -150},
		rule{markIsOurs(), directionIs("reply", 1), count(f.originalService().and(mark()), bytesOutSet)},
	)
	// Whatever else listens on this host is not to be found on the addresses of virtual servers.
	t.chain(closedPortsChain, &hook{"filter", "input", unix.NF_INET_LOCAL_IN, 0},
		rule{in(f.service(), userSpaceSet), accept()},
		rule{tcp, stateNew(), in(f.destAddress(), addressesSet), reset()},
		rule{udp, stateNew(), in(f.destAddress(), addressesSet), f.unreachable()},
	)
}

// deliver gives the rules that send a connection to its member.
func (f family) deliver() []rule {
	return []rule{{f.translate(portTargetsMap, "")}, {f.translate(targetsMap, portsMap)}}
}

// idleTime adds a time-out, of a second at least, and gives its name.
func (t *table) idleTime(protocol uint8, d time.Duration) string {
	i := idleTime{protocol, uint32(max(d/time.Second, 1))}
	name := fmt.Sprintf("%s-%ds", protocolName(protocol), i.seconds)
	t.idle[name] = i
	return name
}

// delivery gives the chain that delivers what a virtual server serves, if it is not the one for all.
func (t *table) delivery(vs dataplane.VirtualServer) string {
	usual := defaultTCPIdleTime
	if vs.Protocol == dataplane.UDP {
		usual = defaultUDPIdleTime
	}
	if vs.IdleTimeout == usual {
		return ""
	}
	idle := t.idleTime(protocolNumber(vs.Protocol), vs.IdleTimeout)
	name := deliverChain + "-" + idle
	if t.chains[name] == nil {
		t.chain(name, nil, append([]rule{{setIdleTime(idle)}}, t.family.deliver()...)...)
	}
	return name
}

// virtualServer adds a virtual server of layer 4, served by a pool.
func (t *table) virtualServer(vs dataplane.VirtualServer, pool *dataplane.Pool) {
	serve := refuseChain
	if pool != nil {
		serve = poolChain + identifier(pool.ID)
	}
	if rules := t.special(vs, pool); len(rules) > 0 {
		serves := serviceChain + identifier(vs.ID)
		t.chain(serves, nil, append(rules, rule{goTo(serve)})...)
		serve = serves
	}
	delivery := t.delivery(vs)
	for _, p := range vs.Ports {
		service := serviceOf(vs, p).bytes()
		t.sets[servicesMap].elements[service] = element{goTo: serve}
		if pool == nil {
			continue
		}
		t.sets[portsMap].elements[service] = element{data: portBytes(p.Member)}
		if delivery != "" {
			t.sets[idleTimesMap].elements[service] = element{goTo: delivery}
		}
		if pool.SNAT != dataplane.Transparent {
			t.sets[sourceMap].elements[service] = element{goTo: t.source(pool)}
		}
		if vs.Persistence != nil {
			t.sets[rememberedMap].elements[service] = element{goTo: rememberChain + tieTable(vs)}
		}
	}
}

// source gives the chain that changes where connections to a pool come from. Each client keeps to one prefix.
func (t *table) source(pool *dataplane.Pool) string {
	f := t.family
	prefixes := slices.DeleteFunc(slices.Clone(pool.SNATAddresses), func(p netip.Prefix) bool { return !f.of(p.Addr()) })
	if len(prefixes) == 0 {
		return autoMapChain
	}
	name := poolSourceChain + identifier(pool.ID)
	if t.chains[name] == nil {
		var rules []rule
		for i, p := range prefixes {
			r := netipx.RangeOfPrefix(p)
			rules = append(rules, rule{is(f.hashed(len(prefixes)), uint32(i)), f.sourceNAT(r.From(), r.To())})
		}
		t.chain(name, nil, rules...)
	}
	return name
}

// tieTable is the id of a virtual server's table of persistence.
func tieTable(vs dataplane.VirtualServer) string {
	if vs.Persistence.Shared != "" {
		return "shared-" + identifier(vs.Persistence.Shared)
	}
	return identifier(vs.ID)
}

// special gives the rules that a virtual server has beside those of the pool that serves it.
func (t *table) special(vs dataplane.VirtualServer, pool *dataplane.Pool) []rule {
	f := t.family
	var rules []rule
	if vs.Access != nil {
		clients := t.set(set{name: clientsSet + identifier(vs.ID), key: concatenation{f.address}, interval: true})
		for _, r := range rangesOf(f, vs.Access.Prefixes) {
			clients.elements[addressBytes(r.From())] = element{end: addressBytes(r.To())}
		}
		matches := notIn
		if vs.Access.Action == dataplane.Drop {
			matches = in
		}
		rules = append(rules, rule{matches(f.sourceAddress(), clients.name), goTo(denyChain)})
	}
	if vs.MaxConnectionRate > 0 {
		rules = append(rules, rule{rateOver(vs.MaxConnectionRate), goTo(refuseChain)})
	}
	if vs.MaxConnections > 0 {
		// In a chain of its own, as the count begins anew when the chain's rules are replaced.
		limit := limitChain + identifier(vs.ID)
		t.chain(limit, nil, rule{connectionsOver(vs.MaxConnections), goTo(refuseChain)})
		rules = append(rules, rule{jump(limit)})
	}
	if vs.Persistence == nil || pool == nil {
		return rules
	}
	ties := persistenceMap + tieTable(vs)
	if t.sets[ties] == nil { // or another virtual server shares it
		t.set(set{name: ties, key: concatenation{f.address}, data: concatenation{markType}, dynamic: true, timeouts: true})
		t.chain(rememberChain+tieTable(vs), nil, rule{remember(f.client(), ties, vs.Persistence.Timeout)})
	}
	rules = append(rules, rule{setMark(f.sourceAddress(), ties)})
	for _, p := range poolsOf(vs) {
		if p == vs.Pool || p == pool {
			rules = append(rules, rule{in(mark(), usableSet+identifier(p.ID)), goTo(deliverChain)})
		}
	}
	return append(rules, rule{forget(f.sourceAddress(), ties)})
}

// pool adds a pool.
func (t *table) pool(id string, c choice) {
	id = identifier(id)
	f := t.family
	turns := t.set(set{name: turnsMap + id, key: concatenation{markType}, data: concatenation{markType}, lingers: true})
	usable := t.set(set{name: usableSet + id, key: concatenation{markType}})
	for _, m := range c.all {
		switch {
		case !f.of(m.address): // another family's: no translation leads there
		case m.port != 0:
			t.sets[portTargetsMap].elements[numberBytes(m.mark)] = element{data: addressBytes(m.address) + portPadded(m.port)}
		default:
			t.sets[targetsMap].elements[numberBytes(m.mark)] = element{data: addressBytes(m.address)}
		}
	}
	for _, m := range c.usable {
		if f.of(m.address) {
			usable.elements[numberBytes(m.mark)] = element{}
		}
	}
	var order []target
	for _, m := range c.turns {
		if f.of(m.address) {
			order = append(order, m)
		}
	}
	if len(order) == 0 {
		t.chain(poolChain+id, nil, rule{goTo(refuseChain)})
		return
	}
	chooses := f.hashed(hashSlots)
	switch c.algorithm {
	case dataplane.IPHash:
		order = slots(order)
	case dataplane.WeightedRoundRobin, dataplane.WeightedLeastConnection:
		order = rounds(order)
		chooses = inTurn(len(order))
	default:
		chooses = inTurn(len(order))
	}
	for i, m := range order {
		turns.elements[numberBytes(uint32(i))] = element{data: numberBytes(m.mark)}
	}
	t.chain(poolChain+id, nil,
		rule{setMark(chooses, turns.name)},
		rule{goTo(deliverChain)},
	)
}

// rounds gives one round of the smooth weighted round robin, in which members with much weight do not have all their
// turns at once.
func rounds(members []target) []target {
	divisor, total := 0, 0
	for _, m := range members {
		divisor = greatestCommonDivisor(divisor, m.weight)
	}
	credit := make([]int, len(members))
	for _, m := range members {
		total += m.weight / divisor
	}
	order := make([]target, 0, total)
	for range total {
		best := 0
		for i, m := range members {
			credit[i] += m.weight / divisor
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		order = append(order, members[best])
	}
	return order
}

func greatestCommonDivisor(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// slots gives each part of the hash's range to the member that bids highest for it: a member that comes or goes changes
// nothing for the clients of the others.
func slots(members []target) []target {
	slots := make([]target, hashSlots)
	highest := make([]uint64, hashSlots)
	for _, m := range members {
		h := fnv.New64a()
		h.Write(m.address.AsSlice())
		h.Write([]byte(portBytes(m.port)))
		name := h.Sum64()
		for i := range slots {
			if bid := mix(name + uint64(i)); bid >= highest[i] {
				slots[i], highest[i] = m, bid
			}
		}
	}
	return slots
}

// mix spreads a number over all bits (the finalizer of splitmix64).
func mix(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// rangesOf gives prefixes of the family as ranges that do not touch.
func rangesOf(f family, prefixes []netip.Prefix) []netipx.IPRange {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		if f.of(p.Addr()) {
			b.AddPrefix(p)
		}
	}
	all, err := b.IPSet()
	if err != nil { // a prefix that is none
		return nil
	}
	return all.Ranges()
}

// service is what a client connects to.
type service struct {
	protocol uint8
	address  netip.AddrPort
}

func serviceOf(vs dataplane.VirtualServer, p dataplane.PortMap) service {
	return service{protocolNumber(vs.Protocol), netip.AddrPortFrom(vs.Address, p.Listen)}
}

func protocolNumber(p dataplane.Protocol) uint8 {
	if p == dataplane.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

func (s service) bytes() string {
	return protocolBytes(s.protocol) + addressBytes(s.address.Addr()) + portPadded(s.address.Port())
}

// notIdentifier is what nft cannot have in a name.
var notIdentifier = regexp.MustCompile(`[^a-zA-Z0-9_.-]`)

// identifier makes an id one that nft can read, in 64 characters at most.
func identifier(id string) string {
	if len(id) <= 64 && !notIdentifier.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	readable := notIdentifier.ReplaceAllString(id[:min(len(id), 40)], "_")
	return strings.Join([]string{readable, hex.EncodeToString(sum[:8])}, "_")
}
