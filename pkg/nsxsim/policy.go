package nsxsim

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const policyBase = "/policy/api/v1"

// policyUser owns what the Policy API realises.
const policyUser = "nsx_policy"

// Error codes of the Policy API, as NSX's own clients know them.
const (
	codePolicyPath   = 500012 // a path that names nothing
	codePolicyInUse  = 500030
	codePolicyMarked = 500045 // what had the path is yet to be removed
	codePolicyExists = 500127 // a PUT without a revision on what is there
)

// Error codes of the Policy API that no reference settles.
const (
	codePolicyInvalid  = 500100 // rules across fields and objects
	codePolicyConflict = 500101 // an address and port, or a tier-1, that is taken
)

func refusePolicy(code int, format string, args ...any) *Error {
	e := refuse(code, format, args...)
	e.Module = "Policy"
	return e
}

func invalidPath(path string) *Error {
	return refusePolicy(codePolicyPath, "The path=[%s] is invalid", path)
}

// policyRoute finds the route of a path of the Policy API: it walks down the
// tree, from collections to objects to the collections in them.
func (s *Sim) policyRoute(r *request, segments []string, unknown route) route {
	joined := strings.Join(segments, "/")
	base := r.Method + " " + policyBase + "/"
	switch {
	case s.policy == nil:
		return unknown
	case joined == "search" || joined == "search/query":
		return readOnly(r, route{op: base + joined, serve: searchPolicy})
	case joined == "infra":
		rt := route{op: base + "infra"}
		switch r.Method {
		case http.MethodGet:
			rt.serve = getInfra
		case http.MethodPatch:
			rt.serve = patchInfra
		default:
			rt.refused = methodNotAllowed(r)
		}
		return rt
	case segments[0] != "infra":
		return unknown
	}
	if rt, ok := s.fixedRoute(r, joined); ok {
		return rt
	}
	op, path, parent, rest := base+"infra", "/infra", Kind(""), segments[1:]
	for {
		k := s.policy.collectionAt(parent, rest)
		if k == nil {
			return unknown
		}
		n := strings.Count(k.collection, "/") + 1
		op, rest = op+"/"+k.collection, rest[n:]
		rt := route{op: op, kind: &k.kind}
		if len(rest) == 0 {
			rt.id = path // of the parent
			rt.serve = listIntents
			return readOnly(r, rt)
		}
		path += "/" + k.collection + "/" + rest[0]
		op, rest, parent = op+"/{id}", rest[1:], k.name
		rt.op, rt.id = op, path
		if len(rest) == 0 {
			return intentRoute(r, rt)
		}
		if rt, ok := subRoute(r, rt, k.subs, rest); ok {
			return rt
		}
	}
}

// subRoute finds what is below an object, or an action on that.
func subRoute(r *request, base route, subs []sub, rest []string) (rt route, known bool) {
	rt, action := base, r.query.Get("action")
	for _, sb := range subs {
		params, ok := matchSegments(sb.path, rest)
		if !ok {
			continue
		}
		if sb.method == r.Method && sb.action == action {
			rt.op, rt.params, rt.serve = sb.op(base.op), params, sb.handler()
			return rt, true
		}
		known, rt.op, rt.params = true, sub{path: sb.path}.op(base.op), params
	}
	rt.refused = methodNotAllowed(r)
	if known && r.Method == http.MethodPost && action != "" {
		rt.refused = refuse(codeValidation, "Action %s is not supported.", action)
	}
	return rt, known
}

// readOnly refuses all methods but GET.
func readOnly(r *request, rt route) route {
	if r.Method != http.MethodGet {
		rt.refused = methodNotAllowed(r)
	}
	return rt
}

func intentRoute(r *request, rt route) route {
	switch r.Method {
	case http.MethodGet:
		rt.serve = getObject
	case http.MethodPut:
		rt.serve = putIntent
	case http.MethodPatch:
		rt.serve = patchIntent
	case http.MethodDelete:
		rt.serve = deleteIntent
	default:
		rt.refused = methodNotAllowed(r)
	}
	return rt
}

// collectionAt gives the kind whose collection the segments below an object of
// the parent's kind begin with.
func (p *policy) collectionAt(parent Kind, segments []string) *policyKind {
	for _, k := range p.kinds {
		parts := strings.Split(k.collection, "/")
		if k.parent == parent && len(parts) <= len(segments) && slices.Equal(parts, segments[:len(parts)]) {
			return k
		}
	}
	return nil
}

// kindAt gives the kind of the object at a path, or nil.
func (p *policy) kindAt(path string) *policyKind {
	rest, ok := strings.CutPrefix(path, "/infra/")
	if !ok {
		return nil
	}
	segments, parent := strings.Split(rest, "/"), Kind("")
	for {
		k := p.collectionAt(parent, segments)
		if k == nil {
			return nil
		}
		segments = segments[strings.Count(k.collection, "/")+1:]
		if len(segments) == 0 || segments[0] == "" {
			return nil
		}
		if segments = segments[1:]; len(segments) == 0 {
			return k
		}
		parent = k.name
	}
}

// parentPath gives the path of what holds the object at a path: that of
// "/infra/ip-pools/a/ip-subnets/b" is "/infra/ip-pools/a".
func parentPath(path string) string {
	for range 2 {
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
	}
	return path
}

// unescape gives the plain segments of an escaped path; false when one is empty,
// or no escape.
func unescape(escaped string) ([]string, bool) {
	segments := strings.Split(strings.TrimSuffix(escaped, "/"), "/")
	for i, segment := range segments {
		plain, err := url.PathUnescape(segment)
		if err != nil || plain == "" {
			return nil, false
		}
		segments[i] = plain
	}
	return segments, true
}

func listIntents(r *request) (*response, *Error) {
	k, parent := r.route.kind, r.route.id
	if r.sim.policy.byName[k.name].parent == "" {
		return r.listOf(r.sim.store.list(k.name))
	}
	if r.sim.intentAt(parent) == nil {
		return nil, r.sim.notFound(parent)
	}
	return r.listOf(r.sim.childrenOf(parent, k.name))
}

func putIntent(r *request) (*response, *Error) {
	doc, err := r.document()
	if err != nil {
		return nil, err
	}
	o, err := r.sim.putIntent(r.author, r.sim.policy.byName[r.route.kind.name], r.route.id, doc)
	if err != nil {
		return nil, err
	}
	r.sim.realizeDue()
	return r.found(o), nil
}

func patchIntent(r *request) (*response, *Error) {
	doc, err := r.patch()
	if err != nil {
		return nil, err
	}
	if _, err := r.sim.patchIntent(r.author, r.sim.policy.byName[r.route.kind.name], r.route.id, doc); err != nil {
		return nil, err
	}
	r.sim.realizeDue()
	return &response{status: http.StatusOK}, nil
}

func deleteIntent(r *request) (*response, *Error) {
	if err := r.sim.removeIntent(r.author, r.route.id, r.query.Get("force") == "true"); err != nil {
		return nil, err
	}
	r.sim.realizeDue()
	return &response{status: http.StatusOK}, nil
}
