package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxSize bounds a config file, in bytes; a real one has a few thousand.
const maxSize = 256 << 10

// Load reads the config file at path: see [Parse]. The error of a file that
// cannot be read is an *fs.PathError.
func Load(path string) (*CloudConfig, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the cloud config: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the cloud config: %w", err)
	}
	return Parse(path, data)
}

// Parse returns the config that data holds, complete with defaults and in
// canonical form. name is what errors call the file. If anything is wrong, the
// error is an [Errors] with all of it.
func Parse(name string, data []byte) (*CloudConfig, error) {
	d := &document{file: name, at: map[string]position{}}
	c := d.parse(data)
	if len(d.errs) > 0 {
		d.errs.sort()
		return nil, d.errs
	}
	return c, nil
}

// parse returns the config, which is only good if d holds no errors then.
func (d *document) parse(data []byte) *CloudConfig {
	root := d.syntax(data)
	if root == nil || !d.header(root) {
		return nil
	}
	d.findSecrets(root, "")
	c := &CloudConfig{}
	v := reflect.ValueOf(c).Elem()
	setDefaults(v)
	d.section(root, "", v)
	setDependentDefaults(c)
	validate(d, c)
	return c
}

// syntax returns the top of data's only YAML document, or nil if it has none
// that is worth a closer look.
func (d *document) syntax(data []byte) *yaml.Node {
	if len(data) > maxSize {
		d.errorAt(position{1, 1}, "", "larger than %d KiB: not a cloud config", maxSize>>10)
		return nil
	}
	if at := invalidUTF8(data); at >= 0 {
		d.errorAt(position{1 + bytes.Count(data[:at], []byte("\n")), 1}, "", "not UTF-8 text")
		return nil
	}
	documents, err := decodeAll(data)
	if err != nil {
		line, problem := explain(err, data)
		d.errorAt(position{line, 1}, "", "not YAML: %s", problem)
		return nil
	}
	for _, extra := range documents[min(1, len(documents)):] {
		d.errorAt(positionOf(extra), "", "a second YAML document; a file holds exactly one")
	}
	if len(documents) == 0 || isNull(documents[0].Content[0]) {
		d.errorAt(position{1, 1}, "", "empty; a cloud config begins with apiVersion: %s and kind: %s", APIVersion, Kind)
		return nil
	}
	root := documents[0].Content[0]
	if root.Kind != yaml.MappingNode {
		d.errorAt(positionOf(root), "", "must be a section with keys, is %s", describe(root))
		return nil
	}
	return root
}

// header tells whether the file claims to be what this package reads. If it
// says that it is something else, the keys below are not worth complaints.
func (d *document) header(root *yaml.Node) bool {
	ok := true
	want := map[string]string{"apiVersion": APIVersion, "kind": Kind}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i].Value, root.Content[i+1]
		supported, found := want[key]
		if found && isString(value) && value.Value != "" && value.Value != supported {
			d.errorAt(positionOf(value), key, "%q is not supported; supported: %s", value.Value, supported)
			ok = false
		}
	}
	return ok
}

// decodeAll returns the YAML documents in data, each with its top node as
// Content[0].
func decodeAll(data []byte) ([]*yaml.Node, error) {
	var documents []*yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		documents = append(documents, &node)
	}
}

var (
	yamlErrorLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlErrorAnchor = regexp.MustCompile(`^yaml: unknown anchor '(.*)' referenced$`)
)

// explain returns the line and the text of a YAML syntax error. The library's
// own line is, if there is one, often that where the surrounding block begins.
// More useful is the first line that does not go with those before it: the
// longest run of lines that is good YAML ends just above.
func explain(err error, data []byte) (line int, problem string) {
	if unknown := yamlErrorAnchor.FindStringSubmatch(err.Error()); unknown != nil {
		// The text of the alias may be a mistaken secret: a password that
		// begins with an asterisk and lacks quotes.
		before, _, _ := bytes.Cut(data, []byte("*"+unknown[1]))
		return 1 + bytes.Count(before, []byte("\n")), "a value that begins with * but refers to nothing; put it in quotes"
	}
	match := yamlErrorLine.FindStringSubmatch(err.Error())
	problem = err.Error()[len(match[0]):]
	line = 1
	if n, err := strconv.Atoi(match[1]); err == nil {
		line = n
	}
	const tries = 1000 // Each costs a parse of the file.
	lines := strings.SplitAfter(string(data), "\n")
	for n := len(lines) - 1; n >= 0 && n > len(lines)-tries; n-- {
		if _, err := decodeAll([]byte(strings.Join(lines[:n], ""))); err != nil {
			continue
		}
		if indent := lines[n][:len(lines[n])-len(strings.TrimLeft(lines[n], " \t"))]; strings.Contains(indent, "\t") {
			problem = "a tab in the indentation; use blanks"
		}
		return n + 1, problem
	}
	return line, problem
}

// invalidUTF8 returns the offset of the first byte of data that is not UTF-8,
// or -1.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}
