package nsxsim

import (
	"cmp"
	"fmt"
	"slices"
)

// state is all of a simulator that changes with its objects.
type state struct {
	store   *store
	index   *searchIndex
	ipPools map[string]*ipPool
	intents intents
}

// intents is the same of the Policy API; empty without one.
type intents struct {
	queue   []task
	index   *searchIndex
	records map[string]*realization
	made    map[objectRef]string
}

func (s *Sim) state() state {
	st := state{store: s.store, index: s.index, ipPools: s.ipPools}
	if p := s.policy; p != nil {
		st.intents = intents{p.queue, p.index, p.records, p.made}
	}
	return st
}

func (s *Sim) setState(st state) {
	s.store, s.index, s.ipPools = st.store, st.index, st.ipPools
	s.learnPrincipals()
	if p := s.policy; p != nil {
		p.queue, p.index, p.records, p.made = st.intents.queue, st.intents.index, st.intents.records, st.intents.made
	}
}

// Restore puts the simulator back to a Snapshot, revisions and times included, in
// one step: what is not in it is gone. On an error nothing is changed.
func (s *Sim) Restore(snapshot Inventory) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.state()
	s.keepSystemObjects(before)
	err := s.load(snapshot)
	if err == nil {
		for _, o := range snapshot.Objects {
			s.stamp(o)
		}
	} else {
		s.setState(before)
		err = fmt.Errorf("restoring a snapshot: %w", err)
	}
	if s.plane != nil {
		s.plane.mark()
	}
	return err
}

// keepSystemObjects begins a new state with those objects of the one before that
// snapshots leave out.
func (s *Sim) keepSystemObjects(before state) {
	after := state{store: newStore(), index: newSearchIndex(before.index.delay), ipPools: map[string]*ipPool{}}
	after.store.lastSeq = before.store.lastSeq // cursors of lists stay true
	if before.intents.index != nil {
		after.intents = intents{index: newSearchIndex(before.intents.index.delay), records: map[string]*realization{}, made: map[objectRef]string{}}
	}
	var kept []*object
	for _, c := range before.store.collections {
		for _, o := range c.byID {
			if !o.doc.boolean("_system_owned") {
				continue
			}
			clone := *o // the new store gives it a place of its own
			kept = append(kept, &clone)
			if record, ok := before.intents.records[o.id]; ok {
				after.intents.records[o.id] = record
			}
			ref := objectRef{o.kind.name, o.id}
			if path, ok := before.intents.made[ref]; ok {
				after.intents.made[ref] = path
			}
		}
	}
	slices.SortFunc(kept, func(a, b *object) int { return cmp.Compare(a.seq, b.seq) })
	s.setState(after)
	for _, o := range kept {
		s.store.put(o)
		s.committed(o)
	}
}

// stamp gives an object that was loaded the revision and the times that the
// snapshot has of it.
func (s *Sim) stamp(snap Object) {
	kind, id := Kind(snap.String("kind")), snap.ID()
	if s.policy != nil && s.policy.byName[kind] != nil {
		id = snap.String("path")
	}
	o := s.store.get(kind, id)
	if o == nil {
		return
	}
	stamped := *o
	stamped.doc = o.doc.clone()
	for _, name := range []string{"_create_time", "_last_modified_time", "_last_modified_user"} {
		if v, ok := snap[name]; ok {
			stamped.doc.set(name, v)
		}
	}
	stamped.revision = int64(snap.Revision())
	stamped.doc.set("_revision", stamped.revision)
	stamped.raw = encode(stamped.doc)
	s.store.put(&stamped)
	s.committed(&stamped)
}
