package random

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/chaos/world"
)

// touchy are seeds in which many things wait for the same: log-ins while calls fail, an IP pool without free addresses.
var touchy = []uint64{65, 49, 8, 19, 29, 3}

// TestSameSeedSamePlay: what a seed finds can be found again. A play is the same sequence of requests at the same moments,
// however many processors there are.
func TestSameSeedSamePlay(t *testing.T) {
	seeds := touchy
	if *every > 1 {
		seeds = touchy[:2]
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			o := options(seed)
			o.Journal = true
			var results [2]world.Result
			for i := range results {
				func() {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(i + 1))
					results[i] = playIn(t, o, steps(seed, *length))
				}()
			}
			sameLines(t, "journal", requests(results[0].Journal), requests(results[1].Journal))
			sameLines(t, "trace", results[0].Trace, results[1].Trace)
			if d := cmp.Diff(results[0].Violations, results[1].Violations); d != "" {
				t.Errorf("violations (-first +second):\n%s", d)
			}
		})
	}
}

func requests(journal []nsxsim.Entry) (out []string) {
	for _, e := range journal {
		out = append(out, fmt.Sprintf("%+v", e))
	}
	return out
}

// sameLines tells the first lines that differ.
func sameLines(t *testing.T, what string, a, b []string) {
	t.Helper()
	if len(a) < 100 {
		t.Errorf("the %s has %d lines: too few to prove anything", what, len(a))
	}
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Errorf("the %s differs from line %d on. Before:\n%s\nThe first play:\n%s\nThe second:\n%s", what, i+1,
				part(a, i-10, i), part(a, i, i+3), part(b, i, i+3))
			return
		}
	}
}

func part(lines []string, from, to int) string {
	return strings.Join(lines[min(max(from, 0), len(lines)):min(to, len(lines))], "\n")
}
