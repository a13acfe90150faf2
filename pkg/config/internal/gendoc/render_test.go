package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
)

// Every key has a row in the section of its type, and every link in the page
// leads to a section.
func TestPageIsWhole(t *testing.T) {
	page, err := render("../..")
	if err != nil {
		t.Fatal(err)
	}
	sections := collect(nil, reflect.TypeFor[config.CloudConfig](), "")
	anchors := map[string]bool{}
	for _, s := range sections {
		_, text, ok := strings.Cut(page, "\n## "+s.heading()+"\n")
		if !ok {
			t.Errorf("no section %s", s.heading())
		}
		text, _, _ = strings.Cut(text, "\n## ")
		for i := range s.typ.NumField() {
			if row := "\n| `" + key(s.typ.Field(i)) + "` | "; strings.Count(text, row) != 1 {
				t.Errorf("not one row %q in section %s", row, s.heading())
			}
		}
		anchors[s.link("")] = true
	}
	if len(anchors) != len(sections) {
		t.Errorf("%d sections share %d anchors", len(sections), len(anchors))
	}
	for _, link := range strings.Split(page, "](#")[1:] {
		anchor, _, _ := strings.Cut(link, ")")
		if !anchors["[](#"+anchor+")"] {
			t.Errorf("link to #%s leads nowhere", anchor)
		}
	}
}

// A key that nobody explained does not get into the page unnoticed.
func TestCommentIsRequired(t *testing.T) {
	dir := t.TempDir()
	example := filepath.Join(dir, "testdata", "good", "minimal.yaml")
	if err := os.MkdirAll(filepath.Dir(example), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(dir, "types.go"): "package config\n\n// CloudConfig is it.\ntype CloudConfig struct {\n\tAPIVersion string\n}\n",
		example:                        "apiVersion: x\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := render(dir)
	if err == nil || !strings.Contains(err.Error(), "APIVersion has no comment") {
		t.Errorf("want an error about APIVersion, got %v", err)
	}
}
