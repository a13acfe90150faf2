package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProcess(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	t.Run("ends in order", func(t *testing.T) {
		p := must(program{name: "sleep", log: log, args: []string{"sleep", "1000"}}.start())(t)
		if err := p.alive(); err != nil {
			t.Error(err)
		}
		if err := p.stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := p.stop(t.Context()); err != nil {
			t.Errorf("again: %v", err)
		}
	})
	t.Run("does not want to end", func(t *testing.T) {
		p := must(program{name: "shell", log: log, args: []string{"sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done"}}.start())(t)
		for !strings.Contains(tail(log), "on") { // the trap is set
			if err := p.alive(); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.stop(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("ends by itself", func(t *testing.T) {
		p := must(program{name: "shell", log: log, args: []string{"sh", "-c", "echo farewell; exit 3"}}.start())(t)
		<-p.done
		if err := p.alive(); err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "farewell") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("does not start", func(t *testing.T) {
		if _, err := (program{name: "none", log: log, args: []string{"/does/not/exist"}}).start(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
		if _, err := (program{name: "nowhere", log: log, args: []string{"true"}, in: "no-such-place"}).start(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}
