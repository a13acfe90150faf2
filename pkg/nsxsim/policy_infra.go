package nsxsim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The tree below /infra as a whole: PATCH /infra and GET /infra?filter=.

// treeOp is one object of a tree: to be patched, or to be deleted.
type treeOp struct {
	kind   *policyKind
	path   string
	remove bool
	strict bool // the patch must carry the present revision, if any
	patch  document
}

// patchInfra serves PATCH /infra: it applies a tree of many objects, all or
// nothing.
func patchInfra(r *request) (*response, *Error) {
	tree, err := r.document()
	if err != nil {
		return nil, err
	}
	if t := tree.str("resource_type"); t != "" && t != "Infra" {
		return nil, invalid(fmt.Sprintf("resource_type must be Infra, got %q", t))
	}
	ops, err := r.sim.treeOps(nil, "/infra", tree)
	if err != nil {
		return nil, err
	}
	for i := range ops {
		ops[i].strict = r.query.Get("enforce_revision_check") == "true"
	}
	if err := r.sim.applyTree(r.author, ops); err != nil {
		return nil, err
	}
	r.sim.realizeDue()
	return &response{status: http.StatusOK}, nil
}

// treeOps gives what the children of the object at a path, of a kind or of none,
// ask for: parents before their children.
func (s *Sim) treeOps(kind *policyKind, path string, holder document) ([]treeOp, *Error) {
	var children []document
	if holder.has("children") && !holder.get("children", &children) {
		return nil, invalid("children must be a list of objects")
	}
	var ops []treeOp
	for _, c := range children {
		more, err := s.childOps(kind, path, c)
		if err != nil {
			return nil, err
		}
		ops = append(ops, more...)
	}
	return ops, nil
}

func (s *Sim) childOps(holder *policyKind, path string, wrapper document) ([]treeOp, *Error) {
	wrapped := wrapper.str("resource_type")
	if wrapped == "ChildResourceReference" {
		return s.referenceOps(holder, path, wrapper)
	}
	name, ok := strings.CutPrefix(wrapped, "Child")
	if ok && name == "Domain" && path == "/infra" {
		return s.treeOps(nil, "/infra/domains/default", wrapper.object(name))
	}
	k := s.childKind(holder, path, name)
	if !ok || k == nil {
		return nil, invalid(fmt.Sprintf("resource_type %q is no child of path=[%s]", wrapped, path))
	}
	var doc document
	if !wrapper.get(name, &doc) || doc == nil {
		return nil, invalid(name + " is required")
	}
	id := doc.str("id")
	if id == "" {
		return nil, invalid(name + ".id is required")
	}
	op := treeOp{kind: k, path: s.pathOf(k, path, id), patch: doc,
		remove: wrapper.boolean("marked_for_delete") || doc.boolean("marked_for_delete")}
	below, err := s.treeOps(k, op.path, doc)
	if err != nil {
		return nil, err
	}
	return append([]treeOp{op}, below...), nil
}

// referenceOps go on below an object that the tree itself leaves as it is.
func (s *Sim) referenceOps(holder *policyKind, path string, wrapper document) ([]treeOp, *Error) {
	target, id := wrapper.str("target_type"), wrapper.str("id")
	if target == "Domain" && path == "/infra" {
		if id != "default" {
			return nil, invalidPath("/infra/domains/" + id)
		}
		return s.treeOps(nil, "/infra/domains/default", wrapper)
	}
	k := s.childKind(holder, path, target)
	if k == nil {
		return nil, invalid(fmt.Sprintf("target_type %q is no child of path=[%s]", target, path))
	}
	return s.treeOps(k, s.pathOf(k, path, id), wrapper)
}

// childKind gives the kind of the ChildX that the object at a path may hold.
func (s *Sim) childKind(holder *policyKind, path, name string) *policyKind {
	for _, k := range s.policy.kinds {
		switch {
		case k.child != name:
		case holder != nil && k.parent == holder.name:
			return k
		case holder == nil && k.parent == "" && strings.HasPrefix(k.collection, "domains/") == strings.HasPrefix(path, "/infra/domains/"):
			return k
		}
	}
	return nil
}

func (s *Sim) pathOf(k *policyKind, parent, id string) string {
	if k.parent == "" {
		parent = "/infra"
	}
	return parent + "/" + k.collection + "/" + id
}

// applyTree does all or none of the operations. They may stand in any order:
// what a patch refers to may be in the tree too, and so may all that refers to
// what is deleted.
func (s *Sim) applyTree(by author, ops []treeOp) *Error {
	slices.SortStableFunc(ops, func(a, b treeOp) int {
		switch {
		case a.remove != b.remove && a.remove:
			return -1
		case a.remove != b.remove:
			return 1
		case a.remove:
			return cmp.Compare(b.kind.rank, a.kind.rank)
		}
		return cmp.Compare(a.kind.rank, b.kind.rank)
	})
	undo := s.remember(ops)
	for len(ops) > 0 {
		var later []treeOp
		var first *Error
		for _, op := range ops {
			if err := s.applyOp(by, op); err != nil {
				later = append(later, op)
				if first == nil {
					first = err
				}
			}
		}
		if len(later) == len(ops) {
			undo()
			return first
		}
		ops = later
	}
	return nil
}

func (s *Sim) applyOp(by author, op treeOp) *Error {
	if op.remove {
		return s.removeIntent(by, op.path, false)
	}
	if old := s.store.get(op.kind.name, op.path); old != nil && op.strict {
		if op.patch.has("_revision") && !op.patch.carries(old.revision) {
			return s.stale(old)
		}
	}
	_, err := s.patchIntent(by, op.kind, op.path, op.patch)
	return err
}

// remember gives what puts the intents of the operations back as they are now,
// and what is to be realised.
func (s *Sim) remember(ops []treeOp) (undo func()) {
	before := map[objectRef]*object{}
	for _, op := range ops {
		before[objectRef{op.kind.name, op.path}] = s.store.get(op.kind.name, op.path)
	}
	p := s.policy
	queue, records := slices.Clone(p.queue), map[string]realization{}
	for ref := range before {
		if rec := p.records[ref.id]; rec != nil {
			records[ref.id] = *rec
		}
	}
	return func() {
		for ref, old := range before {
			if now := s.store.get(ref.kind, ref.id); now != old {
				if now != nil {
					s.store.remove(now)
				}
				if old != nil {
					s.store.restore(old)
				}
				s.committed(cmp.Or(old, now))
			}
			if rec, ok := records[ref.id]; ok {
				*p.records[ref.id] = rec
			} else {
				delete(p.records, ref.id)
			}
		}
		p.queue = queue
	}
}

// restore puts an object back that was there before, in its place.
func (s *store) restore(o *object) {
	c := s.of(o.kind.name)
	c.ordered = slices.Insert(c.ordered, c.index(o.seq), o)
	c.byID[o.id] = o
	s.link(o)
}

// getInfra serves GET /infra; with filter=Type-LBPool|LBService or
// type_filter=LBPool;LBService, with the objects of those types as its children.
func getInfra(r *request) (*response, *Error) {
	infra := fixed("Infra", "/infra")
	filter, _ := strings.CutPrefix(r.query.Get("filter"), "Type-")
	types := strings.FieldsFunc(filter+";"+r.query.Get("type_filter"), func(c rune) bool { return c == '|' || c == ';' })
	if len(types) > 0 {
		children := []json.RawMessage{}
		for _, k := range r.sim.policy.kinds {
			if k.parent == "" && slices.Contains(types, k.child) {
				for _, o := range r.sim.store.list(k.name) {
					children = append(children, r.sim.childOf(r.author.user, k, o, types))
				}
			}
		}
		infra["children"] = children
	}
	return &response{status: http.StatusOK, body: encode(infra)}, nil
}

// childOf wraps an object, with the children of the types asked for.
func (s *Sim) childOf(user string, k *policyKind, o *object, types []string) json.RawMessage {
	doc := decodeObject(s.answer(user, o))
	var children []json.RawMessage
	for _, below := range s.policy.kinds {
		if below.parent != k.name || !slices.Contains(types, below.child) {
			continue
		}
		for _, c := range s.childrenOf(o.id, below.name) {
			children = append(children, s.childOf(user, below, c, types))
		}
	}
	if children != nil {
		doc["children"] = children
	}
	return encode(map[string]any{"resource_type": "Child" + k.child, "id": doc.ID(), "marked_for_delete": false, k.child: doc})
}

// Intents for tests and set-up, without HTTP.

// PutIntent creates the object of the Policy API at a path
// ("/infra/lb-pools/web"), or puts the members of o in the place of its own, as
// PATCH does. It is realised when Options.RealizationDelay is over.
func (e Editor) PutIntent(path string, o Object) (Object, error) {
	e.sim.mu.Lock()
	defer e.sim.mu.Unlock()
	if e.sim.policy == nil || e.sim.policy.kindAt(path) == nil {
		return nil, noSuchURI(policyBase + path)
	}
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("intent %s: %w", path, err)
	}
	var patch document
	if err := json.Unmarshal(raw, &patch); err != nil || patch == nil {
		return nil, errors.Join(errNotAnObject, err)
	}
	stored, refused := e.sim.patchIntent(e.by, e.sim.policy.kindAt(path), path, patch)
	e.sim.realizeDue()
	return e.result(stored, refused)
}

// DeleteIntent deletes the object of the Policy API at a path.
func (e Editor) DeleteIntent(path string) error {
	e.sim.mu.Lock()
	defer e.sim.mu.Unlock()
	if e.sim.policy == nil {
		return noSuchURI(policyBase + path)
	}
	if err := e.sim.removeIntent(e.by, path, false); err != nil {
		return err
	}
	e.sim.realizeDue()
	return nil
}
