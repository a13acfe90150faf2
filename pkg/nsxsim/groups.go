package nsxsim

import (
	"net/http"
	"slices"
	"strings"
)

// The rules of groups that go across fields and objects, and what is in them.

// groupMemberRefs: members of a group that are named by id must exist.
func groupMemberRefs(doc document) []idField {
	var ids []idField
	for _, m := range doc.objects("members") {
		if m.str("target_property") != "id" || m.str("op") != "EQUALS" {
			continue
		}
		switch k := Kind(m.str("target_type")); k {
		case KindIPSet, KindNSGroup, KindLogicalSwitch, KindLogicalPort:
			ids = append(ids, idField{"members.value", []Kind{k}, m.str("value")})
		}
	}
	return ids
}

// checkNSGroup refuses a group that would, through others, contain itself.
func checkNSGroup(c *change) *Error {
	seen := map[string]bool{}
	var reaches func(doc document) bool
	reaches = func(doc document) bool {
		for _, ref := range groupMemberRefs(doc) {
			if ref.kinds[0] != KindNSGroup || seen[ref.id] {
				continue
			}
			if ref.id == c.id {
				return true
			}
			seen[ref.id] = true
			if o := c.store.get(KindNSGroup, ref.id); o != nil && reaches(o.doc) {
				return true
			}
		}
		return false
	}
	if reaches(c.doc) {
		return refuse(codeValidation, "NSGroup %s would be a member of itself.", c.id)
	}
	return nil
}

func renderMemberCount(_ *Sim, _ *object, doc document) {
	doc.set("member_count", len(doc.objects("members")))
}

// criterionFields are those of membership criteria: a tag expression, or a
// complex one whose expressions must all hold. There are no virtual machines or
// ports here: of those, criteria find none.
var criterionFields = []field{
	{name: "resource_type", shape: stringShape, required: true, oneOf: []string{"NSGroupTagExpression", "NSGroupComplexExpression", "NSGroupSimpleExpression"}},
	{name: "target_type", shape: stringShape},
	{name: "scope", shape: stringShape, max: 128},
	{name: "scope_op", shape: stringShape, oneOf: []string{"EQUALS"}},
	{name: "tag", shape: stringShape, max: 256},
	{name: "tag_op", shape: stringShape, oneOf: []string{"EQUALS", "CONTAINS", "STARTSWITH", "ENDSWITH", "NOTEQUALS"}},
	{name: "expressions", shape: listShape, max: 5, fields: []field{
		{name: "resource_type", shape: stringShape, required: true},
		{name: "target_type", shape: stringShape},
	}},
}

// tagKeys index IP sets by their tags.
func tagKeys(doc document) []string {
	var keys []string
	for _, tag := range doc.objects("tags") {
		for _, key := range []string{"ip-set-scope/" + tag.str("scope"), "ip-set-tag/" + tag.str("tag")} {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// setsByCriterion gives the IP sets that one criterion of a group finds.
func (s *Sim) setsByCriterion(criterion document) []*object {
	expressions := []document{criterion}
	if criterion.str("resource_type") == "NSGroupComplexExpression" {
		expressions = criterion.objects("expressions")
	}
	if len(expressions) == 0 {
		return nil
	}
	for _, e := range expressions {
		if e.str("resource_type") != "NSGroupTagExpression" || e.str("target_type") != "IPSet" {
			return nil
		}
	}
	var found []*object
	for _, set := range s.setsByTag(expressions[0]) {
		if !slices.ContainsFunc(expressions, func(e document) bool { return !hasTag(set.doc, e) }) {
			found = append(found, set)
		}
	}
	return found
}

// setsByTag gives IP sets among which are all that fit the expression.
func (s *Sim) setsByTag(e document) []*object {
	switch {
	case e.str("tag") != "" && (e.str("tag_op") == "" || e.str("tag_op") == "EQUALS"):
		return s.store.withKey("ip-set-tag/" + e.str("tag"))
	case e.str("scope") != "":
		return s.store.withKey("ip-set-scope/" + e.str("scope"))
	}
	return s.store.list(KindIPSet)
}

// hasTag: a scope or a tag that the expression leaves out may be anything.
func hasTag(doc, e document) bool {
	scope, wanted := e.str("scope"), e.str("tag")
	return slices.ContainsFunc(doc.objects("tags"), func(t document) bool {
		if scope != "" && t.str("scope") != scope {
			return false
		}
		tag := t.str("tag")
		switch e.str("tag_op") {
		case "CONTAINS":
			return strings.Contains(tag, wanted)
		case "STARTSWITH":
			return strings.HasPrefix(tag, wanted)
		case "ENDSWITH":
			return strings.HasSuffix(tag, wanted)
		case "NOTEQUALS":
			return tag != wanted
		}
		return wanted == "" || tag == wanted
	})
}

// effectiveAddresses gives what the IP sets of a group, and of the groups in
// it, hold: addresses, ranges and CIDRs as they were written, each once.
func (s *Sim) effectiveAddresses(groupID string) []string {
	var addresses []string
	seenGroup, seen := map[string]bool{}, map[string]bool{}
	collect := func(set *object) {
		for _, a := range set.doc.strs("ip_addresses") {
			if !seen[a] {
				seen[a] = true
				addresses = append(addresses, a)
			}
		}
	}
	var walk func(id string)
	walk = func(id string) {
		group := s.store.get(KindNSGroup, id)
		if group == nil || seenGroup[id] {
			return
		}
		seenGroup[id] = true
		for _, ref := range groupMemberRefs(group.doc) {
			switch ref.kinds[0] {
			case KindNSGroup:
				walk(ref.id)
			case KindIPSet:
				collect(s.store.get(KindIPSet, ref.id))
			}
		}
		for _, criterion := range group.doc.objects("membership_criteria") {
			for _, set := range s.setsByCriterion(criterion) {
				collect(set)
			}
		}
	}
	walk(groupID)
	return addresses
}

// nsGroupSubs serve the addresses of a group and changes of single members.
var nsGroupSubs = []sub{
	{method: http.MethodGet, path: "effective-ip-address-members", serve: func(r *request, group *object) (*response, *Error) {
		results := []any{}
		for _, a := range r.sim.effectiveAddresses(group.id) {
			results = append(results, a)
		}
		return r.page(results)
	}},
	{method: http.MethodPost, action: "ADD_MEMBERS", write: true, serve: groupAction(func(members []document, m document) []document {
		if slices.ContainsFunc(members, sameGroupMember(m)) {
			return members
		}
		return append(members, m)
	})},
	{method: http.MethodPost, action: "REMOVE_MEMBERS", write: true, serve: groupAction(func(members []document, m document) []document {
		return slices.DeleteFunc(members, sameGroupMember(m))
	})},
}

// groupAction changes the members of a group, by each of those given, without a
// revision.
func groupAction(apply func(members []document, given document) []document) func(*request, *object) (*response, *Error) {
	return func(r *request, group *object) (*response, *Error) {
		body, err := r.document()
		if err != nil {
			return nil, err
		}
		if problems := conform(body, []field{{name: "members", shape: listShape, required: true, min: 1, fields: groupMemberFields}}, "", ""); len(problems) > 0 {
			return nil, invalid(problems...)
		}
		doc := group.doc.clone()
		members := doc.objects("members")
		for _, m := range body.objects("members") {
			members = apply(members, m)
		}
		doc.set("members", members)
		return r.store(group, doc)
	}
}

// populateReferences adds to members of a group that are named by id what they are.
func populateReferences(s *Sim, group document) {
	members := group.objects("members")
	for _, m := range members {
		for _, ref := range groupMemberRefs(document{"members": encode([]document{m})}) {
			target := s.store.get(ref.kinds[0], ref.id)
			m.set("target_resource", map[string]any{"target_id": target.id, "target_type": m.str("target_type"),
				"target_display_name": target.doc.str("display_name"), "is_valid": true})
		}
	}
	if members != nil {
		group.set("members", members)
	}
}

func sameGroupMember(a document) func(document) bool {
	return func(b document) bool {
		for _, name := range []string{"target_type", "target_property", "op", "value"} {
			if a.str(name) != b.str(name) {
				return false
			}
		}
		return true
	}
}
