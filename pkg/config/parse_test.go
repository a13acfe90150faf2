package config

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the golden files anew")

// equateConfigs lets cmp compare configs.
var equateConfigs = cmpopts.EquateComparable(netip.Prefix{})

// testFiles returns the config files in a folder of testdata.
func testFiles(t testing.TB, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files in testdata/%s: %v", folder, err)
	}
	return files
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// golden compares got with the golden file next to a test file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	path := strings.TrimSuffix(file, ".yaml") + ".golden"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(read(t, path)), got); diff != "" {
		t.Errorf("%s (-want +got, -update to accept):\n%s", path, diff)
	}
}

// What a good file means: the config with all defaults.
func TestGood(t *testing.T) {
	for _, file := range testFiles(t, "good") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file, c.String())

			again, err := Parse("again", []byte(c.String()))
			if err != nil {
				t.Fatalf("what a config prints is no config:\n%v", err)
			}
			if diff := cmp.Diff(c, again, equateConfigs); diff != "" {
				t.Errorf("what a config prints is another config (-first +again):\n%s", diff)
			}
		})
	}
}

// What is said about a bad file.
func TestBad(t *testing.T) {
	for _, file := range testFiles(t, "bad") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := Parse(filepath.Base(file), read(t, file))
			if err == nil {
				t.Fatalf("accepted as\n%s", c)
			}
			if c != nil {
				t.Error("a config was returned with the error")
			}
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("not ErrInvalid: %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("shows a secret: %v", err)
			}
			golden(t, file, err.Error()+"\n")
		})
	}
}

func TestErrorsTellWhere(t *testing.T) {
	_, err := Parse("cloud.yaml", read(t, "testdata/bad/enums.yaml"))
	first, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("no *Error in %v", err)
	}
	want := &Error{
		File: "cloud.yaml", Line: 7, Column: 8, Key: "nsx.api",
		Reason: `"Policy" is not supported; supported: Manager`,
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("first error (-want +got):\n%s", diff)
	}
	all, ok := errors.AsType[Errors](err)
	if !ok || len(all) < 2 {
		t.Errorf("want Errors with all of them, got %v", err)
	}
}

func TestLoadOfNoFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "cloud.yaml"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("want fs.ErrNotExist, got %v", err)
	}
	if errors.Is(err, ErrInvalid) {
		t.Errorf("a missing file is not an invalid one: %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a folder was loaded")
	}
}

func TestLoadOfHugeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cloud.yaml")
	if err := os.WriteFile(path, make([]byte, maxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, ErrInvalid) {
		t.Errorf("want ErrInvalid, got %v", err)
	}
}

func TestLookups(t *testing.T) {
	c, err := Load("testdata/good/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if class, ok := c.Class("shared"); !ok || class.Name != "shared" || !class.HealthCheck.None() {
		t.Errorf("Class(shared) = %v, %v", class, ok)
	}
	if class, ok := c.DefaultClass(); !ok || class.Name != "standard" || class.HealthCheck.None() {
		t.Errorf("DefaultClass() = %v, %v", class, ok)
	}
	if class, ok := c.Class("default"); ok {
		t.Errorf("Class(default) = %v, which is not in the file", class)
	}
	if pool, ok := c.IPPool("floating-v6"); !ok || pool.ID != "Floating IPs (v6)" {
		t.Errorf("IPPool(floating-v6) = %v, %v", pool, ok)
	}
	if pool, ok := c.IPPool("Floating IPs (v6)"); ok {
		t.Errorf("IPPool by id = %v; pools go by name", pool)
	}
}
