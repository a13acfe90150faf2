package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

const root = "../../.."

func TestPageHasEveryTable(t *testing.T) {
	page, err := render(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| `" + names.AnnotationClass + "` | Names the load-balancer class",
		"| `" + lb.ReasonNoAddress + "` | No address is free",
		"| `" + nsx.TagServiceUID + "` | Carries the UID",
		"| `nsxt_api_requests_total` | counter | Requests sent to NSX",
		"| `nsxt_ip_pool_addresses` | gauge | Addresses in the allocation ranges of an IP pool of the cloud config. Label: `pool`. |",
	} {
		if strings.Count(page, want) != 1 {
			t.Errorf("the page has not one row %q", want)
		}
	}
	if strings.Contains(page, "`"+names.AnnotationPrefix+"`") {
		t.Errorf("%s is listed as an annotation", names.AnnotationPrefix)
	}
}

// A user who looks up an event finds what to do about it.
func TestTroubleshootingHasEveryEvent(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/how-to/troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	reasons, err := constants(filepath.Join(root, "pkg/lb"), "Reason")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reasons {
		if !strings.Contains(string(text), "\n| `"+r.value+"` | ") {
			t.Errorf("docs/how-to/troubleshooting.md has no row for the event %s", r.value)
		}
	}
}

// A constant that nobody explained does not get into the page unnoticed.
func TestCommentIsRequired(t *testing.T) {
	dir := t.TempDir()
	source := "package x\n\nconst (\n\t// Prefix begins.\n\tPrefix = \"p/\"\n\tPrefixed = Prefix + \"a\"\n)\n"
	if err := os.WriteFile(filepath.Join(dir, "x.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := constants(dir, "Prefix"); err == nil || !strings.Contains(err.Error(), "Prefixed of") {
		t.Errorf("want an error about Prefixed, got %v", err)
	}
	if _, err := constants(dir, "Other"); err == nil {
		t.Error("no error although there is no such constant")
	}
}

func TestForUsers(t *testing.T) {
	for comment, want := range map[string]string{
		"X: the Service waits,\nand why.":       "The Service waits, and why.",
		"X marks what is shared: see Pool.Key.": "Marks what is shared.",
		"":                                      "",
	} {
		if got := forUsers(comment, "X"); got != want {
			t.Errorf("forUsers(%q) = %q, want %q", comment, got, want)
		}
	}
}
