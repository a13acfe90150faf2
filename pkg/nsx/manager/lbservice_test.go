package manager_test

import (
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// TestLBServiceIsMadeOnATier1AndDeletedWhenEmpty: what we make we delete; what was there before we never do.
func TestLBServiceIsMadeOnATier1AndDeletedWhenEmpty(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	tier := nsxsim.Must(w.sim.AddTier1("t2")).ID()
	key := nsx.TierKey("t2", "MEDIUM")
	w.lbServices = []string{key, "lb"}
	w.restart()
	if room := w.Inventory().Room(key); room.Problem != "" || room.ID != "" || room.Free == 0 {
		t.Fatalf("room before it is made: %+v", room)
	}
	w.sim.Journal().Reset()
	v := w.tcp(1)
	v.LBService = key
	o := owner("web")
	w.must(w.publish(o, v))
	w.wantWrites(map[string]int{newMon: 1, newPool: 1, createVS: 1, allocate: 1, "POST /loadbalancer/services": 1, writeLB: 1})
	var made nsxsim.Object
	for _, s := range w.sim.List(nsxsim.KindLBService) {
		if s.ID() != w.lb {
			made = s
		}
	}
	at, _ := made["attachment"].(map[string]any)
	if made.String("size") != "MEDIUM" || at["target_id"] != tier || made.Tags()[nsx.TagClusterUID] != "cluster-1" {
		t.Fatalf("made %v", made)
	}

	w.restart() // another run of the controller takes it for its own
	if room := w.Inventory().Room(key); room.ID != made.ID() {
		t.Fatalf("room after a restart: %+v", room)
	}
	w.must(w.withdraw(o))
	w.must(w.Tidy(t.Context()))
	if got := w.sim.List(nsxsim.KindLBService); len(got) != 1 || got[0].ID() != w.lb {
		t.Fatalf("load-balancer services are %v, want the one that was there before", got)
	}
	if room := w.Inventory().Room(key); room.Problem != "" || room.ID != "" {
		t.Fatalf("room when it is gone again: %+v", room)
	}
}

func TestLBServicesThatCannotBeUsed(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	nsxsim.Must(w.sim.AddLBService("twin", "SMALL", nsxsim.Must(w.sim.AddTier1("t2")).ID()))
	nsxsim.Must(w.sim.AddLBService("twin", "SMALL", nsxsim.Must(w.sim.AddTier1("t3")).ID()))
	w.lbServices = []string{"lb", "none", "twin", nsx.TierKey("t2", "SMALL"), nsx.TierKey("t9", "SMALL")}
	w.restart()
	for key, want := range map[string]string{
		"lb":                       "",
		"none":                     "no load-balancer service with this id or display name",
		"twin":                     "2 load-balancer services have this display name",
		nsx.TierKey("t2", "SMALL"): "which the controller did not make",
		nsx.TierKey("t9", "SMALL"): "no tier-1 gateway with this id or display name",
	} {
		if got := w.Inventory().Room(key).Problem; (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: problem %q, want %q", key, got, want)
		}
	}
}
