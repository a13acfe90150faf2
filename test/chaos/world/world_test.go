package world_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/chaos/world"
)

// busy lets two clusters have Services made, changed and deleted at the same time, under a few faults.
func busy(w *world.World) {
	for i, c := range w.Clusters() {
		c.AddNodes(3)
		c.Start()
		c.FailNth(30+i, world.Lost)
		c.Apply(world.Service("web", world.PolicyCluster, "80", "443", "53/UDP"))
		c.Apply(world.Service("local", world.PolicyLocal, "80"))
	}
	w.Rest()
	w.Check()
	w.Cluster("a").FailNth(2, world.KilledAfter)
	w.Cluster("a").Delete("web")
	w.Cluster("b").SetNode("node-1", world.Ready(false))
	w.Wait(time.Minute)
	w.Rest()
	w.Check()
}

func TestWorldHolds(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		for _, chosen := range []nsxsim.ChosenAddress{nsxsim.ChosenAddressHonoured, nsxsim.ChosenAddressRefused} {
			t.Run(fmt.Sprintf("exclusive=%t chosen=%s", exclusive, chosen), func(t *testing.T) {
				t.Parallel()
				r := world.Play(t, world.Options{Clusters: []string{"a", "b"}, Exclusive: exclusive, ChosenAddress: chosen}, busy)
				if len(r.Violations) > 0 {
					t.Errorf("%s\n%s", strings.Join(r.Violations, "\n"), strings.Join(r.Trace, "\n"))
				}
			})
		}
	}
}

// TestSameSeedSamePlay: what a play finds can be found again.
func TestSameSeedSamePlay(t *testing.T) {
	for seed := range uint64(3) {
		o := world.Options{Seed: seed, Clusters: []string{"a", "b"}}
		a, b := world.Play(t, o, busy), world.Play(t, o, busy)
		if d := cmp.Diff(a.Trace, b.Trace); d != "" {
			t.Errorf("seed %d (-first +second):\n%s", seed, d)
		}
	}
}

// TestViolationsAreSeen: each kind of damage that a controller could do is told.
func TestViolationsAreSeen(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(w *world.World, vs nsxsim.Object)
		want   string
	}{
		{"left behind", func(w *world.World, _ nsxsim.Object) {
			nsxsim.Must(w.Sim.As("x").Create(nsxsim.KindMonitor, nsxsim.Object{
				"resource_type": "LbHttpMonitor", "tags": []any{map[string]any{"scope": nsx.TagClusterUID, "tag": "uid-of-a"}},
			}))
		}, "no Service uses it"},
		{"allocated for nobody", func(w *world.World, _ nsxsim.Object) {
			if _, err := w.Sim.As("x").Allocate(w.IPPool(world.PoolFloating), ""); err != nil {
				t.Error(err)
			}
		}, "used by nobody"},
		{"released in use", func(w *world.World, vs nsxsim.Object) {
			if err := w.Sim.As("x").Release(w.IPPool(world.PoolFloating), vs.String("ip_address")); err != nil {
				t.Error(err)
			}
			w.Wait(world.ReleaseDelay + time.Second)
		}, "is not allocated"},
		{"switched off", func(w *world.World, vs nsxsim.Object) {
			nsxsim.Must(w.Sim.As("x").Update(nsxsim.KindVirtualServer, vs.ID(), func(o nsxsim.Object) { o["enabled"] = false }))
		}, "enabled is false"},
		{"foreign changed", func(w *world.World, _ nsxsim.Object) {
			nsxsim.Must(w.Sim.As("x").Update(nsxsim.KindVirtualServer, w.Foreign.VirtualServer, func(o nsxsim.Object) { o["ports"] = []string{"81"} }))
		}, "of the foreign user was"},
		{"without members", func(w *world.World, vs nsxsim.Object) {
			nsxsim.Must(w.Sim.As("x").Update(nsxsim.KindPool, vs.String("pool_id"), func(o nsxsim.Object) { o["members"] = []any{} }))
		}, "as an enabled member"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := world.Play(t, world.Options{}, func(w *world.World) {
				a := w.Cluster("a")
				a.AddNodes(2)
				a.Start()
				a.Apply(world.Service("web", world.PolicyCluster, "80"))
				w.Rest()
				for _, vs := range w.Sim.List(nsxsim.KindVirtualServer) {
					if vs.Tags()[nsx.TagClusterUID] == a.UID {
						c.damage(w, vs)
					}
				}
				w.Check()
			})
			if !slices.ContainsFunc(r.Violations, func(v string) bool { return strings.Contains(v, c.want) }) {
				t.Errorf("violations %q, want one with %q", r.Violations, c.want)
			}
		})
	}
}
