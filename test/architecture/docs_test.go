package architecture

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
)

const root = "../.."

// files are those of the repository whose names end in one of the suffixes, by their paths from its root.
func files(t *testing.T, suffixes ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	tree := os.DirFS(root)
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", ".cache", "bin"}, name):
			return fs.SkipDir
		case d.IsDir() || !slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }):
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		found[name] = string(text)
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("%d files that end in %v: %v", len(found), suffixes, err)
	}
	return found
}

// inRepository says whether a path from the root is there.
func inRepository(name string) bool {
	_, err := os.Stat(filepath.Join(root, name))
	return err == nil
}

// matchesOf are what the parentheses of a pattern match, sorted, each once.
func matchesOf(text, pattern string) []string {
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// block finds what is fenced in a page: its indentation, its language, and its text.
var block = regexp.MustCompile("(?ms)^( *)```(\\w*)\n(.*?)^ *```$")

// blocks are those of a language, without their indentation.
func blocks(page, language string) []string {
	var found []string
	for _, m := range block.FindAllStringSubmatch(page, -1) {
		if m[2] == language {
			found = append(found, strings.ReplaceAll("\n"+m[3], "\n"+m[1], "\n")[1:])
		}
	}
	return found
}

// anchors are the names by which the headings of a page are linked to.
func anchors(page string) []string {
	var all []string
	for _, heading := range matchesOf(block.ReplaceAllString(page, ""), `(?m)^#+ (.*)$`) {
		all = append(all, strings.ReplaceAll(regexp.MustCompile(`[^\pL\d_ -]`).ReplaceAllString(strings.ToLower(heading), ""), " ", "-"))
	}
	return all
}

// TestLinks: each link in the documents leads somewhere, each page is found from the README, and the source names pages that
// are there.
func TestLinks(t *testing.T) {
	pages := files(t, ".md")
	reached, next := map[string]bool{"README.md": true}, []string{"README.md"}
	for len(next) > 0 {
		page := next[0]
		next = next[1:]
		for _, link := range matchesOf(block.ReplaceAllString(pages[page], ""), `\]\(([^)\s]+)\)`) {
			if strings.Contains(link, "://") {
				continue
			}
			file, anchor, _ := strings.Cut(link, "#")
			to := page
			if file != "" {
				to = path.Join(path.Dir(page), file)
			}
			if !inRepository(to) || anchor != "" && !slices.Contains(anchors(pages[to]), anchor) {
				t.Errorf("%s: the link to %s leads nowhere", page, link)
			}
			if _, isPage := pages[to]; isPage && !reached[to] {
				reached[to], next = true, append(next, to)
			}
		}
	}
	for page := range pages {
		if !reached[page] {
			t.Errorf("no link leads to %s", page)
		}
	}
	for source, text := range files(t, ".go", ".sh", ".tmpl", ".yaml", "Makefile", ".ci/run") {
		for _, page := range matchesOf(text, `\b(docs/[\w/-]+\.md)\b`) {
			if _, there := pages[page]; !there {
				t.Errorf("%s names %s, which is not there", source, page)
			}
		}
	}
}

// TestDocsNameWhatIsThere: files, tests, targets of make and metrics that the documents name do exist.
func TestDocsNameWhatIsThere(t *testing.T) {
	pages := files(t, ".md")
	makefile := files(t, "Makefile")["Makefile"]
	var tests strings.Builder
	for _, text := range files(t, "_test.go") {
		tests.WriteString(text)
	}
	for _, named := range []struct {
		what, pattern string
		exists        func(name string) bool
	}{
		{"file", "`((?:\\.ci|cloud|cmd|docs|hack|manifests|pkg|test|vcsim)/[^`*\\s]*)`", func(name string) bool {
			before, rest, braces := strings.Cut(name, "{")
			if !braces {
				return inRepository(name)
			}
			parts, after, _ := strings.Cut(rest, "}")
			for part := range strings.SplitSeq(parts, ",") {
				if !inRepository(before + part + after) {
					return false
				}
			}
			return true
		}},
		{"package", `github\.com/cloud-provider-nsxt/cloud-provider-nsxt/([\w/-]+)`, inRepository},
		{"test", `\b(Test[A-Z]\w*)`, func(name string) bool { return strings.Contains(tests.String(), "func "+name+"(") }},
		{"target of make", "(?m)(?:`|^|[$#] )make ([a-z][\\w/-]*)", func(name string) bool {
			return regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(name)+`:`).MatchString(makefile) || slices.Contains(programs(makefile), name)
		}},
		// This page is made from the metrics themselves.
		{"metric", `\b(nsxt_[a-z_]+[a-z])\b`, func(name string) bool {
			return strings.Contains(pages["docs/reference/service.md"], "\n| `"+name+"` | ")
		}},
	} {
		found := 0
		for page, text := range pages {
			for _, name := range matchesOf(text, named.pattern) {
				found++
				if !named.exists(name) {
					t.Errorf("%s names the %s %s, which is not there", page, named.what, name)
				}
			}
		}
		if found == 0 {
			t.Errorf("no %s is named anywhere: the pattern %s is wrong", named.what, named.pattern)
		}
	}
}

// programs are the targets of make that are built by one rule.
func programs(makefile string) []string {
	return strings.Fields(strings.Join(matchesOf(makefile, `(?m)^PROGRAMS := (.*)$`), " "))
}

// TestDocsNameAll: what the source has of a kind is on the page that lists them. (Other pages are made from the source.)
func TestDocsNameAll(t *testing.T) {
	pages := files(t, ".md")
	for _, r := range []struct{ what, page, sources, pattern string }{
		{"kind of object", "docs/reference/nsxsim.md", "pkg/nsxsim/*kinds.go", `Kind = "(\w+)"`},
		{"key of a fault", "docs/reference/nsxsim.md", "pkg/nsxsim/faults.go", `json:"(\w+),omitempty"`},
		{"quirk", "docs/reference/nsxsim.md", "pkg/nsxsim/options.go", `json:"(\w+),omitempty"`},
		{"end-to-end test", "docs/how-to/end-to-end-tests.md", "test/e2e/*_test.go", `func (Test\w+)\(t `},
		{"defect", "docs/how-to/end-to-end-tests.md", "pkg/nsxsim/defects.go", `Defect = "([\w-]+)"`},
		{"check of /readyz", "docs/how-to/troubleshooting.md", "cloud/health.go", `\{"(\w+)", whenRunning`},
		{"check of /readyz", "docs/how-to/troubleshooting.md", "cloud/health.go", `Check\{"(\w+)"`},
	} {
		paths, err := filepath.Glob(filepath.Join(root, r.sources))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, source := range paths {
			text, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range matchesOf(string(text), r.pattern) {
				found++
				if !regexp.MustCompile("`([^`]*[^`\\w-])?" + name + "([^`\\w-][^`]*)?`").MatchString(pages[r.page]) {
					t.Errorf("%s does not name the %s %s of %s", r.page, r.what, name, source)
				}
			}
		}
		if found == 0 {
			t.Errorf("no %s in %s: the pattern %s is wrong", r.what, r.sources, r.pattern)
		}
	}
}

// TestConfigInTheDocs: each piece of a cloud config in the documents is one that the controller takes, within the least
// that works.
func TestConfigInTheDocs(t *testing.T) {
	least := files(t, "testdata/good/minimal.yaml")["pkg/config/testdata/good/minimal.yaml"]
	pieces := 0
	for page, text := range files(t, ".md") {
		for _, piece := range blocks(text, "yaml") {
			file, err := fill(least, piece)
			if err != nil {
				t.Errorf("%s: %v in\n%s", page, err, piece)
			}
			if file == nil {
				continue
			}
			pieces++
			if _, err := config.Parse(page, file); err != nil {
				t.Errorf("%v in\n%s", err, piece)
			}
		}
	}
	if pieces < 7 {
		t.Errorf("only %d pieces found", pieces)
	}
}

// fill puts a piece of YAML into a cloud config, where its keys belong; nil if it is something else.
func fill(least, piece string) ([]byte, error) {
	var file, part map[string]any
	if err := yaml.UnmarshalStrict([]byte(piece), &part); err != nil {
		return nil, yaml.UnmarshalStrict([]byte(piece), new([]any)) // a list is of faults
	}
	if part["kind"] == names.ConfigKind {
		return []byte(piece), nil
	}
	if err := yaml.UnmarshalStrict([]byte(least), &file); err != nil {
		return nil, err
	}
	balancing := file["loadBalancer"].(map[string]any)
	class := balancing["classes"].([]any)[0].(map[string]any)
	var to map[string]any
	for key := range part {
		switch key {
		case "cluster", "nsx", "vcenters", "nodes", "loadBalancer":
			to = file
		case "ipPools", "classes", "auditMode":
			to = balancing
		case "healthCheck", "monitor", "preserveClientIP":
			to = class
		}
	}
	if to == nil {
		return nil, nil // an object of Kubernetes, or an inventory of nsxsim
	}
	merge(to, part)
	for _, c := range balancing["classes"].([]any) {
		// What is said of classes may leave out where their virtual servers go.
		if c := c.(map[string]any); c["loadBalancerServices"] == nil && c["tier1Gateways"] == nil {
			c["tier1Gateways"] = class["tier1Gateways"]
		}
	}
	return yaml.Marshal(file)
}

// merge puts what part has into all, sections into sections.
func merge(all, part map[string]any) {
	for key, value := range part {
		below, isSection := value.(map[string]any)
		if into, there := all[key].(map[string]any); isSection && there {
			merge(into, below)
			continue
		}
		all[key] = value
	}
}

// TestGoInTheDocs: a program in the documents compiles, and any other piece of Go is found in the source letter by letter.
func TestGoInTheDocs(t *testing.T) {
	sources := files(t, ".go")
	for page, text := range files(t, ".md") {
		for i, piece := range blocks(text, "go") {
			if !strings.HasPrefix(piece, "package ") {
				if !slices.ContainsFunc(slices.Collect(maps.Values(sources)), func(source string) bool { return strings.Contains(source, piece) }) {
					t.Errorf("%s: no file has\n%s", page, piece)
				}
				continue
			}
			program := filepath.Join(t.TempDir(), fmt.Sprintf("program%d.go", i))
			if err := os.WriteFile(program, []byte(piece), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "go", "vet", program).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", page, err, out)
			}
		}
	}
}
