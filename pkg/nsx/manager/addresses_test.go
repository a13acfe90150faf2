package manager_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// observed is the only virtual server of a Service.
func (w *world) observed(o nsx.Owner) nsx.ObservedVirtualServer {
	w.t.Helper()
	have := w.Inventory().Observe(o).VirtualServers
	if len(have) != 1 {
		w.t.Fatalf("%s has %d virtual servers, want 1", o, len(have))
	}
	return have[0]
}

// again is the virtual server of a Service at 10.0.0.n, taken up where an earlier try ended.
func (w *world) again(o nsx.Owner, n byte) nsx.VirtualServer {
	w.t.Helper()
	v := w.tcp(n)
	v.ID = w.observed(o).ID
	return v
}

// wantGone tidies up and wants nothing to be left.
func (w *world) wantGone() {
	w.t.Helper()
	w.must(w.Tidy(w.t.Context()))
	w.wantNothing()
}

func (w *world) wantLive(o nsx.Owner, address string) {
	w.t.Helper()
	v := w.observed(o)
	if v.Address.String() != address || !v.Attached() || v.Claim != nsx.Claimed {
		w.t.Fatalf("%s has %s, %s, attached %t; want %s, claimed and attached", o, v.VirtualServer, v.Claim, v.Attached(), address)
	}
	if doc := w.sim.Get(nsxsim.KindVirtualServer, v.ID); doc.String("ip_address") != address {
		w.t.Fatalf("in NSX the virtual server of %s has %s, want %s", o, doc.String("ip_address"), address)
	}
}

// settle looks up a lost write as soon as that makes sense.
func (w *world) settle(o nsx.Owner) {
	w.t.Helper()
	err := w.Settle(w.t.Context(), o)
	var at *nsx.RetryAt
	if !errors.As(err, &at) {
		w.t.Fatalf("settling at once: got %v, want a RetryAt", err)
	}
	w.clock.SetTime(at.At)
	w.must(w.Settle(w.t.Context(), o))
}

func TestTheRecordIsWrittenFirstAndDeletedLast(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.must(w.publish(owner("first"), w.tcp(1)))
	order := func(f func() error) (ops []string) {
		w.sim.Journal().Reset()
		w.must(f())
		for _, e := range w.sim.Journal().Entries() {
			ops = append(ops, e.Op)
		}
		return ops
	}
	o := owner("web")
	if got, want := order(func() error { return w.publish(o, w.tcp(2)) }), []string{createVS, allocate, writeLB}; !slices.Equal(got, want) {
		t.Errorf("publishing did %v, want %v", got, want)
	}
	if got, want := order(func() error { return w.withdraw(o) }), []string{writeLB, release, deleteVS}; !slices.Equal(got, want) {
		t.Errorf("withdrawing did %v, want %v", got, want)
	}
}

func TestSomebodyElsesAddressIsLeftToThem(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	_, err := w.sim.As("somebody").Allocate(w.pool, "10.0.0.1")
	w.must(err)
	o := owner("web")
	w.wantErr(w.publish(o, w.tcp(1)), nsx.ErrAlreadyAllocated)
	if got := w.observed(o).Claim; got != nsx.Refused {
		t.Fatalf("claim is %s, want refused", got)
	}
	w.must(w.publish(o, w.again(o, 2)))
	w.wantLive(o, "10.0.0.2")
	w.must(w.withdraw(o))
	w.wantAllocated("10.0.0.1")
}

func TestAVirtualServerOfSomebodyElseOnTheAddress(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindVirtualServer, nsxsim.Object{
		"ip_address": "10.0.0.1", "ip_protocol": "TCP", "ports": []string{"80"}, "application_profile_id": w.tcp(1).ApplicationProfile,
	}))
	o := owner("web")
	w.wantErr(w.publish(o, w.tcp(1)), nsx.ErrAlreadyAllocated) // NSX refuses the same address, protocol and port twice
	w.must(w.publish(o, w.tcp(2)))
	w.wantLive(o, "10.0.0.2")
}

func TestAnotherAddressThanAskedForIsUsed(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressIgnored}})
	o := owner("web")
	w.must(w.publish(o, w.tcp(4), w.udp(4)))
	got := w.sim.Allocations(w.pool)
	if len(got) != 1 {
		t.Fatalf("allocated %v, want one address", got)
	}
	for _, v := range w.Inventory().Observe(o).VirtualServers {
		if v.Address.String() != got[0] || v.Claim != nsx.Claimed || !v.Attached() {
			t.Errorf("virtual server %s (%s) does not have the allocated address %s", v.VirtualServer, v.Claim, got[0])
		}
	}
	w.must(w.withdraw(o))
	w.wantGone()
}

// TestWantedAgainAfterALostRelease: the record of an address of which nobody knows whether it was given back does not get another
// address, also where others must be asked for in advance.
func TestWantedAgainAfterALostRelease(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressRefused}})
	w.exclusive = false
	w.restart()
	o := owner("web")
	w.wantErr(w.publish(o, w.tcp(3)), nsx.ErrAlreadyAllocated)
	w.wantErr(w.publish(o, w.again(o, 4)), nsx.ErrAlreadyAllocated)
	w.must(w.publish(o, w.again(o, 2)))
	w.wantLive(o, "10.0.0.1")
	w.fault(nsxsim.Rule{Action: "RELEASE", Drop: true})
	w.wantErr(w.withdraw(o), nsx.ErrAmbiguous)
	w.settle(o)
	err := w.publish(o, w.again(o, 1))
	var at *nsx.RetryAt
	if !errors.As(err, &at) {
		t.Fatalf("publishing before it is settled: got %v, want a RetryAt", err)
	}
	w.clock.SetTime(at.At)
	w.must(w.publish(o, w.again(o, 1)))
	w.wantLive(o, "10.0.0.1")
	w.wantAllocated("10.0.0.1")
}

// TestAnotherAddressIsNotLost: the record could not be made to follow; the next try takes the address that was allocated.
func TestAnotherAddressIsNotLost(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressIgnored}})
	o := owner("web")
	w.fault(nsxsim.Rule{Method: http.MethodPut, Path: "/loadbalancer/virtual-servers/*", Status: 500})
	w.wantErr(w.publish(o, w.tcp(3)), nsx.ErrAmbiguous)
	w.settle(o)
	w.must(w.publish(o, w.again(o, 3)))
	w.wantLive(o, "10.0.0.1")
	w.wantAllocated("10.0.0.1")
}

func TestAskedForAddressIsNotReplaced(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressIgnored}})
	o, v := owner("web"), w.tcp(4)
	err := w.Apply(t.Context(), nsx.Publish{Owner: o, VirtualServers: []nsx.VirtualServer{v}, Asked: []netip.Addr{v.Address}})
	w.wantErr(err, nsx.ErrAlreadyAllocated)
	if w.observed(o).Attached() {
		t.Fatal("a virtual server is live on an address that was not asked for")
	}
	w.wantAllocated() // what was given in its place is given back
	w.sim.Journal().Reset()
	err = w.Apply(t.Context(), nsx.Publish{Owner: o, VirtualServers: []nsx.VirtualServer{w.again(o, 4)}, Asked: []netip.Addr{v.Address}})
	w.wantErr(err, nsx.ErrExhausted)
	w.wantWrites(nil) // there is no choice
}

// TestWhatIsGivenInPlaceIsNotLost: the RELEASE of an address that nobody wants gets no answer, and is done again by the rules.
func TestWhatIsGivenInPlaceIsNotLost(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressIgnored}})
	o, v := owner("web"), w.tcp(4)
	w.fault(nsxsim.Rule{Action: "RELEASE", Drop: true, Times: 1})
	err := w.Apply(t.Context(), nsx.Publish{Owner: o, VirtualServers: []nsx.VirtualServer{v}, Asked: []netip.Addr{v.Address}})
	w.wantErr(err, nsx.ErrAlreadyAllocated)
	w.wantAllocated("10.0.0.1")
	var at *nsx.RetryAt
	if err := w.Tidy(t.Context()); !errors.As(err, &at) {
		t.Fatalf("got %v, want a RetryAt", err)
	}
	w.clock.SetTime(at.At)
	w.must(w.Tidy(t.Context()))
	w.wantAllocated()
}

func TestManagerThatRefusesChosenAddresses(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressRefused}})
	o := owner("web")
	w.wantErr(w.publish(o, w.tcp(3)), nsx.ErrAlreadyAllocated)
	w.wantErr(w.publish(o, w.again(o, 4)), nsx.ErrAlreadyAllocated)
	w.must(w.publish(o, w.again(o, 2))) // from here on it is asked for any address
	if got := w.sim.Allocations(w.pool); len(got) != 1 {
		t.Fatalf("allocated %v, want one address", got)
	}
	w.wantLive(o, w.sim.Allocations(w.pool)[0])

	// An address that somebody else's virtual server records is left to that one.
	free := "10.0.0.2"
	nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindVirtualServer, nsxsim.Object{
		"ip_address": free, "ip_protocol": "TCP", "ports": []string{"80"}, "application_profile_id": w.tcp(1).ApplicationProfile,
	}))
	w.must(w.Load(t.Context()))
	w.sim.Journal().Reset()
	w.must(w.publish(owner("next"), w.tcp(3)))
	w.wantWrites(map[string]int{allocate: 2, createVS: 1, writeLB: 1})
	if v := w.observed(owner("next")); v.Address.String() == free {
		t.Fatalf("took %s, which somebody else records", free)
	}

	// What was allocated and could not be recorded serves the next try.
	w.fault(nsxsim.Rule{Method: "POST", Path: "/loadbalancer/virtual-servers", Status: http.StatusBadRequest})
	w.wantErr(w.publish(owner("last"), w.tcp(4)), nsx.ErrInvalid)
	before := len(w.sim.Allocations(w.pool))
	w.must(w.publish(owner("last"), w.tcp(4)))
	if after := len(w.sim.Allocations(w.pool)); after != before {
		t.Fatalf("%d addresses allocated, want the %d there were", after, before)
	}
}

// TestSpareAddressIsGivenBack: what was allocated and could not be recorded waits for the next try, but not for ever: in a full IP pool
// there is none.
func TestSpareAddressIsGivenBack(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressRefused}})
	o := owner("web")
	w.wantErr(w.publish(o, w.tcp(3)), nsx.ErrAlreadyAllocated)
	w.wantErr(w.publish(o, w.again(o, 4)), nsx.ErrAlreadyAllocated) // from here on it is asked for any address
	for _, tc := range []struct {
		name string
		rule nsxsim.Rule
		err  error
		left int
	}{
		{"nothing was made", nsxsim.Rule{Method: "POST", Path: "/loadbalancer/virtual-servers", Status: http.StatusBadRequest}, nsx.ErrInvalid, 0},
		{"it was made, without an answer", nsxsim.Rule{Method: "POST", Path: "/loadbalancer/virtual-servers", When: nsxsim.AfterCommit, Drop: true}, nsx.ErrAmbiguous, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.fault(tc.rule)
			w.wantErr(w.publish(owner("next"), w.tcp(5)), tc.err)
			w.must(w.Tidy(t.Context()))
			if got := w.sim.Allocations(w.pool); len(got) != 1 {
				t.Fatalf("allocated at once: %v, want the spare address", got)
			}
			w.clock.Step(5 * time.Minute)
			w.must(w.Tidy(t.Context()))
			if got := w.sim.Allocations(w.pool); len(got) != tc.left {
				t.Errorf("allocated later: %v, want %d", got, tc.left)
			}
		})
	}
}

// TestAskedForAddressThatCannotBeHad: once it is known that a manager refuses chosen addresses, asking it for one again and
// again would make and delete a virtual server each time.
func TestAskedForAddressThatCannotBeHad(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressRefused}})
	w.wantErr(w.publish(owner("first"), w.tcp(1)), nsx.ErrAlreadyAllocated)
	w.wantErr(w.publish(owner("first"), w.again(owner("first"), 2)), nsx.ErrAlreadyAllocated)
	w.must(w.publish(owner("first"), w.again(owner("first"), 3)))
	w.sim.Journal().Reset()
	v := w.tcp(4)
	err := w.Apply(t.Context(), nsx.Publish{Owner: owner("web"), VirtualServers: []nsx.VirtualServer{v}, Asked: []netip.Addr{v.Address}})
	w.wantErr(err, nsx.ErrExhausted)
	w.wantWrites(nil)
}

func TestLostAllocate(t *testing.T) {
	for _, c := range []struct {
		name      string
		exclusive bool
		rule      nsxsim.Rule
		err       error // of the second try
	}{
		{"done, exclusive pool", true, nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true}, nil},
		{"not done, exclusive pool", true, nsxsim.Rule{Drop: true}, nil},
		{"done, shared pool", false, nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true}, nsx.ErrAlreadyAllocated},
		{"not done, shared pool", false, nsxsim.Rule{Drop: true}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nsxsim.Options{})
			w.exclusive = c.exclusive
			w.restart()
			o := owner("web")
			c.rule.Action = "ALLOCATE"
			w.fault(c.rule)
			w.wantErr(w.publish(o, w.tcp(1)), nsx.ErrAmbiguous)
			if n := w.sim.Journal().Count(allocate); n != 1 {
				t.Fatalf("ALLOCATE was sent %d times, want once", n)
			}
			w.settle(o)
			err := w.publish(o, w.again(o, 1))
			if !errors.Is(err, c.err) {
				t.Fatalf("second try: %v, want %v", err, c.err)
			}
			if c.err != nil { // perhaps somebody else's: moved, and the doubtful one is left
				w.must(w.publish(o, w.again(o, 2)))
				w.wantLive(o, "10.0.0.2")
				w.wantAllocated("10.0.0.1", "10.0.0.2")
				return
			}
			w.wantLive(o, "10.0.0.1")
			w.wantAllocated("10.0.0.1")
		})
	}
}

// crashed is a Service whose virtual server has an allocated address and is attached to nothing, seen by a process that
// does not know how that came about.
func crashed(t *testing.T, exclusive bool) (*world, nsx.Owner) {
	w := newWorld(t, nsxsim.Options{})
	o := owner("web")
	w.fault(nsxsim.Rule{Method: "PUT", Path: "/loadbalancer/services/*", Status: http.StatusForbidden})
	w.wantErr(w.publish(o, w.tcp(1)), nsx.ErrUnauthorized)
	w.wantAllocated("10.0.0.1")
	w.exclusive = exclusive
	w.restart()
	if got := w.observed(o).Claim; got != nsx.Doubtful {
		t.Fatalf("claim is %s, want doubtful", got)
	}
	return w, o
}

func TestAllocatedButUnattachedAfterARestart(t *testing.T) {
	t.Run("exclusive pool: ours", func(t *testing.T) {
		w, o := crashed(t, true)
		w.must(w.publish(o, w.again(o, 1)))
		w.wantLive(o, "10.0.0.1")
		w.wantAllocated("10.0.0.1")
	})
	t.Run("exclusive pool, somebody else records it too: theirs", func(t *testing.T) {
		w, o := crashed(t, true)
		nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindVirtualServer, nsxsim.Object{
			"ip_address": "10.0.0.1", "ip_protocol": "UDP", "ports": []string{"80"}, "application_profile_id": w.udp(1).ApplicationProfile,
		}))
		w.wantErr(w.publish(o, w.again(o, 1)), nsx.ErrAlreadyAllocated)
		w.must(w.publish(o, w.again(o, 2)))
		w.wantLive(o, "10.0.0.2")
	})
	t.Run("shared pool: perhaps theirs", func(t *testing.T) {
		w, o := crashed(t, false)
		w.wantErr(w.publish(o, w.again(o, 1)), nsx.ErrAlreadyAllocated)
	})
	t.Run("shared pool, but the Service's status shows it: ours", func(t *testing.T) {
		w, o := crashed(t, false)
		w.must(w.Apply(t.Context(), nsx.Publish{Owner: o, VirtualServers: []nsx.VirtualServer{w.again(o, 1)}, Published: []string{"10.0.0.1"}}))
		w.wantLive(o, "10.0.0.1")
	})
	t.Run("deleted, shared pool: left alone", func(t *testing.T) {
		w, o := crashed(t, false)
		w.must(w.withdraw(o))
		w.wantAllocated("10.0.0.1")
	})
	t.Run("deleted, exclusive pool: released after two sightings", func(t *testing.T) {
		w, o := crashed(t, true)
		w.wantErr(w.withdraw(o), nsx.ErrAmbiguous)
		w.wantAllocated("10.0.0.1")
		w.clock.Step(sightings)
		w.must(w.withdraw(o))
		w.wantGone()
	})
}

// sightings is how far apart two sightings must be in a pool that does not say how long it keeps a released address.
const sightings = 2*time.Minute + 30*time.Second

func TestLostRelease(t *testing.T) {
	lost := func(t *testing.T, rule nsxsim.Rule) (*world, nsx.Owner) {
		w := newWorld(t, nsxsim.Options{})
		o := owner("web")
		w.must(w.publish(o, w.tcp(1)))
		rule.Action = "RELEASE"
		w.fault(rule)
		w.wantErr(w.withdraw(o), nsx.ErrAmbiguous)
		w.settle(o)
		w.sim.Journal().Reset()
		return w, o
	}
	notDone, done := nsxsim.Rule{Drop: true}, nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true}

	t.Run("done", func(t *testing.T) {
		w, o := lost(t, done)
		w.must(w.withdraw(o))
		w.wantGone()
	})
	t.Run("not done: repeated after two sightings", func(t *testing.T) {
		w, o := lost(t, notDone)
		var at *nsx.RetryAt
		if err := w.withdraw(o); !errors.As(err, &at) || at.At.Sub(w.clock.Now()) != sightings {
			t.Fatalf("got %v, want to be told to come again after %v", err, sightings)
		}
		w.clock.Step(sightings - time.Second)
		w.wantErr(w.withdraw(o), nsx.ErrAmbiguous)
		w.wantAllocated("10.0.0.1")
		w.clock.Step(time.Second)
		w.must(w.withdraw(o))
		if n := w.sim.Journal().Count(release); n != 1 {
			t.Errorf("RELEASE was sent %d more times, want once", n)
		}
		w.wantGone()
	})
	t.Run("done, and somebody else's by now: not repeated", func(t *testing.T) {
		w, o := lost(t, notDone)
		w.wantErr(w.withdraw(o), nsx.ErrAmbiguous)
		// In between the address is released after all, and somebody else gets and records it.
		w.must(w.sim.As("somebody").Release(w.pool, "10.0.0.1"))
		_, err := w.sim.As("somebody").Allocate(w.pool, "10.0.0.1")
		w.must(err)
		nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindVirtualServer, nsxsim.Object{
			"ip_address": "10.0.0.1", "ip_protocol": "UDP", "ports": []string{"80"}, "application_profile_id": w.udp(1).ApplicationProfile,
		}))
		w.clock.Step(sightings)
		w.must(w.withdraw(o))
		if n := w.sim.Journal().Count(release); n != 0 {
			t.Errorf("RELEASE was sent %d more times, want never", n)
		}
		w.wantAllocated("10.0.0.1")
	})
	t.Run("wanted again: it waits to know whose the address is", func(t *testing.T) {
		w, o := lost(t, notDone)
		w.wantErr(w.publish(o, w.again(o, 1)), nsx.ErrAmbiguous)
		w.clock.Step(sightings)
		w.must(w.publish(o, w.again(o, 1)))
		w.wantLive(o, "10.0.0.1")
		w.wantAllocated("10.0.0.1")
	})
}

func TestOneAllocationServesAllOnTheAddress(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	o := owner("dns")
	w.must(w.publish(o, w.tcp(1), w.udp(1)))
	both := w.Inventory().Observe(o).VirtualServers
	udp := both[slices.IndexFunc(both, func(v nsx.ObservedVirtualServer) bool { return v.Protocol == nsx.UDP })]
	w.sim.Journal().Reset()
	w.must(w.Apply(t.Context(), nsx.Withdraw{Owner: o, VirtualServers: []nsx.ObservedVirtualServer{udp}}))
	w.wantWrites(map[string]int{writeLB: 1, deleteVS: 1})
	w.wantLive(o, "10.0.0.1")
	w.must(w.publish(o, w.udp(1)))
	w.wantWrites(map[string]int{createVS: 1, writeLB: 1})
	w.must(w.withdraw(o))
	w.wantGone()
}

func TestReleasedByHand(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	o := owner("web")
	w.must(w.publish(o, w.tcp(1)))
	w.must(w.sim.As("somebody").Release(w.pool, "10.0.0.1"))
	w.must(w.RefreshAddresses(t.Context(), "floating"))
	if got := w.observed(o).Claim; got != nsx.Unclaimed {
		t.Fatalf("claim is %s, want unclaimed", got)
	}
	w.must(w.publish(o, w.again(o, 1)))
	w.wantAllocated("10.0.0.1")

	w.must(w.sim.As("somebody").Release(w.pool, "10.0.0.1"))
	nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindVirtualServer, nsxsim.Object{
		"ip_address": "10.0.0.1", "ip_protocol": "UDP", "ports": []string{"80"}, "application_profile_id": w.udp(1).ApplicationProfile,
	}))
	w.must(w.Load(t.Context()))
	w.wantErr(w.publish(o, w.again(o, 1)), nsx.ErrInvalid)
	w.wantAllocated()
}

// TestReleasedByHandKeepsItsAddress: what carries traffic is never moved, also where the manager hands out what it likes.
func TestReleasedByHandKeepsItsAddress(t *testing.T) {
	for _, quirk := range []nsxsim.ChosenAddress{nsxsim.ChosenAddressIgnored, nsxsim.ChosenAddressRefused} {
		t.Run(string(quirk), func(t *testing.T) {
			w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: quirk}})
			o := owner("web")
			first, err := w.sim.As("somebody").Allocate(w.pool, "")
			w.must(err)
			w.must(w.RefreshAddresses(t.Context(), "floating"))
			err = w.publish(o, w.tcp(4))
			for n := byte(3); errors.Is(err, nsx.ErrAlreadyAllocated); n-- {
				err = w.publish(o, w.again(o, n))
			}
			w.must(err)
			before := w.observed(o)
			w.must(w.sim.As("somebody").Release(w.pool, before.Address.String()))
			w.must(w.sim.As("somebody").Release(w.pool, first)) // which is what NSX gives next
			w.must(w.Load(t.Context()))
			again := before.VirtualServer
			again.Pool = clusterPool()
			_ = w.publish(o, again) // may fail, and must not move
			if after := w.observed(o); after.Address != before.Address || !after.Attached() {
				t.Errorf("moved from %s to %s, attached %t", before.Address, after.Address, after.Attached())
			}
		})
	}
}

// deleteByHand takes away a virtual server in NSX, and lets the controller see that.
func (w *world) deleteByHand(id string) {
	w.t.Helper()
	as := w.sim.As("somebody")
	nsxsim.Must(as.Update(nsxsim.KindLBService, w.lb, func(o nsxsim.Object) { o["virtual_server_ids"] = []string{} }))
	w.must(as.Delete(nsxsim.KindVirtualServer, id))
	w.must(w.Load(w.t.Context()))
}

// TestDeletedByHandKeepsItsAddress: the address that the status shows is still allocated, and is taken up again, also where
// the manager hands out what it likes.
func TestDeletedByHandKeepsItsAddress(t *testing.T) {
	for _, quirk := range []nsxsim.ChosenAddress{nsxsim.ChosenAddressHonoured, nsxsim.ChosenAddressIgnored, nsxsim.ChosenAddressRefused} {
		for _, exclusive := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s exclusive=%t", quirk, exclusive), func(t *testing.T) {
				w := newWorld(t, nsxsim.Options{Quirks: nsxsim.Quirks{ChosenAddress: quirk}})
				w.exclusive = exclusive
				w.restart()
				o := owner("web")
				err := w.publish(o, w.tcp(4))
				for n := byte(3); errors.Is(err, nsx.ErrAlreadyAllocated); n-- {
					err = w.publish(o, w.again(o, n))
				}
				w.must(err)
				before := w.observed(o)
				w.deleteByHand(before.ID)
				again := before.VirtualServer
				again.ID, again.Pool = "", clusterPool()
				w.must(w.Apply(t.Context(), nsx.Publish{Owner: o, VirtualServers: []nsx.VirtualServer{again}, Published: []string{before.Address.String()}}))
				w.wantLive(o, before.Address.String())
				w.wantAllocated(before.Address.String())
			})
		}
	}
}

// TestTrafficProvesTheAddress: what a process has seen to carry traffic it knows to be the Service's, also where others
// allocate from the pool.
func TestTrafficProvesTheAddress(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.exclusive = false
	o := owner("web")
	w.must(w.publish(o, w.tcp(1)))
	w.restart()
	w.deleteByHand(w.observed(o).ID)
	if allocated, ours := w.Inventory().Allocation(w.pool, netip.MustParseAddr("10.0.0.1")); !allocated || !ours {
		t.Errorf("allocated %t, ours %t; want both", allocated, ours)
	}
}

func TestTwoClustersWithStaleLists(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	other := w.backend("cluster-2")
	w.must(other.Load(t.Context()))
	w.must(other.SetNodes(t.Context(), nodes("x")))
	w.must(w.publish(owner("web"), w.tcp(1)))

	v := w.udp(1) // another protocol, so that NSX itself does not refuse
	o := nsx.Owner{UID: "uid-other", Name: "default/other"}
	w.wantErr(other.Apply(t.Context(), nsx.Publish{Owner: o, VirtualServers: []nsx.VirtualServer{v}}), nsx.ErrAlreadyAllocated)
	v.ID, v.Address = other.Inventory().Observe(o).VirtualServers[0].ID, w.tcp(2).Address
	w.must(other.Apply(t.Context(), nsx.Publish{Owner: o, VirtualServers: []nsx.VirtualServer{v}}))
	w.must(w.withdraw(owner("web")))
	w.wantAllocated("10.0.0.2")
	if ids := w.sim.Get(nsxsim.KindLBService, w.lb).Strings("virtual_server_ids"); len(ids) != 1 || ids[0] != v.ID {
		t.Fatalf("load-balancer service has %v, want the other cluster's %s", ids, v.ID)
	}
}
