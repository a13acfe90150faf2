//go:build linux

package nftables

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The model of a ruleset: what the kernel is to hold, as values that can be compared and sent.

// ruleset is the tables of both address families.
type ruleset [2]*table

// family is an address family with what depends on it.
type family struct {
	number  uint8 // NFPROTO_*
	name    string
	bytes   uint32 // of an address
	source  uint32 // where the header has the addresses
	dest    uint32
	address datatype

	ctSource, ctDest uint32 // NFT_CT_*: the addresses that a connection began with
}

// families in the order of a ruleset.
func families() [2]family {
	return [2]family{
		{unix.NFPROTO_IPV4, "ip", 4, 12, 16, datatype{"ipv4_addr", 7, 4}, 19, 20},
		{unix.NFPROTO_IPV6, "ip6", 16, 8, 24, datatype{"ipv6_addr", 8, 16}, 21, 22},
	}
}

// of tells whether an address is one of the family.
func (f family) of(a netip.Addr) bool { return a.Is4() == (f.bytes == 4) }

// datatype of a part of a key or of data. The number is nft's, which needs it to print sets.
type datatype struct {
	name   string
	number uint32
	bytes  uint32 // without the padding
}

var (
	protocolType = datatype{"inet_proto", 12, 1}
	portType     = datatype{"inet_service", 13, 2}
	markType     = datatype{"mark", 19, 4}
)

// concatenation of datatypes; each part begins on a register of four bytes.
type concatenation []datatype

func (c concatenation) String() string {
	names := make([]string, len(c))
	for i, t := range c {
		names[i] = t.name
	}
	return strings.Join(names, " . ")
}

// length in bytes: padded, unless there is one part only.
func (c concatenation) length() uint32 {
	if len(c) == 1 {
		return c[0].bytes
	}
	var n uint32
	for _, t := range c {
		n += padded(t.bytes)
	}
	return n
}

// number is nft's for the concatenation.
func (c concatenation) number() uint32 {
	var n uint32
	for _, t := range c {
		n = n<<6 | t.number
	}
	return n
}

func padded(n uint32) uint32 { return (n + 3) &^ 3 }

// table of one family.
type table struct {
	family family
	sets   map[string]*set
	idle   map[string]idleTime
	chains map[string]*chain
}

// idleTime is after how long without packets connection tracking forgets a connection.
type idleTime struct {
	protocol uint8
	seconds  uint32
}

// set is a named set, or a map when it has data or verdicts.
type set struct {
	name     string
	key      concatenation
	data     concatenation // nil: none
	verdicts bool          // the data are verdicts: goto a chain
	interval bool          // the elements are ranges of addresses, from key to end
	dynamic  bool          // packets add elements, which are none of this model's
	timeouts bool          // the elements of packets time out
	lingers  bool          // elements lead nowhere by themselves: they come early and go late
	elements map[string]element
}

// dynamicSize is how many elements packets may add to a set.
const dynamicSize = 1 << 18

// element of a set. Keys and data are as registers hold them.
type element struct {
	end  string // of an interval: the last address in it
	data string
	goTo string // chain
}

// chain of rules. What differs in any rule is replaced whole, as one rule's state is of no use to another.
type chain struct {
	name  string
	base  *hook // nil: only jumped to
	rules []rule
}

// hook of a base chain.
type hook struct {
	kind     string // filter or nat
	where    string
	number   uint32
	priority int32
}

// rule is a list of statements. Rules with the same text are the same.
type rule []statement

type statement struct {
	text  string
	exprs []any // expr.Any or originalAddress
}

func (r rule) String() string {
	texts := make([]string, len(r))
	for i, s := range r {
		texts[i] = s.text
	}
	return strings.Join(texts, " ")
}

func newTable(f family) *table {
	return &table{family: f, sets: map[string]*set{}, idle: map[string]idleTime{}, chains: map[string]*chain{}}
}

// set adds s, and returns it.
func (t *table) set(s set) *set {
	s.elements = map[string]element{}
	t.sets[s.name] = &s
	return &s
}

// chain adds a chain.
func (t *table) chain(name string, base *hook, rules ...rule) {
	t.chains[name] = &chain{name: name, base: base, rules: rules}
}

// has tells whether the family of an address has a set of that name.
func (r ruleset) has(a netip.Addr, set string) bool {
	return slices.ContainsFunc(r[:], func(t *table) bool { return t.family.of(a) && t.sets[set] != nil })
}

// sameAs tells whether the rules are the same.
func (c *chain) sameAs(o *chain) bool {
	return slices.EqualFunc(c.rules, o.rules, func(a, b rule) bool {
		return slices.EqualFunc(a, b, func(a, b statement) bool { return a.text == b.text })
	})
}

// Registers' contents.

func addressBytes(a netip.Addr) string { return string(a.AsSlice()) }

func protocolBytes(p uint8) string { return string([]byte{p, 0, 0, 0}) }

func portBytes(port uint16) string { return string([]byte{byte(port >> 8), byte(port)}) }

func portPadded(port uint16) string { return portBytes(port) + "\x00\x00" }

func numberBytes(n uint32) string { return string(binary.NativeEndian.AppendUint32(nil, n)) }

func protocolName(number uint8) string {
	return map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[number]
}
