package chaos

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/chaos/world"
)

// full asks for every case, rather than for a sample that takes some seconds.
var full = flag.Bool("full", false, "play every case instead of a sample")

// sample is of how many cases one is played when not all are.
const sample = 60

// A setting is what an operation is played in.
type setting struct {
	name string
	world.Options
	// alone: nothing of the cluster's shared objects is there before, and nothing needs them after.
	alone bool
}

func settings() []setting {
	var out []setting
	for _, chosen := range []nsxsim.ChosenAddress{nsxsim.ChosenAddressHonoured, nsxsim.ChosenAddressRefused} {
		for _, exclusive := range []bool{false, true} {
			for _, alone := range []bool{false, true} {
				s := setting{"chosen", world.Options{Exclusive: exclusive, ChosenAddress: chosen}, alone}
				if chosen == nsxsim.ChosenAddressRefused {
					s.name = "any"
				}
				if exclusive {
					s.name += "-exclusive"
				}
				if alone {
					s.name += "-alone"
				}
				out = append(out, s)
			}
		}
	}
	return out
}

// A played case.
type played struct {
	world.Result
	// calls is how many calls to NSX the operation took.
	calls int
}

// play lets the n-th call of an operation have a fault; none when n is 0.
func play(t *testing.T, op operation, in setting, n int, fault world.Fault) played {
	t.Helper()
	calls := 0
	r := world.Play(t, in.Options, func(w *world.World) {
		s := &stage{w, w.Clusters()[0]}
		s.AddNodes(3)
		s.Start()
		if !in.alone {
			s.Apply(world.Service("other", world.PolicyCluster, "80"))
			s.Apply(world.Service("other-local", world.PolicyLocal, "80"))
		}
		if op.before != nil {
			op.before(s)
		}
		s.pass(calm)
		s.FailNth(n, fault)
		op.do(s)
		s.pass(calm)
		calls = s.Calls()
		w.Rest()
		w.Check()
		for _, svc := range s.Services() {
			s.Delete(svc.Name)
		}
		w.Rest()
		w.Check()
	})
	return played{r, calls}
}

// TestExhaustive lets every call to NSX of every operation fail in every way, and wants what there is in the end to be
// the same as without a failure, and no invariant to be broken on the way.
func TestExhaustive(t *testing.T) {
	faults := world.Faults()
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			t.Parallel()
			var g errgroup.Group
			g.SetLimit(runtime.GOMAXPROCS(0))
			i := 0
			for _, in := range settings() {
				if op.chosen && in.ChosenAddress != nsxsim.ChosenAddressHonoured {
					continue
				}
				calm := play(t, op, in, 0, world.Fault{})
				report(t, calm.Result)
				if calm.calls == 0 {
					t.Fatalf("%s takes no call in %s: the test proves nothing", op.name, in.name)
				}
				for n := 1; n <= calm.calls; n++ {
					for _, f := range faults {
						if i++; !*full && (i+len(op.name))%sample != 0 {
							continue
						}
						g.Go(func() error {
							t.Run(fmt.Sprintf("%s/call-%d/%s", in.name, n, f.Name), func(t *testing.T) {
								report(t, play(t, op, in, n, f).Result)
							})
							return nil
						})
					}
				}
			}
			_ = g.Wait() // failures are the tests'
		})
	}
}

// report fails a test for every violation, and tells what led to the first.
func report(t *testing.T, r world.Result) {
	t.Helper()
	if len(r.Violations) == 0 {
		return
	}
	trace := r.Trace
	if last := slices.IndexFunc(trace, func(line string) bool { return strings.Contains(line, "VIOLATION") }); last >= 0 {
		trace = trace[:last+1]
	}
	t.Errorf("%s\n--- what happened:\n%s", strings.Join(r.Violations, "\n"), strings.Join(trace[max(0, len(trace)-80):], "\n"))
}
