package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
)

const head = `<!-- Written by hack/update-config-docs.sh from the types in pkg/config. Do not edit. -->

# Cloud config file

The cloud controller manager reads one YAML file, named by ` + "`--cloud-config`" + `, when it starts. The file is read
strictly: an unknown or repeated key, a value of the wrong type or out of range, or a reference to something that is not
there keeps the controller from starting, and all such errors are reported at once, each with file, line, column and
key. A key without a value is as good as no key. Durations are written as in ` + "`90s`, `1m30s` or `500ms`" + `.

The file never holds a secret: it says where to find user names, passwords and keys. Paths are absolute.

The least that works:

`

// section is a struct type of the schema, and where in the file it is.
type section struct {
	typ   reflect.Type
	paths []string // in the form loadBalancer.classes[].monitor; empty for the top
}

// heading names the section in the page.
func (s section) heading() string {
	if s.paths[0] == "" {
		return "Top level"
	}
	return "`" + s.paths[0] + "`"
}

// link refers to the section from elsewhere in the page. Anchors are made the
// way of GitHub.
func (s section) link(text string) string {
	anchor := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s.paths[0])
	return "[" + text + "](#" + anchor + ")"
}

// collect appends the section of type t at path, and those in it, to sections.
func collect(sections []*section, t reflect.Type, path string) []*section {
	if i := slices.IndexFunc(sections, func(s *section) bool { return s.typ == t }); i >= 0 {
		sections[i].paths = append(sections[i].paths, path)
		return sections
	}
	sections = append(sections, &section{t, []string{path}})
	for i := range t.NumField() {
		field := t.Field(i)
		inner, fieldPath := field.Type, join(path, key(field))
		if inner.Kind() == reflect.Slice {
			inner, fieldPath = inner.Elem(), fieldPath+"[]"
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if isSection(inner) {
			sections = collect(sections, inner, fieldPath)
		}
	}
	return sections
}

func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[netip.Prefix]()
}

func key(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return name
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// render returns the page. dir is the folder of pkg/config.
func render(dir string) (string, error) {
	comments, err := readComments(dir)
	if err != nil {
		return "", err
	}
	var page strings.Builder
	page.WriteString(head)
	if err := example(&page, filepath.Join(dir, "testdata", "good", "minimal.yaml")); err != nil {
		return "", err
	}
	sections := collect(nil, reflect.TypeFor[config.CloudConfig](), "")
	for _, s := range sections {
		if err := table(&page, s, sections, comments); err != nil {
			return "", err
		}
	}
	page.WriteString("\n## Example with all keys\n\n")
	if err := example(&page, filepath.Join(dir, "testdata", "good", "full.yaml")); err != nil {
		return "", err
	}
	return page.String(), nil
}

// example writes a config file as a block.
func example(page *strings.Builder, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(page, "```yaml\n%s```\n", data)
	return nil
}

// table writes what there is to know about a section and its keys.
func table(page *strings.Builder, s *section, all []*section, c *comments) error {
	meaning := c.types[s.typ.Name()]
	if meaning == "" {
		return fmt.Errorf("type %s has no comment", s.typ)
	}
	fmt.Fprintf(page, "\n## %s\n\n", s.heading())
	if len(s.paths) > 1 {
		fmt.Fprintf(page, "The same holds for `%s`.\n\n", strings.Join(s.paths[1:], "`, `"))
	}
	if s.paths[0] != "" {
		meaning = renamed(meaning, s.typ.Name(), s.paths[0])
	}
	fmt.Fprintf(page, "%s\n\n", meaning)
	page.WriteString("| Key | Type | Default | Meaning |\n|---|---|---|---|\n")
	var enums []reflect.StructField
	for i := range s.typ.NumField() {
		field := s.typ.Field(i)
		meaning := c.fields[s.typ.Name()+"."+field.Name]
		if meaning == "" {
			return fmt.Errorf("%s.%s has no comment", s.typ, field.Name)
		}
		fmt.Fprintf(page, "| `%s` | %s | %s | %s |\n", key(field), typeOf(field, all), defaultOf(field),
			cell(renamed(meaning, field.Name, key(field))))
		if len(enumValues(field.Type)) > 0 {
			enums = append(enums, field)
		}
	}
	for _, field := range enums {
		values(page, field, c)
	}
	return nil
}

// values writes what the values of an enum mean, as far as that needs words.
func values(page *strings.Builder, field reflect.StructField, c *comments) {
	var lines []string
	for _, value := range enumValues(field.Type) {
		if meaning := c.values[field.Type.Name()+"="+value]; meaning != "" {
			lines = append(lines, "- "+oneLine(meaning))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(page, "\nValues of `%s`:\n\n%s\n", key(field), strings.Join(lines, "\n"))
	}
}

func enumValues(t reflect.Type) []string {
	if enum, ok := reflect.Zero(t).Interface().(config.Enum); ok {
		return enum.Values()
	}
	return nil
}

// typeOf says what a key takes.
func typeOf(field reflect.StructField, all []*section) string {
	t := field.Type
	text := "string"
	switch {
	case t == reflect.TypeFor[config.HealthCheck]():
		return "`kube-proxy`, `none` or a " + linkTo(t, all, "section")
	case t == reflect.TypeFor[time.Duration]():
		text = "duration"
	case t.Kind() == reflect.Slice && isSection(t.Elem()):
		text = "list of " + linkTo(t.Elem(), all, "sections")
	case t == reflect.TypeFor[[]netip.Prefix]():
		text = "list of CIDRs"
	case t.Kind() == reflect.Slice:
		text = "list of strings"
	case t.Kind() == reflect.Pointer:
		text = linkTo(t.Elem(), all, "section")
	case t.Kind() == reflect.Struct:
		text = linkTo(t, all, "section")
	case t.Kind() == reflect.Bool:
		text = "boolean"
	case t.Kind() == reflect.Int:
		text = "integer"
	case len(enumValues(t)) > 0:
		text = "`" + strings.Join(enumValues(t), "`, `") + "`"
	}
	if low, ok := field.Tag.Lookup("min"); ok {
		text += ", " + low + " to " + field.Tag.Get("max")
	}
	return text
}

func linkTo(t reflect.Type, all []*section, text string) string {
	i := slices.IndexFunc(all, func(s *section) bool { return s.typ == t })
	return all[i].link(text)
}

// defaultOf says what a key is when it is absent.
func defaultOf(field reflect.StructField) string {
	if field.Tag.Get("required") == "true" {
		return "required"
	}
	if value, ok := field.Tag.Lookup("default"); ok {
		return "`" + value + "`"
	}
	return ""
}

// cell makes text fit into a cell of a table.
func cell(text string) string { return strings.ReplaceAll(oneLine(text), "|", `\|`) }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
