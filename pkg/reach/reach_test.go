package reach

import (
	"errors"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

func TestCheck(t *testing.T) {
	down := errors.New("connection refused")
	type step struct {
		after time.Duration
		err   error
		quiet bool // no call
		want  string
	}
	for name, steps := range map[string][]step{
		"nothing known":          {{quiet: true, want: "no call has been answered yet"}},
		"never reached":          {{err: down, want: "answered yet: connection refused"}},
		"reached":                {{}, {after: time.Minute, quiet: true}},
		"one failure":            {{}, {after: time.Second, err: down}, {after: time.Second}},
		"failing for long":       {{}, {after: time.Second, err: down}, {after: 9 * time.Second, err: down}, {after: time.Second, quiet: true, want: "since 2026-01-01T00:00:00Z: connection refused"}},
		"again":                  {{}, {after: time.Second, err: down}, {after: time.Minute, err: down, want: "refused"}, {}},
		"nobody has called":      {{}, {after: 3*time.Minute - 1, quiet: true}, {after: 1, quiet: true, want: "since 2026-01-01T00:00:00Z"}},
		"a failure, then nobody": {{}, {after: time.Minute, err: down}, {after: time.Minute, quiet: true, want: "refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
			r := New(clock)
			for i, s := range steps {
				clock.Step(s.after)
				if !s.quiet {
					r.Done(s.err)
				}
				err := r.Check()
				if (err == nil) != (s.want == "") || err != nil && !strings.Contains(err.Error(), s.want) {
					t.Errorf("step %d: got %v, want %q", i+1, err, s.want)
				}
			}
		})
	}
}
