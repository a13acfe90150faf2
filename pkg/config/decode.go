package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// position is a place in the file, counted from 1.
type position struct{ line, column int }

// document is a config file on its way to a CloudConfig: what is where, and
// what is wrong.
type document struct {
	file     string
	at       map[string]position // by key path, of what the file holds
	misspelt []string            // paths of keys that the file seems to mean
	errs     Errors
}

// errorAt complains about key at a place.
func (d *document) errorAt(at position, key, format string, args ...any) {
	d.errs = append(d.errs, &Error{
		File: d.file, Line: at.line, Column: at.column,
		Key: key, Reason: fmt.Sprintf(format, args...),
	})
}

// errorf complains about key where it is in the file. If it is not there, the
// place is the section that it belongs in.
func (d *document) errorf(key, format string, args ...any) {
	for place := key; place != ""; place = place[:max(0, strings.LastIndexAny(place, ".["))] {
		if at, ok := d.at[place]; ok {
			d.errorAt(at, key, format, args...)
			return
		}
	}
	d.errorAt(position{1, 1}, key, format, args...)
}

// field is a field of a type of the schema, with what its tags say.
type field struct {
	name       string
	index      int
	required   bool
	fallback   string // a YAML scalar, if hasDefault
	hasDefault bool
	min, max   string // empty: no bound
}

// fieldsOf returns the fields of a struct type of the schema.
func fieldsOf(t reflect.Type) []field {
	fields := make([]field, t.NumField())
	for i := range fields {
		tag := t.Field(i).Tag
		name, _, _ := strings.Cut(tag.Get("yaml"), ",")
		fallback, hasDefault := tag.Lookup("default")
		fields[i] = field{
			name: name, index: i, required: tag.Get("required") == "true",
			fallback: fallback, hasDefault: hasDefault,
			min: tag.Get("min"), max: tag.Get("max"),
		}
	}
	return fields
}

// section decodes a mapping into v, a struct that holds its defaults.
func (d *document) section(n *yaml.Node, path string, v reflect.Value) {
	fields := fieldsOf(v.Type())
	lines := map[string]int{} // of the keys seen
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolve(n.Content[i+1])
		if key.Kind != yaml.ScalarNode {
			d.errorAt(positionOf(key), path, "a key must be a word, is %s", describe(key))
			continue
		}
		keyPath := join(path, key.Value)
		if line, ok := lines[key.Value]; ok {
			d.errorAt(positionOf(key), keyPath, "duplicate key, first on line %d", line)
			continue
		}
		lines[key.Value] = key.Line
		which := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if which < 0 {
			d.unknownKey(key, path, fields)
			continue
		}
		d.at[keyPath] = positionOf(key)
		if value.Kind == yaml.ScalarNode && !isNull(value) {
			d.at[keyPath] = positionOf(value)
		}
		d.optional(value, keyPath, v.Field(fields[which].index), fields[which])
	}
	for _, f := range fields {
		if path := join(path, f.name); f.required && lines[f.name] == 0 && !slices.Contains(d.misspelt, path) {
			d.errorf(path, "required, but missing")
		}
	}
}

// unknownKey complains about a key that the section at path does not have.
func (d *document) unknownKey(key *yaml.Node, path string, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	keyPath := join(path, key.Value)
	guess, ok := closest(key.Value, names)
	switch {
	case namesSecret(key.Value):
		// findSecrets has complained.
	case key.Value == "<<":
		d.errorAt(positionOf(key), keyPath, "merge keys are not supported")
	case ok:
		d.errorAt(positionOf(key), keyPath, "unknown key; did you mean %s?", guess)
		d.misspelt = append(d.misspelt, join(path, guess))
	default:
		d.errorAt(positionOf(key), keyPath, "unknown key; known here: %s", strings.Join(names, ", "))
	}
}

// optional decodes the value of a key into v, which holds its default. An
// empty value is as good as no key.
func (d *document) optional(n *yaml.Node, path string, v reflect.Value, f field) {
	switch {
	case !isNull(n):
		d.value(n, path, v, f)
	case f.required:
		d.errorf(path, "required, but empty")
	}
}

// value decodes n into v, which holds its default and keeps it on an error.
func (d *document) value(n *yaml.Node, path string, v reflect.Value, f field) {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		d.duration(n, path, p, f)
		return
	case *netip.Prefix:
		d.cidr(n, path, p)
		return
	case *HealthCheck:
		d.healthCheck(n, path, p)
		return
	}
	switch v.Kind() {
	case reflect.String:
		d.str(n, path, v, f)
	case reflect.Int:
		d.integer(n, path, v, f)
	case reflect.Bool:
		d.boolean(n, path, v)
	case reflect.Slice:
		d.list(n, path, v, f)
	case reflect.Struct:
		if d.expect(n, path, n.Kind == yaml.MappingNode, "a section with keys") {
			d.section(n, path, v)
		}
	case reflect.Pointer:
		section := reflect.New(v.Type().Elem())
		setDefaults(section.Elem())
		d.value(n, path, section.Elem(), f)
		v.Set(section)
	default:
		panic(fmt.Sprintf("the schema has no values of type %s (%s)", v.Type(), path))
	}
}

func (d *document) list(n *yaml.Node, path string, v reflect.Value, f field) {
	if !d.expect(n, path, n.Kind == yaml.SequenceNode, "a list") {
		return
	}
	if f.required && len(n.Content) == 0 {
		d.errorf(path, "required, but empty")
	}
	for i, item := range n.Content {
		item = resolve(item)
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		d.at[itemPath] = positionOf(item)
		element := reflect.New(v.Type().Elem()).Elem()
		setDefaults(element)
		d.optional(item, itemPath, element, field{required: true})
		v.Set(reflect.Append(v, element)) // Bad ones too: indexes stay those of the file.
	}
}

func (d *document) str(n *yaml.Node, path string, v reflect.Value, f field) {
	if n.Kind == yaml.ScalarNode && !isString(n) {
		d.errorf(path, "must be a string, is %s; put it in quotes", describe(n))
		return
	}
	if !d.expect(n, path, isString(n), "a string") {
		return
	}
	if n.Value == "" && (f.required || f.hasDefault) {
		d.errorf(path, "must not be empty")
		return
	}
	if enum, ok := v.Interface().(Enum); ok && !slices.Contains(enum.Values(), n.Value) {
		d.errorf(path, "%q is not supported; supported: %s", n.Value, strings.Join(enum.Values(), ", "))
		return
	}
	v.SetString(n.Value)
}

func (d *document) integer(n *yaml.Node, path string, v reflect.Value, f field) {
	var value int
	if n.ShortTag() == "!!float" { // or too large
		d.errorf(path, "%s is not a whole number in range", n.Value)
		return
	}
	if !d.expect(n, path, n.ShortTag() == "!!int" && n.Decode(&value) == nil, "a whole number") {
		return
	}
	low, _ := strconv.Atoi(f.min)
	high, err := strconv.Atoi(f.max)
	if value < low || err == nil && value > high {
		d.outOfRange(path, f)
		return
	}
	v.SetInt(int64(value))
}

func (d *document) boolean(n *yaml.Node, path string, v reflect.Value) {
	var value bool
	if d.expect(n, path, n.ShortTag() == "!!bool" && n.Decode(&value) == nil, "true or false") {
		v.SetBool(value)
	}
}

func (d *document) duration(n *yaml.Node, path string, to *time.Duration, f field) {
	value, err := time.ParseDuration(n.Value)
	if !isString(n) || err != nil {
		d.malformed(n, path, "a duration such as 30s, 1m30s or 500ms")
		return
	}
	low, _ := time.ParseDuration(f.min)
	high, err := time.ParseDuration(f.max)
	if value < low || err == nil && value > high {
		d.outOfRange(path, f)
		return
	}
	*to = value
}

func (d *document) cidr(n *yaml.Node, path string, to *netip.Prefix) {
	value, err := netip.ParsePrefix(n.Value)
	if !isString(n) || err != nil || value.Addr().Is4In6() {
		d.malformed(n, path, "a CIDR such as 10.1.0.0/16 or fd00:1::/64")
		return
	}
	if value != value.Masked() {
		d.errorf(path, "%s has bits set behind the prefix; did you mean %s?", value, value.Masked())
		return
	}
	*to = value
}

// The short forms of a health check.
const (
	healthCheckKubeProxy = "kube-proxy"
	healthCheckNone      = "none"
)

func (d *document) healthCheck(n *yaml.Node, path string, to *HealthCheck) {
	switch {
	case isString(n) && n.Value == healthCheckKubeProxy:
		*to = kubeProxyHealthCheck
	case isString(n) && n.Value == healthCheckNone:
		*to = HealthCheck{}
	case n.Kind == yaml.MappingNode:
		var value HealthCheck
		v := reflect.ValueOf(&value).Elem()
		setDefaults(v)
		d.section(n, path, v)
		*to = value
	default:
		d.malformed(n, path, "kube-proxy, none or a section with port and path")
	}
}

// expect complains unless ok.
func (d *document) expect(n *yaml.Node, path string, ok bool, what string) bool {
	if !ok {
		d.errorf(path, "must be %s, is %s", what, describe(n))
	}
	return ok
}

// malformed complains about a value of which the text may be shown.
func (d *document) malformed(n *yaml.Node, path, what string) {
	if isString(n) && n.Value != "" {
		d.errorf(path, "%q is not %s", n.Value, what)
		return
	}
	d.expect(n, path, false, what)
}

func (d *document) outOfRange(path string, f field) {
	d.errorf(path, "out of range: must be from %s to %s", f.min, f.max)
}

// findSecrets complains about everything in the file that is called a
// password, wherever it is and whatever it holds.
func (d *document) findSecrets(n *yaml.Node, path string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, keyPath := n.Content[i], join(path, n.Content[i].Value)
			// The one thing of this name that is not a secret: the name of an
			// environment variable.
			if namesSecret(key.Value) && !strings.HasSuffix(keyPath, "credentials.env.password") {
				d.errorAt(positionOf(key), keyPath, "no secrets in this file: "+
					"say where to take them from in credentials.file, credentials.env or credentials.secret")
			}
			d.findSecrets(n.Content[i+1], keyPath)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			d.findSecrets(item, fmt.Sprintf("%s[%d]", path, i))
		}
	}
}

// namesSecret tells whether a key of this name is for a secret.
func namesSecret(key string) bool {
	key = strings.ToLower(key)
	return strings.Contains(key, "password") || strings.Contains(key, "passwd") || strings.Contains(key, "passphrase")
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func positionOf(n *yaml.Node) position { return position{max(n.Line, 1), max(n.Column, 1)} }

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// isString tells whether n is a string. A plain << is special as a key only.
func isString(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!str" || n.ShortTag() == "!!merge")
}

// describe says what kind of value n is, and never which: it could be a secret.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str":
		if n.Value == "" {
			return "empty"
		}
		return "a string"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "empty"
	case "!!timestamp":
		return "a date"
	}
	return "something else"
}

// join returns the path of a key in the section at path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
