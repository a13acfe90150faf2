package nsxsim

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// searchIndex is what searches see: the objects as they were some time ago, and
// which of them have a value in one of the indexed fields.
type searchIndex struct {
	delay   time.Duration
	objects map[objectRef]*object
	terms   map[term]map[objectRef]struct{}
	pending []indexing // in order of time
}

type term struct{ field, value string }

// indexing is a change that the index has yet to learn: an object stored, or
// gone when object is nil.
type indexing struct {
	due    time.Time
	ref    objectRef
	object *object
}

// indexedFields are those by which objects are found without looking at each.
var indexedFields = []string{"resource_type", "id", "display_name", "tags.scope", "tags.tag"}

func newSearchIndex(delay time.Duration) *searchIndex {
	return &searchIndex{delay: delay, objects: map[objectRef]*object{}, terms: map[term]map[objectRef]struct{}{}}
}

// learn takes note of a change, and of those that are due.
func (x *searchIndex) learn(now time.Time, ref objectRef, o *object) {
	x.pending = append(x.pending, indexing{now.Add(x.delay), ref, o})
	x.catchUp(now)
}

func (x *searchIndex) catchUp(now time.Time) {
	n := 0
	for n < len(x.pending) && !x.pending[n].due.After(now) {
		p := x.pending[n]
		if old := x.objects[p.ref]; old != nil {
			for _, t := range termsOf(old.doc) {
				drop(x.terms, t, p.ref)
			}
			delete(x.objects, p.ref)
		}
		if p.object != nil {
			x.objects[p.ref] = p.object
			for _, t := range termsOf(p.object.doc) {
				add(x.terms, t, p.ref)
			}
		}
		n++
	}
	if n == len(x.pending) {
		x.pending = x.pending[:0]
	} else {
		x.pending = x.pending[n:]
	}
}

func termsOf(doc document) []term {
	terms := []term{
		{"resource_type", plain(doc["resource_type"])},
		{"id", plain(doc["id"])},
		{"display_name", plain(doc["display_name"])},
	}
	for _, tag := range doc.objects("tags") {
		for _, name := range []string{"scope", "tag"} {
			if raw, ok := tag[name]; ok {
				terms = append(terms, term{"tags." + name, plain(raw)})
			}
		}
	}
	return terms
}

// find gives the objects that fit, in order of creation.
func (x *searchIndex) find(q *query) []*object {
	var found []*object
	candidates, narrowed := x.candidates(q)
	if narrowed {
		for ref := range candidates {
			if o := x.objects[ref]; q.matches(o.doc) {
				found = append(found, o)
			}
		}
	} else {
		for _, o := range x.objects {
			if q.matches(o.doc) {
				found = append(found, o)
			}
		}
	}
	slices.SortFunc(found, func(a, b *object) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.id, b.id)) })
	return found
}

// candidates gives few objects among which are all that fit; narrowed is false
// when the index cannot tell.
func (x *searchIndex) candidates(q *query) (refs map[objectRef]struct{}, narrowed bool) {
	switch q.op {
	case queryTerm:
		if q.glob == nil && slices.Contains(indexedFields, q.field) {
			return x.terms[term{q.field, q.value}], true
		}
	case queryAll:
		for _, t := range q.terms {
			if c, ok := x.candidates(t); ok && (!narrowed || len(c) < len(refs)) {
				refs, narrowed = c, true
			}
		}
		return refs, narrowed
	case queryAny:
		refs = map[objectRef]struct{}{}
		for _, t := range q.terms {
			c, ok := x.candidates(t)
			if !ok {
				return nil, false
			}
			for ref := range c {
				refs[ref] = struct{}{}
			}
		}
		return refs, true
	}
	return nil, false
}

// search serves GET /search/query and /search. Objects are shown as they were
// when they were indexed.
func search(r *request) (*response, *Error) { return r.sim.index.serve(r) }

// serve answers a search request from this index.
func (x *searchIndex) serve(r *request) (*response, *Error) {
	p, err := r.paging()
	if err != nil {
		return nil, err
	}
	if r.query.Get("query") == "" {
		return nil, invalid("query is required")
	}
	q, perr := parseQuery(r.query.Get("query"))
	if perr != nil {
		return nil, invalid(perr.Error())
	}
	x.catchUp(r.sim.clock.Now())
	if r.sim.quirks.SearchRefusesWhileIndexing && len(x.pending) > 0 {
		return nil, refuse(codeSearchIndexing, "Search index is being updated: %d objects are left. Please retry.", len(x.pending))
	}
	found := x.find(q)
	if p.sortBy != "" {
		found = sortObjects(found, p)
	}
	return p.found(found)
}

// found serves one page of what a search found. Unlike those of lists, each page
// tells the number of all results, and how many of them are over by it: the cursor,
// which only a page without results has not.
func (p paging) found(all []*object) (*response, *Error) {
	first := 0
	if p.cursor != "" {
		n, err := strconv.Atoi(p.cursor)
		if err != nil || n < 0 {
			return nil, p.foreignCursor()
		}
		first = min(n, len(all))
	}
	last := min(first+p.size, len(all))
	items := []json.RawMessage{}
	for _, o := range all[first:last] {
		items = append(items, p.included(o.raw))
	}
	page := map[string]any{"results": items, "result_count": len(all)}
	if len(items) > 0 {
		page["cursor"] = strconv.Itoa(last)
	}
	return &response{status: http.StatusOK, body: encode(page)}, nil
}

// searchRoute serves searches; they are no objects and have no kind.
func searchRoute(r *request, path string) (route, bool) {
	if path != "search" && path != "search/query" {
		return route{}, false
	}
	rt := route{op: r.Method + " /" + path, below: "/" + path, serve: search}
	if r.Method != http.MethodGet {
		rt.refused = methodNotAllowed(r)
	}
	return rt, true
}
