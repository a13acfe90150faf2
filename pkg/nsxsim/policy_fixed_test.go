package nsxsim_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

const enforcementPoint = "/infra/sites/default/enforcement-points/default"

// The enforcement point shows the Manager's edge clusters, edge nodes and transport
// zones.
func TestPolicyShowsTheManager(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	zones := r.call("GET", enforcementPoint+"/transport-zones", nil).results()
	if len(zones) != 2 || zones[0].String("display_name") != "nsx-overlay-transportzone" || zones[0]["tz_type"] != "OVERLAY_STANDARD" || zones[1]["tz_type"] != "VLAN_BACKED" {
		t.Fatalf("transport zones: %v", zones)
	}
	if got := r.must("GET", zones[1].String("path"), nil); got["nsx_id"] != zones[1].ID() || got["resource_type"] != "PolicyTransportZone" {
		t.Errorf("one of them: %v", got)
	}
	nodes := r.call("GET", edgeClusters+r.EdgeClusterID()+"/edge-nodes", nil).results()
	if len(nodes) != 2 || nodes[1].String("display_name") != "edge-node-2" || nodes[1]["member_index"] != 1.0 || nodes[1].String("nsx_id") == "" {
		t.Errorf("edge nodes: %v", nodes)
	}
	r.refused(404, "600", "GET", enforcementPoint+"/transport-zones/none", nil)
	r.refused(404, "600", "GET", edgeClusters+"none/edge-nodes", nil)
	r.refused(404, "98", "GET", edgeClusters+r.EdgeClusterID()+"/frobs", nil)
	r.refused(405, "98", "DELETE", zones[0].String("path"), nil)
}

// Searches as Terraform's provider for NSX writes them.
func TestPolicyAnswersTerraformsSearches(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	r.must("PATCH", "/infra/tier-1s/t-1", doc{"display_name": "gateway(1)"})
	r.must("PATCH", "/infra/lb-pools/p", doc{"display_name": "gateway(1)"})
	made := r.create("/edge-clusters", doc{"display_name": "late"})
	find := func(query string) string {
		t.Helper()
		a := r.call("GET", "/search/query?query="+url.QueryEscape(query), "{}")
		if a.status != 200 {
			t.Fatalf("%s: %d %s", query, a.status, a.raw)
		}
		var paths []string
		for _, o := range a.results() {
			paths = append(paths, o.String("path"))
		}
		return strings.Join(paths, " ")
	}
	for query, want := range map[string]string{
		`resource_type:Tier1 AND display_name:gateway\(1\)* AND marked_for_delete:false AND path:\/infra*`:                   "/infra/tier-1s/t-1",
		`id:t\-1 AND marked_for_delete:false AND path:\/infra*`:                                                              "/infra/tier-1s/t-1",
		`resource_type:PolicyEdgeCluster AND display_name:edge\-cluster* AND marked_for_delete:false AND path:\/infra*`:      edgeClusters + r.EdgeClusterID(),
		`resource_type:PolicyEdgeCluster AND display_name:late* AND marked_for_delete:false AND path:\/infra*`:               edgeClusters + made,
		`resource_type:PolicyTransportZone AND display_name:nsx\-vlan* AND marked_for_delete:false AND tz_type:VLAN_BACKED`:  enforcementPoint + "/transport-zones/" + r.named(nsxsim.KindTransportZone, "nsx-vlan-transportzone"),
		`resource_type:LBFastTcpProfile AND display_name:default\-tcp\-lb\-app\-profile* AND marked_for_delete:false`:        tcpProfile,
		`resource_type:Tier1 AND display_name:gateway\(1\)* AND marked_for_delete:false AND path:\/global-infra*`:            "",
		`resource_type:LBPool AND marked_for_delete:false AND tags.scope:none`:                                               "",
		`nsx_id:` + strings.ReplaceAll(made, "-", `\-`) + ` AND marked_for_delete:false AND resource_type:PolicyEdgeCluster`: edgeClusters + made,
	} {
		if got := find(query); got != want {
			t.Errorf("%s finds %q, want %q", query, got, want)
		}
	}
	r.ok("DELETE", "/edge-clusters/"+made, nil)
	if got := find("resource_type:PolicyEdgeCluster AND display_name:late*"); got != "" {
		t.Errorf("after its deletion the search finds %s", got)
	}
}

func TestPolicySegments(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	vlan := enforcementPoint + "/transport-zones/" + r.named(nsxsim.KindTransportZone, "nsx-vlan-transportzone")
	r.must("PATCH", "/infra/tier-1s/t", "{}")
	r.must("PATCH", "/infra/segments/web", doc{"connectivity_path": "/infra/tier-1s/t", "subnets": []doc{{"gateway_address": "10.0.0.1/24"}}})
	if got := r.must("GET", "/infra/segments/web", nil); got["type"] != "ROUTED" || got["admin_state"] != "UP" || got["replication_mode"] != "MTEP" {
		t.Errorf("segment: %v", got)
	}
	if m := r.managerObject(nsxsim.KindLogicalSwitch, "/infra/segments/web"); m["transport_zone_id"] != r.named(nsxsim.KindTransportZone, "nsx-overlay-transportzone") || m["_create_user"] != "nsx_policy" {
		t.Errorf("its logical switch: %v", m)
	}
	r.must("PATCH", "/infra/segments/office", doc{"transport_zone_path": vlan, "vlan_ids": []string{"7"}})
	if m := r.managerObject(nsxsim.KindLogicalSwitch, "/infra/segments/office"); m["vlan"] != 7.0 {
		t.Errorf("its logical switch: %v", m)
	}
	r.refused(400, "255", "PATCH", "/infra/segments/x", doc{"transport_zone_path": vlan})
	r.refused(400, "500012", "PATCH", "/infra/segments/x", doc{"transport_zone_path": enforcementPoint + "/transport-zones/none"})
	r.refused(400, "500012", "PATCH", "/infra/segments/x", doc{"connectivity_path": "/infra/tier-1s/none"})
	r.refused(400, "500030", "DELETE", "/infra/tier-1s/t", nil)
	r.must("DELETE", "/infra/segments/web", nil)
	r.must("DELETE", "/infra/tier-1s/t", nil)
	again := newPolicyRig(t, nsxsim.Options{})
	if err := again.Load(r.Snapshot()); err != nil {
		t.Errorf("the snapshot does not load: %v", err)
	}
}

// A tree is held against revisions where the client wants that.
func TestPolicyTreesEnforceRevisions(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{Clock: clocktesting.NewFakeClock(time.Unix(1e9, 0))})
	tree := func(revision any) doc {
		return doc{"resource_type": "Infra", "children": []doc{{"resource_type": "ChildLBPool", "LBPool": doc{"id": "p", "_revision": revision}}}}
	}
	r.must("PATCH", "/infra?enforce_revision_check=true", tree(nil))
	r.must("PATCH", "/infra?enforce_revision_check=true", tree(0))
	r.refused(412, "206", "PATCH", "/infra?enforce_revision_check=true", tree(0))
	r.must("PATCH", "/infra?enforce_revision_check=false", tree(0))
	r.must("PATCH", "/infra", tree(0))
	if got := r.must("GET", "/infra/lb-pools/p", nil); got["_revision"] != 3.0 {
		t.Errorf("after four trees that were taken: %v", got)
	}
}
