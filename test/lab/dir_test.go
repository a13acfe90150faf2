package lab

import (
	"errors"
	"os"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
)

func TestCleanRemovesWhatNobodyHolds(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	held := takeBlock(t)
	defer func() { _ = held.Release() }()
	inUse, err := makeDir(held)
	if err != nil {
		t.Fatal(err)
	}
	left := takeBlock(t)
	stale, err := makeDir(left)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Release(); err != nil {
		t.Fatal(err)
	}
	removed, err := Clean()
	if err != nil {
		t.Fatal(err)
	}
	if len(removed) != 1 || removed[0] != stale {
		t.Errorf("removed %v, want %s", removed, stale)
	}
	if _, err := os.Stat(inUse); err != nil {
		t.Errorf("a directory in use is gone: %v", err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a stale directory is still there: %v", err)
	}
}

// takeBlock takes a block from the middle: labs take the first, and the tests of package block the last.
func takeBlock(t *testing.T) *block.Block {
	t.Helper()
	for n := (block.First+block.Last)/2 - os.Getpid()%50; ; n-- {
		b, err := block.TakeNumber(n)
		if err == nil {
			return b
		}
		if !errors.Is(err, block.ErrTaken) {
			t.Fatal(err)
		}
	}
}

func TestDirectoryOfOthersIsRefused(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	base, err := baseDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := baseDir(); err == nil {
		t.Error("a directory that everybody may write to is taken")
	}
}
