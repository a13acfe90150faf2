//go:build linux

package nftables

import (
	"maps"
	"slices"
)

// tableChange is what differs in a table, in an order in which each step is possible: what is referred to comes before
// what refers to it, and goes after it. The kernel makes all steps at one moment.
type tableChange struct {
	table     *table
	newIdle   []string
	newSets   []*set
	newChains []*chain
	removed   []setElements // elements
	data      []setElements // elements of sets and of maps of data
	rules     []*chain      // whose rules are replaced
	verdicts  []setElements // elements that lead to chains
	oldChains []*chain
	oldSets   []*set
	oldIdle   []string
}

// setElements are elements of one set.
type setElements struct {
	set      *set
	elements map[string]element
}

func (c tableChange) empty() bool {
	return len(c.newSets)+len(c.newChains)+len(c.removed)+len(c.data)+len(c.rules)+len(c.verdicts)+len(c.oldChains)+len(c.oldSets)+len(c.newIdle)+len(c.oldIdle) == 0
}

// diff tells what makes the second ruleset of the first one.
func diff(from, to ruleset) []tableChange {
	var all []tableChange
	for i := range to {
		old := from[i]
		if old == nil {
			old = newTable(to[i].family)
		}
		if c := to[i].changesFrom(old); !c.empty() {
			all = append(all, c)
		}
	}
	return all
}

func (t *table) changesFrom(old *table) tableChange {
	c := tableChange{table: t}
	for _, name := range slices.Sorted(maps.Keys(t.idle)) { // the name tells what it is
		if _, ok := old.idle[name]; !ok {
			c.newIdle = append(c.newIdle, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.idle)) {
		if _, ok := t.idle[name]; !ok {
			c.oldIdle = append(c.oldIdle, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.sets)) {
		wanted, is := t.sets[name], old.sets[name]
		if is == nil {
			c.newSets = append(c.newSets, wanted)
			is = &set{}
		}
		c.elements(wanted, is.elements)
	}
	for _, name := range slices.Sorted(maps.Keys(t.chains)) {
		wanted, is := t.chains[name], old.chains[name]
		if is == nil {
			c.newChains = append(c.newChains, wanted)
			is = &chain{}
		}
		if !wanted.sameAs(is) {
			c.rules = append(c.rules, wanted)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.chains)) {
		if t.chains[name] == nil {
			c.oldChains = append(c.oldChains, old.chains[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.sets)) {
		if t.sets[name] == nil {
			c.oldSets = append(c.oldSets, old.sets[name])
		}
	}
	return c
}

// elements compares those of one set.
func (c *tableChange) elements(wanted *set, old map[string]element) {
	removed, added := map[string]element{}, map[string]element{}
	for key, e := range old {
		if w, ok := wanted.elements[key]; !ok || w != e {
			removed[key] = e
		}
	}
	for key, e := range wanted.elements {
		if is, ok := old[key]; !ok || is != e {
			added[key] = e
		}
	}
	if len(removed) > 0 {
		c.removed = append(c.removed, setElements{wanted, removed})
	}
	switch {
	case len(added) == 0:
	case wanted.verdicts:
		c.verdicts = append(c.verdicts, setElements{wanted, added})
	default:
		c.data = append(c.data, setElements{wanted, added})
	}
}
