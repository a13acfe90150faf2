package lb

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// NodeSet decides which of the cluster's Nodes are members of the node pools, and in what state. It is a state machine
// without clocks: each Observe gets the complete list of Nodes and the time.
//
// A Node joins, ENABLED, when it is first Ready and has an address. It gets no new connections (GRACEFUL_DISABLED) from
// when it is being deleted, carries the autoscaler's taint or is excluded by label, and after NotReadyGrace without being
// Ready; when that ends, it is ENABLED again. At least half of the set stays ENABLED all the same: if more look unfit, it
// may be the API server that is ill. A plain cordon changes nothing. A Node whose object is gone is out at once, since
// its address may be reused, and an excluded one once it has drained; but never the last one, for a pool must not become
// empty.
//
// What was before a restart shows in the Nodes themselves: in the first Observe, a Node that is not Ready joins ENABLED if
// it has been Ready within the grace period, and GRACEFUL_DISABLED if it has not; so does one that is being deleted. This
// makes of a steady state the same set again.
type NodeSet struct {
	notReadyGrace, drainTime time.Duration

	members map[string]*member // by name
	started bool
	// held tells whether half of the set was kept ENABLED although unfit, so that this is noticed once.
	held bool
}

// NewNodeSet makes an empty set. notReadyGrace is how long a Node may be NotReady, drainTime how long a leaving one stays
// in the node group, where a member can't be disabled.
func NewNodeSet(notReadyGrace, drainTime time.Duration) *NodeSet {
	return &NodeSet{notReadyGrace: notReadyGrace, drainTime: drainTime, members: map[string]*member{}}
}

// NodeView is the set at one moment.
type NodeView struct {
	// Nodes in the order of their names; empty only while there has never been one.
	Nodes []nsx.Node
	// Next is when the set will change although no Node does; the zero Time for never.
	Next    time.Time
	Notices []Notice
}

// member of the set, what is known of its Node, and since when.
type member struct {
	name      string
	uid       types.UID
	addresses []netip.Addr
	// leaving and notReady are since when the Node is on its way out, or not Ready; zero when it isn't.
	leaving, notReady time.Time
	excluded          bool
	// disabled is since when the member is GRACEFUL_DISABLED; zero when it is ENABLED.
	disabled time.Time
}

// Observe takes the complete list of Nodes at a time that is not before that of the last call.
func (s *NodeSet) Observe(nodes []*corev1.Node, now time.Time) NodeView {
	s.follow(nodes, now)
	active := s.withOwnAddresses(now)
	s.letGo(active, now)
	view := NodeView{}
	view.Notices = s.decide(active, now)
	s.started = true

	names := slices.Sorted(maps.Keys(active))
	for _, name := range names {
		m := s.members[name]
		n := nsx.Node{Name: name, Addresses: active[name], State: nsx.Enabled, InGroup: true}
		if !m.disabled.IsZero() {
			n.State, n.InGroup = nsx.GracefulDisabled, now.Before(m.disabled.Add(s.drainTime))
		}
		view.Nodes = append(view.Nodes, n)
	}
	for _, m := range s.members {
		for _, at := range []time.Time{s.unfitAt(m), m.drainedAt(s.drainTime)} {
			if at.After(now) && (view.Next.IsZero() || at.Before(view.Next)) {
				view.Next = at
			}
		}
	}
	return view
}

// follow updates the members from their Nodes, takes in those that join, and drops those that are gone.
func (s *NodeSet) follow(nodes []*corev1.Node, now time.Time) {
	next := make(map[string]*member, len(nodes))
	for _, n := range nodes {
		c := conditionOf(n)
		m, known := s.members[n.Name]
		switch {
		case known && m.uid == n.UID:
		case s.joins(n, c, now):
			m = &member{name: n.Name, uid: n.UID}
		default:
			continue
		}
		if len(c.addresses) > 0 {
			m.addresses = c.addresses
		}
		m.excluded = c.excluded
		m.leaving = s.since(m.leaving, c.leaving || c.excluded, c.leavingSince, now)
		m.notReady = s.since(m.notReady, !c.ready, c.readySince, now)
		next[n.Name] = m
	}
	if len(next) == 0 && len(s.members) > 0 { // the last one stays
		last := slices.MinFunc(slices.Collect(maps.Values(s.members)), func(a, b *member) int {
			return cmp.Or(compareBool(!a.disabled.IsZero(), !b.disabled.IsZero()), cmp.Compare(a.name, b.name))
		})
		last.leaving, last.notReady, last.excluded = time.Time{}, time.Time{}, false
		next[last.name] = last
	}
	s.members = next
}

// since is when something began that is so now: when it was first seen, or at the start when the Node says.
func (s *NodeSet) since(before time.Time, is bool, said, now time.Time) time.Time {
	switch {
	case !is:
		return time.Time{}
	case !before.IsZero():
		return before
	case !s.started && !said.IsZero() && said.Before(now):
		return said
	}
	return now
}

// joins tells whether a Node that is not in the set comes in.
func (s *NodeSet) joins(n *corev1.Node, c condition, now time.Time) bool {
	switch {
	case len(c.addresses) == 0 || c.excluded:
		return false
	case c.ready && !c.leaving:
		return true
	case s.started:
		return false
	case c.leaving:
		return true
	}
	// Not Ready at the start. It was Ready before, unless it is so new that it may not have got there yet.
	past := func(t time.Time) bool { return !t.IsZero() && !now.Before(t.Add(s.notReadyGrace)) }
	return past(c.readySince) || (!c.readySince.IsZero() && past(n.CreationTimestamp.Time))
}

// withOwnAddresses are the members by name with those of their addresses that no better member has: while a machine comes
// back under another name, two Nodes have its address.
func (s *NodeSet) withOwnAddresses(now time.Time) map[string][]netip.Addr {
	order := slices.SortedFunc(maps.Values(s.members), func(a, b *member) int {
		return cmp.Or(compareBool(s.unfit(a, now), s.unfit(b, now)), cmp.Compare(a.name, b.name))
	})
	taken := map[netip.Addr]bool{}
	active := map[string][]netip.Addr{}
	for _, m := range order {
		var own []netip.Addr
		for _, a := range m.addresses {
			if !taken[a] {
				taken[a] = true
				own = append(own, a)
			}
		}
		if len(own) > 0 {
			active[m.name] = own
		}
	}
	return active
}

// letGo drops excluded members that have drained, but the last one.
func (s *NodeSet) letGo(active map[string][]netip.Addr, now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(active)) {
		m := s.members[name]
		if m.excluded && !m.disabled.IsZero() && !now.Before(m.drainedAt(s.drainTime)) && len(active) > 1 {
			delete(active, name)
			delete(s.members, name)
		}
	}
}

// decide sets which members are disabled: those that are unfit, as long as half of the set stays ENABLED. Those that are
// disabled already come first, then those that were asked to leave, then those that have not been Ready for longest.
func (s *NodeSet) decide(active map[string][]netip.Addr, now time.Time) []Notice {
	var unfit []*member
	for name := range active {
		if m := s.members[name]; s.unfit(m, now) {
			unfit = append(unfit, m)
		} else {
			m.disabled = time.Time{}
		}
	}
	slices.SortFunc(unfit, func(a, b *member) int {
		return cmp.Or(
			compareBool(a.disabled.IsZero(), b.disabled.IsZero()),
			compareBool(a.leaving.IsZero(), b.leaving.IsZero()),
			s.unfitAt(a).Compare(s.unfitAt(b)),
			cmp.Compare(a.name, b.name))
	})
	allowed := min(len(unfit), len(active)/2)
	for _, m := range unfit[:allowed] {
		if m.disabled.IsZero() {
			m.disabled = now
			if !s.started {
				m.disabled = s.unfitAt(m)
			}
		}
	}
	var kept []string
	for _, m := range unfit[allowed:] {
		m.disabled = time.Time{}
		kept = append(kept, m.name)
	}
	slices.Sort(kept)
	before := s.held
	s.held = len(kept) > 0
	if !s.held || before {
		return nil
	}
	return []Notice{{ReasonTooFewNodes, fmt.Sprintf("%d of %d nodes are leaving or not Ready, so that these of them keep getting traffic, for half "+
		"of the nodes to be left: %s", len(unfit), len(active), strings.Join(kept, ", "))}}
}

// unfitAt is when a member becomes or became unfit; the zero Time when it is fit.
func (s *NodeSet) unfitAt(m *member) time.Time {
	switch {
	case !m.leaving.IsZero():
		return m.leaving
	case !m.notReady.IsZero():
		return m.notReady.Add(s.notReadyGrace)
	}
	return time.Time{}
}

func (s *NodeSet) unfit(m *member, now time.Time) bool {
	at := s.unfitAt(m)
	return !at.IsZero() && !now.Before(at)
}

// drainedAt is when a disabled member leaves the node group; the zero Time for one that is not disabled.
func (m *member) drainedAt(drainTime time.Duration) time.Time {
	if m.disabled.IsZero() {
		return time.Time{}
	}
	return m.disabled.Add(drainTime)
}
