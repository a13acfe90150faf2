package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bluekeyes/go-gitdiff/gitdiff"
)

// cheap are the mutations that are tried when not all are.
var cheap = []string{"no-resend"}

// TestMutations takes one rule after the other out of the product, by the patches in mutations/, and wants the cases that
// the patch names to notice. The product itself has no switch for that: the suite is built anew with the patched files in
// place of the product's.
func TestMutations(t *testing.T) {
	patches, err := filepath.Glob("mutations/*.patch")
	if err != nil || len(patches) == 0 {
		t.Fatalf("no patches in mutations: %v", err)
	}
	for _, patch := range patches {
		name := strings.TrimSuffix(filepath.Base(patch), ".patch")
		if *every > 1 && !slices.Contains(cheap, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			cases, overlay := mutate(t, patch)
			suite := filepath.Join(t.TempDir(), "suite")
			if out, err := goTool(t.Context(), "test", "-c", "-overlay", overlay, "-o", suite, "."); err != nil {
				t.Fatalf("building the product without a rule: %v\n%s", err, out)
			}
			out, err := exec.CommandContext(t.Context(), suite, "-test.run", "^TestExhaustive$/"+cases, "-every=1").CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("the suite does not notice that the rule is gone: no case of %q fails", cases)
			case !bytes.Contains(out, []byte("VIOLATION")):
				t.Errorf("the suite fails, but not by an invariant: %v\n%s", err, out)
			default:
				t.Logf("noticed: %s", first(out, "VIOLATION"))
			}
		})
	}
}

func goTool(ctx context.Context, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, "go", args...).CombinedOutput()
}

// first is the first line of a text in which something is.
func first(text []byte, what string) string {
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, what) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

var casesLine = regexp.MustCompile(`(?m)^Cases: (\S+)$`)

// mutate applies a patch to copies of the files that it is for. It returns the cases that the patch names, and the path of
// the file by which the go tool takes the copies.
func mutate(t *testing.T, patch string) (cases, overlay string) {
	t.Helper()
	text, err := os.Open(patch)
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	files, preamble, err := gitdiff.Parse(text)
	if err != nil {
		t.Fatalf("%s is no patch: %v", patch, err)
	}
	named := casesLine.FindStringSubmatch(preamble)
	if named == nil || len(files) == 0 {
		t.Fatalf("%s changes nothing, or does not say by a line \"Cases: ...\" which cases must notice", patch)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for i, f := range files {
		path := filepath.Join(root, f.OldName)
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%s is for a file that is not there any more: make it anew: %v", patch, err)
		}
		is, err := apply(f, was)
		if err != nil {
			t.Fatalf("%s does not apply to %s any more: make it anew, so that the rule of which it tells is gone again: %v", patch, f.OldName, err)
		}
		replace[path] = filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(replace[path], is, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return named[1], overlay
}

// apply applies the part of a patch that is for one file. The lines around a change must be there as the patch has them,
// once, but may have moved.
func apply(f *gitdiff.File, text []byte) ([]byte, error) {
	lines := strings.SplitAfter(string(text), "\n")
	shift := int64(0)
	for _, fragment := range f.TextFragments {
		var old []string
		for _, l := range fragment.Lines {
			if l.Op != gitdiff.OpAdd {
				old = append(old, l.Line)
			}
		}
		at := -1
		for i := range lines[:max(0, len(lines)-len(old)+1)] {
			if slices.Equal(lines[i:i+len(old)], old) {
				if at >= 0 {
					return nil, fmt.Errorf("the lines at %d are there twice", fragment.OldPosition)
				}
				at = i
			}
		}
		if at < 0 {
			return nil, fmt.Errorf("the lines at %d are not there", fragment.OldPosition)
		}
		fragment.OldPosition = int64(at + 1)
		fragment.NewPosition = fragment.OldPosition + shift
		shift += fragment.LinesAdded - fragment.LinesDeleted
	}
	var out bytes.Buffer
	if err := gitdiff.Apply(&out, bytes.NewReader(text), f); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
