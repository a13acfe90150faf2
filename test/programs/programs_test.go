package programs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/util/wait"
)

// parentOf makes the test binary a process that starts a child, with its log in the directory named.
const parentOf = "PROGRAMS_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentOf); dir != "" {
		beParent(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 2*time.Minute, true, func(context.Context) (bool, error) { return check(), nil })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestProcess(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	start := func(t *testing.T, args ...string) *Process {
		return must(Command{Name: args[0], Log: log, Args: args}.Start())(t)
	}
	t.Run("ends in order", func(t *testing.T) {
		p := start(t, "sleep", "1000")
		if err := p.Err(); err != nil {
			t.Error(err)
		}
		for range 2 { // and again
			if err := p.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	t.Run("does not want to end", func(t *testing.T) {
		p := start(t, "sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done")
		eventually(t, "the trap is set", func() bool { return strings.HasSuffix(Tail(log), "on") })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Stop(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		<-p.Done()
	})
	t.Run("ends by itself", func(t *testing.T) {
		p := start(t, "sh", "-c", "echo farewell; exit 3")
		<-p.Done()
		if err := p.Err(); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "farewell") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("does not start", func(t *testing.T) {
		if _, err := (Command{Name: "none", Log: log, Args: []string{"/does/not/exist"}}).Start(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
		if _, err := (Command{Name: "no log", Log: log + "/log", Args: []string{"true"}}).Start(); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("error %v", err)
		}
		nowhere := errors.New("nowhere")
		_, err := Command{Name: "nowhere", Log: log, Args: []string{"true"}, Prepare: func(*syscall.SysProcAttr) error { return nowhere }}.Start()
		if !errors.Is(err, nowhere) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("none at all", func(t *testing.T) {
		var p *Process
		if err := errors.Join(p.Kill(), p.Stop(t.Context())); err != nil {
			t.Error(err)
		}
	})
	t.Run("has attributes, an environment and a log of its own", func(t *testing.T) {
		log := filepath.Join(t.TempDir(), "own")
		c := Command{
			Name: "env", Log: log, Args: []string{"sh", "-c", "cut -d' ' -f5,6 /proc/$$/stat; env"}, Env: []string{"WORD=one"},
			Prepare: func(a *syscall.SysProcAttr) error {
				a.Setpgid, a.Setsid = false, true
				return nil
			},
		}
		if err := c.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		var group, session int
		if _, err := fmt.Sscan(Tail(log), &group, &session); err != nil || group != session {
			t.Errorf("%v: it begins no session:\n%s", err, Tail(log))
		}
		if text := Tail(log); !strings.Contains(text, "WORD=one") || strings.Contains(text, "HOME=") {
			t.Errorf("environment:\n%s", text)
		}
	})
}

func TestRun(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	run := func(ctx context.Context, script string) error {
		return Command{Name: "shell", Log: log, Args: []string{"sh", "-c", script}}.Run(ctx)
	}
	if err := run(t.Context(), "exit 0"); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), "echo why; exit 1"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := run(ctx, "exec sleep 1000"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestTail(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if got := Tail(log); got != "" {
		t.Errorf("no log ends with %q", got)
	}
	var text strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	if err := os.WriteFile(log, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	got := Tail(log)
	if len(got) > 4<<10 || len(got) < 4000 || !strings.HasPrefix(got, "line ") || !strings.HasSuffix(got, "\nline 1999") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// beParent starts a child, prints its id and waits to be killed.
func beParent(dir string) {
	p, err := Command{Name: "child", Log: filepath.Join(dir, "log"), Args: []string{"sleep", "1000"}}.Start()
	if err != nil {
		panic(err)
	}
	fmt.Println(p.PID())
	<-p.Done()
}

func TestChildrenDoNotOutliveUs(t *testing.T) {
	parent := exec.Command(must(os.Executable())(t))
	parent.Env = append(os.Environ(), parentOf+"="+t.TempDir())
	out := must(parent.StdoutPipe())(t)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var child int
	if _, scanErr := fmt.Sscan(line, &child); err != nil || scanErr != nil {
		t.Fatal(errors.Join(err, scanErr, parent.Process.Kill(), parent.Wait()))
	}
	sleeps := func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
		return err == nil && strings.HasPrefix(string(text), "sleep")
	}
	if !sleeps() {
		t.Errorf("process %d is not our child's", child)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed: always an error
	eventually(t, "the child ends", func() bool { return !sleeps() })
}

func TestDir(t *testing.T) {
	checkout := t.TempDir()
	deep := filepath.Join(checkout, "pkg", "lb")
	for _, dir := range []string{deep, filepath.Join(checkout, checkoutMark)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(deep)
	if got, err := Dir("kube"); err != nil || got != filepath.Join(checkout, "bin") {
		t.Errorf("in a checkout: %q, %v", got, err)
	}
	self := must(os.Executable())(t)
	if got, err := Dir(filepath.Base(self)); err != nil || got != filepath.Dir(self) {
		t.Errorf("beside this program: %q, %v", got, err)
	}
	t.Chdir(t.TempDir())
	if got, err := Dir("kube"); err == nil || !strings.Contains(err.Error(), "no checkout") {
		t.Errorf("nowhere: %q, %v", got, err)
	}
}
