package nsxsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// author is who makes a change.
type author struct {
	user      string
	principal bool // a principal identity
	overwrite bool // X-Allow-Overwrite: true
	system    bool // the manager itself: what it makes, nobody can delete
	dangling  bool // brings back intents whose references were deleted by force
}

// create stores a new object; id is made when empty. Like all in this file it is
// called under the lock.
func (s *Sim) create(by author, k *kind, body document, id string) (*object, *Error) {
	if id == "" {
		id = s.newID()
	}
	if s.store.get(k.name, id) != nil {
		return nil, refuse(codeValidation, "An object with id %s exists already.", id)
	}
	o, err := s.prepare(k, id, body, nil)
	if err != nil {
		return nil, err
	}
	if by.principal {
		o.owner = by.user
	}
	o.doc.set("_system_owned", by.system)
	o.doc.set("_create_user", by.user)
	o.doc.set("_create_time", s.now())
	s.commit(by, o)
	if k.name == KindLogicalRouter {
		if _, err := s.create(by, s.kinds[KindAdvertisement], document{}, id); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// update replaces an object whole, if the body carries its present revision.
func (s *Sim) update(by author, k *kind, id string, body document) (*object, *Error) {
	old := s.store.get(k.name, id)
	if old == nil {
		return nil, s.notFound(id)
	}
	if err := s.mayWrite(by, old); err != nil {
		return nil, err
	}
	if !body.carries(old.revision) {
		return nil, s.stale(old)
	}
	o, err := s.prepare(k, id, body, old)
	if err != nil {
		return nil, err
	}
	o.owner = old.owner
	o.revision = old.revision + 1
	for _, name := range []string{"_create_user", "_create_time", "_system_owned"} {
		if raw, ok := old.doc[name]; ok {
			o.doc[name] = raw
		}
	}
	s.commit(by, o)
	return o, nil
}

// remove deletes an object that nothing refers to; with force, its kind's cascade
// of referrers along with it.
func (s *Sim) remove(by author, k *kind, id string, force bool) *Error {
	o := s.store.get(k.name, id)
	if o == nil {
		return s.notFound(id)
	}
	doomed := []*object{o}
	if force && len(k.cascade) > 0 {
		doomed = append(s.store.referrersOf(objectRef{k.name, id}, k.cascade...), o)
	}
	for _, d := range doomed {
		if err := s.mayRemove(by, d, doomed); err != nil {
			return err
		}
	}
	if k.deleted != nil {
		if err := k.deleted(s, o, force); err != nil {
			return err
		}
	}
	for _, d := range doomed {
		s.store.remove(d)
		s.committed(d)
	}
	return nil
}

// mayRemove: referrers that go too do not count.
func (s *Sim) mayRemove(by author, o *object, doomed []*object) *Error {
	if err := s.mayWrite(by, o); err != nil {
		return err
	}
	if o.doc.boolean("_system_owned") {
		return refuse(codeInUse, "%s %s is owned by the system and cannot be deleted.", o.kind.name, o.id)
	}
	var names []string
	for _, r := range s.store.referrersOf(objectRef{o.kind.name, o.id}) {
		if !slices.Contains(doomed, r) {
			names = append(names, fmt.Sprintf("%s/%s", r.kind.name, r.id))
		}
	}
	if len(names) > 0 {
		return refuse(codeInUse, "The object %s/%s cannot be deleted as it is being referenced by %s.", o.kind.name, o.id, strings.Join(names, ", "))
	}
	return nil
}

// prepare checks a body against all rules and gives the object it would become,
// with nothing stored yet.
func (s *Sim) prepare(k *kind, id string, body document, old *object) (*object, *Error) {
	doc := body.clone()
	resource, err := s.conform(k, doc, old, commonFields)
	if err != nil {
		return nil, err
	}
	doc.set("id", id)
	if doc.str("display_name") == "" {
		doc.set("display_name", id)
	}
	refs, err := s.resolveRefs(k, doc)
	if err != nil {
		return nil, err
	}
	c := &change{Sim: s, id: id, old: old, doc: doc, resource: resource}
	if k.check != nil {
		if err := k.check(c); err != nil {
			return nil, err
		}
	}
	o := &object{kind: k, id: id, doc: doc, refs: refs}
	if k.keys != nil {
		o.keys = k.keys(doc)
	}
	return o, nil
}

// conform fills in what a document of a kind leaves to the server, and gives its resource_type. The error tells all that is
// wrong with its fields, which are those of the kind and the common ones given.
func (s *Sim) conform(k *kind, doc document, old *object, common ...[]field) (resource string, err *Error) {
	if k.mirror != nil {
		k.mirror(doc)
	}
	if resource, err = resourceType(k, doc, old); err != nil {
		return "", err
	}
	var problems []string
	for _, fields := range append(common, k.fields) {
		problems = append(problems, conform(doc, fields, resource, "")...)
	}
	if n := countTags(doc); n > s.maxTags() {
		problems = append(problems, fmt.Sprintf("tags must have at most %d items, got %d", s.maxTags(), n))
	}
	if len(problems) > 0 {
		return "", invalid(problems...)
	}
	return resource, nil
}

func resourceType(k *kind, doc document, old *object) (string, *Error) {
	if !doc.has("resource_type") && len(k.types) == 1 {
		doc.set("resource_type", k.types[0])
	}
	var resource string
	switch {
	case !doc.has("resource_type"):
		return "", invalid("resource_type is required")
	case !doc.get("resource_type", &resource):
		return "", invalid("resource_type must be a string")
	case !slices.Contains(k.types, resource):
		return "", invalid(fmt.Sprintf("resource_type must be one of %s, got %q", strings.Join(k.types, ", "), resource))
	case old != nil && old.doc.str("resource_type") != resource:
		return "", invalid("resource_type cannot be changed")
	}
	return resource, nil
}

// resolveRefs finds the objects that the document refers to.
func (s *Sim) resolveRefs(k *kind, doc document) ([]objectRef, *Error) {
	ids := references(doc, k.fields, "")
	if k.refs != nil {
		ids = append(ids, k.refs(doc)...)
	}
	var refs []objectRef
	for _, f := range ids {
		i := slices.IndexFunc(f.kinds, func(target Kind) bool { return s.store.get(target, f.id) != nil })
		if i < 0 {
			return nil, refuse(codeReferenceMissing, "The object %s referenced by %s does not exist.", f.id, f.name)
		}
		refs = append(refs, objectRef{f.kinds[i], f.id})
	}
	return refs, nil
}

// commit stores the object: the one place where the state of the documents
// changes, besides remove.
func (s *Sim) commit(by author, o *object) {
	o.doc.set("_last_modified_user", by.user)
	o.doc.set("_last_modified_time", s.now())
	o.doc.set("_revision", o.revision)
	o.doc.set("_protection", "NOT_PROTECTED")
	o.raw = encode(o.doc)
	s.store.put(o)
	s.committed(o)
}

// mayWrite: an object of a principal identity is written by others only with
// X-Allow-Overwrite.
func (s *Sim) mayWrite(by author, o *object) *Error {
	if o.owner == "" || o.owner == by.user || by.overwrite {
		return nil
	}
	code := codeForeignPrincipal
	if s.quirks.ForeignCode8327 {
		code = codeForeignOverwrite
	}
	return refuse(code,
		"Principal '%s' with role '[enterprise_admin]' attempts to delete or modify an object of type %s it doesn't own. (createUser=%s, allowOverwrite=null)",
		by.user, o.kind.name, o.owner)
}

func (s *Sim) stale(o *object) *Error {
	e := &Error{Status: http.StatusPreconditionFailed, Code: codeStaleRevision, Module: "common-services",
		Message: fmt.Sprintf("The object %s/%s is at revision %d: it was modified by somebody else, or the request carries no revision. Fetch the latest copy of the object and retry transaction.",
			o.kind.name, o.id, o.revision)}
	if s.quirks.StaleIsConflict {
		e.Status = http.StatusConflict
	}
	return e
}

func (s *Sim) notFound(id string) *Error {
	e := notFound(id)
	if s.quirks.NotFoundCode202 {
		e.Code = 202
	}
	return e
}

// countTags leaves out the one that realising an intent adds.
func countTags(doc document) int {
	n := 0
	for _, tag := range doc.objects("tags") {
		if tag.str("scope") != policyPathScope {
			n++
		}
	}
	return n
}

func (s *Sim) maxTags() int {
	if s.release.before(3, 0) {
		return 15
	}
	return 30
}

// answer gives the object as the user sees it.
func (s *Sim) answer(user string, o *object) json.RawMessage {
	foreign := o.owner != "" && o.owner != user
	if o.kind.render == nil && !foreign {
		return o.raw
	}
	doc := o.doc.clone()
	if o.kind.render != nil {
		o.kind.render(s, o, doc)
	}
	if foreign {
		doc.set("_protection", "REQUIRE_OVERRIDE")
	}
	return encode(doc)
}
