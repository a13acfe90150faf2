package nsxsim

import (
	"encoding/json"
	"net/http"
	"strings"
)

const managerBase = "/api/v1"

// route is what a request is for: how to serve it, or how to refuse it.
type route struct {
	op      string // see Journal.Counts
	below   string // the path below the API's base, and the whole one for other paths
	kind    *kind
	id      string
	params  []string // what the *s of a sub's path stand for
	serve   func(*request) (*response, *Error)
	login   func(*request) *response // served without authentication
	refused *Error
}

// sub is a path below an object, or an action on it.
type sub struct {
	method string
	path   string // below the object; a * stands for one segment
	action string // of the query
	write  bool   // changes the object: refused on those of other principals
	serve  func(r *request, o *object) (*response, *Error)
}

// resolve finds the route. Whatever the path, it gives one.
func (s *Sim) resolve(r *request) route {
	path := r.URL.Path
	switch path {
	case "/api/session/create":
		if r.Method == http.MethodPost {
			return route{op: "POST " + path, below: path, login: s.auth.login}
		}
	case "/api/session/destroy":
		if r.Method == http.MethodPost || r.Method == http.MethodGet {
			return route{op: "POST " + path, below: path, login: s.auth.logout}
		}
	}
	unknown := route{op: r.Method + " (unknown)", below: path, refused: noSuchURI(path)}
	if escaped, ok := strings.CutPrefix(r.URL.EscapedPath(), policyBase+"/"); ok {
		segments, ok := unescape(escaped)
		if !ok {
			return unknown
		}
		rt := s.policyRoute(r, segments, unknown)
		rt.below = path
		return rt
	}
	escaped, ok := strings.CutPrefix(r.URL.EscapedPath(), managerBase+"/")
	if !ok {
		return unknown
	}
	segments, ok := unescape(escaped)
	if !ok {
		return unknown
	}
	unknown.below = "/" + strings.Join(segments, "/")
	if rt, ok := platformRoute(r, segments); ok {
		return rt
	}
	if rt, ok := s.principalRoute(r, segments); ok {
		rt.below = unknown.below
		return rt
	}
	if rt, ok := searchRoute(r, unknown.below[1:]); ok {
		return rt
	}
	for _, n := range []int{2, 1} {
		if len(segments) < n {
			continue
		}
		path := strings.Join(segments[:n], "/")
		if k := s.paths[path]; k != nil {
			rt := k.route(r, segments[n:], unknown)
			rt.below, rt.kind = unknown.below, k
			return rt
		}
	}
	return unknown
}

// route finds the kind's route for the segments below its path.
func (k *kind) route(r *request, rest []string, unknown route) route {
	op := r.Method + " /" + k.path
	if len(rest) == 0 {
		switch r.Method {
		case http.MethodGet:
			return route{op: op, serve: listObjects}
		case http.MethodPost:
			if !k.imports {
				return route{op: op, serve: createObject}
			}
			if r.query.Get("action") == "import" {
				return route{op: op + "?action=import", serve: importCertificate}
			}
		}
		return route{op: op, refused: methodNotAllowed(r)}
	}
	op += "/{id}"
	rt := route{op: op, id: rest[0]}
	action := r.query.Get("action")
	known := len(rest) == 1
	for _, sb := range k.subs {
		params, ok := matchSegments(sb.path, rest[1:])
		if !ok {
			continue
		}
		known = true
		if sb.method == r.Method && sb.action == action {
			rt.op, rt.params, rt.serve = sb.op(op), params, sb.handler()
			return rt
		}
	}
	switch {
	case !known:
		return unknown
	case len(rest) > 1:
		rt.op = r.Method + " (unknown)"
		rt.refused = methodNotAllowed(r)
	case r.Method == http.MethodGet:
		rt.serve = getObject
	case r.Method == http.MethodPut && !k.imports:
		rt.serve = putObject
	case r.Method == http.MethodDelete:
		rt.serve = deleteObject
	case r.Method == http.MethodPost && action != "":
		rt.refused = refuse(codeValidation, "Action %s is not supported.", action)
	default:
		rt.refused = methodNotAllowed(r)
	}
	return rt
}

func (sb sub) op(base string) string {
	if sb.path != "" {
		base += "/" + strings.ReplaceAll(sb.path, "*", "{id}")
	}
	if sb.action != "" {
		base += "?action=" + sb.action
	}
	return base
}

// handler finds the object, and serves the sub on it.
func (sb sub) handler() func(*request) (*response, *Error) {
	return func(r *request) (*response, *Error) {
		o := r.sim.store.get(r.route.kind.name, r.route.id)
		if o == nil {
			return nil, r.sim.notFound(r.route.id)
		}
		if sb.write {
			if err := r.sim.mayWrite(r.author, o); err != nil {
				return nil, err
			}
		}
		return sb.serve(r, o)
	}
}

func matchSegments(pattern string, segments []string) (params []string, ok bool) {
	if pattern == "" {
		return nil, len(segments) == 0
	}
	parts := strings.Split(pattern, "/")
	if len(parts) != len(segments) {
		return nil, false
	}
	for i, part := range parts {
		switch part {
		case "*":
			params = append(params, segments[i])
		case segments[i]:
		default:
			return nil, false
		}
	}
	return params, true
}

func methodNotAllowed(r *request) *Error {
	return &Error{Status: http.StatusMethodNotAllowed, Code: codeURINotFound, Module: "common-services",
		Message: "The method " + r.Method + " is not supported for the requested URI."}
}

// found answers with an object; put and store with one just written.

func (r *request) found(o *object) *response {
	return &response{status: http.StatusOK, body: r.shown(o)}
}

// shown gives an object as the request asks to see it.
func (r *request) shown(o *object) json.RawMessage {
	raw := r.sim.answer(r.author.user, o)
	if o.kind.populate == nil || r.query.Get("populate_references") != "true" {
		return raw
	}
	doc, _ := parseDocument(raw) // one of ours: it parses
	o.kind.populate(r.sim, doc)
	return encode(doc)
}

func (r *request) put(k *kind, id string) (*response, *Error) {
	doc, err := r.document()
	if err != nil {
		return nil, err
	}
	o, err := r.sim.update(r.author, k, id, doc)
	if err != nil {
		return nil, err
	}
	return r.found(o), nil
}

// store writes an object with the revision that its document carries.
func (r *request) store(o *object, doc document) (*response, *Error) {
	o, err := r.sim.update(r.author, o.kind, o.id, doc)
	if err != nil {
		return nil, err
	}
	return r.found(o), nil
}

// create makes the object that the body tells of.
func (r *request) create() (*object, *Error) {
	doc, err := r.document()
	if err != nil {
		return nil, err
	}
	return r.sim.create(r.author, r.route.kind, doc, "")
}

func createObject(r *request) (*response, *Error) {
	o, err := r.create()
	if err != nil {
		return nil, err
	}
	return &response{status: http.StatusCreated, body: r.sim.answer(r.author.user, o)}, nil
}

func getObject(r *request) (*response, *Error) {
	o := r.sim.store.get(r.route.kind.name, r.route.id)
	if o == nil {
		return nil, r.sim.notFound(r.route.id)
	}
	return r.found(o), nil
}

func putObject(r *request) (*response, *Error) { return r.put(r.route.kind, r.route.id) }

func deleteObject(r *request) (*response, *Error) {
	force := r.query.Get("force") == "true"
	if err := r.sim.remove(r.author, r.route.kind, r.route.id, force); err != nil {
		return nil, err
	}
	return &response{status: http.StatusOK}, nil
}
