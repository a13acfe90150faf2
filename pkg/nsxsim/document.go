package nsxsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
)

// document is one JSON object as a client sent it: its members by name, each
// still raw, so that fields this simulator knows nothing of survive a GET and a
// PUT unchanged. A stored document is never modified; changes are made on a
// clone. Members that are null are absent, as NSX treats them.
type document map[string]json.RawMessage

var errNotAnObject = errors.New("the body is not a JSON object")

func parseDocument(body []byte) (document, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	var doc document
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("the body is not a JSON object: %w", err)
	}
	if doc == nil {
		return nil, errNotAnObject
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object in the body")
	}
	maps.DeleteFunc(doc, func(_ string, raw json.RawMessage) bool { return isNull(raw) })
	return doc, nil
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

func (d document) clone() document { return maps.Clone(d) }

func (d document) has(name string) bool { _, ok := d[name]; return ok }

// get decodes the member into out and reports whether it was there and fitted.
func (d document) get(name string, out any) bool {
	raw, ok := d[name]
	return ok && json.Unmarshal(raw, out) == nil
}

// value decodes a member; what is not there, or does not fit, is the zero value.
func value[T any](d document, name string) T {
	var v T
	d.get(name, &v)
	return v
}

func (d document) str(name string) string         { return value[string](d, name) }
func (d document) strs(name string) []string      { return value[[]string](d, name) }
func (d document) boolean(name string) bool       { return value[bool](d, name) }
func (d document) object(name string) document    { return value[document](d, name) }
func (d document) objects(name string) []document { return value[[]document](d, name) }

// integer gives the number and whether it was there.
func (d document) integer(name string) (int64, bool) {
	var n int64
	ok := d.get(name, &n)
	return n, ok
}

// carries tells whether the document has this _revision, as a number or, as NSX takes
// it too, as a string.
func (d document) carries(revision int64) bool {
	if text := d.str("_revision"); text != "" {
		return text == strconv.FormatInt(revision, 10)
	}
	n, ok := d.integer("_revision")
	return ok && n == revision
}

// set stores v, which must be something that JSON can hold.
func (d document) set(name string, v any) { d[name] = encode(v) }

// encode gives v as compact JSON with sorted names and without the escapes for
// HTML that encoding/json adds by default. Values come from our own code or from
// bodies already parsed, so that they always encode.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("nsxsim: encoding %T: %v", v, err))
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}
