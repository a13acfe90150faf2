package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
)

const parentEnv = "LAB_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		beParent(dir)
		return
	}
	os.Exit(m.Run())
}

// beParent starts a child, prints its id and waits to be killed.
func beParent(dir string) {
	p, err := startProcess(filepath.Join(dir, "log"), "sleep", "1000")
	if err != nil {
		panic(err)
	}
	fmt.Println(p.cmd.Process.Pid)
	<-p.done
}

func TestChildrenDoNotOutliveUs(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Sscan(line, &child); err != nil {
		t.Fatal(err)
	}
	if !sleeps(child) {
		t.Fatalf("process %d is not our child's", child)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed: always an error
	for deadline := time.Now().Add(10 * time.Second); sleeps(child); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(child, syscall.SIGKILL)
			t.Fatal("the child lives on")
		}
	}
}

// sleeps says whether a process is there and is the program sleep.
func sleeps(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(text), "sleep")
}

func TestProcessThatCannotStart(t *testing.T) {
	if _, err := startProcess(filepath.Join(t.TempDir(), "log"), "/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want not found", err)
	}
}

func TestCleanRemovesWhatNobodyHolds(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	held, err := block.TakeNumber(block.Last) // labs take the first
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Release() }()
	inUse, err := makeDir(held)
	if err != nil {
		t.Fatal(err)
	}
	left, err := block.TakeNumber(block.Last - 1)
	if err != nil {
		t.Fatal(err)
	}
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
