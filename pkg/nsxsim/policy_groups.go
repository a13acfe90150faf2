package nsxsim

import (
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// The groups of the Policy API: their rules, what they are realised in, and what
// can be asked of them.

// groupPaths are the groups and segments that a group names in path expressions.
func groupPaths(doc document) []idField {
	var ids []idField
	for _, e := range doc.objects("expression") {
		if e.str("resource_type") != "PathExpression" {
			continue
		}
		for _, path := range e.strs("paths") {
			switch {
			case strings.Contains(path, "/groups/"):
				ids = append(ids, idField{"expression.paths", []Kind{KindPolicyGroup}, path})
			case strings.HasPrefix(path, "/infra/segments/") && strings.Count(path, "/") == 3:
				ids = append(ids, idField{"expression.paths", []Kind{KindPolicySegment}, path})
			}
		}
	}
	return ids
}

// checkPolicyGroup: the expression is well-formed, and a group is not, through others, in
// itself. Expressions without an id get one.
func checkPolicyGroup(c *change) *Error {
	expression := c.doc.objects("expression")
	if err := checkExpression(c.id, expression, 1); err != nil {
		return err
	}
	for _, e := range expression {
		if e.str("id") == "" {
			e.set("id", c.newID())
		}
		e.set("marked_for_delete", false)
	}
	if expression != nil {
		c.doc.set("expression", expression)
	}
	seen := map[string]bool{}
	var reaches func(doc document) bool
	reaches = func(doc document) bool {
		for _, ref := range groupPaths(doc) {
			if ref.id == c.id {
				return true
			}
			if o := c.store.get(KindPolicyGroup, ref.id); o != nil && !seen[ref.id] {
				seen[ref.id] = true
				if reaches(o.doc) {
					return true
				}
			}
		}
		return false
	}
	if reaches(c.doc) {
		return refusePolicy(codePolicyInvalid, "Group path=[%s] would be a member of itself.", c.id)
	}
	return nil
}

// realizeGroup makes an NSGroup of the groups and machines that are named, of the
// criteria that conditions are and, for addresses, of an IP set.
func realizeGroup(s *Sim, o *object, rec *realization) *Error {
	var addresses []string
	members := []map[string]string{}
	member := func(kind, id string) {
		members = append(members, map[string]string{"resource_type": "NSGroupSimpleExpression",
			"op": "EQUALS", "target_type": kind, "target_property": "id", "value": id})
	}
	for _, e := range o.doc.objects("expression") {
		switch e.str("resource_type") {
		case addressExpression:
			addresses = append(addresses, e.strs("ip_addresses")...)
		case externalIDs:
			if target, known := memberTypes[e.str("member_type")]; known {
				for _, id := range e.strs("external_ids") {
					member(string(target), id)
				}
			}
		}
	}
	for _, ref := range groupPaths(o.doc) {
		target := s.policy.byName[ref.kinds[0]].target
		member(string(target), s.uidAt(ref.kinds[0], ref.id))
	}
	doc := managerDoc(o)
	delete(doc, "expression")
	delete(doc, "group_type")
	set := objectRef{KindIPSet, uuid.NewSHA1(uuid.NameSpaceURL, []byte(rec.uid)).String()}
	if len(addresses) > 0 {
		ips := document{"display_name": doc["display_name"], "tags": doc["tags"]}
		ips.set("ip_addresses", addresses)
		if err := s.make(rec, o.id, set.kind, set.id, ips); err != nil {
			return err
		}
		member("IPSet", set.id)
	}
	doc.set("members", members)
	if found := criteria(o.doc.objects("expression")); found != nil {
		doc.set("membership_criteria", found)
	}
	doc.set("resource_type", "NSGroup")
	if err := s.make(rec, o.id, KindNSGroup, rec.uid, doc); err != nil {
		return err
	}
	if len(addresses) == 0 {
		return s.unmake(rec, set)
	}
	rec.objects = []objectRef{set, {KindNSGroup, rec.uid}} // the order in which they can be removed, reversed
	return nil
}

// groupMembersSub serves what is in a group, as show has it.
func groupMembersSub(path string, show func(s *Sim, c groupContents) []any) sub {
	return sub{method: http.MethodGet, path: path, serve: func(r *request, group *object) (*response, *Error) {
		return r.page(show(r.sim, r.sim.contentsOf(r.sim.realizedIn(group.id, KindNSGroup))))
	}}
}

// policyGroupSubs serve what is in a group, and its IP address expressions one by one.
var policyGroupSubs = []sub{
	groupMembersSub("members/virtual-machines", func(_ *Sim, c groupContents) []any {
		list := []any{}
		for _, vm := range c.machines {
			list = append(list, realizedMachine(vm))
		}
		return list
	}),
	groupMembersSub("members/segments", func(s *Sim, c groupContents) []any { return s.policyMembers(c.switches) }),
	groupMembersSub("members/segment-ports", func(s *Sim, c groupContents) []any { return s.policyMembers(c.ports) }),
	groupMembersSub("member-types", func(_ *Sim, c groupContents) []any {
		types := []any{}
		for _, t := range []struct {
			name string
			of   []*object
		}{{"IPAddress", c.sets}, {"VirtualMachine", c.machines}, {"Segment", c.switches}, {"SegmentPort", c.ports}} {
			if len(t.of) > 0 {
				types = append(types, t.name)
			}
		}
		return types
	}),
	{method: http.MethodGet, path: "members/ip-addresses", serve: func(r *request, group *object) (*response, *Error) {
		results := []any{}
		for _, a := range r.sim.effectiveAddresses(r.sim.realizedIn(group.id, KindNSGroup)) {
			results = append(results, a)
		}
		return r.page(results)
	}},
	{method: http.MethodGet, path: addressExpressions, serve: func(r *request, group *object) (*response, *Error) {
		i, expression, err := r.addressExpression(group)
		if err != nil {
			return nil, err
		}
		return &response{status: http.StatusOK, body: encode(expression[i])}, nil
	}},
	{method: http.MethodPatch, path: addressExpressions, write: true, serve: func(r *request, group *object) (*response, *Error) {
		given, err := r.document()
		if err != nil {
			return nil, err
		}
		given.set("id", r.route.params[0])
		given.set("resource_type", addressExpression)
		i, expression, missing := r.addressExpression(group)
		switch {
		case missing == nil:
			expression[i] = given
		case len(expression) > 0:
			expression = append(expression, document{"resource_type": encode(conjunction), "conjunction_operator": encode("OR")}, given)
		default:
			expression = []document{given}
		}
		return r.express(group, expression)
	}},
	{method: http.MethodDelete, path: addressExpressions, write: true, serve: func(r *request, group *object) (*response, *Error) {
		i, expression, err := r.addressExpression(group)
		switch {
		case err != nil:
			return nil, err
		case len(expression) == 1:
			expression = []document{}
		default: // and the operator beside it
			expression = slices.Delete(expression, max(0, i-1), max(2, i+1))
		}
		return r.express(group, expression)
	}},
	{method: http.MethodPost, path: addressExpressions, action: "add", write: true, serve: changeAddresses(func(have, given []string) []string {
		for _, a := range given {
			if !slices.Contains(have, a) {
				have = append(have, a)
			}
		}
		return have
	})},
	{method: http.MethodPost, path: addressExpressions, action: "remove", write: true, serve: changeAddresses(func(have, given []string) []string {
		return slices.DeleteFunc(have, func(a string) bool { return slices.Contains(given, a) })
	})},
}

// policyMembers shows objects of the Manager: by path where they are of an intent.
func (s *Sim) policyMembers(objects []*object) []any {
	list := []any{}
	for _, o := range objects {
		member := map[string]any{"id": o.id, "display_name": o.doc["display_name"]}
		if path := s.policy.made[objectRef{o.kind.name, o.id}]; path != "" {
			member["path"] = path
		}
		list = append(list, member)
	}
	return list
}

const (
	addressExpressions = "ip-address-expressions/*"
	addressExpression  = "IPAddressExpression"
	conjunction        = "ConjunctionOperator"
)

// addressExpression finds the one that the request names among all expressions of a
// group.
func (r *request) addressExpression(group *object) (int, []document, *Error) {
	expression := group.doc.objects("expression")
	i := slices.IndexFunc(expression, func(e document) bool {
		return e.str("id") == r.route.params[0] && e.str("resource_type") == addressExpression
	})
	if i < 0 {
		return 0, expression, r.sim.notFound(group.id + "/" + strings.Replace(addressExpressions, "*", r.route.params[0], 1))
	}
	return i, expression, nil
}

// express gives a group another expression.
func (r *request) express(group *object, expression []document) (*response, *Error) {
	if _, err := r.sim.patchIntent(r.author, r.sim.policy.byName[KindPolicyGroup], group.id, document{"expression": encode(expression)}); err != nil {
		return nil, err
	}
	r.sim.realizeDue()
	return &response{status: http.StatusOK}, nil
}

// changeAddresses changes the addresses of an expression by those in the request.
func changeAddresses(apply func(have, given []string) []string) func(*request, *object) (*response, *Error) {
	return func(r *request, group *object) (*response, *Error) {
		body, err := r.document()
		if err != nil {
			return nil, err
		}
		if problems := conform(body, []field{{name: "ip_addresses", shape: listShape, required: true, min: 1, item: &field{shape: stringShape, check: checkAddressRange}}}, "", ""); len(problems) > 0 {
			return nil, invalid(problems...)
		}
		i, expression, err := r.addressExpression(group)
		if err != nil {
			return nil, err
		}
		expression[i].set("ip_addresses", apply(expression[i].strs("ip_addresses"), body.strs("ip_addresses")))
		return r.express(group, expression)
	}
}
