package random

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// TestBrokenRuleIsFound: among many steps, one breaks a rule, if there is a Service by then. It is found, and of the others
// hardly any is left; the same steps break the same again.
func TestBrokenRuleIsFound(t *testing.T) {
	const seed = 3
	list := steps(seed, 60)
	wrong := step{number: 60, about: "a", text: "the rule is broken", do: func(p *player) {
		if slices.ContainsFunc(p.Cluster("a").Services(), func(svc *corev1.Service) bool { return len(svc.Status.LoadBalancer.Ingress) > 0 }) {
			nsxsim.Must(p.Sim.As("a").Update(nsxsim.KindVirtualServer, p.Foreign.VirtualServer, func(o nsxsim.Object) { o["enabled"] = false }))
		}
	}}
	f := find(t, seed, slices.Insert(list, restEvery*2-1, wrong), time.Hour)
	if f == nil {
		t.Fatal("the broken rule is not noticed")
	}
	if len(f.list) > 6 || !slices.ContainsFunc(f.list, func(s step) bool { return s.text == wrong.text }) {
		t.Errorf("%d steps are left of 61, which were enough of:\n%s", len(f.list), f)
	}
	if !slices.ContainsFunc(f.Violations, func(v string) bool { return strings.Contains(v, "of the foreign user") }) {
		t.Errorf("another rule is said to be broken:\n%s", f)
	}
	if d := cmp.Diff(f.Result, play(t, seed, f.list)); d != "" {
		t.Errorf("played again (-first +second):\n%s", d)
	}
}

func TestNumbers(t *testing.T) {
	list := steps(1, 20)
	some := slices.Concat(list[3:4], list[9:13], list[19:])
	if got, want := numbers(some), "3,9-12,19"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	again, err := only(steps(1, 20), numbers(some))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(texts(some), texts(again)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, bad := range []string{"", "x", "4-2", "20", "-1"} {
		if _, err := only(list, bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func texts(list []step) (out []string) {
	for _, s := range list {
		out = append(out, s.String())
	}
	return out
}

func TestShrink(t *testing.T) {
	list := steps(1, 100)
	tried := 0
	got := shrink(list, func(list []step) bool {
		tried++
		has := func(n int) bool { return slices.ContainsFunc(list, func(s step) bool { return s.number == n }) }
		return has(17) && has(71)
	}, time.Now().Add(time.Hour))
	if numbers(got) != "17,71" || tried > 60 {
		t.Errorf("left are %s after %d tries, want 17,71 after fewer than 60", numbers(got), tried)
	}
}
