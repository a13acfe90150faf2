package nsxsim_test

import (
	"fmt"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
)

// everything gives all objects of some kinds, as the API shows them.
func (r *rig) everything() map[string]nsxsim.Object {
	all := map[string]nsxsim.Object{}
	for _, k := range []nsxsim.Kind{nsxsim.KindLBService, nsxsim.KindVirtualServer, nsxsim.KindPool, nsxsim.KindIPPool,
		nsxsim.KindLogicalRouter, nsxsim.KindAdvertisement, nsxsim.KindEdgeCluster, nsxsim.KindMonitor, nsxsim.KindApplicationProfile} {
		for _, o := range r.List(k) {
			all[fmt.Sprintf("%s/%s", k, o.ID())] = o
		}
	}
	return all
}

func TestSnapshotAndRestore(t *testing.T) {
	r := newIPRig(t, nsxsim.Options{Admin: true})
	lb := nsxsim.Must(r.AddLBService("lb", "SMALL", nsxsim.Must(r.AddTier1("t1")).ID())).ID()
	foreign := r.as("nsx_policy").create(pools, doc{"display_name": "theirs"})
	pool := r.create(pools, doc{})
	vs := r.create(servers, r.tcpVS("10.1.0.1", []string{"80"}, doc{"pool_id": pool}))
	service := r.ok("GET", services+"/"+lb, nil)
	service["virtual_server_ids"] = []string{vs}
	r.ok("PUT", services+"/"+lb, service)
	r.allocate("10.9.0.2")

	before := r.everything()
	snapshot := r.raw("GET", "/_nsxsim/state", nil).Body.String()
	r.ok("PUT", pools+"/"+pool, doc{"_revision": 0, "display_name": "changed"})
	r.create(pools, doc{"display_name": "later"})
	r.allocate("10.9.0.3")

	if a := r.do("PUT", "/_nsxsim/state", snapshot); a.status != 200 {
		t.Fatalf("restore: %d %s", a.status, a.raw)
	}
	if diff := cmp.Diff(before, r.everything()); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"10.9.0.2"}, r.Allocations(r.List(nsxsim.KindIPPool)[0].ID())); diff != "" {
		t.Errorf("allocations (-want +got):\n%s", diff)
	}
	if got := r.search("display_name:later OR display_name:changed").ids(); got != "" {
		t.Errorf("search finds what is gone: %s", got)
	}
	if a := r.do("DELETE", pools+"/"+foreign, nil); a.status != 400 || a.code() != "289" {
		t.Errorf("the owner is lost: %d %s", a.status, a.raw)
	}
	if a := r.do("DELETE", servers+"/"+vs, nil); a.status != 400 {
		t.Errorf("the references are lost: %d", a.status)
	}
	if a := r.do("PUT", pools+"/"+pool, doc{"_revision": 1}); a.status != 412 {
		t.Errorf("the revision is that of after the snapshot: %d", a.status)
	}

	if a := r.do("PUT", "/_nsxsim/state", `{"objects":[{"kind":"LbPool"},{"kind":"LbFrob"}]}`); a.status != 400 {
		t.Errorf("restoring nonsense: %d", a.status)
	}
	if diff := cmp.Diff(before, r.everything()); diff != "" {
		t.Errorf("a failed restore changes things (-want +got):\n%s", diff)
	}
	if a := r.do("POST", "/_nsxsim/state", `{"objects":[{"kind":"LbPool","display_name":"more"}]}`); a.status != 200 {
		t.Errorf("adding: %d %s", a.status, a.raw)
	}
	if got := len(r.List(nsxsim.KindPool)); got != 3 {
		t.Errorf("%d pools after one was added, want 3", got)
	}
}

func TestReleasesNamedInShort(t *testing.T) {
	for name, want := range map[string]string{"2.5": "2.5.1.0.0.15314288", "3.2": nsxsim.DefaultVersion, "4.1": "4.1.0.0.0.21332672", "9.0": "9.0.0.0.0.24733065", "3.1.3": "3.1.3"} {
		r := newRig(t, nsxsim.Options{Version: name})
		o := r.ok("GET", "/node/version", nil)
		if o.String("node_version") != want || o.String("product_version") != want {
			t.Errorf("%s: %v", name, o)
		}
	}
}

func TestRestoreOfIntents(t *testing.T) {
	r := policyRig{newRig(t, nsxsim.Options{})}
	const kept, later = "/infra/lb-pools/kept", "/infra/lb-pools/later"
	r.must("PUT", kept, doc{"display_name": "one"})
	r.must("PUT", kept, doc{"display_name": "two", "_revision": 0})
	want := r.must("GET", kept, nil)
	snapshot := r.Snapshot()
	r.must("PUT", later, doc{})
	r.must("DELETE", kept, nil)
	if err := r.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, r.must("GET", kept, nil)); diff != "" {
		t.Errorf("restored (-want +got):\n%s", diff)
	}
	if a := r.call("GET", later, nil); a.status != 404 {
		t.Errorf("what came after the snapshot: %d, want 404", a.status)
	}
	var names []string
	for _, o := range r.List(nsxsim.KindPool) {
		names = append(names, o.String("display_name"))
	}
	if diff := cmp.Diff([]string{"two"}, names); diff != "" {
		t.Errorf("realised (-want +got):\n%s", diff)
	}
	// What the system owns is realised as before.
	r.must("GET", "/infra/lb-app-profiles/default-tcp-lb-app-profile", nil)
	r.must("PUT", "/infra/lb-virtual-servers/vs", doc{"ip_address": "10.1.0.1", "ports": []string{"80"},
		"application_profile_path": "/infra/lb-app-profiles/default-tcp-lb-app-profile"})
	if got := len(r.List(nsxsim.KindVirtualServer)); got != 1 {
		t.Errorf("%d virtual servers are realised, want 1", got)
	}
}
