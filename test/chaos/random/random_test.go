package random

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/chaos/world"
)

var (
	every    = flag.Int("every", 25, "play one of so many seeds; 1 for all")
	oneSeed  = flag.Int("seed", -1, "play this seed alone, and tell what happens")
	justOnly = flag.String("only", "", `play these steps of -seed alone, such as "3,9-12"`)
	length   = flag.Int("steps", 100, "how many steps of each seed")
	first    = flag.Uint64("first", 0, "the first seed")
	seeds    = flag.Uint64("seeds", 100, "how many seeds there are")
	bound    = flag.Duration("shrink", time.Minute, "how long to look for the steps that a failure takes")
)

// TestMain lets the heap grow further than usual: a play is over before most of its garbage is worth collecting.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// TestRandom plays seeds, and wants every invariant to hold.
func TestRandom(t *testing.T) {
	if *oneSeed >= 0 {
		replay(t, uint64(*oneSeed))
		return
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for seed := *first; seed < *first+*seeds; seed += uint64(*every) {
		g.Go(func() error {
			t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
				if f := find(t, seed, steps(seed, *length), *bound); f != nil {
					t.Error(f)
				}
			})
			return nil
		})
	}
	_ = g.Wait() // failures are the tests'
}

// replay plays one seed or some of its steps as they are.
func replay(t *testing.T, seed uint64) {
	list := steps(seed, *length)
	if *justOnly != "" {
		var err error
		if list, err = only(list, *justOnly); err != nil {
			t.Fatal(err)
		}
	}
	r := play(t, seed, list)
	t.Logf("seed %d:\n%s", seed, strings.Join(r.Trace, "\n"))
	if len(r.Violations) > 0 {
		t.Error(strings.Join(r.Violations, "\n"))
	}
}

// failure is what a seed has broken.
type failure struct {
	seed uint64
	// of is how many steps were played; list are those that it takes.
	of   int
	list []step
	world.Result
}

// find plays steps. If an invariant breaks, it looks for those that this takes; otherwise it returns nil.
func find(t *testing.T, seed uint64, list []step, bound time.Duration) *failure {
	t.Helper()
	r := play(t, seed, list)
	if len(r.Violations) == 0 {
		return nil
	}
	end := time.Now().Add(bound)
	f := &failure{seed: seed, of: len(list), list: list, Result: r}
	f.list = shrink(list, func(list []step) bool {
		r := play(t, seed, list)
		if !slices.ContainsFunc(r.Violations, func(v string) bool { return alike(v, f.Violations[0]) }) {
			return false
		}
		f.Result = r
		return true
	}, end)
	return f
}

var particular = regexp.MustCompile(`[0-9]+|\[.*\]|\b(web|shop|dns|mail|game|a|b)\b`)

// alike tells whether two violations are of the same invariant.
func alike(a, b string) bool {
	return particular.ReplaceAllString(a, "") == particular.ReplaceAllString(b, "")
}

// String tells the steps, what they break, what happened before, and how to see it again.
func (f *failure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d breaks an invariant, which takes %d of its %d steps:\n", f.seed, len(f.list), f.of)
	for _, s := range f.list {
		fmt.Fprintln(&b, s)
	}
	fmt.Fprintf(&b, "--- what is broken:\n%s\n", strings.Join(f.Violations, "\n"))
	trace := f.Trace
	if first := slices.IndexFunc(trace, func(line string) bool { return strings.Contains(line, "VIOLATION") }); first >= 0 {
		trace = trace[:first+1]
	}
	fmt.Fprintf(&b, "--- what happened:\n%s\n", strings.Join(trace[max(0, len(trace)-80):], "\n"))
	fmt.Fprintf(&b, "--- to play it again:\n%s\n", f.command())
	return b.String()
}

func (f *failure) command() string {
	command := fmt.Sprintf("go test -count=1 -v ./test/chaos/random -run '^TestRandom$' -seed=%d -steps=%d", f.seed, f.of)
	if len(f.list) < f.of && len(f.list) > 0 {
		command += " -only=" + numbers(f.list)
	}
	return command
}
