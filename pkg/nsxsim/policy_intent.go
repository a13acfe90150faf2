package nsxsim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Intents are the documents of the Policy API: what its clients want. They are
// stored under their paths, and all rules of theirs are here; what becomes of
// them is the realisation's affair.

func (s *Sim) intentAt(path string) *object {
	if k := s.policy.kindAt(path); k != nil {
		return s.store.get(k.name, path)
	}
	return nil
}

// childrenOf gives the objects of a kind that are in the object at a path, in
// order of creation.
func (s *Sim) childrenOf(path string, k Kind) []*object {
	return s.store.resolve(s.store.keyed["policy-parent/"+path], []Kind{k})
}

// putIntent creates the object at a path or, if the body carries its present
// revision, replaces it whole. One without a revision means to create it.
func (s *Sim) putIntent(by author, k *policyKind, path string, body document) (*object, *Error) {
	old := s.store.get(k.name, path)
	switch {
	case old == nil:
		if err := s.mayMake(path); err != nil {
			return nil, err
		}
	case k.name == KindPolicyIPAllocation:
		return old, nil // made once, and never changed
	case !body.has("_revision"):
		return nil, refusePolicy(codePolicyExists, "Cannot create an object with path=[%s] as it already exists.", path)
	case !body.carries(old.revision):
		return nil, s.stale(old)
	}
	return s.storeIntent(by, k, path, body, old, "")
}

// mayMake refuses to make an object where another one is yet to be removed, as managers
// do that Quirks.PendingDelete is of.
func (s *Sim) mayMake(path string) *Error {
	if !s.quirks.PendingDelete || s.policy.records[path] == nil {
		return nil
	}
	return refusePolicy(codePolicyMarked,
		"An object with the same path=[%s] is marked for deletion. Either use another path or wait for the purge cycle to permanently remove the deleted object.", path)
}

// patchIntent creates the object at a path or puts the members of the body in
// the place of its own; those that are null are taken away. It takes no revision.
func (s *Sim) patchIntent(by author, k *policyKind, path string, patch document) (*object, *Error) {
	old := s.store.get(k.name, path)
	doc := document{}
	if old != nil {
		if k.name == KindPolicyIPAllocation {
			return old, nil
		}
		doc = old.doc.clone()
	} else if err := s.mayMake(path); err != nil {
		return nil, err
	}
	for name, raw := range patch {
		if isNull(raw) {
			delete(doc, name)
		} else {
			doc[name] = raw
		}
	}
	return s.storeIntent(by, k, path, doc, old, "")
}

// patch parses the body and keeps the members that are null.
func (r *request) patch() (document, *Error) {
	doc, err := r.document()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(r.body, &doc); err != nil {
		return nil, refuse(codeBadJSON, "Unable to parse the request: %v", err)
	}
	return doc, nil
}

// storeIntent creates or replaces an intent. A new one gets the unique_id given, or
// one of its own.
func (s *Sim) storeIntent(by author, k *policyKind, path string, body document, old *object, uid string) (*object, *Error) {
	if old != nil {
		if err := s.mayWrite(by, old); err != nil {
			return nil, err
		}
	}
	o, err := s.prepareIntent(by, k, path, body, old)
	if err != nil {
		return nil, err
	}
	if old == nil {
		if by.principal {
			o.owner = by.user
		}
		if uid == "" {
			uid = s.newID()
		}
		o.doc.set("unique_id", uid)
		o.doc.set("realization_id", uid)
		o.doc.set("_create_user", by.user)
		o.doc.set("_create_time", s.now())
		o.doc.set("_system_owned", by.system)
	} else {
		o.revision, o.owner = old.revision+1, old.owner
		for _, name := range []string{"unique_id", "realization_id", "_create_user", "_create_time", "_system_owned"} {
			o.doc[name] = old.doc[name]
		}
	}
	o.keys = append(o.keys, "unique/"+o.doc.str("unique_id"), "policy-parent/"+parentPath(path))
	s.commit(by, o)
	s.intentChanged(o)
	return o, nil
}

// prepareIntent checks a body against all rules and gives the object it would
// become, with nothing stored yet.
func (s *Sim) prepareIntent(by author, k *policyKind, path string, body document, old *object) (*object, *Error) {
	doc := body.clone()
	id := path[strings.LastIndexByte(path, '/')+1:]
	if s.policy.kindAt(path) != k || len(id) > 255 {
		return nil, invalid(fmt.Sprintf("id %q must have 1 to 255 characters and no slash", id))
	}
	if given := doc.str("id"); given != "" && given != id {
		return nil, refusePolicy(codePolicyInvalid, "The id %s in the body differs from that of path=[%s].", given, path)
	}
	resource, err := s.conform(&k.kind, doc, old, commonFields, policyFields)
	if err != nil {
		return nil, err
	}
	doc.set("id", id)
	doc.set("path", path)
	doc.set("relative_path", id)
	doc.set("parent_path", parentPath(path))
	doc.set("marked_for_delete", false)
	doc.set("overridden", false)
	doc.set("remote_path", "")
	if doc.str("display_name") == "" {
		doc.set("display_name", id)
	}
	refs, err := s.resolvePaths(by, k, path, doc)
	if err != nil {
		return nil, err
	}
	if k.check != nil && !by.dangling {
		if err := k.check(&change{Sim: s, id: path, old: old, doc: doc, resource: resource}); err != nil {
			return nil, err
		}
	}
	o := &object{kind: &k.kind, id: path, doc: doc, refs: refs}
	if k.keys != nil {
		o.keys = k.keys(doc)
	}
	return o, nil
}

// resolvePaths finds what an object is in and what it refers to.
func (s *Sim) resolvePaths(by author, k *policyKind, path string, doc document) ([]objectRef, *Error) {
	ids := references(doc, k.fields, "")
	if k.refs != nil {
		ids = append(ids, k.refs(doc)...)
	}
	if k.parent != "" {
		ids = append(ids, idField{"parent_path", []Kind{k.parent}, parentPath(path)})
	}
	var refs []objectRef
	for _, f := range ids {
		i := slices.IndexFunc(f.kinds, func(target Kind) bool { return s.store.get(target, f.id) != nil })
		if i < 0 && !by.dangling {
			return nil, invalidPath(f.id)
		}
		refs = append(refs, objectRef{f.kinds[max(i, 0)], f.id})
	}
	return refs, nil
}

// removeIntent deletes an object that holds no other and, unless by force, that
// nothing refers to. What refers to one deleted by force keeps the path, and cannot be
// realised until there is an object at it again.
func (s *Sim) removeIntent(by author, path string, force bool) *Error {
	o := s.intentAt(path)
	if o == nil {
		return s.notFound(path)
	}
	if err := s.mayWrite(by, o); err != nil {
		return err
	}
	if o.doc.boolean("_system_owned") {
		return refusePolicy(codePolicyInUse, "The object path=[%s] is owned by the system and cannot be deleted.", path)
	}
	var users []string
	for _, r := range s.store.referrersOf(objectRef{o.kind.name, path}) {
		if isChild := s.policy.byName[r.kind.name].parent == o.kind.name && parentPath(r.id) == path; isChild || !force {
			users = append(users, r.id)
		}
	}
	if len(users) > 0 {
		return refusePolicy(codePolicyInUse, "The object path=[%s] cannot be deleted as either it has children or it is being referenced by other objects path=[%s].",
			path, strings.Join(users, ","))
	}
	s.store.remove(o)
	s.committed(o)
	s.intentChanged(o)
	return nil
}

// dangling gives the path of an object that an intent refers to and that is no
// longer there.
func (s *Sim) dangling(o *object) (path string, found bool) {
	for _, ref := range o.refs {
		if s.store.get(ref.kind, ref.id) == nil {
			return ref.id, true
		}
	}
	return "", false
}
