package world

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Options of a world. The zero value is one cluster on an NSX that honours chosen addresses, with IP pools that others use
// too.
type Options struct {
	// Seed of the times that requests take, and of the controller's own random numbers.
	Seed uint64
	// Clusters are the names of the clusters; default one, "a".
	Clusters []string
	// Exclusive marks the IP pools so in every cluster's config: then the foreign user must not allocate from them.
	Exclusive bool
	// ChosenAddress is what ALLOCATE does with an address asked for.
	ChosenAddress nsxsim.ChosenAddress
	// Addresses is how many each of the two IP pools has; default 40.
	Addresses int
	// Journal keeps all requests for the Result.
	Journal bool
}

const (
	// ReleaseDelay is how long a released address stays listed and cannot be had again: NSX's own default.
	ReleaseDelay = nsxsim.NSXReleaseDelay
	// auditInterval is the longest time between two audits: the config's default, with the tenth by which it is spread.
	auditInterval = 11 * time.Minute
	// quiet is how long nothing must have been written for a world to be at rest: the second audit that sees an orphan
	// removes it.
	quiet = 2*auditInterval + ReleaseDelay + time.Minute
	// restless is how long a world may take to come to rest.
	restless = 24 * time.Hour
	// traced bounds the trace.
	traced = 4000
)

// The names of what a world's NSX has for its clusters: IP pools and load-balancer services that all of them may use, and
// the tier-1 gateway that is a cluster's own.
const (
	PoolFloating, PoolSpare = "floating", "spare"
	LBFirst, LBSecond       = "lb-1", "lb-2"
)

// Gateway is the name of a cluster's own tier-1 gateway.
func Gateway(cluster string) string { return "gateway-" + cluster }

// World is one NSX and everything around it. It belongs to the goroutine that Play runs.
type World struct {
	Sim *nsxsim.Sim
	// Foreign is a user of NSX who has nothing to do with the clusters.
	Foreign *Foreign

	o        Options
	began    time.Time
	clusters []*Cluster
	// pools are the ids of the IP pools by name.
	pools map[string]string
	// serving are the requests that NSX is working on, also those whose client has given up.
	serving sync.WaitGroup

	mu         sync.Mutex
	violations []string
	trace      []string
	journal    []nsxsim.Entry
	// wrote is when a controller last tried to write to NSX.
	wrote time.Time
	watch *watch
}

// Result of a play.
type Result struct {
	// Violations of the invariants, in the order in which they were seen, each once.
	Violations []string
	// Trace tells the end of what happened, a line for each request, step and event, for people.
	Trace []string
	// Journal has every request that NSX has served, reads and log-ins included, if Options say so.
	Journal []nsxsim.Entry
}

// Play makes a world, lets play act in it, and ends it. It runs in a bubble of fake time: play must leave no goroutine of
// its own behind, and must not block on anything outside of the bubble. t fails only if that is not so.
func Play(t *testing.T, o Options, play func(*World)) Result {
	t.Helper()
	var result Result
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(o)
		defer func() {
			for _, c := range w.clusters {
				c.Kill()
			}
			w.Sim.Close()
			w.serving.Wait()
			result = Result{w.violations, w.trace, w.journal}
		}()
		play(w)
	})
	return result
}

func newWorld(o Options) *World {
	o.Addresses = cmp.Or(o.Addresses, 40)
	if len(o.Clusters) == 0 {
		o.Clusters = []string{"a"}
	}
	w := &World{o: o, began: time.Now(), wrote: time.Now(), pools: map[string]string{}}
	users := []nsxsim.User{{Name: nsxsim.DefaultUsername, Password: nsxsim.DefaultPassword}}
	for _, name := range o.Clusters {
		users = append(users, nsxsim.User{Name: userOf(name), Password: password})
	}
	sim, err := nsxsim.New(nsxsim.Options{
		Users: users, NewID: nsxsim.SequentialIDs(), Clock: clock.RealClock{}, JournalSize: 8,
		RateLimit: nsxsim.NSXRateLimit, MaxConcurrent: nsxsim.NSXMaxConcurrent, ReleaseDelay: ReleaseDelay,
		Quirks: nsxsim.Quirks{ChosenAddress: o.ChosenAddress},
	})
	if err != nil {
		panic(err) // the options are our own
	}
	w.Sim = sim
	for i, name := range []string{PoolFloating, PoolSpare} {
		first := fmt.Sprintf("10.0.%d.1", i)
		pool := nsxsim.Must(sim.AddIPPool(name, "10.0.0.0/16", fmt.Sprintf("%s-10.0.%d.%d", first, i, o.Addresses)))
		w.pools[name] = pool.ID()
	}
	for _, name := range []string{LBFirst, LBSecond} {
		nsxsim.Must(sim.AddLBService(name, "LARGE", nsxsim.Must(sim.AddTier1("gateway-"+name)).ID()))
	}
	w.Foreign = newForeign(w)
	for _, name := range o.Clusters {
		nsxsim.Must(sim.AddTier1(Gateway(name)))
		w.clusters = append(w.clusters, newCluster(w, name))
	}
	w.watch = newWatch(w)
	return w
}

// Cluster is a cluster by its name.
func (w *World) Cluster(name string) *Cluster {
	i := slices.IndexFunc(w.clusters, func(c *Cluster) bool { return c.Name == name })
	if i < 0 {
		panic(fmt.Sprintf("world: no cluster %q", name)) // a mistake in the play
	}
	return w.clusters[i]
}

// Clusters are all of them, in the order of Options.
func (w *World) Clusters() []*Cluster { return w.clusters }

// IPPool is the NSX id of an IP pool by its name.
func (w *World) IPPool(name string) string { return w.pools[name] }

// Wait lets time pass.
func (w *World) Wait(d time.Duration) { time.Sleep(d) }

// Until lets time pass until a condition holds, which is looked at each second; false when it does not within the time.
func (w *World) Until(ok func() bool, within time.Duration) bool {
	for end := time.Now().Add(within); !ok(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Rest ends all faults, starts every process that died of one again, and lets time pass until nothing is written to NSX
// any more, audits and release delays included.
func (w *World) Rest() {
	w.Say("rest")
	for _, c := range w.clusters {
		c.Fail(nil)
		if c.Dead() {
			c.Start()
		}
	}
	w.wroteNow() // whatever was written last: faults have ended and processes have begun
	for end := time.Now().Add(restless); time.Now().Before(end); {
		time.Sleep(max(quiet-time.Since(w.lastWrite()), time.Minute))
		busy := slices.ContainsFunc(w.clusters, func(c *Cluster) bool { return c.process != nil && c.process.framework.busy() })
		if time.Since(w.lastWrite()) >= quiet && !busy {
			return
		}
	}
	w.Violate("does not come to rest in %v: writes go on, or a Service is being worked on", restless)
}

func (w *World) wroteNow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrote = time.Now()
}

func (w *World) lastWrite() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrote
}

// Violate notes that something does not hold that should.
func (w *World) Violate(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	fresh := !slices.Contains(w.violations, text)
	if fresh {
		w.violations = append(w.violations, text)
	}
	w.mu.Unlock()
	if fresh {
		w.Say("VIOLATION %s", text)
	}
}

// Violations are those seen so far.
func (w *World) Violations() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.violations)
}

// Say adds a line to the trace.
func (w *World) Say(format string, args ...any) { w.say(false, format, args...) }

// say adds a line to the trace; with once, unless one of the last few says the same.
func (w *World) say(once bool, format string, args ...any) {
	text := " " + strings.TrimSpace(fmt.Sprintf(format, args...))
	line := fmt.Sprintf("%14s", time.Since(w.began).Round(time.Millisecond)) + text
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.trace[max(0, len(w.trace)-6):]
	if once && slices.ContainsFunc(last, func(l string) bool { return strings.HasSuffix(l, text) }) {
		return
	}
	if len(w.trace) >= traced {
		w.trace = slices.Delete(w.trace, 0, traced/4)
	}
	w.trace = append(w.trace, line)
}

// hash makes a number of texts, the same for the same seed.
func (w *World) hash(parts ...string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d", w.o.Seed)
	for _, p := range parts {
		fmt.Fprintf(h, "\x00%s", p)
	}
	x := h.Sum64()
	// FNV's high bits are poor on short inputs: mix them.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// random gives a number in [0, 1) that depends on the seed, the moment and who asks, not on the order of asking.
func (w *World) random(who string) float64 {
	return float64(w.hash(who, time.Since(w.began).String())>>11) / (1 << 53)
}
