package nsxsim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// shape is the JSON type of a field.
type shape int

const (
	anyShape shape = iota // accepted and kept as it is
	stringShape
	boolShape
	intShape
	listShape
	objectShape
)

// field describes one member of a kind's documents: what is checked ("Field
// level validation errors", error 255) and what the server fills in. Members
// that no field describes are kept as they are.
type field struct {
	name     string
	shape    shape
	required bool
	readOnly bool             // set by the server: dropped from what clients send
	def      string           // default, as raw JSON
	oneOf    []string         // for strings
	min, max int64            // bounds of an integer, length of a string or list; max 0 is no bound
	check    func(any) string // says what is wrong with a value (string or int64), or ""
	types    []string         // resource types that have the field; none means all
	since    release          // the first release that knows the field; zero: all do
	orText   bool             // an integer that may come as a string of one
	ref      []Kind           // a string, or list of strings, that are ids of objects of one of these kinds
	fields   []field          // members of an object, or of each object of a list
	item     *field           // what each value of a list of plain values is
}

// knownTo gives the fields that a release knows. To an older one, a newer field is
// like any that it does not know.
func knownTo(r release, fields []field) []field {
	var known []field
	for _, f := range fields {
		if r.knows(f.since) {
			known = append(known, f)
		}
	}
	return known
}

// conform checks doc against the fields, filling in defaults and dropping
// read-only members. It changes doc itself, down to the members of lists; problems are
// appended to what it returns.
func conform(doc document, fields []field, resourceType, path string) (problems []string) {
	for i := range fields {
		f := &fields[i]
		if len(f.types) > 0 && !slices.Contains(f.types, resourceType) {
			continue
		}
		if f.readOnly {
			delete(doc, f.name)
		}
		name := path + f.name
		raw, ok := doc[f.name]
		if !ok || isNull(raw) {
			delete(doc, f.name)
			switch {
			case f.def != "":
				doc[f.name] = json.RawMessage(f.def)
			case f.required:
				problems = append(problems, name+" is required")
			}
			continue
		}
		fixed, wrong := f.conformValue(raw, resourceType, name)
		problems = append(problems, wrong...)
		doc[f.name] = fixed
	}
	return problems
}

// conformValue checks one value and gives it back with defaults filled in.
func (f *field) conformValue(raw json.RawMessage, resourceType, name string) (json.RawMessage, []string) {
	switch f.shape {
	case stringShape:
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return raw, []string{name + " must be a string"}
		}
		return raw, f.problemsOfString(s, name)
	case boolShape:
		// As NSX's parser does, it takes strings of them: its own manuals send such.
		switch string(raw) {
		case `"true"`, `"false"`:
			return raw[1 : len(raw)-1], nil
		}
		var b bool
		if json.Unmarshal(raw, &b) != nil {
			return raw, []string{name + " must be true or false"}
		}
	case intShape:
		if f.orText && len(raw) > 2 && raw[0] == '"' {
			raw = raw[1 : len(raw)-1]
		}
		var n int64
		if json.Unmarshal(raw, &n) != nil {
			return raw, []string{name + " must be an integer"}
		}
		if n < f.min || f.max > 0 && n > f.max {
			return raw, []string{fmt.Sprintf("%s must be in %s, got %d", name, f.bounds(), n)}
		}
		if f.check != nil {
			if wrong := f.check(n); wrong != "" {
				return raw, []string{name + " " + wrong}
			}
		}
	case objectShape:
		var o document
		if json.Unmarshal(raw, &o) != nil || o == nil {
			return raw, []string{name + " must be an object"}
		}
		problems := conform(o, f.fields, resourceType, name+".")
		return encode(o), problems
	case listShape:
		return f.conformList(raw, resourceType, name)
	}
	return raw, nil
}

func (f *field) conformList(raw json.RawMessage, resourceType, name string) (json.RawMessage, []string) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return raw, []string{name + " must be a list"}
	}
	if n := int64(len(list)); n < f.min || f.max > 0 && n > f.max {
		return raw, []string{fmt.Sprintf("%s must have %s items, got %d", name, f.bounds(), n)}
	}
	item := f.item
	if item == nil {
		if len(f.fields) == 0 {
			return raw, nil
		}
		item = &field{shape: objectShape, fields: f.fields}
	}
	var problems []string
	for i, v := range list {
		fixed, wrong := item.conformValue(v, resourceType, fmt.Sprintf("%s[%d]", name, i))
		list[i] = fixed
		problems = append(problems, wrong...)
	}
	return encode(list), problems
}

func (f *field) problemsOfString(s, name string) []string {
	if n := int64(utf8.RuneCountInString(s)); n < f.min || f.max > 0 && n > f.max {
		return []string{fmt.Sprintf("%s must have %s characters, got %d", name, f.bounds(), n)}
	}
	if f.required && s == "" {
		return []string{name + " is required"}
	}
	if len(f.oneOf) > 0 && !slices.Contains(f.oneOf, s) {
		return []string{fmt.Sprintf("%s must be one of %s, got %q", name, strings.Join(f.oneOf, ", "), s)}
	}
	if f.check != nil {
		if wrong := f.check(s); wrong != "" {
			return []string{name + " " + wrong}
		}
	}
	return nil
}

func (f *field) bounds() string {
	if f.max == 0 {
		return fmt.Sprintf("at least %d", f.min)
	}
	return fmt.Sprintf("[%d, %d]", f.min, f.max)
}

// idField is one reference found in a document.
type idField struct {
	name  string // where it stands
	kinds []Kind // what it may be
	id    string
}

// references gives the ids that doc holds in fields marked as references.
func references(doc document, fields []field, path string) (ids []idField) {
	for i := range fields {
		f := &fields[i]
		if len(f.ref) == 0 && len(f.fields) == 0 || !doc.has(f.name) {
			continue
		}
		name := path + f.name
		switch {
		case len(f.ref) > 0 && f.shape == listShape:
			for _, id := range doc.strs(f.name) {
				ids = append(ids, idField{name, f.ref, id})
			}
		case len(f.ref) > 0:
			if id := doc.str(f.name); id != "" {
				ids = append(ids, idField{name, f.ref, id})
			}
		case f.shape == listShape:
			for _, o := range doc.objects(f.name) {
				ids = append(ids, references(o, f.fields, name+".")...)
			}
		default:
			ids = append(ids, references(doc.object(f.name), f.fields, name+".")...)
		}
	}
	return ids
}
