package visits

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestVisits(t *testing.T) {
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	refused := errors.New("refused")
	made := Visits{{Began: at(1), Pod: "b"}, {Began: at(3), Err: refused, Pod: "c"}, {Began: at(2), Pod: "a"}, {Began: at(2), Pod: "b"}}
	if got := made.Failed(); len(got) != 1 || !errors.Is(got[0].Err, refused) {
		t.Errorf("failed: %v", got)
	}
	if got := made.Since(at(2)); len(got) != 3 || !got[0].Began.Equal(at(3)) || !got[1].Began.Equal(at(2)) {
		t.Errorf("since 2: %v", got)
	}
	if got := made.Pods(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("pods %v", got)
	}
}

func TestCrowdKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		// Every tenth visit waits for long, and is seen to its end.
		c := Gather(ctx, time.Second, func(ctx context.Context, i int) Visit {
			v := Visit{Began: time.Now()}
			if i%10 == 9 {
				select {
				case <-time.After(time.Minute):
				case <-ctx.Done():
				}
				v.Err = ctx.Err()
			}
			v.Ended = time.Now()
			return v
		})
		began := time.Now()
		time.Sleep(20*time.Second + time.Second/2)
		if got := c.Visits(); len(got) != 18 {
			t.Errorf("%d visits have ended, want 18 of 20", len(got))
		}
		cancel()
		all := c.GoHome()
		if len(all) != 20 || len(all.Failed()) != 0 {
			t.Errorf("%d visits, of which %d failed, want 20", len(all), len(all.Failed()))
		}
		if took := time.Since(began); took != 80*time.Second {
			t.Errorf("the last one came home after %v, want 80s", took)
		}
		if again := c.GoHome(); len(again) != 20 {
			t.Errorf("%d visits afterwards", len(again))
		}
	})
}
