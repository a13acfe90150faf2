package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawShares(t *rapid.T) []*share {
	weights := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 8).Draw(t, "weights")
	var all []*share
	for i, w := range weights {
		key := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
		all = append(all, &share{key: key, weight: w, connections: rapid.IntRange(0, 20).Draw(t, "connections")})
	}
	return all
}

func drawClient(t *rapid.T) netip.Addr {
	return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "client")))
}

// In each cycle of turns every member gets as many as it weighs, and equal members take turns strictly.
func TestTurnsFollowWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawShares(t)
		weighted := rapid.Bool().Draw(t, "weighted")
		algorithm, cycle := RoundRobin, len(all)
		if weighted {
			algorithm, cycle = WeightedRoundRobin, 0
			for _, s := range all {
				cycle += s.weight
			}
		}
		for range 3 {
			got := map[*share]int{}
			for range cycle {
				got[choose(algorithm, all, netip.Addr{})]++
			}
			for _, s := range all {
				if want := map[bool]int{true: s.weight, false: 1}[weighted]; got[s] != want {
					t.Errorf("member of weight %d got %d turns in a cycle, want %d", s.weight, got[s], want)
				}
			}
		}
	})
}

// After members came and went for a while nobody is owed so much that others starve.
func TestTurnsAfterChurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawShares(t)
		for range rapid.IntRange(0, 50).Draw(t, "rounds") {
			some := slices.DeleteFunc(slices.Clone(all), func(*share) bool { return rapid.Bool().Draw(t, "away") })
			if len(some) > 0 {
				if c := choose(RoundRobin, some, netip.Addr{}); !slices.Contains(some, c) {
					t.Fatalf("%v was away", c.key)
				}
			}
		}
		const cycles = 10
		got := map[*share]int{}
		for range cycles * len(all) {
			got[choose(RoundRobin, all, netip.Addr{})]++
		}
		for _, s := range all {
			if d := got[s] - cycles; d < -len(all) || d > len(all) {
				t.Errorf("one of %d members got %d turns in %d cycles", len(all), got[s], cycles)
			}
		}
	})
}

func TestLeastConnectionsWin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := drawShares(t)
		for algorithm, load := range map[Algorithm]func(*share) float64{
			LeastConnection:         func(s *share) float64 { return float64(s.connections) },
			WeightedLeastConnection: func(s *share) float64 { return float64(s.connections) / float64(s.weight) },
		} {
			chosen := choose(algorithm, all, netip.Addr{})
			for _, s := range all {
				if load(s) < load(chosen) {
					t.Errorf("%s: chosen %+v before %+v", algorithm, chosen, s)
				}
			}
		}
	})
}

// A client keeps its member whatever others come and go.
func TestIPHashIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, client := drawShares(t), drawClient(t)
		chosen := choose(IPHash, all, client)
		fewer := slices.DeleteFunc(slices.Clone(all), func(s *share) bool { return s != chosen && rapid.Bool().Draw(t, "away") })
		slices.Reverse(fewer)
		if again := choose(IPHash, fewer, client); again != chosen {
			t.Errorf("the client moved from %v to %v", chosen.key, again.key)
		}
	})
}

func TestIPHashSpreadsClients(t *testing.T) {
	var all []*share
	for i := range 4 {
		all = append(all, &share{key: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 0)})
	}
	got := map[*share]int{}
	for i := range 1000 {
		got[choose(IPHash, all, netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}))]++
	}
	for _, s := range all {
		if got[s] < 200 || got[s] > 300 {
			t.Errorf("%v got %d of 1000 clients, one of four members", s.key, got[s])
		}
	}
}

// The verdict turns exactly after so many outcomes in a row as the monitor says, however they came about.
func TestVerdict(t *testing.T) {
	failure := errors.New("no answer")
	rapid.Check(t, func(t *rapid.T) {
		m := &Monitor{Fall: rapid.IntRange(1, 4).Draw(t, "fall"), Rise: rapid.IntRange(1, 4).Draw(t, "rise")}
		o := &Options{InitiallyUp: rapid.Bool().Draw(t, "initially up"), RiseFromStart: rapid.Bool().Draw(t, "rise from start")}
		v := newVerdict(o)
		wasUp := o.InitiallyUp || o.RiseFromStart
		state, inARow, last := o.InitiallyUp, 0, o.InitiallyUp
		for i, ok := range rapid.SliceOf(rapid.Bool()).Draw(t, "outcomes") {
			err := failure
			if ok {
				err = nil
			}
			now := time.Unix(int64(i), 0)
			v.record(m, err, now)

			if ok != last {
				inARow = 0
			}
			inARow, last = inARow+1, ok
			need := m.Fall
			if ok {
				need = m.Rise
				if !wasUp {
					need = 1
				}
			}
			if ok != state && inARow >= need {
				state = ok
			}
			wasUp = wasUp || state
			if v.up != state || !v.checked.Equal(now) || v.up && ok && v.cause != "" || !v.up && v.cause == "" {
				t.Fatalf("after outcome %d (%t): %+v, want up %t", i, ok, v, state)
			}
		}
	})
}

func TestPoolState(t *testing.T) {
	primary := func(s State) MemberStatus { return MemberStatus{State: s} }
	backup := func(s State) MemberStatus { return MemberStatus{State: s, Backup: true} }
	for _, tt := range []struct {
		members   []MemberStatus
		minActive int
		want      State
		reason    string
	}{
		{nil, 1, StateDown, "no members"},
		{[]MemberStatus{primary(StateUp), primary(StateUp)}, 1, StateUp, ""},
		{[]MemberStatus{primary(StateUp), backup(StateDown)}, 1, StateUp, ""},
		{[]MemberStatus{primary(StateUp), primary(StateDown)}, 1, StatePartiallyUp, "1 of 2 members UP"},
		{[]MemberStatus{primary(StateUp), primary(StateGracefulDisabled)}, 1, StatePartiallyUp, "1 of 2 members UP"},
		{[]MemberStatus{primary(StateUp), primary(StateDown)}, 2, StatePartiallyUp, "1 of 2 members UP"},
		{[]MemberStatus{primary(StateUp), primary(StateDown), backup(StateUp)}, 2, StatePrimaryDown, "1 of 2 members UP of at least 2: backup members serve"},
		{[]MemberStatus{primary(StateDown), backup(StateUp)}, 1, StatePrimaryDown, "0 of 1 members UP of at least 1: backup members serve"},
		{[]MemberStatus{backup(StateUp)}, 1, StatePrimaryDown, "0 of 0 members UP of at least 1: backup members serve"},
		{[]MemberStatus{primary(StateDown), backup(StateDown)}, 1, StateDown, "0 of 1 members UP"},
		{[]MemberStatus{primary(StateDisabled), primary(StateDisabled)}, 1, StateDown, "0 of 2 members UP"},
	} {
		t.Run(fmt.Sprint(tt.members, tt.minActive), func(t *testing.T) {
			if state, reason := poolState(tt.members, tt.minActive); state != tt.want || reason != tt.reason {
				t.Errorf("%s (%s), want %s (%s)", state, reason, tt.want, tt.reason)
			}
		})
	}
}

func TestStickinessIsBounded(t *testing.T) {
	now := time.Unix(0, 0)
	to := &member{share: share{key: netip.MustParseAddrPort("10.1.0.1:80")}}
	anyone := func(netip.AddrPort) *member { return to }
	for _, noPurge := range []bool{false, true} {
		st := newStickiness()
		st.set(&Persistence{Timeout: time.Hour, NoPurge: noPurge})
		held, first := "held", "0"
		st.assign(held, now, anyone)
		for i := range maxTies + 10 {
			client := fmt.Sprint(i)
			if st.assign(client, now, anyone) != to {
				t.Fatal("a client that cannot be tied gets no member")
			}
			st.release(client, to.key, now)
			now = now.Add(time.Millisecond)
		}
		_, hasHeld := st.ties[held]
		_, hasFirst := st.ties[first]
		if st.size() != maxTies || !hasHeld || hasFirst != noPurge {
			t.Errorf("no purge %t: %d ties; among them is the client with a connection: %t, the first of the others: %t", noPurge, st.size(), hasHeld, hasFirst)
		}
		st.expire(now.Add(time.Hour))
		if st.size() != 1 {
			t.Errorf("%d ties after their time, want the one with a connection", st.size())
		}
	}
}

// Where the host cannot send from a client's address, it is the address that is at fault, not the member.
func TestDialFromAnAddressThatTheHostLacks(t *testing.T) {
	target := listening(t, nil, func(net.Conn) {})
	for _, source := range []string{"192.0.2.1", "::1"} {
		if _, err := dial(t.Context(), "tcp", netip.MustParseAddr(source), target); !errors.Is(err, errSource) {
			t.Errorf("from %s: %v", source, err)
		}
	}
}
