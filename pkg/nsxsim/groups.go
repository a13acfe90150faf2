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

// criterionFields are those of membership criteria: a tag or a property of what is
// looked for, or a complex one whose expressions must all hold.
var criterionFields = []field{
	{name: "resource_type", shape: stringShape, required: true, oneOf: []string{tagExpression, "NSGroupComplexExpression", simpleExpression}},
	{name: "target_type", shape: stringShape},
	{name: "target_property", shape: stringShape},
	{name: "op", shape: stringShape, oneOf: groupOperators},
	{name: "value", shape: stringShape},
	{name: "scope", shape: stringShape, max: 128},
	{name: "scope_op", shape: stringShape, oneOf: []string{"EQUALS", "NOTEQUALS"}},
	{name: "tag", shape: stringShape, max: 256},
	{name: "tag_op", shape: stringShape, oneOf: groupOperators},
	{name: "expressions", shape: listShape, max: 5, fields: []field{
		{name: "resource_type", shape: stringShape, required: true},
		{name: "target_type", shape: stringShape},
	}},
}

const (
	tagExpression    = "NSGroupTagExpression"
	simpleExpression = "NSGroupSimpleExpression"
)

var groupOperators = []string{"EQUALS", "CONTAINS", "STARTSWITH", "ENDSWITH", "NOTEQUALS"}

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

// byCriterion gives what one criterion of a group finds, all of one kind.
func (s *Sim) byCriterion(criterion document) []*object {
	expressions := []document{criterion}
	if criterion.str("resource_type") == "NSGroupComplexExpression" {
		expressions = criterion.objects("expressions")
	}
	if len(expressions) == 0 {
		return nil
	}
	target := expressions[0].str("target_type")
	for _, e := range expressions {
		if e.str("target_type") != target {
			return nil
		}
	}
	candidates := s.store.list(Kind(target))
	if target == string(KindIPSet) && expressions[0].str("resource_type") == tagExpression {
		candidates = s.setsByTag(expressions[0])
	}
	var found []*object
	for _, o := range candidates {
		if !slices.ContainsFunc(expressions, func(e document) bool { return !fitsExpression(o.doc, e) }) {
			found = append(found, o)
		}
	}
	return found
}

// fitsExpression holds an object against one expression.
func fitsExpression(doc, e document) bool {
	if e.str("resource_type") == tagExpression {
		return hasTag(doc, e)
	}
	switch e.str("target_property") {
	case "name":
		return compares(e.str("op"), doc.str("display_name"), e.str("value"))
	case "id", "external_id":
		return compares(e.str("op"), doc.str("id"), e.str("value"))
	case "os_name", "computer_name":
		return compares(e.str("op"), doc.object("guest_info").str(e.str("target_property")), e.str("value"))
	}
	return false
}

func compares(op, have, wanted string) bool {
	switch op {
	case "CONTAINS":
		return strings.Contains(have, wanted)
	case "STARTSWITH":
		return strings.HasPrefix(have, wanted)
	case "ENDSWITH":
		return strings.HasSuffix(have, wanted)
	case "NOTEQUALS":
		return have != wanted
	}
	return have == wanted
}

// setsByTag gives IP sets among which are all that fit the expression.
func (s *Sim) setsByTag(e document) []*object {
	switch {
	case e.str("tag") != "" && (e.str("tag_op") == "" || e.str("tag_op") == "EQUALS"):
		return s.store.withKey("ip-set-tag/" + e.str("tag"))
	case e.str("scope") != "" && e.str("scope_op") != "NOTEQUALS":
		return s.store.withKey("ip-set-scope/" + e.str("scope"))
	}
	return s.store.list(KindIPSet)
}

// hasTag: a scope or a tag that the expression leaves out may be anything.
func hasTag(doc, e document) bool {
	scope, wanted := e.str("scope"), e.str("tag")
	return slices.ContainsFunc(doc.objects("tags"), func(t document) bool {
		if scope != "" && (t.str("scope") == scope) == (e.str("scope_op") == "NOTEQUALS") {
			return false
		}
		return wanted == "" || compares(e.str("tag_op"), t.str("tag"), wanted)
	})
}

// groupContents is what is in a group, and in the groups in it, each once.
type groupContents struct {
	sets, machines, switches, ports []*object
}

// contentsOf gives what a group names and what its criteria find.
func (s *Sim) contentsOf(groupID string) groupContents {
	var c groupContents
	seen := map[objectRef]bool{}
	var collect func(o *object)
	collect = func(o *object) {
		ref := objectRef{o.kind.name, o.id}
		if seen[ref] {
			return
		}
		seen[ref] = true
		switch ref.kind {
		case KindIPSet:
			c.sets = append(c.sets, o)
		case KindVirtualMachine:
			c.machines = append(c.machines, o)
		case KindLogicalSwitch:
			c.switches = append(c.switches, o)
		case KindLogicalPort:
			c.ports = append(c.ports, o)
		case KindNSGroup:
			for _, m := range o.doc.objects("members") {
				if target := s.groupMember(m); target != nil {
					collect(target)
				}
			}
			for _, criterion := range o.doc.objects("membership_criteria") {
				for _, found := range s.byCriterion(criterion) {
					collect(found)
				}
			}
		}
	}
	if group := s.store.get(KindNSGroup, groupID); group != nil {
		collect(group)
	}
	return c
}

// groupMember gives the object that a member of a group names by its id.
func (s *Sim) groupMember(m document) *object {
	property := m.str("target_property")
	if m.str("op") != "EQUALS" || property != "id" && property != "external_id" {
		return nil
	}
	return s.store.get(Kind(m.str("target_type")), m.str("value"))
}

// effectiveAddresses gives what the IP sets in a group hold, as it was written, and the
// addresses of the virtual machines in it or behind its ports and switches, each once.
func (s *Sim) effectiveAddresses(groupID string) []string {
	var addresses []string
	seen := map[string]bool{}
	add := func(more []string) {
		for _, a := range more {
			if !seen[a] {
				seen[a] = true
				addresses = append(addresses, a)
			}
		}
	}
	contents := s.contentsOf(groupID)
	for _, set := range contents.sets {
		add(set.doc.strs("ip_addresses"))
	}
	found := contents.machines
	for _, port := range contents.ports {
		found = append(found, s.behind(port)...)
	}
	for _, net := range contents.switches {
		for _, port := range s.store.referrersOf(objectRef{KindLogicalSwitch, net.id}, KindLogicalPort) {
			found = append(found, s.behind(port)...)
		}
	}
	for _, vm := range found {
		add(vm.doc.strs("ip_addresses"))
	}
	return addresses
}

// effectiveMembers serves those of one kind in a group, by reference.
func effectiveMembers(path string, of func(groupContents) []*object) sub {
	return sub{method: http.MethodGet, path: path, serve: func(r *request, group *object) (*response, *Error) {
		results := []any{}
		for _, o := range of(r.sim.contentsOf(group.id)) {
			results = append(results, map[string]any{"target_id": o.id, "target_type": o.kind.name, "target_display_name": o.doc["display_name"], "is_valid": true})
		}
		return r.page(results)
	}}
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
	effectiveMembers("effective-virtual-machine-members", func(c groupContents) []*object { return c.machines }),
	effectiveMembers("effective-logical-switch-members", func(c groupContents) []*object { return c.switches }),
	effectiveMembers("effective-logical-port-members", func(c groupContents) []*object { return c.ports }),
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
