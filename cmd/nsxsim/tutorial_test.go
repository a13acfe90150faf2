package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var block = regexp.MustCompile("(?s)\n```(bash|text|go)\n(.*?)\n```\n")

// The tutorial's commands print what it says they print, and its test is one that
// passes.
func TestTutorial(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "jq", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the tutorial needs %s: %v", tool, err)
		}
	}
	page, err := os.ReadFile("../../docs/tutorial-nsxsim.md")
	if err != nil {
		t.Fatal(err)
	}
	// Other tests may play it at the same time: each takes addresses of its own.
	free := fmt.Sprintf("127.%d.", freeNetwork(t))
	text := strings.ReplaceAll(string(page), "127.77.", free)

	var script, want strings.Builder
	script.WriteString("set -uo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait 2>/dev/null' EXIT\n")
	for _, found := range block.FindAllStringSubmatch(text, -1) {
		switch found[1] {
		case "bash":
			script.WriteString(found[2] + "\n")
		case "text":
			want.WriteString(found[2] + "\n")
		case "go":
			source, err := os.ReadFile("../../pkg/nsxsim/tutorial_test.go")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(source, []byte(found[2])) {
				t.Error("the Go test in the tutorial is not that of pkg/nsxsim/tutorial_test.go")
			}
		}
	}
	dir, bin := t.TempDir(), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "nsxsim")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), commandEnv+"=1", "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the tutorial ends with %v", err)
	}
	if diff := cmp.Diff(want.String(), string(out)); diff != "" {
		t.Errorf("what the tutorial prints (-said +printed):\n%s", diff)
	}
}

// freeNetwork gives an N for which nobody listens on the tutorial's addresses of
// 127.N.0.0/16.
func freeNetwork(t *testing.T) int {
	t.Helper()
	for n := 200 - os.Getpid()%100; n > 80; n-- {
		taken := false
		for _, address := range []string{"127.%d.1.1:8000", "127.%d.1.2:8000", "127.%d.0.10:8080"} {
			l, err := net.Listen("tcp", fmt.Sprintf(address, n))
			if err != nil {
				taken = true
				continue
			}
			l.Close()
		}
		if !taken {
			return n
		}
	}
	t.Fatal("no addresses are free")
	return 0
}
