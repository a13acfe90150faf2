package nsxsim_test

import (
	"os"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
)

// loaded gives a simulator with the inventory of testdata.
func loaded(t *testing.T, o nsxsim.Options) *rig {
	t.Helper()
	text, err := os.ReadFile("testdata/inventory.yaml")
	if err != nil {
		t.Fatal(err)
	}
	inv, err := nsxsim.ParseInventory(text)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, o)
	if err := r.Load(inv); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestInventoryIsLoaded(t *testing.T) {
	r := loaded(t, nsxsim.Options{})
	lb := r.Get(nsxsim.KindLBService, "lb")
	vs := r.List(nsxsim.KindVirtualServer)[0]
	if diff := cmp.Diff([]string{vs.ID()}, lb.Strings("virtual_server_ids")); diff != "" {
		t.Errorf("virtual servers of the service (-want +got):\n%s", diff)
	}
	pool := r.Get(nsxsim.KindPool, vs.String("pool_id"))
	if pool.String("display_name") != "nodes" || pool.String("_create_user") != "nsx_policy" {
		t.Errorf("pool: %v", pool)
	}
	router := r.named(nsxsim.KindLogicalRouter, "tier-1")
	if got := r.Get(nsxsim.KindAdvertisement, router)["advertise_lb_vip"]; got != true {
		t.Errorf("advertise_lb_vip is %v", got)
	}
	if diff := cmp.Diff([]string{"192.168.100.10"}, r.Allocations(r.named(nsxsim.KindIPPool, "vips"))); diff != "" {
		t.Errorf("allocations (-want +got):\n%s", diff)
	}
	if a := r.do("DELETE", pools+"/"+pool.ID(), nil); a.status != 400 || a.code() != "289" {
		t.Errorf("the pool of another principal: %d %s", a.status, a.raw)
	}
}

func TestASnapshotMakesAnEqualSimulator(t *testing.T) {
	first := loaded(t, nsxsim.Options{})
	snap := first.Snapshot()
	second := newRig(t, nsxsim.Options{})
	if err := second.Load(snap); err != nil {
		t.Fatal(err)
	}
	strip := func(inv nsxsim.Inventory) map[string]nsxsim.Object {
		objects := map[string]nsxsim.Object{}
		for _, o := range inv.Objects {
			key := o.String("kind") + "/" + o.ID()
			for _, name := range []string{"_revision", "_create_time", "_last_modified_time"} {
				delete(o, name)
			}
			objects[key] = o
		}
		return objects
	}
	again := second.Snapshot()
	if diff := cmp.Diff(snap.Allocations, again.Allocations); diff != "" {
		t.Errorf("allocations (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(strip(snap), strip(again)); diff != "" {
		t.Errorf("objects (-first +second):\n%s", diff)
	}
}

func TestInventoryErrorsNameTheObject(t *testing.T) {
	for text, want := range map[string]string{
		"objects: [{kind: LbFrob}]":                                             `object 1 (LbFrob ): kind "LbFrob"`,
		"objects: [{kind: LbPool, display_name: p, algorithm: RANDOM}]":         "object 1 (LbPool p): ",
		"objects: [{kind: LbPool}, {kind: LbPool, active_monitor_ids: [nope]}]": "object 2 (LbPool ): ",
		"objects: [{kind: AdvertisementConfig, id: nope}]":                      "nope",
		"allocations: [{pool: nope, address: 10.0.0.1}]":                        "allocation 1 (10.0.0.1 of pool nope)",
		"objects: [{kind: LbService, virtual_server_ids: [true]}]":              "virtual_server_ids[0] must be a string",
		"objcts: []": "objcts",
		"objects: [{kind: LbVirtualServer, ip_address: 10.1.0.1, ports: ['80'], application_profile_id: default-tcp-lb-app-profile, pool_id: twin}, {kind: LbPool, display_name: twin}, {kind: LbPool, display_name: twin}]": "twin",
	} {
		inv, err := nsxsim.ParseInventory([]byte(text))
		if err == nil {
			err = newRig(t, nsxsim.Options{}).Load(inv)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", text, err, want)
		}
	}
}

func TestAdministrationOverHTTP(t *testing.T) {
	r := newRig(t, nsxsim.Options{Admin: true})
	if a := r.as("").do("GET", "/_nsxsim/state", nil); a.status != 401 {
		t.Errorf("without credentials: %d", a.status)
	}
	if a := r.as("auditor").do("GET", "/_nsxsim/state", nil); a.status != 403 {
		t.Errorf("by a user who may not write: %d", a.status)
	}
	if a := r.do("PUT", "/_nsxsim/faults", `[{"status":500,"bogus":1}]`); a.status != 400 {
		t.Errorf("a rule that is none: %d %s", a.status, a.raw)
	}
	if w := r.raw("PUT", "/_nsxsim/faults", `[{"path":"/loadbalancer/pools","status":500}]`); w.Code != 200 || !strings.Contains(w.Body.String(), "rule 1") {
		t.Errorf("a rule: %d %s", w.Code, w.Body)
	}
	r.create(monitors, doc{"resource_type": "LbTcpMonitor"})
	if a := r.do("GET", pools, nil); a.status != 500 {
		t.Errorf("the rule does not hold: %d", a.status)
	}
	r.raw("DELETE", "/_nsxsim/faults", "")
	r.ok("GET", pools, nil)

	journal := r.ok("GET", "/_nsxsim/journal", nil)
	want := map[string]any{"GET /loadbalancer/pools": 2.0, "POST /loadbalancer/monitors": 1.0}
	if diff := cmp.Diff(want, journal["counts"]); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	r.raw("DELETE", "/_nsxsim/journal", "")
	if got := r.Journal().Count(); got != 0 {
		t.Errorf("%d requests after the reset", got)
	}

	state := r.ok("GET", "/_nsxsim/state", nil)
	if got := len(state["objects"].([]any)); got != 4 { // edge cluster, tier-0 and its advertisement, monitor
		t.Errorf("%d objects, want 4: %v", got, state)
	}
	r.raw("POST", "/_nsxsim/pause", "")
	r.raw("POST", "/_nsxsim/resume", "")
	r.ok("GET", pools, nil)
}
