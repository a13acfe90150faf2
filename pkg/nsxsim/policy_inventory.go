package nsxsim

import (
	"fmt"
	"net/netip"
)

// Intents in inventories and snapshots. What they are realised in is not kept: it
// is made anew, with the same ids and addresses.

// isRealized tells whether an object of the Manager is made of an intent.
func (s *Sim) isRealized(o *object) bool {
	if s.policy == nil {
		return false
	}
	ref := objectRef{o.kind.name, o.id}
	if ref.kind == KindAdvertisement {
		ref.kind = KindLogicalRouter
	}
	return s.policy.made[ref] != ""
}

// intents gives all but the system's own.
func (s *Sim) intents() []*object {
	if s.policy == nil {
		return nil
	}
	var all []*object
	for _, k := range s.policy.kinds {
		for _, o := range s.store.list(k.name) {
			if !o.doc.boolean("_system_owned") {
				all = append(all, o)
			}
		}
	}
	return all
}

func (s *Sim) realizedAddress(o *object) netip.Addr {
	if o.kind.name != KindPolicyIPAllocation {
		return netip.Addr{}
	}
	return s.policy.records[o.id].address
}

// loadIntent stores an intent of an inventory and realises it, whatever the
// delay. It is called under the lock.
func (s *Sim) loadIntent(by author, given Object) error {
	p, path := s.policy, given.String("path")
	k := p.kindAt(path)
	if k == nil || k.name != Kind(given.String("kind")) {
		return fmt.Errorf("path %q is none of a %s", path, given.String("kind"))
	}
	doc, err := documentOf(given)
	if err != nil {
		return err
	}
	by.dangling = doc.boolean("dangling")
	for _, name := range []string{"kind", "as", "realized_ip", "dangling"} {
		delete(doc, name)
	}
	delay := p.delay
	p.delay = 0
	defer func() { p.delay = delay }()
	o, refused := s.storeLoaded(by, k, path, doc)
	if refused != nil {
		return refused
	}
	if addr, err := netip.ParseAddr(given.String("realized_ip")); err == nil {
		p.records[o.id].want = addr
	}
	s.realizeDue()
	return nil
}

// storeLoaded keeps the unique_id that the document has, if no other object has
// it.
func (s *Sim) storeLoaded(by author, k *policyKind, path string, doc document) (*object, *Error) {
	uid := doc.str("unique_id")
	for _, other := range s.store.withKey("unique/" + uid) {
		if other.id != path {
			return nil, refuse(codeValidation, "An object with unique_id %s exists already.", uid)
		}
	}
	return s.storeIntent(by, k, path, doc, s.store.get(k.name, path), uid)
}
