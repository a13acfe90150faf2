package nsxsim

import (
	"errors"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"
)

// Inventory is a set of objects to fill a simulator with, and what Snapshot
// takes of one.
type Inventory struct {
	// Objects are documents as the API has them, plus two members: kind, the
	// Kind, and as, the user that makes the object (default admin). Their order does
	// not matter. An id may be any string; without one, it is made. References may
	// name an object by its display_name instead of its id. An object whose id
	// exists is replaced: the AdvertisementConfig of a router has the router's id.
	// Objects of the Policy API are named by path instead of id, and refer to others
	// by path; they are realised at once.
	Objects []Object `json:"objects,omitempty"`
	// Allocations are addresses taken from IP pools.
	Allocations []Allocation `json:"allocations,omitempty"`
}

// Allocation is an address taken from an IP pool.
type Allocation struct {
	Pool    string `json:"pool"` // id or display_name
	Address string `json:"address"`
}

// ParseInventory reads an inventory from YAML or JSON. Unknown keys beside
// objects and allocations are errors; members of objects are the API's affair.
func ParseInventory(text []byte) (Inventory, error) {
	var inv Inventory
	if err := yaml.UnmarshalStrict(text, &inv); err != nil {
		return inv, fmt.Errorf("reading the inventory: %w", err)
	}
	return inv, nil
}

// Load makes the objects and allocations. What was made before an error stays.
func (s *Sim) Load(inv Inventory) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(inv)
}

func (s *Sim) load(inv Inventory) error {
	todo := make([]loading, len(inv.Objects))
	for i, o := range inv.Objects {
		todo[i] = loading{position: i + 1, object: o}
	}
	// Each round makes the objects whose references exist by then.
	for len(todo) > 0 {
		var later []loading
		var errs []error
		for _, l := range todo {
			if err := s.loadObject(l.object); err != nil {
				var refused *Error
				if !errors.As(err, &refused) || refused.Code != codeReferenceMissing && refused.Code != codePolicyPath {
					return l.wrap(err)
				}
				later, errs = append(later, l), append(errs, l.wrap(err))
			}
		}
		if len(later) == len(todo) {
			return errors.Join(errs...)
		}
		todo = later
	}
	for i, a := range inv.Allocations {
		if err := s.loadAllocation(a); err != nil {
			return fmt.Errorf("allocation %d (%s of pool %s): %w", i+1, a.Address, a.Pool, err)
		}
	}
	return nil
}

type loading struct {
	position int
	object   Object
}

func (l loading) wrap(err error) error {
	return fmt.Errorf("object %d (%s %s): %w", l.position, l.object.String("kind"), l.object.String("display_name"), err)
}

func (s *Sim) loadObject(given Object) error {
	user := given.String("as")
	if user == "" {
		user = DefaultUsername
	}
	editor := s.As(user).Overwrite()
	if s.policy != nil && s.policy.byName[Kind(given.String("kind"))] != nil {
		return s.loadIntent(editor.by, given)
	}
	k, err := editor.kind(Kind(given.String("kind")))
	if err != nil {
		return fmt.Errorf("kind %q: %w", given.String("kind"), err)
	}
	doc, err := documentOf(given)
	if err != nil {
		return err
	}
	delete(doc, "kind")
	delete(doc, "as")
	s.resolveNames(doc, k.fields)
	id := doc.str("id")
	if k.name == KindAdvertisement {
		id = s.idOf(id, []Kind{KindLogicalRouter})
	}
	var refused *Error
	if old := s.store.get(k.name, id); old != nil {
		doc.set("_revision", old.revision)
		_, refused = s.update(editor.by, k, id, doc)
	} else if k.name == KindAdvertisement {
		refused = refuse(codeReferenceMissing, "The object %s referenced by id does not exist.", id)
	} else {
		_, refused = s.create(editor.by, k, doc, id)
	}
	if refused != nil {
		return refused
	}
	return nil
}

func (s *Sim) loadAllocation(a Allocation) error {
	id := s.idOf(a.Pool, []Kind{KindIPPool})
	pool, addr, err := s.As(DefaultUsername).poolAndAddress(id, a.Address)
	if err != nil {
		return err
	}
	p := s.ipPoolState(id)
	if err := mayAllocate(pool, p, addr); err != nil {
		return err
	}
	p.allocated = append(p.allocated, allocation{addr: addr, at: s.now(), user: DefaultUsername})
	return nil
}

// resolveNames puts ids in the place of display names, in references. What is of
// the wrong shape is left to the checks.
func (s *Sim) resolveNames(doc document, fields []field) {
	for i := range fields {
		f := &fields[i]
		var (
			id   string
			ids  []string
			one  document
			many []document
		)
		switch isRef := len(f.ref) > 0; {
		case !isRef && len(f.fields) == 0:
		case isRef && f.shape == listShape && doc.get(f.name, &ids):
			for i := range ids {
				ids[i] = s.idOf(ids[i], f.ref)
			}
			doc.set(f.name, ids)
		case isRef && f.shape == stringShape && doc.get(f.name, &id):
			doc.set(f.name, s.idOf(id, f.ref))
		case f.shape == listShape && doc.get(f.name, &many):
			for _, o := range many {
				s.resolveNames(o, f.fields)
			}
			doc.set(f.name, many)
		case f.shape == objectShape && doc.get(f.name, &one):
			s.resolveNames(one, f.fields)
			doc.set(f.name, one)
		}
	}
}

// idOf gives the id of the only object of the kinds that is named so; the name
// itself when it is an id, or the name of none or of several.
func (s *Sim) idOf(name string, kinds []Kind) string {
	var ids []string
	for _, k := range kinds {
		if s.store.get(k, name) != nil {
			return name
		}
		for _, o := range s.store.list(k) {
			if o.doc.str("display_name") == name {
				ids = append(ids, o.id)
			}
		}
	}
	if len(ids) != 1 {
		return name
	}
	return ids[0]
}

// Snapshot gives all objects, but those that each NSX has from the start, and all
// allocations: loaded into a fresh simulator, they make its equal but for
// revisions and times; Restore brings these back, too.
func (s *Sim) Snapshot() Inventory {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*object
	for k := range s.kinds {
		for _, o := range s.store.list(k) {
			if !o.doc.boolean("_system_owned") && !s.isRealized(o) {
				all = append(all, o)
			}
		}
	}
	all = append(all, s.intents()...)
	slices.SortFunc(all, func(a, b *object) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	var inv Inventory
	for _, o := range all {
		snap := decodeObject(o.raw)
		snap["kind"] = string(o.kind.name)
		snap["as"] = o.doc.str("_create_user")
		if s.policy != nil && s.policy.byName[o.kind.name] != nil {
			if _, dangling := s.dangling(o); dangling {
				snap["dangling"] = true
			}
		}
		if addr := s.realizedAddress(o); addr.IsValid() {
			snap["realized_ip"] = addr.String()
		}
		inv.Objects = append(inv.Objects, snap)
	}
	for _, pool := range s.store.list(KindIPPool) {
		for _, a := range s.ipPoolState(pool.id).allocated {
			if a.intent {
				continue // comes with its intent
			}
			inv.Allocations = append(inv.Allocations, Allocation{pool.id, a.addr.String()})
		}
	}
	return inv
}
