package lb

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

const (
	testGrace = 60 * time.Second
	testDrain = 30 * time.Second
)

var testStart = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// testNode makes a Node of words: its name, a letter, which gives it the address 10.0.0.1 for a, and what is special about it:
// notready[=30s, before the start], taint[=...], deleting[=...], excluded, excluded=false, cordon, created=..., noaddress,
// ip=..., uid=....
func testNode(words string) *corev1.Node {
	fields := strings.Fields(words)
	name := fields[0]
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(testStart.Add(-24 * time.Hour))}}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: n.CreationTimestamp}
	addresses := []string{fmt.Sprintf("10.0.0.%d", name[0]-'a'+1)}
	for _, f := range fields[1:] {
		what, value, _ := strings.Cut(f, "=")
		ago, err := time.ParseDuration(value)
		at := metav1.NewTime(testStart.Add(-ago))
		switch what {
		case "notready":
			ready.Status, ready.LastTransitionTime = corev1.ConditionUnknown, at
		case "taint":
			taint := corev1.Taint{Key: toBeDeletedTaint, Effect: corev1.TaintEffectNoSchedule}
			if err == nil {
				taint.TimeAdded = &at
			}
			n.Spec.Taints = append(n.Spec.Taints, taint)
		case "deleting":
			n.DeletionTimestamp = &at
		case "excluded":
			n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: value}
		case "cordon":
			n.Spec.Unschedulable = true
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
		case "created":
			n.CreationTimestamp = at
		case "noaddress":
			addresses = nil
		case "ip":
			addresses = strings.Split(value, ",")
		case "uid":
			n.UID = types.UID(value)
		default:
			panic("what is " + f)
		}
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse}, ready}
	n.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: name},
		{Type: corev1.NodeExternalIP, Address: "192.0.2.1"},
		{Type: corev1.NodeInternalIP, Address: "no address"},
	}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func testNodes(words ...string) []*corev1.Node {
	var out []*corev1.Node
	for _, w := range words {
		out = append(out, testNode(w))
	}
	return out
}

// show writes a view as "a b=draining c=out", in which b is disabled and in the group and c disabled and out of it, with
// addresses where they are not those of the name, and when it changes by itself.
func (v NodeView) show(now time.Time) string {
	var out []string
	for _, n := range v.Nodes {
		s := n.Name
		if own := fmt.Sprintf("10.0.0.%d", n.Name[0]-'a'+1); len(n.Addresses) != 1 || n.Addresses[0].String() != own {
			s += "@" + joined(n.Addresses, ",")
		}
		switch {
		case n.State == nsx.GracefulDisabled && n.InGroup:
			s += "=draining"
		case n.State == nsx.GracefulDisabled:
			s += "=out"
		case !n.InGroup:
			s += "=enabled but not in the group"
		}
		out = append(out, s)
	}
	if !v.Next.IsZero() {
		out = append(out, "until", v.Next.Sub(now).String())
	}
	for _, n := range v.Notices {
		out = append(out, "!"+n.Reason)
	}
	return strings.Join(out, " ")
}

func TestNodeSet(t *testing.T) {
	type step struct {
		at    int // seconds after the start
		nodes string
		want  string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"joins when it is first Ready and has an address", []step{
			{0, "a, b notready created=1s, c noaddress", "a"},
			{1, "a, b, c noaddress", "a b"},
			{2, "a, b, c", "a b c"},
		}},
		{"none but those that can serve join", []step{
			{0, "a, b excluded, c excluded=true, d excluded=false, e deleting, f taint, g cordon", "a d e=draining f=draining g until 30s"},
			{1, "a, b excluded, c, h taint, i deleting", "a c"},
		}},
		{"not Ready for a while", []step{
			{0, "a, b, c", "a b c"},
			{1, "a, b notready, c", "a b c until 1m0s"},
			{30, "a, b notready, c", "a b c until 31s"},
			{31, "a, b, c", "a b c"},
			{32, "a, b notready, c", "a b c until 1m0s"},
			{91, "a, b notready, c", "a b c until 1s"},
			{92, "a, b notready, c", "a b=draining c until 30s"},
			{121, "a, b notready, c", "a b=draining c until 1s"},
			{122, "a, b notready, c", "a b=out c"},
			{200, "a, b, c", "a b c"},
		}},
		{"a cordon changes nothing", []step{
			{0, "a, b", "a b"},
			{1, "a cordon, b", "a b"},
		}},
		{"a drain for deletion", []step{
			{0, "a, b", "a b"},
			{1, "a, b taint", "a b=draining until 30s"},
			{2, "a, b taint deleting", "a b=draining until 29s"},
			{3, "a", "a"},
		}},
		{"the taint is taken back", []step{
			{0, "a, b", "a b"},
			{1, "a, b taint", "a b=draining until 30s"},
			{2, "a, b", "a b"},
		}},
		{"excluded: drains, then leaves; and comes back", []step{
			{0, "a, b, c", "a b c"},
			{1, "a, b excluded, c", "a b=draining c until 30s"},
			{30, "a, b excluded, c", "a b=draining c until 1s"},
			{31, "a, b excluded, c", "a c"},
			{40, "a, b, c", "a b c"},
		}},
		{"half stays enabled, whatever they look like", []step{
			{0, "a, b, c, d, e", "a b c d e"},
			{1, "a notready, b notready, c notready, d notready, e", "a b c d e until 1m0s"},
			{61, "a notready, b notready, c notready, d notready, e", "a=draining b=draining c d e until 30s !TooFewNodes"},
			{91, "a notready, b notready, c notready, d notready, e", "a=out b=out c d e"},
			{92, "a, b notready, c notready, d notready, e", "a b=out c=draining d e until 30s"},
			{93, "a, b, c, d, e", "a b c d e"},
		}},
		{"the only node", []step{
			{0, "a", "a"},
			{1, "a taint", "a !TooFewNodes"},
			{2, "a taint", "a"},
			{3, "", "a"},
			{4, "b notready", "a"},
			{5, "b", "b"},
		}},
		{"asked to leave comes before not Ready", []step{
			{0, "a notready=10s, b, c, d", "a b c d until 50s"},
			{1, "a notready, b notready, c, d", "a b c d until 49s"},
			{50, "a notready, b notready, c, d taint", "a=draining b c d=draining until 11s"},
			{61, "a notready, b notready, c, d taint", "a=draining b c d=draining until 19s !TooFewNodes"},
		}},
		{"all go at once: the last is kept, an enabled one", []step{
			{0, "a, b, c", "a b c"},
			{1, "a taint, b, c", "a=draining b c until 30s"},
			{2, "", "b"},
			{100, "", "b"},
			{101, "c", "c"},
		}},
		{"all are excluded", []step{
			{0, "a, b, c", "a b c"},
			{1, "a excluded, b excluded, c excluded", "a=draining b c until 30s !TooFewNodes"},
			{31, "a excluded, b excluded, c excluded", "b=draining c until 30s"},
			{61, "a excluded, b excluded, c excluded", "c"},
			{62, "a excluded, b excluded, c excluded", "c"},
		}},
		{"the last one left is excluded, and has drained", []step{
			{0, "a, b", "a b"},
			{1, "a excluded, b", "a=draining b until 30s"},
			{31, "a excluded", "a !TooFewNodes"},
		}},
		{"addresses are followed; one that is gone is remembered", []step{
			{0, "a, b", "a b"},
			{1, "a ip=10.0.9.1, b", "a@10.0.9.1 b"},
			{2, "a noaddress, b", "a@10.0.9.1 b"},
			{3, "a ip=2001:db8::1,10.0.9.2,10.0.9.3,2001:db8::2, b", "a@10.0.9.2,2001:db8::1 b"},
		}},
		{"a Node made again is another Node", []step{
			{0, "a, b", "a b"},
			{1, "a uid=new notready, b", "b"},
			{2, "a uid=new, b", "a b"},
		}},
		{"a machine that came back under another name", []step{
			{0, "a, b, c", "a b c"},
			{1, "a notready, b, c, d ip=10.0.0.1", "a b c until 1m0s"},
			{61, "a notready, b, c, d ip=10.0.0.1", "b c d@10.0.0.1"},
			{62, "b, c, d ip=10.0.0.1", "b c d@10.0.0.1"},
		}},
		{"a restart sees what was before", []step{
			{0, "a, b notready=10s, c notready=70s, d notready=100s, e taint=20s, f deleting=40s, g notready=10s created=20s, h, i, j, k",
				"a b c=draining d=out e=draining f=out h i j k until 10s"},
		}},
		{"clocks that go ahead", []step{
			{0, "a, b notready=-100s, c", "a b c until 1m0s"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewNodeSet(testGrace, testDrain)
			for _, step := range tt.steps {
				now := testStart.Add(time.Duration(step.at) * time.Second)
				var nodes []*corev1.Node
				for w := range strings.SplitSeq(step.nodes, ", ") {
					if w != "" {
						nodes = append(nodes, testNode(w))
					}
				}
				if got := s.Observe(nodes, now).show(now); got != step.want {
					t.Fatalf("after %d s, with %s:\ngot  %s\nwant %s", step.at, step.nodes, got, step.want)
				}
			}
		})
	}
}

// Whatever happens to the Nodes: the set is never empty once it was not, half of it is enabled, only what may be in it is,
// what is gone is out, the order of the list does not matter, and nothing changes before the time that was announced.
func TestNodeSetInAnyWorld(t *testing.T) {
	states := []string{"", "notready", "taint", "deleting", "excluded", "excluded=false", "cordon", "noaddress", "notready taint", "excluded notready", "ip=10.0.0.1", "uid=new"}
	rapid.Check(t, func(t *rapid.T) {
		set, twin := NewNodeSet(testGrace, testDrain), NewNodeSet(testGrace, testDrain)
		world := map[string]string{}
		now := testStart
		var last NodeView
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			changed := rapid.IntRange(0, 3).Draw(t, "what") > 0
			if changed {
				name := string(rune('a' + rapid.IntRange(0, 6).Draw(t, "node")))
				world[name] = rapid.SampledFrom(states).Draw(t, "state")
				if rapid.IntRange(0, 5).Draw(t, "gone") == 0 {
					delete(world, name)
				}
			}
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 29, 30, 31, 60, 61}).Draw(t, "seconds")) * time.Second)
			var nodes []*corev1.Node
			for name, state := range world {
				nodes = append(nodes, testNode(name+" "+state))
			}
			slices.SortFunc(nodes, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
			view := set.Observe(nodes, now)
			slices.Reverse(nodes)
			if diff := cmp.Diff(view.show(now), twin.Observe(nodes, now).show(now)); diff != "" {
				t.Fatalf("in another order: %s", diff)
			}

			enabled := 0
			addresses := map[netip.Addr]bool{}
			for _, n := range view.Nodes {
				if n.State == nsx.Enabled {
					enabled++
					if !n.InGroup {
						t.Fatalf("%s is enabled and not in the group", n.Name)
					}
				}
				if _, there := world[n.Name]; !there && len(view.Nodes) > 1 {
					t.Fatalf("%s is gone and still a member of %s", n.Name, view.show(now))
				}
				if len(n.Addresses) == 0 {
					t.Fatalf("%s has no address", n.Name)
				}
				for _, a := range n.Addresses {
					if addresses[a] {
						t.Fatalf("two members have %v", a)
					}
					addresses[a] = true
				}
			}
			if 2*enabled < len(view.Nodes) {
				t.Fatalf("%d enabled of %s", enabled, view.show(now))
			}
			if len(view.Nodes) == 0 && len(last.Nodes) > 0 {
				t.Fatalf("the set was emptied")
			}
			if !view.Next.IsZero() && !view.Next.After(now) {
				t.Fatalf("next change at %v, which is not after %v", view.Next, now)
			}
			quiet := last.Next.IsZero() || now.Before(last.Next)
			if i > 0 && !changed && quiet && !slices.EqualFunc(view.Nodes, last.Nodes, sameNode) {
				t.Fatalf("changed by itself from %s to %s", last.show(now), view.show(now))
			}
			last = view
		}
		// All fit again: all are in, and enabled.
		var nodes []*corev1.Node
		for i := range 7 {
			nodes = append(nodes, testNode(string(rune('a'+i))))
		}
		if got := set.Observe(nodes, now).show(now); got != "a b c d e f g" {
			t.Fatalf("all fit: %s", got)
		}
	})
}

// A steady state is the same set again for a new process: a restart writes nothing.
func TestNodeSetAfterRestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := NewNodeSet(testGrace, testDrain)
		n := rapid.IntRange(3, 8).Draw(t, "nodes")
		var before, after []*corev1.Node
		for i := range n {
			name := string(rune('a' + i))
			before = append(before, testNode(name))
			state := ""
			if i < n/2 {
				state = rapid.SampledFrom([]string{"", "notready=-", "excluded", "taint=-", "deleting=-"}).Draw(t, "state")
			}
			// Each began at 10 s or later, and all are through with draining by 300 s.
			began := strconv.Itoa(rapid.IntRange(10, 100).Draw(t, "second")) + "s"
			if strings.HasSuffix(state, "-") {
				state += began
			}
			after = append(after, testNode(name+" "+state))
		}
		set.Observe(before, testStart)
		now := testStart
		for now.Before(testStart.Add(300 * time.Second)) {
			now = now.Add(time.Second)
			var seen []*corev1.Node
			for i, a := range after {
				c := conditionOf(a)
				began := c.readySince
				if c.leaving {
					began = c.leavingSince
				}
				if began.After(now) {
					a = before[i]
				}
				seen = append(seen, a)
			}
			set.Observe(seen, now)
		}
		old := set.Observe(after, now).show(now)
		if fresh := NewNodeSet(testGrace, testDrain).Observe(after, now).show(now); fresh != old {
			t.Fatalf("before the restart %s, after it %s", old, fresh)
		}
	})
}

func BenchmarkNodeSet(b *testing.B) {
	var nodes []*corev1.Node
	for i := range 1000 {
		n := testNode("a")
		n.Name = fmt.Sprint("node-", i)
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.0.%d.%d", i/250, i%250)}}
		nodes = append(nodes, n)
	}
	s := NewNodeSet(testGrace, testDrain)
	for b.Loop() {
		s.Observe(nodes, testStart)
	}
}
