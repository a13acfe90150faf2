package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAwait(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("last words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	well := func() error { return nil }
	asleep, dead := errors.New("asleep"), errors.New("dead")
	check := func(context.Context) error { return asleep }

	t.Run("it comes", func(t *testing.T) {
		asked := 0
		err := await(t.Context(), "it wakes", time.Minute, well, func(context.Context) error {
			if asked++; asked < 3 {
				return asleep
			}
			return nil
		}, log)
		if err != nil || asked != 3 {
			t.Errorf("asked %d times: %v", asked, err)
		}
	})
	t.Run("not in time", func(t *testing.T) {
		err := await(t.Context(), "it wakes", 10*time.Millisecond, well, check, log)
		if !errors.Is(err, asleep) {
			t.Fatalf("error %v", err)
		}
		for _, want := range []string{"it wakes", "not within 10ms", "last words", log} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error %q, want %q in it", err, want)
			}
		}
	})
	t.Run("the check that has no time left hides nothing", func(t *testing.T) {
		asked := false
		err := await(t.Context(), "it wakes", 100*time.Millisecond, well, func(ctx context.Context) error {
			if !asked {
				asked = true
				return asleep
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, asleep) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := errors.New("Ctrl-C")
		cancel(reason)
		if err := await(ctx, "it wakes", time.Minute, well, check); !errors.Is(err, reason) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("all is not well", func(t *testing.T) {
		err := await(t.Context(), "it wakes", time.Minute, func() error { return dead }, check)
		if !errors.Is(err, dead) {
			t.Errorf("error %v", err)
		}
	})
}
