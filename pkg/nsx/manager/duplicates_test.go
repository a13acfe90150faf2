package manager_test

import (
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// TestDuplicatesOfSharedObjectsGo: of each kind of shared object there is a second one with a lower id, as when NSX does a
// create after its outcome was looked up. What is used stays in use, whatever the ids; the others go.
func TestDuplicatesOfSharedObjectsGo(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	v, own := w.tcp(1), w.tcp(2)
	v.Affinity = 300 * time.Second
	own.Pool = localPool(30001)
	w.must(w.publish(owner("web"), v))
	w.must(w.publish(owner("own"), own))
	kinds := []nsxsim.Kind{nsxsim.KindPool, nsxsim.KindMonitor, nsxsim.KindNSGroup, nsxsim.KindIPSet, nsxsim.KindPersistenceProfile}
	used := map[nsxsim.Kind][]string{}
	for _, k := range kinds {
		for _, o := range w.sim.List(k) {
			if o.Tags()["nsxt.io/shared"] == "" {
				continue
			}
			used[k] = append(used[k], o.ID())
			twin := nsxsim.Object{}
			for field, value := range o {
				if field[0] != '_' {
					twin[field] = value
				}
			}
			twin["id"] = "0-" + string(k) // less than any that the simulator gives
			if got := nsxsim.Must(w.sim.As(nsxsim.DefaultUsername).Create(k, twin)).ID(); got >= o.ID() {
				t.Fatalf("the second has the id %s: the test proves nothing", got)
			}
		}
		if len(used[k]) != 1 {
			t.Fatalf("%d shared objects of kind %s, want 1", len(used[k]), k)
		}
	}
	w.must(w.Load(t.Context()))
	another, sticky := w.tcp(3), w.tcp(4)
	sticky.Affinity = v.Affinity
	w.must(w.publish(owner("another"), another)) // before anything is tidied
	w.must(w.publish(owner("sticky"), sticky))
	w.must(w.SetNodes(t.Context(), nodes("a", "b", "c")))
	w.must(w.Tidy(t.Context()))
	for _, k := range kinds {
		var left []string
		for _, o := range w.sim.List(k) {
			if o.Tags()["nsxt.io/shared"] != "" {
				left = append(left, o.ID())
			}
		}
		if len(left) != 1 || left[0] != used[k][0] {
			t.Errorf("%s: %v are left, want the one that was used, %s", k, left, used[k][0])
		}
	}
	if set := w.sim.Get(nsxsim.KindIPSet, used[nsxsim.KindIPSet][0]); len(set.Strings("ip_addresses")) != 3 {
		t.Errorf("the node group has %v, want three nodes", set.Strings("ip_addresses"))
	}
}
