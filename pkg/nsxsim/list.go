package nsxsim

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const maxPage = 1000

// finalCursor is what some releases give with the last page.
const finalCursor = "0000end"

// paging is what a client asks of a list.
type paging struct {
	size      int
	cursor    string // as it was given
	sortBy    string
	ascending bool
	fields    []string // included_fields
}

func (r *request) paging() (paging, *Error) {
	p := paging{size: maxPage, ascending: r.query.Get("sort_ascending") != "false", sortBy: r.query.Get("sort_by")}
	if v := r.query.Get("page_size"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > maxPage {
			return p, invalid(fmt.Sprintf("page_size must be in [0, %d], got %q", maxPage, v))
		}
		if n > 0 {
			p.size = n
		}
	}
	p.cursor = r.query.Get("cursor")
	if v := r.query.Get("included_fields"); v != "" {
		p.fields = strings.Split(v, ",")
	}
	return p, nil
}

// after reads a cursor of the given sort: s for the sequence number after which
// to go on, o for an offset.
func (p paging) after(sort byte) (uint64, *Error) {
	if p.cursor == "" {
		return 0, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.cursor)
	if err != nil || len(raw) < 2 || raw[0] != sort {
		return 0, p.foreignCursor()
	}
	n, err := strconv.ParseUint(string(raw[1:]), 10, 63)
	if err != nil {
		return 0, p.foreignCursor()
	}
	return n, nil
}

func (p paging) foreignCursor() *Error {
	return invalid(fmt.Sprintf("cursor %q is none of this list", p.cursor))
}

// listObjects serves the list of a kind. In the usual order, that of creation, a
// page goes on where the last ended even when objects came and went meanwhile.
func listObjects(r *request) (*response, *Error) {
	return r.listOf(r.matching(r.sim.store.list(r.route.kind.name)))
}

// listOf serves a list of objects, which must be in order of creation.
func (r *request) listOf(all []*object) (*response, *Error) {
	p, err := r.paging()
	if err != nil {
		return nil, err
	}
	if p.sortBy != "" {
		sorted := sortObjects(all, p)
		return r.pageOf(p, len(sorted), func(i int) json.RawMessage { return r.shown(sorted[i]) })
	}
	after, err := p.after('s')
	if err != nil {
		return nil, err
	}
	total := len(all)
	first, _ := slices.BinarySearchFunc(all, after+1, func(o *object, seq uint64) int {
		switch {
		case o.seq < seq:
			return -1
		case o.seq > seq:
			return 1
		}
		return 0
	})
	page := all[first:]
	next := ""
	if len(page) > p.size {
		page = page[:p.size]
		next = "s" + strconv.FormatUint(page[len(page)-1].seq, 10)
	}
	items := make([]json.RawMessage, len(page))
	for i, o := range page {
		items[i] = p.included(r.shown(o))
	}
	return r.listAnswer(p, items, total, next), nil
}

// matching applies the kind's filters.
func (r *request) matching(all []*object) []*object {
	for param, matches := range r.route.kind.filters {
		v := r.query.Get(param)
		if v == "" {
			continue
		}
		var kept []*object
		for _, o := range all {
			if matches(o.doc, v) {
				kept = append(kept, o)
			}
		}
		all = kept
	}
	return all
}

// sortObjects sorts by a member: numbers before texts.
func sortObjects(all []*object, p paging) []*object {
	type keyed struct {
		*object
		number   int64
		isNumber bool
		text     string
	}
	keys := make([]keyed, len(all))
	for i, o := range all {
		k := keyed{object: o, text: o.doc.str(p.sortBy)}
		k.number, k.isNumber = o.doc.integer(p.sortBy)
		keys[i] = k
	}
	slices.SortStableFunc(keys, func(a, b keyed) int {
		c := 0
		switch {
		case a.isNumber && b.isNumber:
			c = cmp.Compare(a.number, b.number)
		case a.isNumber:
			c = -1
		case b.isNumber:
			c = 1
		default:
			c = strings.Compare(a.text, b.text)
		}
		if !p.ascending {
			c = -c
		}
		return c
	})
	sorted := make([]*object, len(keys))
	for i, k := range keys {
		sorted[i] = k.object
	}
	return sorted
}

// page serves a list of plain values.
func (r *request) page(values []any) (*response, *Error) {
	p, err := r.paging()
	if err != nil {
		return nil, err
	}
	return r.pageOf(p, len(values), func(i int) json.RawMessage { return encode(values[i]) })
}

// pageOf serves one page of a list of which each item can be had by its index.
func (r *request) pageOf(p paging, total int, item func(int) json.RawMessage) (*response, *Error) {
	offset, err := p.after('o')
	if err != nil {
		return nil, err
	}
	first := int(min(offset, uint64(total)))
	last := min(first+p.size, total)
	next := ""
	if last < total {
		next = "o" + strconv.Itoa(last)
	}
	items := make([]json.RawMessage, 0, last-first)
	for i := first; i < last; i++ {
		items = append(items, p.included(item(i)))
	}
	return r.listAnswer(p, items, total, next), nil
}

// included keeps the fields that the client asked for.
func (p paging) included(raw json.RawMessage) json.RawMessage {
	if len(p.fields) == 0 {
		return raw
	}
	doc, err := parseDocument(raw)
	if err != nil {
		return raw // no object
	}
	kept := document{}
	for _, name := range p.fields {
		if v, ok := doc[strings.TrimSpace(name)]; ok {
			kept[strings.TrimSpace(name)] = v
		}
	}
	return encode(kept)
}

// listAnswer writes a page. The items are JSON already.
func (r *request) listAnswer(p paging, items []json.RawMessage, total int, next string) *response {
	var body bytes.Buffer
	body.WriteString(`{"results":[`)
	for i, item := range items {
		if i > 0 {
			body.WriteByte(',')
		}
		body.Write(item)
	}
	body.WriteByte(']')
	if p.cursor == "" {
		fmt.Fprintf(&body, `,"result_count":%d`, total)
	}
	switch {
	case next != "":
		fmt.Fprintf(&body, `,"cursor":%q`, base64.RawURLEncoding.EncodeToString([]byte(next)))
	case r.sim.quirks.FinalCursor:
		fmt.Fprintf(&body, `,"cursor":%q`, finalCursor)
	}
	if p.sortBy != "" {
		fmt.Fprintf(&body, `,"sort_by":%s,"sort_ascending":%t`, encode(p.sortBy), p.ascending)
	}
	body.WriteByte('}')
	return &response{status: http.StatusOK, body: body.Bytes()}
}
