//go:build linux

package nftables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Differences tells where the kernel does not have what the data plane believes it has. Time-outs and the contents of
// rules are not looked at: the library cannot read them.
func (p *Plane) Differences() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, t := range p.committed {
		differences, err := t.differences()
		if err != nil {
			return nil, err
		}
		all = append(all, differences...)
	}
	return all, nil
}

func (t *table) differences() ([]string, error) {
	var conn nftables.Conn
	var all []string
	differ := func(format string, args ...any) {
		all = append(all, t.family.name+": "+fmt.Sprintf(format, args...))
	}
	there := &nftables.Table{Name: tableName, Family: nftables.TableFamily(t.family.number)}

	chains, err := conn.ListChainsOfTableFamily(there.Family)
	if err != nil {
		return nil, err
	}
	rules, err := countRules(t.family)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, c := range chains {
		if c.Table.Name != tableName {
			continue
		}
		names[c.Name] = true
		wanted := t.chains[c.Name]
		if wanted == nil {
			differ("chain %s is left over", c.Name)
			continue
		}
		if n := rules[c.Name]; n != len(wanted.rules) {
			differ("chain %s has %d rules, want %d", c.Name, n, len(wanted.rules))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.chains)) {
		if !names[name] {
			differ("chain %s is missing", name)
		}
	}

	sets, err := conn.GetSets(there)
	if err != nil {
		return nil, err
	}
	names = map[string]bool{}
	for _, s := range sets {
		names[s.Name] = true
		wanted := t.sets[s.Name]
		if wanted == nil {
			differ("set %s is left over", s.Name)
			continue
		}
		if wanted.dynamic {
			continue
		}
		elements, err := conn.GetSetElements(&nftables.Set{Table: there, Name: s.Name})
		if err != nil {
			return nil, err
		}
		want := map[string]string{}
		for key, e := range wanted.elements {
			want[key] = e.data
			if end, more := after(e.end); wanted.interval && more {
				want[end+" end"] = ""
			}
		}
		got := map[string]string{}
		for _, e := range elements {
			key := string(e.Key)
			if e.IntervalEnd {
				key += " end"
			}
			got[key] = string(e.Val)
			if wanted.verdicts { // the library cannot read these
				got[key] = ""
			}
		}
		if wanted.interval {
			delete(got, string(make([]byte, t.family.bytes))+" end") // the kernel's own
		}
		if !maps.Equal(got, want) {
			differ("set %s has %q, want %q", s.Name, got, want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.sets)) {
		if !names[name] {
			differ("set %s is missing", name)
		}
	}
	return all, nil
}

// countRules tells how many rules each chain has.
func countRules(f family) (map[string]int, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	defer s.close()
	counts := map[string]int{}
	ofTable := attribute(unix.NFTA_RULE_TABLE, []byte(tableName+"\x00"))
	err = s.request(encode(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, netlink.Dump, f.number, 0, ofTable), func(body []byte) {
		for kind, value := range attributesOf(body[4:]) {
			if kind == unix.NFTA_RULE_CHAIN {
				counts[strings.TrimRight(string(value), "\x00")]++
			}
		}
	})
	return counts, err
}
