package random

import (
	"fmt"
	"hash/fnv"
	"slices"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/chaos/world"
)

var clusters = []string{"a", "b"}

// options of the world of a seed: seeds take turns.
func options(seed uint64) world.Options {
	o := world.Options{Seed: seed, Clusters: clusters, Exclusive: seed%2 == 0}
	o.ChosenAddress = []nsxsim.ChosenAddress{
		nsxsim.ChosenAddressHonoured, nsxsim.ChosenAddressHonoured, nsxsim.ChosenAddressRefused, nsxsim.ChosenAddressIgnored,
	}[seed/2%4]
	if seed/8%3 == 2 {
		o.Addresses = 8 // so that there are not enough
	}
	return o
}

// player plays the steps of a seed in a world.
type player struct {
	*world.World
	o world.Options
	// down is since when a cluster's process has been dead.
	down map[string]time.Time
	// theirs are the foreign user's virtual servers, and addresses by IP pool, that it made on the way.
	theirs    []string
	addresses []foreignAddress
}

type foreignAddress struct{ pool, addr string }

// takeover is how long it takes until another process goes on where one has died: a lease runs out.
const takeover = 15 * time.Second

// play plays steps in the world of a seed until an invariant breaks, and rests at the end.
func play(t *testing.T, seed uint64, list []step) world.Result {
	t.Helper()
	return playIn(t, options(seed), list)
}

// playIn is play with options of one's own.
func playIn(t *testing.T, o world.Options, list []step) world.Result {
	t.Helper()
	return world.Play(t, o, func(w *world.World) {
		p := &player{World: w, o: o, down: map[string]time.Time{}}
		for _, c := range w.Clusters() {
			for i := range c.Config.Classes {
				if g := c.Config.Classes[i].Tier1Gateways; len(g) > 0 {
					c.Config.Classes[i].Tier1Gateways = []config.Tier1Gateway{{ID: g[0].ID, Size: config.SizeLarge}}
				}
			}
			c.AddNodes(3)
			c.Start()
		}
		p.pass(10 * time.Second)
		for _, s := range list {
			w.Say("---- %s", s)
			s.do(p)
			p.pass(s.then)
			if len(w.Violations()) > 0 {
				return
			}
		}
		p.rest()
	})
}

// pass lets time pass, in which processes that died are replaced.
func (p *player) pass(d time.Duration) {
	for end := time.Now().Add(d); ; {
		for _, c := range p.Clusters() {
			since, down := p.down[c.Name]
			switch {
			case !c.Dead():
				delete(p.down, c.Name)
			case !down:
				p.down[c.Name] = time.Now()
			case time.Since(since) >= takeover:
				c.Start()
				delete(p.down, c.Name)
			}
		}
		left := time.Until(end)
		if left <= 0 {
			return
		}
		p.Wait(min(left, time.Second))
	}
}

// rest lets everything come to rest, and checks it.
func (p *player) rest() {
	for _, c := range p.Clusters() {
		c.SeeNodes()
	}
	p.Rest()
	p.Check()
}

// chance is a number in [0, 1) that depends on a text alone.
func chance(format string, args ...any) float64 {
	h := fnv.New64a()
	fmt.Fprintf(h, format, args...)
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}

// objects are a cluster's of a kind, in the order of their ids.
func (p *player) objects(c *world.Cluster, kind nsxsim.Kind) []nsxsim.Object {
	return slices.DeleteFunc(p.Sim.List(kind), func(o nsxsim.Object) bool { return !c.Owns(o) })
}
