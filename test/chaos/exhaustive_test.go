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

// every is of how many cases one is played: by default a sample that takes some seconds, of one setting for each operation.
var every = flag.Int("every", 40, "play one of so many cases; 1 for all")

// A setting is what an operation is played in.
type setting struct {
	name string
	world.Options
	// alone: nothing of the cluster's shared objects is there before, and nothing needs them after.
	alone bool
}

// settings are those in which an operation may go another way.
func settings(op operation) []setting {
	var out []setting
	for _, alone := range []bool{false, true} {
		name := ""
		if alone {
			name = "-alone"
		}
		out = append(out, setting{"shared" + name, world.Options{}, alone})
		if op.addresses == none {
			continue
		}
		out = append(out, setting{"exclusive" + name, world.Options{Exclusive: true}, alone})
		if op.addresses == chosen {
			continue
		}
		out = append(out,
			setting{"shared-any" + name, world.Options{ChosenAddress: nsxsim.ChosenAddressRefused}, alone},
			setting{"exclusive-any" + name, world.Options{ChosenAddress: nsxsim.ChosenAddressRefused, Exclusive: true}, alone})
		if !alone {
			out = append(out, setting{"shared-other", world.Options{ChosenAddress: nsxsim.ChosenAddressIgnored}, alone})
		}
	}
	return out
}

// A played case.
type played struct {
	world.Result
	// calls to NSX that the operation took.
	calls []world.Call
}

// play lets the n-th call of an operation have a fault; none when n is 0.
func play(t *testing.T, op operation, in setting, n int, fault world.Fault) played {
	t.Helper()
	var calls []world.Call
	r := world.Play(t, in.Options, func(w *world.World) {
		s := &stage{w, w.Clusters()[0]}
		s.AddNodes(3)
		s.Start()
		if !in.alone {
			s.Apply(world.Service("other", world.PolicyCluster, "80"))
			s.Apply(world.Service("other-local", world.PolicyLocal, "80"))
			limited := world.Service("other-limited", world.PolicyCluster, "80")
			limited.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
			s.Apply(limited)
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
	for o, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			var g errgroup.Group
			g.SetLimit(runtime.GOMAXPROCS(0))
			i := o // so that the samples differ
			all := settings(op)
			if *every > 1 {
				all = all[o%len(all):][:1]
			}
			for _, in := range all {
				calm := play(t, op, in, 0, world.Fault{})
				report(t, calm.Result)
				if len(calm.calls) == 0 {
					t.Fatalf("%s takes no call in %s: the test proves nothing", op.name, in.name)
				}
				for _, call := range calm.calls {
					for _, f := range world.Faults() {
						if !f.Differs(call) {
							continue
						}
						if i++; i%*every != 0 {
							continue
						}
						g.Go(func() error {
							t.Run(fmt.Sprintf("%s/call-%d/%s", in.name, call.N, f.Name), func(t *testing.T) {
								report(t, play(t, op, in, call.N, f).Result)
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
