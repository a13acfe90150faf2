package nsxsim_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"
)

// ipRig has an IP pool of three addresses, .1 to .3.
type ipRig struct {
	*rig
	pool string
}

func newIPRig(t *testing.T, o nsxsim.Options) *ipRig {
	t.Helper()
	r := newRig(t, o)
	return &ipRig{r, ippools + "/" + nsxsim.Must(r.AddIPPool("p", "10.9.0.0/24", "10.9.0.1-10.9.0.2", "10.9.0.3")).ID()}
}

func (r *ipRig) allocate(addr string) answer {
	r.t.Helper()
	if addr == "" {
		return r.do("POST", r.pool+"?action=ALLOCATE", `{"allocation_id":null}`)
	}
	return r.do("POST", r.pool+"?action=ALLOCATE", doc{"allocation_id": addr})
}

func (r *ipRig) release(addr string) answer {
	r.t.Helper()
	return r.do("POST", r.pool+"?action=RELEASE", doc{"allocation_id": addr})
}

func (r *ipRig) allocated() []string {
	r.t.Helper()
	var list []string
	for _, a := range r.do("GET", r.pool+"/allocations", nil).results() {
		list = append(list, a.String("allocation_id"))
	}
	return list
}

func TestAllocateUntilExhausted(t *testing.T) {
	r := newIPRig(t, nsxsim.Options{})
	for i := range 3 {
		want := fmt.Sprintf("10.9.0.%d", i+1)
		if a := r.allocate(""); a.status != 200 || a.body.String("allocation_id") != want {
			t.Fatalf("allocation %d: %d %s, want %s", i, a.status, a.raw, want)
		}
	}
	if a := r.allocate(""); a.status != 400 || a.code() != "5109" {
		t.Errorf("exhausted: %d %s", a.status, a.raw)
	}
	usage := r.ok("GET", r.pool, nil)["pool_usage"]
	if diff := cmp.Diff(doc{"total_ids": 3.0, "allocated_ids": 3.0, "free_ids": 0.0}, usage); diff != "" {
		t.Errorf("pool_usage (-want +got):\n%s", diff)
	}
	if a := r.release("10.9.0.2"); a.status != 200 || a.raw != "" {
		t.Errorf("RELEASE: %d %q, want 200 and no body", a.status, a.raw)
	}
	if got := r.allocate("").body.String("allocation_id"); got != "10.9.0.2" {
		t.Errorf("the released address is not given again: %s", got)
	}
}

func TestIPPoolRefusals(t *testing.T) {
	for _, c := range []struct {
		rule    string
		quirks  nsxsim.Quirks
		do      func(*ipRig) answer
		code    string
		message string
	}{
		{"RELEASE of what is not allocated", nsxsim.Quirks{}, func(r *ipRig) answer { return r.release("10.9.0.1") }, "", "is not allocated"},
		{"RELEASE of what is not in the pool", nsxsim.Quirks{}, func(r *ipRig) answer { return r.release("10.8.0.1") }, "", "is not allocated"},
		{"RELEASE of nothing", nsxsim.Quirks{}, func(r *ipRig) answer { return r.do("POST", r.pool+"?action=RELEASE", "{}") }, "255", "allocation_id is required"},
		{"RELEASE of no address", nsxsim.Quirks{}, func(r *ipRig) answer { return r.release("x") }, "255", "allocation_id"},
		{"an allocated address", nsxsim.Quirks{}, func(r *ipRig) answer { r.allocate("10.9.0.2"); return r.allocate("10.9.0.2") }, "5141", "already allocated"},
		{"an address outside the pool", nsxsim.Quirks{}, func(r *ipRig) answer { return r.allocate("10.9.0.4") }, "5110", "does not belong"},
		{"a chosen address, where refused", nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressRefused}, func(r *ipRig) answer { return r.allocate("10.9.0.2") }, "5123", "specific"},
		{"a pool with allocations is not deleted", nsxsim.Quirks{}, func(r *ipRig) answer { r.allocate(""); return r.do("DELETE", r.pool, nil) }, "", "allocated"},
		{"an address in use is not taken out of the ranges", nsxsim.Quirks{}, func(r *ipRig) answer {
			r.allocate("10.9.0.3")
			o := r.ok("GET", r.pool, nil)
			o["subnets"].([]any)[0].(doc)["allocation_ranges"] = []doc{{"start": "10.9.0.1", "end": "10.9.0.2"}}
			return r.do("PUT", r.pool, o)
		}, "", "10.9.0.3 is allocated"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			a := c.do(newIPRig(t, nsxsim.Options{Quirks: c.quirks}))
			if a.status != 400 || c.code != "" && a.code() != c.code || !strings.Contains(a.message(), c.message) {
				t.Errorf("%d %s; want 400, error_code %s and %q", a.status, a.raw, c.code, c.message)
			}
		})
	}
}

func TestForcedDeletionOfAnIPPool(t *testing.T) {
	r := newIPRig(t, nsxsim.Options{})
	r.allocate("")
	if a := r.do("DELETE", r.pool+"?force=true", nil); a.status != 200 {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

func TestAllocateAChosenAddress(t *testing.T) {
	for quirk, want := range map[nsxsim.ChosenAddress]string{
		nsxsim.ChosenAddressHonoured: "10.9.0.1",
		nsxsim.ChosenAddressIgnored:  "10.9.0.2",
	} {
		r := newIPRig(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: quirk}})
		if got := r.allocate("10.9.0.1").body.String("allocation_id"); got != want {
			t.Errorf("%q: got %s, want %s", quirk, got, want)
		}
	}
	last := newIPRig(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressIgnored}})
	last.allocate("")
	last.allocate("")
	if got := last.allocate("10.9.0.3").body.String("allocation_id"); got != "10.9.0.3" {
		t.Errorf("the last free address, asked for where that is ignored: %s", got)
	}
}

func TestReleaseDelay(t *testing.T) {
	for _, c := range []struct {
		name   string
		ms     any
		delay  time.Duration // Options.ReleaseDelay
		quirks nsxsim.Quirks
		listed bool
	}{
		{name: "of the pool", ms: 5000, listed: true},
		{name: "of the pool, over the default", ms: 5000, delay: time.Hour, listed: true},
		{name: "default", delay: 5 * time.Second, listed: true},
		{name: "not listed meanwhile", ms: 5000, quirks: nsxsim.Quirks{ReleasedUnlisted: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := clocktesting.NewFakeClock(time.Unix(0, 0))
			r := newIPRig(t, nsxsim.Options{Clock: clock, ReleaseDelay: c.delay, Quirks: c.quirks})
			if c.ms != nil {
				o := r.ok("GET", r.pool, nil)
				o["ip_release_delay"] = c.ms
				r.ok("PUT", r.pool, o)
			}
			r.allocate("10.9.0.1")
			r.release("10.9.0.1")
			clock.Step(5*time.Second - 1)
			if got := slices.Contains(r.allocated(), "10.9.0.1"); got != c.listed {
				t.Errorf("listed during the delay: %v, want %v", got, c.listed)
			}
			if a := r.allocate("10.9.0.1"); a.status != 400 || a.code() != "5141" {
				t.Errorf("asked for during the delay: %d %s", a.status, a.raw)
			}
			if got := r.allocate("").body.String("allocation_id"); got != "10.9.0.2" {
				t.Errorf("any, during the delay: %s, want 10.9.0.2", got)
			}
			if a := r.release("10.9.0.1"); a.status != 400 {
				t.Errorf("released twice: %d, want 400", a.status)
			}
			clock.Step(1)
			if slices.Contains(r.allocated(), "10.9.0.1") {
				t.Error("still listed after the delay")
			}
			if a := r.allocate("10.9.0.1"); a.status != 200 {
				t.Errorf("asked for after the delay: %d %s", a.status, a.raw)
			}
		})
	}
}

// Whatever is asked in whatever order: an address is allocated once at a time,
// and the pool has as many as its ranges hold.
func TestAddressesAreNeverGivenTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		sim, err := nsxsim.New(nsxsim.Options{})
		if err != nil {
			rt.Fatal(err)
		}
		defer sim.Close()
		pool := nsxsim.Must(sim.AddIPPool("p", "10.9.0.0/24", "10.9.0.1-10.9.0.4", "10.9.0.9")).ID()
		held := map[string]bool{}
		editor := sim.As("admin")
		rt.Repeat(map[string]func(*rapid.T){
			"any": func(rt *rapid.T) {
				got, err := editor.Allocate(pool, "")
				if (err == nil) != (len(held) < 5) || err == nil && held[got] {
					rt.Fatalf("with %d held: %q, %v", len(held), got, err)
				}
				if err == nil {
					held[got] = true
				}
			},
			"chosen": func(rt *rapid.T) {
				want := netip.AddrFrom4([4]byte{10, 9, 0, byte(rapid.IntRange(0, 10).Draw(rt, "last"))})
				free := slices.Contains([]byte{1, 2, 3, 4, 9}, want.As4()[3]) && !held[want.String()]
				if _, err := editor.Allocate(pool, want.String()); (err == nil) != free {
					rt.Fatalf("%s: %v, free: %v", want, err, free)
				} else if free {
					held[want.String()] = true
				}
			},
			"release": func(rt *rapid.T) {
				addr := fmt.Sprintf("10.9.0.%d", rapid.IntRange(0, 10).Draw(rt, "last"))
				if err := editor.Release(pool, addr); (err == nil) != held[addr] {
					rt.Fatalf("%s: %v, held: %v", addr, err, held[addr])
				}
				delete(held, addr)
			},
			"": func(rt *rapid.T) {
				if got := len(sim.Allocations(pool)); got != len(held) {
					rt.Fatalf("%d listed, %d held", got, len(held))
				}
			},
		})
	})
}
