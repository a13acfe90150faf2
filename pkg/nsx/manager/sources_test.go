package manager_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

const (
	newSet   = "POST /ip-sets"
	newGroup = "POST /ns-groups"
	putSet   = "PUT /ip-sets/{id}"
	putGroup = "PUT /ns-groups/{id}"
	delSet   = "DELETE /ip-sets/{id}"
	delGroup = "DELETE /ns-groups/{id}"
)

// clients are Sources that let in these ranges alone.
func clients(ranges ...string) nsx.Sources {
	s := nsx.Sources{Restricted: true}
	for _, r := range ranges {
		s.Ranges = append(s.Ranges, netip.MustParsePrefix(r))
	}
	return s
}

// only is the virtual server at 10.0.0.n, for some clients alone.
func (w *world) only(n byte, ranges ...string) nsx.VirtualServer {
	v := w.tcp(n)
	v.Sources = clients(ranges...)
	return v
}

// change updates the only virtual server of a Service.
func (w *world) change(o nsx.Owner, v nsx.VirtualServer) error {
	w.t.Helper()
	v.ID, v.LBService = w.observed(o).ID, w.observed(o).LBService
	return w.Apply(w.t.Context(), nsx.Update{Owner: o, VirtualServers: []nsx.VirtualServer{v}, Changes: []string{"clients"}})
}

// lets are the addresses that NSX lets in to the only virtual server of a Service; nil for all.
func (w *world) lets(o nsx.Owner) []string {
	w.t.Helper()
	list, ok := w.sim.Get(nsxsim.KindVirtualServer, w.observed(o).ID)["access_list_control"].(map[string]any)
	if !ok {
		return nil
	}
	if list["action"] != "ALLOW" || list["enabled"] != true {
		w.t.Fatalf("access list of %s is %v", o, list)
	}
	group := w.sim.Get(nsxsim.KindNSGroup, list["group_id"].(string))
	members, _ := group["members"].([]any)
	if len(members) != 1 {
		w.t.Fatalf("group of %s is %v", o, group)
	}
	return w.sim.Get(nsxsim.KindIPSet, members[0].(map[string]any)["value"].(string)).Strings("ip_addresses")
}

func (w *world) wantLets(o nsx.Owner, want ...string) {
	w.t.Helper()
	if d := cmp.Diff(want, w.lets(o)); d != "" {
		w.t.Errorf("what %s lets in (-want +got):\n%s", o, d)
	}
}

func TestSourcesAreSharedByContent(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.must(w.publish(owner("open"), w.tcp(1)))
	w.sim.Journal().Reset()

	a, b := owner("a"), owner("b")
	w.must(w.publish(a, w.only(2, "192.0.2.0/24", "198.51.100.7/32")))
	w.wantWrites(map[string]int{newSet: 1, newGroup: 1, createVS: 1, allocate: 1, writeLB: 1})
	w.wantLets(a, "192.0.2.0/24", "198.51.100.7")
	w.must(w.publish(b, w.only(3, "192.0.2.0/24", "198.51.100.7/32")))
	w.wantWrites(map[string]int{createVS: 1, allocate: 1, writeLB: 1})
	w.wantLets(b, "192.0.2.0/24", "198.51.100.7")
	w.wantLets(owner("open"))

	w.restart()
	w.wantWrites(map[string]int{})
	if got, want := w.observed(a).Sources, w.only(2, "192.0.2.0/24", "198.51.100.7/32").Sources; !got.Equal(want) {
		t.Errorf("after a restart observed %v, want %v", got, want)
	}

	// A change makes another pair, whoever goes on to use the one before.
	w.must(w.change(a, w.only(2, "203.0.113.0/24")))
	w.wantWrites(map[string]int{newSet: 1, newGroup: 1, writeVS: 1})
	w.must(w.Tidy(t.Context()))
	w.wantWrites(map[string]int{})
	w.wantLets(a, "203.0.113.0/24")
	w.wantLets(b, "192.0.2.0/24", "198.51.100.7")

	w.must(w.change(b, w.only(3, "203.0.113.0/24")))
	w.wantWrites(map[string]int{writeVS: 1})
	w.must(w.Tidy(t.Context()))
	w.wantWrites(map[string]int{delGroup: 1, delSet: 1})

	w.must(w.change(a, w.tcp(2)))
	w.wantWrites(map[string]int{writeVS: 1})
	w.wantLets(a)
	w.must(w.Tidy(t.Context()))
	w.wantWrites(map[string]int{})

	for _, o := range []nsx.Owner{a, b, owner("open")} {
		w.must(w.withdraw(o))
	}
	w.wantGone()
}

// What is created or moved lets in those it is to let in before it carries traffic.
func TestSourcesAreInPlaceBeforeTraffic(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.must(w.publish(owner("web"), w.only(1, "192.0.2.0/24")))
	var ops []string
	for _, e := range w.sim.Journal().Entries() {
		ops = append(ops, e.Op)
	}
	order := []string{newSet, newGroup, createVS, allocate, writeLB}
	at := -1
	for _, op := range order {
		i := slices.Index(ops, op)
		if i <= at {
			t.Fatalf("calls %v, want in this order: %v", ops, order)
		}
		at = i
	}
}

// What somebody changes by hand is seen when the inventory is read, and put right by the next write, at the cost of what
// differs.
func TestSourcesEditedByHandAreRestored(t *testing.T) {
	somebody := func(w *world) nsxsim.Editor { return w.sim.As("somebody") }
	edit := func(kind nsxsim.Kind, change func(o nsxsim.Object)) func(w *world, o nsx.Owner) {
		return func(w *world, o nsx.Owner) {
			w.t.Helper()
			vs := w.sim.Get(nsxsim.KindVirtualServer, w.observed(o).ID)
			id := vs.ID()
			if kind != nsxsim.KindVirtualServer {
				id = vs["access_list_control"].(map[string]any)["group_id"].(string)
			}
			if kind == nsxsim.KindIPSet {
				id = w.sim.Get(nsxsim.KindNSGroup, id)["members"].([]any)[0].(map[string]any)["value"].(string)
			}
			_, err := somebody(w).Update(kind, id, change)
			w.must(err)
		}
	}
	list := func(key string, v any) func(w *world, o nsx.Owner) {
		return edit(nsxsim.KindVirtualServer, func(o nsxsim.Object) { o["access_list_control"].(map[string]any)[key] = v })
	}
	addresses := func(a ...string) func(w *world, o nsx.Owner) {
		return edit(nsxsim.KindIPSet, func(o nsxsim.Object) { o["ip_addresses"] = a })
	}
	tests := []struct {
		name   string
		change func(w *world, o nsx.Owner)
		writes map[string]int
	}{
		{"access list removed", edit(nsxsim.KindVirtualServer, func(o nsxsim.Object) { delete(o, "access_list_control") }), map[string]int{writeVS: 1}},
		{"access list switched off", list("enabled", false), map[string]int{writeVS: 1}},
		{"access list turned around", list("action", "DROP"), map[string]int{writeVS: 1}},
		{"access list of another group", func(w *world, o nsx.Owner) {
			theirs := nsxsim.Must(somebody(w).Create(nsxsim.KindNSGroup, nsxsim.Object{"display_name": "theirs"}))
			list("group_id", theirs.ID())(w, o)
		}, map[string]int{writeVS: 1}},
		{"a range more", addresses("192.0.2.0/24", "198.51.100.7", "10.0.0.0/8"), map[string]int{putSet: 1}},
		{"a range less", addresses("192.0.2.0/24"), map[string]int{putSet: 1}},
		{"everybody", addresses("0.0.0.0/0"), map[string]int{putSet: 1}},
		{"nobody", addresses(), map[string]int{putSet: 1}},
		{"the same, written otherwise", addresses("198.51.100.7/32", "192.0.2.0 - 192.0.2.127", "192.0.2.128/25"), map[string]int{}},
		{"the group without members", edit(nsxsim.KindNSGroup, func(o nsxsim.Object) { o["members"] = []any{} }), map[string]int{putGroup: 1}},
		{"a member more", func(w *world, o nsx.Owner) {
			set := nsxsim.Must(somebody(w).Create(nsxsim.KindIPSet, nsxsim.Object{"ip_addresses": []string{"10.0.0.0/8"}}))
			edit(nsxsim.KindNSGroup, func(o nsxsim.Object) {
				o["members"] = append(o["members"].([]any), map[string]any{"target_type": "IPSet", "target_property": "id", "op": "EQUALS", "value": set.ID()})
			})(w, o)
		}, map[string]int{putGroup: 1}},
		{"the set of other clients of ours", func(w *world, o nsx.Owner) {
			w.must(w.publish(owner("other"), w.only(2, "203.0.113.0/24")))
			for _, set := range w.Inventory().SourceSets() {
				if set.Sources.Equal(clients("203.0.113.0/24")) {
					edit(nsxsim.KindNSGroup, func(o nsxsim.Object) { o["members"].([]any)[0].(map[string]any)["value"] = set.ID })(w, o)
				}
			}
		}, map[string]int{putGroup: 1}},
		{"members by criteria besides", edit(nsxsim.KindNSGroup, func(o nsxsim.Object) {
			o["membership_criteria"] = []any{map[string]any{"resource_type": "NSGroupTagExpression", "target_type": "IPSet", "scope": "x"}}
		}), map[string]int{putGroup: 1}},
		{"tags taken away from the group", edit(nsxsim.KindNSGroup, func(o nsxsim.Object) { o["tags"] = []any{} }), map[string]int{newGroup: 1, writeVS: 1}},
		{"tags taken away from the set", edit(nsxsim.KindIPSet, func(o nsxsim.Object) { o["tags"] = []any{} }), map[string]int{newSet: 1, putGroup: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nsxsim.Options{})
			o, want := owner("web"), w.only(1, "192.0.2.0/24", "198.51.100.7/32")
			w.must(w.publish(o, want))
			tt.change(w, o)
			w.must(w.Load(t.Context()))
			if w.observed(o).Sources.Equal(want.Sources) != (len(tt.writes) == 0) {
				t.Fatalf("observed %v", w.observed(o).Sources)
			}
			w.sim.Journal().Reset()
			w.must(w.change(o, want))
			w.wantWrites(tt.writes)
			if !w.observed(o).Sources.Equal(want.Sources) {
				t.Errorf("observed %v afterwards", w.observed(o).Sources)
			}
			if len(tt.writes) > 0 {
				w.wantLets(o, "192.0.2.0/24", "198.51.100.7")
			}
			if w.count(nsxsim.KindVirtualServer) == 2 {
				w.wantLets(owner("other"), "203.0.113.0/24")
				w.must(w.withdraw(owner("other")))
			}
			w.must(w.withdraw(o))
			for _, g := range w.sim.List(nsxsim.KindNSGroup) {
				if len(g.Tags()) == 0 {
					w.must(somebody(w).Delete(nsxsim.KindNSGroup, g.ID())) // it may hold our IP set
				}
			}
			w.wantGone()
		})
	}
}

// An access list that somebody put on a Service without source ranges is theirs: it keeps clients out, for a reason.
func TestForeignAccessListsStay(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	o := owner("web")
	w.must(w.publish(o, w.tcp(1)))
	group := nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindNSGroup, nsxsim.Object{"display_name": "theirs"}))
	theirs := map[string]any{"action": "DROP", "enabled": true, "group_id": group.ID()}
	_, err := w.sim.As("somebody").Update(nsxsim.KindVirtualServer, w.observed(o).ID, func(o nsxsim.Object) { o["access_list_control"] = theirs })
	w.must(err)
	w.must(w.Load(t.Context()))
	if s := w.observed(o).Sources; s.Restricted {
		t.Errorf("observed %v", s)
	}
	v := w.tcp(1)
	v.Ports = []nsx.PortMap{{Port: 81, NodePort: 30081}}
	w.must(w.change(o, v))
	if d := cmp.Diff(any(theirs), w.sim.Get(nsxsim.KindVirtualServer, w.observed(o).ID)["access_list_control"]); d != "" {
		t.Errorf("access list (-want +got):\n%s", d)
	}
	w.must(w.Tidy(t.Context()))
	if w.sim.Get(nsxsim.KindNSGroup, group.ID()) == nil {
		t.Error("their group is gone")
	}
}

// A group of ours that somebody else uses too stays until they stop; all else that is unused goes.
func TestSourcesInUseElsewhere(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	a, b := owner("a"), owner("b")
	w.must(w.publish(a, w.only(1, "192.0.2.0/24")))
	w.must(w.publish(b, w.only(2, "198.51.100.0/24")))
	group := w.sim.Get(nsxsim.KindVirtualServer, w.observed(a).ID)["access_list_control"].(map[string]any)["group_id"]
	theirs := nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindNSGroup, nsxsim.Object{"members": []any{
		map[string]any{"target_type": "NSGroup", "target_property": "id", "op": "EQUALS", "value": group}}}))
	w.must(w.withdraw(a))
	w.must(w.withdraw(b))
	w.must(w.Tidy(t.Context()))
	if groups, sets := w.count(nsxsim.KindNSGroup), w.count(nsxsim.KindIPSet); groups != 1 || sets != 1 {
		t.Errorf("%d groups and %d IP sets are left, want the pair in use", groups, sets)
	}
	w.must(w.sim.As("somebody").Delete(nsxsim.KindNSGroup, theirs.ID()))
	w.wantGone()
}

// A virtual server of somebody else that uses our group is known, so that nothing is tried in vain.
func TestSourcesOfAForeignVirtualServer(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	o := owner("web")
	w.must(w.publish(o, w.only(1, "192.0.2.0/24")))
	theirs := nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindVirtualServer, nsxsim.Object{
		"ip_address": "10.0.9.9", "ip_protocol": "TCP", "ports": []string{"80"}, "application_profile_id": w.tcp(1).ApplicationProfile,
		"access_list_control": w.sim.Get(nsxsim.KindVirtualServer, w.observed(o).ID)["access_list_control"],
	}))
	w.must(w.Load(t.Context()))
	w.must(w.withdraw(o))
	w.sim.Journal().Reset()
	w.must(w.Tidy(t.Context()))
	w.wantWrites(map[string]int{delPool: 1, delMon: 1})
	w.must(w.sim.As("somebody").Delete(nsxsim.KindVirtualServer, theirs.ID()))
	w.must(w.Load(t.Context()))
	w.wantGone()
}

func TestTheLongestListOfSources(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	v := w.tcp(1)
	v.Sources.Restricted = true
	for i := range nsx.MaxRanges {
		v.Sources.Ranges = append(v.Sources.Ranges, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i / 128), byte(i % 128 * 2)}), 32))
	}
	w.must(w.publish(owner("web"), v))
	w.restart()
	if got := w.observed(owner("web")).Sources; !got.Equal(v.Sources) {
		t.Errorf("observed %v", got)
	}
}

func TestLostAnswersMakeNoSecondPair(t *testing.T) {
	for _, path := range []string{"/ip-sets", "/ns-groups"} {
		t.Run(path, func(t *testing.T) {
			w := newWorld(t, nsxsim.Options{})
			o := owner("web")
			w.fault(nsxsim.Rule{Method: http.MethodPost, Path: path, When: nsxsim.AfterCommit, Drop: true})
			w.wantErr(w.publish(o, w.only(1, "192.0.2.0/24")), nsx.ErrAmbiguous)
			w.settle(o)
			w.must(w.publish(o, w.only(1, "192.0.2.0/24")))
			if groups, sets := w.count(nsxsim.KindNSGroup), w.count(nsxsim.KindIPSet); groups != 1 || sets != 1 {
				t.Errorf("%d groups and %d IP sets, want one of each", groups, sets)
			}
			w.wantLets(o, "192.0.2.0/24")
			w.must(w.withdraw(o))
			w.wantGone()
		})
	}
}

// Halves of pairs and second pairs, as crashes and two leaders at once leave them, are used or deleted.
func TestLeftoverSourcesAreTidied(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	o := owner("web")
	w.fault(nsxsim.Rule{Method: http.MethodPost, Path: "/ns-groups", Status: http.StatusBadRequest})
	w.wantErr(w.publish(o, w.only(1, "192.0.2.0/24")), nsx.ErrInvalid)
	w.restart()
	w.sim.Journal().Reset()
	w.must(w.publish(o, w.only(1, "192.0.2.0/24")))
	if n := w.sim.Journal().Count(newSet); n != 0 {
		t.Errorf("%d IP sets made beside the one that was there", n)
	}

	other := w.backend("cluster-1") // has not seen what follows
	w.must(other.Load(t.Context()))
	w.must(other.SetNodes(t.Context(), nodes("a", "b")))
	w.must(w.publish(owner("second"), w.only(2, "198.51.100.0/24")))
	w.must(other.Apply(t.Context(), nsx.Publish{Owner: owner("third"), VirtualServers: []nsx.VirtualServer{w.only(3, "198.51.100.0/24")}}))
	w.restart()
	if n := w.count(nsxsim.KindNSGroup); n != 3 {
		t.Fatalf("%d groups, want two of the same clients and one more", n)
	}
	w.must(w.withdraw(owner("third")))
	w.must(w.Tidy(t.Context()))
	w.wantLets(o, "192.0.2.0/24")
	w.wantLets(owner("second"), "198.51.100.0/24")
	if groups, sets := w.count(nsxsim.KindNSGroup), w.count(nsxsim.KindIPSet); groups != 2 || sets != 2 {
		t.Errorf("%d groups and %d IP sets, want two of each", groups, sets)
	}
	w.must(w.withdraw(o))
	w.must(w.withdraw(owner("second")))
	w.wantGone()
}

// Services with the same clients that come at once share one pair; those with others do not wait for them.
func TestSourcesOfManyAtOnce(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			list := []string{"192.0.2.0/24", "198.51.100.0/24"}[i%2]
			if err := w.publish(owner(fmt.Sprint("web-", i)), w.only(byte(i+1), list)); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	if groups, sets := w.count(nsxsim.KindNSGroup), w.count(nsxsim.KindIPSet); groups != 2 || sets != 2 {
		t.Errorf("%d groups and %d IP sets, want two of each", groups, sets)
	}
}

func TestVersion(t *testing.T) {
	for _, c := range []struct {
		version string
		fault   int
		want    nsx.Version
	}{
		{"2.5", 0, nsx.Version{Major: 2, Minor: 5}},
		{"3.2", 0, nsx.Version{Major: 3, Minor: 2}},
		{"4.1", http.StatusForbidden, nsx.Version{}},
		{"4.1", http.StatusNotFound, nsx.Version{}},
	} {
		w := newWorld(t, nsxsim.Options{Version: c.version})
		if c.fault != 0 {
			w.fault(nsxsim.Rule{Method: http.MethodGet, Path: "/node/version", Status: c.fault})
		}
		w.must(w.Load(t.Context()))
		if got := w.Inventory().Version(); got != c.want {
			t.Errorf("%s, %d: got %v, want %v", c.version, c.fault, got, c.want)
		}
	}
}
