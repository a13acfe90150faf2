//go:build linux

package nftables

import (
	"maps"
	"slices"
)

// stages are the transactions that make one ruleset of another. What packets find changes in the second one alone, at one
// moment. The first one makes what it leads to, the third one removes what nothing leads to any more: a packet that is on
// its way through the rules when they change goes on with the old rules, but looks into the maps as they are by then. It
// must find nothing empty there, or gone.
type stages [3][]tableChange

const (
	prepare = iota
	swap
	cleanUp
)

// tableChange is what changes in a table, in an order in which each step is possible.
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
	return len(c.newSets)+len(c.newChains)+len(c.removed)+len(c.data)+len(c.rules)+len(c.verdicts)+len(c.oldChains)+len(c.oldSets)+
		len(c.newIdle)+len(c.oldIdle) == 0
}

// diff tells what makes the second ruleset of the first one.
func diff(from, to ruleset) stages {
	var all stages
	for i := range to {
		old := from[i]
		if old == nil {
			old = newTable(to[i].family)
		}
		for stage, c := range to[i].changesFrom(old) {
			if !c.empty() {
				all[stage] = append(all[stage], c)
			}
		}
	}
	return all
}

func (t *table) changesFrom(old *table) [3]tableChange {
	all := [3]tableChange{{table: t}, {table: t}, {table: t}}
	all[prepare].newIdle = missing(t.idle, old.idle) // the name tells what it is
	all[cleanUp].oldIdle = missing(old.idle, t.idle)
	for _, name := range slices.Sorted(maps.Keys(t.sets)) {
		wanted, is := t.sets[name], old.sets[name]
		if is == nil {
			all[prepare].newSets = append(all[prepare].newSets, wanted)
		}
		changeElements(&all, wanted, is)
	}
	for _, name := range slices.Sorted(maps.Keys(t.chains)) {
		switch wanted, is := t.chains[name], old.chains[name]; {
		case is == nil:
			all[prepare].newChains = append(all[prepare].newChains, wanted)
			all[prepare].rules = append(all[prepare].rules, wanted)
		case !wanted.sameAs(is):
			all[swap].rules = append(all[swap].rules, wanted)
		}
	}
	for _, name := range missing(old.chains, t.chains) {
		all[cleanUp].oldChains = append(all[cleanUp].oldChains, old.chains[name])
	}
	for _, name := range missing(old.sets, t.sets) {
		all[cleanUp].oldSets = append(all[cleanUp].oldSets, old.sets[name])
	}
	return all
}

// missing gives the keys that the other map does not have, in order.
func missing[V any](m, other map[string]V) []string {
	var names []string
	for name := range m {
		if _, ok := other[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// changeElements compares those of one set, which is nil when it is new.
func changeElements(all *[3]tableChange, wanted, is *set) {
	var removed, added [3]map[string]element
	put := func(to *map[string]element, key string, e element) {
		if *to == nil {
			*to = map[string]element{}
		}
		(*to)[key] = e
	}
	var old map[string]element
	early, late := swap, swap
	switch {
	case is == nil:
		early = prepare
	case wanted.lingers:
		old, early, late = is.elements, prepare, cleanUp
	default:
		old = is.elements
	}
	if wanted.verdicts {
		early = swap // lest packets find them before all is there
	}
	for key, e := range old {
		switch w, ok := wanted.elements[key]; {
		case !ok:
			put(&removed[late], key, e)
		case w != e:
			put(&removed[swap], key, e)
			put(&added[swap], key, w)
		}
	}
	for key, e := range wanted.elements {
		if _, ok := old[key]; !ok {
			put(&added[early], key, e)
		}
	}
	for stage := range all {
		c := &all[stage]
		if removed[stage] != nil {
			c.removed = append(c.removed, setElements{wanted, removed[stage]})
		}
		switch {
		case added[stage] == nil:
		case wanted.verdicts:
			c.verdicts = append(c.verdicts, setElements{wanted, added[stage]})
		default:
			c.data = append(c.data, setElements{wanted, added[stage]})
		}
	}
}
