package manager

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitingForALockEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newRWLock()
		read, err := l.rLock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("waiting to write gave %v", err)
		}
		again, err := l.rLock(t.Context())
		if err != nil {
			t.Fatalf("reading beside a reader, after a writer has given up: %v", err)
		}
		read()
		again()
		write, err := l.lock(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		write()
	})
}
