//go:build linux

package nftables

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A ruleset's text is nft's language, with the freedom that it need not be what nft would print.

// writeTo prints the ruleset.
func (r ruleset) writeTo(w io.Writer) {
	for _, t := range r {
		t.writeTo(w)
	}
}

func (t *table) writeTo(w io.Writer) {
	fmt.Fprintf(w, "table %s %s {\n", t.family.name, tableName)
	for _, name := range slices.Sorted(maps.Keys(t.idle)) {
		i := t.idle[name]
		states := "established"
		if i.protocol == unix.IPPROTO_UDP {
			states = "unreplied, replied"
		}
		fmt.Fprintf(w, "\tct timeout %s {\n\t\tprotocol %s\n\t\tpolicy = { %s : %d }\n\t}\n", name, protocolName(i.protocol), states, i.seconds)
	}
	for _, name := range slices.Sorted(maps.Keys(t.sets)) {
		t.sets[name].writeTo(w)
	}
	for _, c := range slices.SortedFunc(maps.Values(t.chains), func(a, b *chain) int {
		if (a.base == nil) != (b.base == nil) {
			return cmp.Compare(boolean(a.base == nil), boolean(b.base == nil))
		}
		return strings.Compare(a.name, b.name)
	}) {
		c.writeTo(w)
	}
	fmt.Fprintln(w, "}")
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *set) writeTo(w io.Writer) {
	kind, of := "set", s.key.String()
	switch {
	case s.verdicts:
		kind, of = "map", of+" : verdict"
	case s.data != nil:
		kind, of = "map", of+" : "+s.data.String()
	}
	var flags []string
	for flag, set := range map[string]bool{"dynamic": s.dynamic, "interval": s.interval, "timeout": s.timeouts} {
		if set {
			flags = append(flags, flag)
		}
	}
	slices.Sort(flags)
	fmt.Fprintf(w, "\t%s %s {\n\t\ttype %s\n", kind, s.name, of)
	if len(flags) > 0 {
		fmt.Fprintf(w, "\t\tflags %s\n", strings.Join(flags, ","))
	}
	for _, key := range slices.Sorted(maps.Keys(s.elements)) {
		fmt.Fprintf(w, "\t\t%s\n", s.text(key, s.elements[key]))
	}
	fmt.Fprint(w, "\t}\n")
}

func (s *set) text(key string, e element) string {
	text := s.key.text(key)
	switch {
	case s.interval:
		return text + "-" + s.key.text(e.end)
	case s.verdicts:
		return text + " : goto " + e.goTo
	case s.data != nil:
		return text + " : " + s.data.text(e.data)
	}
	return text
}

// text of registers' contents.
func (c concatenation) text(bytes string) string {
	var parts []string
	for _, t := range c {
		b := []byte(bytes[:t.bytes])
		switch t {
		case protocolType:
			parts = append(parts, protocolName(b[0]))
		case portType:
			parts = append(parts, fmt.Sprint(binary.BigEndian.Uint16(b)))
		case markType:
			parts = append(parts, fmt.Sprintf("%#x", binary.NativeEndian.Uint32(b)))
		default:
			a, _ := netip.AddrFromSlice(b)
			parts = append(parts, a.String())
		}
		bytes = bytes[min(int(padded(t.bytes)), len(bytes)):]
	}
	return strings.Join(parts, " . ")
}

func (c *chain) writeTo(w io.Writer) {
	fmt.Fprintf(w, "\tchain %s {\n", c.name)
	if c.base != nil {
		fmt.Fprintf(w, "\t\ttype %s hook %s priority %d; policy accept;\n", c.base.kind, c.base.where, c.base.priority)
	}
	for _, r := range c.rules {
		fmt.Fprintf(w, "\t\t%v\n", r)
	}
	fmt.Fprint(w, "\t}\n")
}
