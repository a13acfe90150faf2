package nsxsim

import (
	"slices"
	"sort"
)

// object is one stored document and what is derived from it. Objects are
// immutable: an update stores a new one under the same id and sequence number.
type object struct {
	kind     *kind
	id       string
	seq      uint64 // order of creation: the order of lists
	revision int64
	doc      document
	raw      []byte // doc, encoded once
	owner    string // the principal identity that owns it, or "" when anybody may write
	refs     []objectRef
	keys     []string
}

// objectRef names an object from outside.
type objectRef struct {
	kind Kind
	id   string
}

// collection holds the objects of one kind.
type collection struct {
	byID    map[string]*object
	ordered []*object // by seq; those that byID does not have are gone
	gone    int       // how many are
}

// store keeps documents by kind and two indexes over them: who refers to an
// object, and which objects have a key (a kind's own secondary index). It knows
// no rule of NSX and takes no lock: its owner serialises the calls.
type store struct {
	collections map[Kind]*collection
	referrers   map[objectRef]map[objectRef]struct{}
	keyed       map[string]map[objectRef]struct{}
	lastSeq     uint64
}

func newStore() *store {
	return &store{
		collections: map[Kind]*collection{},
		referrers:   map[objectRef]map[objectRef]struct{}{},
		keyed:       map[string]map[objectRef]struct{}{},
	}
}

func (s *store) of(k Kind) *collection {
	c := s.collections[k]
	if c == nil {
		c = &collection{byID: map[string]*object{}}
		s.collections[k] = c
	}
	return c
}

func (s *store) get(k Kind, id string) *object {
	if c := s.collections[k]; c != nil {
		return c.byID[id]
	}
	return nil
}

// list gives the objects of a kind in order of creation; callers must not keep
// the slice beyond the lock.
func (s *store) list(k Kind) []*object {
	if c := s.collections[k]; c != nil {
		c.tidy()
		return c.ordered
	}
	return nil
}

// tidy takes out what is gone: all at once, as each would cost a move of all
// that come after.
func (c *collection) tidy() {
	if c.gone > 0 {
		c.ordered = slices.DeleteFunc(c.ordered, func(o *object) bool { return c.byID[o.id] != o })
		c.gone = 0
	}
}

// put stores a new object or replaces the one of the same id.
func (s *store) put(o *object) {
	c := s.of(o.kind.name)
	if old := c.byID[o.id]; old != nil {
		s.unlink(old)
		o.seq = old.seq
		c.ordered[c.index(o.seq)] = o
	} else {
		s.lastSeq++
		o.seq = s.lastSeq
		c.ordered = append(c.ordered, o)
	}
	c.byID[o.id] = o
	s.link(o)
}

func (s *store) link(o *object) {
	self := objectRef{o.kind.name, o.id}
	for _, target := range o.refs {
		add(s.referrers, target, self)
	}
	for _, key := range o.keys {
		add(s.keyed, key, self)
	}
}

func (s *store) remove(o *object) {
	c := s.of(o.kind.name)
	s.unlink(o)
	delete(c.byID, o.id)
	if c.gone++; c.gone > len(c.ordered)/2 {
		c.tidy()
	}
}

func (s *store) unlink(o *object) {
	self := objectRef{o.kind.name, o.id}
	for _, target := range o.refs {
		drop(s.referrers, target, self)
	}
	for _, key := range o.keys {
		drop(s.keyed, key, self)
	}
}

func (c *collection) index(seq uint64) int {
	return sort.Search(len(c.ordered), func(i int) bool { return c.ordered[i].seq >= seq })
}

// referrersOf gives the objects of the kinds (of any kind, when none is named)
// that refer to the target, in order of creation.
func (s *store) referrersOf(target objectRef, kinds ...Kind) []*object {
	return s.resolve(s.referrers[target], kinds)
}

// withKey gives the objects that carry the secondary key, in order of creation.
func (s *store) withKey(key string) []*object { return s.resolve(s.keyed[key], nil) }

func (s *store) resolve(refs map[objectRef]struct{}, kinds []Kind) []*object {
	var found []*object
	for r := range refs {
		if len(kinds) == 0 || slices.Contains(kinds, r.kind) {
			found = append(found, s.get(r.kind, r.id))
		}
	}
	slices.SortFunc(found, func(a, b *object) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return found
}

func add[K comparable](index map[K]map[objectRef]struct{}, key K, value objectRef) {
	if index[key] == nil {
		index[key] = map[objectRef]struct{}{}
	}
	index[key][value] = struct{}{}
}

func drop[K comparable](index map[K]map[objectRef]struct{}, key K, value objectRef) {
	delete(index[key], value)
	if len(index[key]) == 0 {
		delete(index, key)
	}
}
