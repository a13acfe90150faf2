package nsxsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// policyRig is a rig on the Policy API: paths are below /policy/api/v1.
type policyRig struct{ *rig }

func newPolicyRig(t *testing.T, o nsxsim.Options) policyRig {
	t.Helper()
	return policyRig{newRig(t, o)}
}

func (r policyRig) call(method, path string, body any, header ...string) answer {
	r.t.Helper()
	return r.do(method, "https://nsx/policy/api/v1"+path, body, header...)
}

func (r policyRig) must(method, path string, body any) nsxsim.Object {
	r.t.Helper()
	a := r.call(method, path, body)
	if a.status != http.StatusOK {
		r.t.Fatalf("%s %s: %d %s", method, path, a.status, a.raw)
	}
	return a.body
}

// refused fails the test unless the answer has the status and error code.
func (r policyRig) refused(status int, code, method, path string, body any) answer {
	r.t.Helper()
	a := r.call(method, path, body)
	if a.status != status || a.code() != code {
		r.t.Errorf("%s %s: %d %s, want %d with error %s", method, path, a.status, a.raw, status, code)
	}
	return a
}

func (r policyRig) entities(path string) []nsxsim.Object {
	r.t.Helper()
	a := r.call("GET", "/infra/realized-state/realized-entities?intent_path="+path, "{}")
	if a.status != http.StatusOK {
		r.t.Fatalf("realised entities of %s: %d %s", path, a.status, a.raw)
	}
	return a.results()
}

// realizedState is that of the first entity; empty when there is none.
func (r policyRig) realizedState(path string) string {
	r.t.Helper()
	for _, e := range r.entities(path) {
		return e.String("state")
	}
	return ""
}

// allocated is the address that an allocation was realised with.
func (r policyRig) allocated(path string) string {
	r.t.Helper()
	for _, e := range r.entities(path) {
		attributes, _ := e["extended_attributes"].([]any)
		for _, a := range attributes {
			if m := a.(map[string]any); m["key"] == "allocation_ip" {
				return m["values"].([]any)[0].(string)
			}
		}
	}
	return ""
}

const edgeClusters = "/infra/sites/default/enforcement-points/default/edge-clusters/"

// balancer makes a tier-1 with an edge cluster, and a load balancer service on it.
func (r policyRig) balancer(size string) {
	r.t.Helper()
	r.must("PATCH", "/infra/tier-1s/t1", doc{"route_advertisement_types": []string{"TIER1_LB_VIP", "TIER1_CONNECTED"}})
	r.must("PATCH", "/infra/tier-1s/t1/locale-services/default", doc{"edge_cluster_path": edgeClusters + r.EdgeClusterID()})
	r.must("PATCH", "/infra/lb-services/lb", doc{"connectivity_path": "/infra/tier-1s/t1", "size": size})
}

const tcpProfile = "/infra/lb-app-profiles/default-tcp-lb-app-profile"

func virtualServer(ip, port string, more doc) doc {
	d := doc{"ip_address": ip, "ports": []string{port}, "application_profile_path": tcpProfile}
	for k, v := range more {
		d[k] = v
	}
	return d
}

func TestPolicyObjects(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	got := r.must("PUT", "/infra/lb-pools/web", doc{"tags": []doc{{"scope": "s", "tag": "t"}}})
	for name, want := range (doc{"id": "web", "display_name": "web", "path": "/infra/lb-pools/web", "relative_path": "web", "parent_path": "/infra",
		"resource_type": "LBPool", "algorithm": "ROUND_ROBIN", "_revision": 0.0, "marked_for_delete": false, "_create_user": "admin"}) {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if len(got.String("unique_id")) != 36 || got["unique_id"] != got["realization_id"] {
		t.Errorf("unique_id %v, realization_id %v", got["unique_id"], got["realization_id"])
	}

	t.Run("PUT replaces, with the revision", func(t *testing.T) {
		r.refused(400, "500127", "PUT", "/infra/lb-pools/web", doc{"algorithm": "IP_HASH"})
		again := r.must("PUT", "/infra/lb-pools/web", doc{"algorithm": "IP_HASH", "_revision": 0})
		if again["_revision"] != 1.0 || again["unique_id"] != got["unique_id"] || again["tags"] != nil {
			t.Errorf("after the second PUT: %v", again)
		}
		r.refused(412, "206", "PUT", "/infra/lb-pools/web", doc{"_revision": 0})
	})
	t.Run("PATCH merges, without a revision", func(t *testing.T) {
		if a := r.call("PATCH", "/infra/lb-pools/web", doc{"description": "d", "min_active_members": 2, "_revision": 77}); a.status != 200 || a.raw != "" {
			t.Errorf("PATCH: %d %q, want 200 and no body", a.status, a.raw)
		}
		r.must("PATCH", "/infra/lb-pools/web", doc{"description": nil})
		after := r.must("GET", "/infra/lb-pools/web", "{}")
		if after["algorithm"] != "IP_HASH" || after["min_active_members"] != 2.0 || after["description"] != nil || after["_revision"] != 3.0 {
			t.Errorf("after two PATCHes: %v", after)
		}
	})
	t.Run("lists", func(t *testing.T) {
		for i := range 4 {
			r.must("PATCH", fmt.Sprintf("/infra/lb-pools/p%d", i), "{}")
		}
		first := r.call("GET", "/infra/lb-pools?page_size=3&include_mark_for_delete_objects=false&sort_ascending=true", "{}")
		if first.body["result_count"] != 5.0 || len(first.results()) != 3 {
			t.Errorf("first page: %s", first.raw)
		}
		second := r.call("GET", "/infra/lb-pools?page_size=3&cursor="+first.body.String("cursor"), nil)
		if got := second.results(); len(got) != 2 || got[1].ID() != "p3" || second.body["cursor"] != nil {
			t.Errorf("second page: %s", second.raw)
		}
	})
	t.Run("DELETE", func(t *testing.T) {
		if a := r.call("DELETE", "/infra/lb-pools/p0", nil); a.status != 200 || a.raw != "" {
			t.Errorf("DELETE: %d %q", a.status, a.raw)
		}
		r.refused(404, "600", "GET", "/infra/lb-pools/p0", nil)
		r.refused(404, "600", "DELETE", "/infra/lb-pools/p0", nil)
	})
}

func TestPolicyRefuses(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, tc := range []struct {
		rule, method, path string
		body               any
		status             int
		code, message      string
	}{
		{"a path that does not exist", "PATCH", "/infra/lb-pools/p", doc{"active_monitor_paths": []string{"/infra/lb-monitor-profiles/none"}}, 400, "500012", "The path=[/infra/lb-monitor-profiles/none] is invalid"},
		{"a path of another kind", "PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.0.0.1", "80", doc{"pool_path": tcpProfile}), 400, "500012", tcpProfile},
		{"a parent that does not exist", "PATCH", "/infra/ip-pools/none/ip-allocations/a", "{}", 400, "500012", "/infra/ip-pools/none"},
		{"a list in what does not exist", "GET", "/infra/ip-pools/none/ip-allocations", nil, 404, "600", "/infra/ip-pools/none"},
		{"an edge cluster that does not exist", "PATCH", "/infra/tier-1s/t/locale-services/l", doc{"edge_cluster_path": "/infra/sites/default/enforcement-point/default/edge-clusters/x"}, 400, "500012", "enforcement-point/"},
		{"what is referenced is not deleted", "DELETE", "/infra/lb-pools/used", nil, 400, "500030", "The object path=[/infra/lb-pools/used] cannot be deleted as either it has children or it is being referenced by other objects path=[/infra/lb-virtual-servers/user]"},
		{"what has children is not deleted", "DELETE", "/infra/ip-pools/i", nil, 400, "500030", "/infra/ip-pools/i/ip-subnets/s"},
		{"what the system owns is not deleted", "DELETE", tcpProfile, nil, 400, "500030", "system"},
		{"a field's value", "PATCH", "/infra/lb-pools/p", doc{"algorithm": "RANDOM"}, 400, "255", "algorithm must be one of"},
		{"a required field", "PATCH", "/infra/lb-virtual-servers/v", doc{"ports": []string{"80"}}, 400, "255", "ip_address is required"},
		{"an unknown type", "PATCH", "/infra/lb-monitor-profiles/m", doc{"resource_type": "LBFtpMonitorProfile"}, 400, "255", "LBFtpMonitorProfile"},
		{"no type where there are several", "PATCH", "/infra/lb-monitor-profiles/m", "{}", 400, "255", "resource_type is required"},
		{"another type", "PATCH", tcpProfile, doc{"resource_type": "LBHttpProfile"}, 400, "255", "cannot be changed"},
		{"an id that differs", "PUT", "/infra/lb-pools/p", doc{"id": "q"}, 400, "500100", "differs"},
		{"an id that is too long", "PUT", "/infra/lb-pools/" + long, "{}", 400, "255", "255 characters"},
		{"an id with a slash", "PUT", "/infra/lb-pools/a%2Fb", "{}", 400, "255", "slash"},
		{"no JSON", "PATCH", "/infra/lb-pools/p", "{", 400, "220", "parse"},
		{"an address and port that are taken", "PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.0.0.9", "79-81", nil), 400, "500101", "/infra/lb-virtual-servers/user"},
		{"ports of unequal shape", "PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.0.0.1", "80", doc{"default_pool_member_ports": []string{"1", "2"}}), 400, "255", "default_pool_member_ports"},
		{"layer 4 with cookies", "PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.0.0.1", "80", doc{"lb_persistence_profile_path": "/infra/lb-persistence-profiles/default-cookie-lb-persistence-profile"}), 400, "500100", "layer 4"},
		{"a second service on a tier-1", "PATCH", "/infra/lb-services/second", doc{"connectivity_path": "/infra/tier-1s/t"}, 400, "500101", "/infra/lb-services/lb"},
		{"members and a group", "PATCH", "/infra/lb-pools/p", doc{"members": []doc{{"ip_address": "10.0.0.1"}}, "member_group": doc{"group_path": "/infra/domains/default/groups/g"}}, 400, "255", "exclude"},
		{"a passive monitor that is active", "PATCH", "/infra/lb-pools/p", doc{"active_monitor_paths": []string{"/infra/lb-monitor-profiles/default-passive-lb-monitor"}}, 400, "500100", "passive"},
		{"a group in itself", "PATCH", "/infra/domains/default/groups/g", doc{"expression": []doc{{"resource_type": "PathExpression", "paths": []string{"/infra/domains/default/groups/outer"}}}}, 400, "500100", "itself"},
		{"criteria without an operator", "PATCH", "/infra/domains/default/groups/g", doc{"expression": []doc{{"resource_type": "IPAddressExpression"}, {"resource_type": "IPAddressExpression"}}}, 400, "500100", "conjunction"},
		{"a range outside of its subnet", "PATCH", "/infra/ip-pools/i/ip-subnets/s2", doc{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.1.0.0/24", "allocation_ranges": []doc{{"start": "10.2.0.1", "end": "10.2.0.2"}}}, 400, "500100", "does not lie"},
		{"ranges that overlap", "PATCH", "/infra/ip-pools/i/ip-subnets/s2", doc{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24", "allocation_ranges": []doc{{"start": "10.9.0.2", "end": "10.9.0.9"}}}, 400, "500100", "overlaps"},
		{"a block subnet", "PATCH", "/infra/ip-pools/i/ip-subnets/s2", doc{"resource_type": "IpAddressPoolBlockSubnet"}, 400, "255", "resource_type"},
		{"an unknown collection", "GET", "/infra/frobs", nil, 404, "98", "could not be found"},
		{"an unknown API", "GET", "/orgs", nil, 404, "98", "could not be found"},
		{"an empty segment", "GET", "/infra//lb-pools", nil, 404, "98", "could not be found"},
		{"POST on a collection", "POST", "/infra/lb-pools", "{}", 405, "98", "POST"},
		{"POST on an object", "POST", "/infra/lb-pools/used", "{}", 405, "98", "POST"},
		{"an unknown domain", "GET", "/infra/domains/other/groups", nil, 404, "98", "could not be found"},
		{"the state of nothing", "GET", "/infra/realized-state/realized-entities?intent_path=/infra/lb-pools/none", nil, 404, "600", "none"},
		{"the state of no path", "GET", "/infra/realized-state/status", nil, 400, "255", "intent_path"},
		{"the status of an unknown pool", "GET", "/infra/lb-services/lb/lb-pools/none/detailed-status", nil, 404, "600", "none"},
		{"a tree of another type", "PATCH", "/infra", doc{"resource_type": "LBPool"}, 400, "255", "Infra"},
		{"a child of the wrong parent", "PATCH", "/infra", doc{"children": []doc{{"resource_type": "ChildGroup", "Group": doc{"id": "x"}}}}, 400, "255", "ChildGroup"},
		{"a child without an id", "PATCH", "/infra", doc{"children": []doc{{"resource_type": "ChildLBPool", "LBPool": doc{}}}}, 400, "255", "LBPool.id"},
		{"children that are none", "PATCH", "/infra", doc{"children": 3}, 400, "255", "children"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			r := newPolicyRig(t, nsxsim.Options{})
			r.must("PATCH", "/infra/lb-pools/used", "{}")
			r.must("PATCH", "/infra/lb-virtual-servers/user", virtualServer("10.0.0.9", "80", doc{"pool_path": "/infra/lb-pools/used"}))
			r.must("PATCH", "/infra/tier-1s/t", "{}")
			r.must("PATCH", "/infra/lb-services/lb", doc{"connectivity_path": "/infra/tier-1s/t"})
			r.must("PATCH", "/infra/domains/default/groups/g", "{}")
			r.must("PATCH", "/infra/domains/default/groups/outer", doc{"expression": []doc{{"resource_type": "PathExpression", "paths": []string{"/infra/domains/default/groups/g"}}}})
			r.must("PATCH", "/infra/ip-pools/i", "{}")
			r.must("PATCH", "/infra/ip-pools/i/ip-subnets/s", doc{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24", "allocation_ranges": []doc{{"start": "10.9.0.1", "end": "10.9.0.3"}}})
			if a := r.refused(tc.status, tc.code, tc.method, tc.path, tc.body); !strings.Contains(a.message(), tc.message) {
				t.Errorf("message %q, want %q in it", a.message(), tc.message)
			}
		})
	}
}

// An intent becomes objects of the Manager API, which belong to nsx_policy.
func TestPolicyIsRealizedInTheManager(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	r.balancer("SMALL")
	r.must("PATCH", "/infra/domains/default/groups/clients", doc{"expression": []doc{{"resource_type": "IPAddressExpression", "ip_addresses": []string{"10.5.0.0/16"}}}})
	r.must("PATCH", "/infra/domains/default/groups/all", doc{"expression": []doc{
		{"resource_type": "PathExpression", "paths": []string{"/infra/domains/default/groups/clients"}},
		{"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"},
		{"resource_type": "IPAddressExpression", "ip_addresses": []string{"10.6.0.1"}}}})
	r.must("PATCH", "/infra/lb-monitor-profiles/m", doc{"resource_type": "LBHttpMonitorProfile", "monitor_port": 10256, "request_url": "/healthz"})
	r.must("PATCH", "/infra/lb-pools/web", doc{"active_monitor_paths": []string{"/infra/lb-monitor-profiles/m"}, "snat_translation": doc{"type": "LBSnatAutoMap"},
		"members": []doc{{"ip_address": "10.0.0.1", "port": "8080"}, {"ip_address": "10.0.0.2"}}})
	r.must("PATCH", "/infra/lb-virtual-servers/web", virtualServer("10.1.0.1", "80", doc{"pool_path": "/infra/lb-pools/web", "lb_service_path": "/infra/lb-services/lb",
		"lb_persistence_profile_path": "/infra/lb-persistence-profiles/default-source-ip-lb-persistence-profile", "tags": []doc{{"scope": "owner", "tag": "me"}},
		"access_list_control": doc{"action": "ALLOW", "enabled": true, "group_path": "/infra/domains/default/groups/all"}}))

	manager := func(path string) nsxsim.Object { // of an intent, in the Manager API
		t.Helper()
		entities := r.entities(path)
		if len(entities) == 0 || entities[0].String("state") != "REALIZED" {
			t.Fatalf("%s is not realised: %v", path, entities)
		}
		last := entities[len(entities)-1]
		return r.ok("GET", strings.TrimPrefix(last.String("realization_api"), "/api/v1"), nil)
	}
	vs, pool, service := manager("/infra/lb-virtual-servers/web"), manager("/infra/lb-pools/web"), manager("/infra/lb-services/lb")
	router, group := manager("/infra/tier-1s/t1"), manager("/infra/domains/default/groups/all")
	if vs["_create_user"] != "nsx_policy" || vs["_protection"] != "REQUIRE_OVERRIDE" || vs["ip_protocol"] != "TCP" || vs["pool_id"] != pool.ID() ||
		vs.Tags()["owner"] != "me" || vs.Tags()["policyPath"] != "/infra/lb-virtual-servers/web" {
		t.Errorf("virtual server: %v", vs)
	}
	if id := r.must("GET", "/infra/lb-virtual-servers/web", nil)["unique_id"]; id != vs.ID() {
		t.Errorf("the virtual server's id is %s, the intent's unique_id %s", vs.ID(), id)
	}
	if got := service.Strings("virtual_server_ids"); len(got) != 1 || got[0] != vs.ID() {
		t.Errorf("the service has %v", got)
	}
	if got := service["attachment"].(map[string]any)["target_id"]; got != router.ID() || router["edge_cluster_id"] != r.EdgeClusterID() {
		t.Errorf("the service is attached to %v; router: %v", got, router)
	}
	if adv := r.ok("GET", "/logical-routers/"+router.ID()+"/routing/advertisement", nil); adv["enabled"] != true || adv["advertise_lb_vip"] != true || adv["advertise_nat_routes"] != false {
		t.Errorf("advertisement: %v", adv)
	}
	monitor := r.ok("GET", monitors+"/"+pool.Strings("active_monitor_ids")[0], nil)
	if monitor["resource_type"] != "LbHttpMonitor" || monitor["monitor_port"] != "10256" {
		t.Errorf("monitor: %v", monitor)
	}
	effective := r.do("GET", "/ns-groups/"+group.ID()+"/effective-ip-address-members", nil)
	if diff := cmp.Diff([]any{"10.5.0.0/16", "10.6.0.1"}, effective.body["results"]); diff != "" {
		t.Errorf("addresses of the group (-want +got):\n%s", diff)
	}
	if got := r.call("GET", "/infra/domains/default/groups/all/members/ip-addresses", nil); got.body["result_count"] != 2.0 {
		t.Errorf("addresses by policy: %s", got.raw)
	}

	t.Run("the Manager API protects it", func(t *testing.T) {
		vs["description"] = "drift"
		if a := r.do("PUT", servers+"/"+vs.ID(), vs); a.status != 400 || a.code() != "289" {
			t.Errorf("PUT: %d %s", a.status, a.raw)
		}
		if a := r.do("DELETE", servers+"/"+vs.ID(), nil); a.status != 400 || a.code() != "289" {
			t.Errorf("DELETE: %d %s", a.status, a.raw)
		}
		if a := r.do("PUT", servers+"/"+vs.ID(), vs, "X-Allow-Overwrite", "true"); a.status != 200 {
			t.Errorf("PUT with X-Allow-Overwrite: %d %s", a.status, a.raw)
		}
		r.must("PATCH", "/infra/lb-virtual-servers/web", doc{"display_name": "renamed"})
		if got := manager("/infra/lb-virtual-servers/web"); got["description"] != nil || got["display_name"] != "renamed" {
			t.Errorf("the intent does not prevail: %v", got)
		}
	})
	t.Run("status", func(t *testing.T) {
		status := r.call("GET", "/infra/lb-services/lb/detailed-status?source=realtime", nil).results()[0]
		if status["service_status"] != "UP" || status["resource_type"] != "LBServiceStatus" {
			t.Errorf("service: %v", status)
		}
		server := r.call("GET", "/infra/lb-services/lb/lb-virtual-servers/web/detailed-status", nil).results()[0]
		if server["status"] != "UP" || server["virtual_server_path"] != "/infra/lb-virtual-servers/web" || server["virtual_server_id"] != nil {
			t.Errorf("virtual server: %v", server)
		}
		p := r.call("GET", "/infra/lb-services/lb/lb-pools/web/detailed-status", nil)
		if got := p.results()[0]; got["status"] != "UP" || got["pool_path"] != "/infra/lb-pools/web" || len(got["members"].([]any)) != 2 {
			t.Errorf("pool: %s", p.raw)
		}
		usage := r.call("GET", "/infra/lb-services/lb/service-usage", nil).results()[0]
		if usage["current_pool_member_count"] != 2.0 || usage["virtual_server_capacity"] != 20.0 || usage["service_path"] != "/infra/lb-services/lb" {
			t.Errorf("usage: %v", usage)
		}
		for _, path := range []string{"/statistics", "/lb-virtual-servers/web/statistics", "/lb-pools/web/statistics"} {
			if got := r.call("GET", "/infra/lb-services/lb"+path, nil).results(); len(got) != 1 || got[0]["statistics"] == nil {
				t.Errorf("%s: %v", path, got)
			}
		}
	})
	t.Run("it goes as it came", func(t *testing.T) {
		r.must("PATCH", "/infra/lb-virtual-servers/web", doc{"lb_service_path": nil})
		if got := manager("/infra/lb-services/lb").Strings("virtual_server_ids"); len(got) != 0 {
			t.Errorf("the service still has %v", got)
		}
		for _, path := range []string{"/infra/lb-virtual-servers/web", "/infra/lb-pools/web", "/infra/lb-monitor-profiles/m", "/infra/lb-services/lb",
			"/infra/tier-1s/t1/locale-services/default", "/infra/tier-1s/t1", "/infra/domains/default/groups/all", "/infra/domains/default/groups/clients"} {
			r.must("DELETE", path, nil)
		}
		for _, k := range []nsxsim.Kind{nsxsim.KindVirtualServer, nsxsim.KindPool, nsxsim.KindLBService, nsxsim.KindNSGroup, nsxsim.KindIPSet} {
			if left := r.List(k); len(left) != 0 {
				t.Errorf("left over: %v", left)
			}
		}
		if got := len(r.List(nsxsim.KindLogicalRouter)); got != 1 {
			t.Errorf("%d logical routers are left, want the tier-0", got)
		}
	})
}

func TestPolicyAllocatesAddresses(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	r.must("PATCH", "/infra/ip-pools/vips", "{}")
	const a, b, c = "/infra/ip-pools/vips/ip-allocations/a", "/infra/ip-pools/vips/ip-allocations/b", "/infra/ip-pools/vips/ip-allocations/c"
	r.must("PATCH", a, "{}")
	if got := r.realizedState(a); got != "ERROR" {
		t.Errorf("an allocation from a pool without a subnet is %q", got)
	}
	r.must("PATCH", "/infra/ip-pools/vips/ip-subnets/s", doc{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24",
		"allocation_ranges": []doc{{"start": "10.9.0.1", "end": "10.9.0.2"}}})
	if got := r.allocated(a); got != "10.9.0.1" {
		t.Errorf("with the subnet there, a is %q", got)
	}
	r.must("PUT", b, doc{"allocation_ip": "10.9.0.2", "tags": []doc{{"scope": "x", "tag": "y"}}})
	r.must("PATCH", b, doc{"allocation_ip": "10.9.0.1"}) // what is made is not changed
	if got := r.allocated(b); got != "10.9.0.2" {
		t.Errorf("b is %q", got)
	}
	r.must("PATCH", c, "{}")
	entity := r.entities(c)[0]
	if alarms, _ := entity["alarms"].([]any); entity["state"] != "ERROR" || len(alarms) != 1 || r.allocated(c) != "" {
		t.Errorf("an allocation from an exhausted pool: %v", entity)
	}
	if got := r.must("GET", "/infra/realized-state/status?intent_path="+c, nil); got["publish_status"] != "ERROR" {
		t.Errorf("status: %v", got)
	}
	usage := r.must("GET", "/infra/ip-pools/vips", nil)["pool_usage"].(map[string]any)
	if usage["allocated_ip_allocations"] != 2.0 || usage["available_ips"] != 0.0 {
		t.Errorf("usage: %v", usage)
	}
	r.must("DELETE", a, nil)
	if got := len(r.call("GET", "/infra/ip-pools/vips/ip-allocations", nil).results()); got != 2 {
		t.Errorf("%d allocations are listed", got)
	}
	pool := r.must("GET", "/infra/ip-pools/vips", nil).String("unique_id")
	if diff := cmp.Diff([]string{"10.9.0.2"}, r.Allocations(pool)); diff != "" {
		t.Errorf("allocations of the Manager's pool (-want +got):\n%s", diff)
	}
}

// What cannot be realised is tried again when its time comes.
func TestPolicyTriesAgain(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	r := newPolicyRig(t, nsxsim.Options{Clock: clock})
	theirs := r.create(servers, r.tcpVS("10.1.0.1", []string{"80"}, nil))
	r.must("PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.1.0.1", "80", nil))
	if got := r.realizedState("/infra/lb-virtual-servers/v"); got != "ERROR" {
		t.Errorf("an address that the Manager API has taken: %q", got)
	}
	r.ok("DELETE", servers+"/"+theirs, nil)
	clock.Step(5 * time.Second)
	if got := r.realizedState("/infra/lb-virtual-servers/v"); got != "REALIZED" {
		t.Errorf("after the address is free: %q", got)
	}
}

func TestPolicyKeepsToTheCapacity(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{Capacity: map[string]nsxsim.Capacity{"SMALL": {VirtualServers: 1, Pools: 1, Members: 1}}})
	r.balancer("SMALL")
	for i, want := range []string{"REALIZED", "ERROR"} {
		path := fmt.Sprintf("/infra/lb-virtual-servers/v%d", i)
		r.must("PATCH", path, virtualServer(fmt.Sprintf("10.1.0.%d", i), "80", doc{"lb_service_path": "/infra/lb-services/lb"}))
		if got := r.realizedState(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	r.must("DELETE", "/infra/lb-virtual-servers/v0", nil)
	r.must("PATCH", "/infra/lb-virtual-servers/v1", "{}")
	if got := r.realizedState("/infra/lb-virtual-servers/v1"); got != "REALIZED" {
		t.Errorf("when there is room again: %q", got)
	}
}

func TestPolicyRealizesAfterADelay(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	r := newPolicyRig(t, nsxsim.Options{Clock: clock, RealizationDelay: 300 * time.Millisecond})
	r.must("PATCH", "/infra/lb-pools/web", "{}")
	if got := r.entities("/infra/lb-pools/web"); len(got) != 0 || len(r.List(nsxsim.KindPool)) != 0 {
		t.Errorf("realised at once: %v", got)
	}
	status := r.must("GET", "/infra/realized-state/status?intent_path=/infra/lb-pools/web", nil)
	if status["publish_status"] != "UNREALIZED" {
		t.Errorf("status: %v", status)
	}
	clock.Step(300 * time.Millisecond)
	if got := r.realizedState("/infra/lb-pools/web"); got != "REALIZED" || len(r.List(nsxsim.KindPool)) != 1 {
		t.Errorf("after the delay: %q", got)
	}
	r.must("DELETE", "/infra/lb-pools/web", nil)
	r.must("PUT", "/infra/lb-pools/web", "{}") // another of the same path
	if got := len(r.List(nsxsim.KindPool)); got != 1 {
		t.Errorf("%d pools while the change waits", got)
	}
	old := r.List(nsxsim.KindPool)[0].ID()
	clock.Step(300 * time.Millisecond)
	if got := r.List(nsxsim.KindPool); len(got) != 1 || got[0].ID() == old {
		t.Errorf("after the change: %v, which was %s", got, old)
	}
}

// Nobody needs to ask for intents to be realised.
func TestPolicyIsRealizedByItself(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	r := newPolicyRig(t, nsxsim.Options{Clock: clock, RealizationDelay: time.Second})
	r.must("PATCH", "/infra/lb-pools/web", "{}")
	deadline := time.Now().Add(10 * time.Second)
	for !clock.HasWaiters() {
		if time.Now().After(deadline) {
			t.Fatal("nothing waits for the time to come")
		}
		time.Sleep(time.Millisecond)
	}
	clock.Step(time.Second)
	for clock.HasWaiters() { // it ends when nothing is left to be realised
		if time.Now().After(deadline) {
			t.Fatal("it still waits")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestPolicyTrees(t *testing.T) {
	child := func(name string, more doc) doc {
		return doc{"resource_type": "Child" + name, name: more}
	}
	gone := func(name, id string) doc {
		return doc{"resource_type": "Child" + name, "marked_for_delete": true, name: doc{"resource_type": name, "id": id}}
	}
	tree := func(children ...doc) doc { return doc{"resource_type": "Infra", "children": children} }
	r := newPolicyRig(t, nsxsim.Options{})
	r.balancer("SMALL")
	group := doc{"resource_type": "ChildResourceReference", "id": "default", "target_type": "Domain", "children": []doc{
		child("Group", doc{"resource_type": "Group", "id": "g", "expression": []doc{{"resource_type": "IPAddressExpression", "ip_addresses": []string{"10.0.0.7"}}}})}}
	everything := tree(
		child("LBVirtualServer", virtualServer("10.1.0.1", "80", doc{"id": "web", "resource_type": "LBVirtualServer", "pool_path": "/infra/lb-pools/web", "lb_service_path": "/infra/lb-services/lb"})),
		child("LBPool", doc{"id": "web", "resource_type": "LBPool", "member_group": doc{"group_path": "/infra/domains/default/groups/g"}}),
		group,
		child("IpAddressPool", doc{"id": "vips", "resource_type": "IpAddressPool", "children": []doc{
			child("IpAddressAllocation", doc{"id": "a", "resource_type": "IpAddressAllocation"}),
			child("IpAddressPoolSubnet", doc{"id": "s", "resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24", "allocation_ranges": []doc{{"start": "10.9.0.1", "end": "10.9.0.2"}}})}}),
		doc{"resource_type": "ChildResourceReference", "id": "t1", "target_type": "Tier1", "children": []doc{
			child("StaticRoutes", doc{"id": "r", "resource_type": "StaticRoutes", "network": "10.1.0.0/24", "next_hops": []doc{{"ip_address": "10.1.0.1"}}})}},
	)
	if a := r.call("PATCH", "/infra", everything); a.status != 200 || a.raw != "" {
		t.Fatalf("PATCH: %d %s", a.status, a.raw)
	}
	for _, path := range []string{"/infra/lb-virtual-servers/web", "/infra/lb-pools/web", "/infra/domains/default/groups/g", "/infra/ip-pools/vips/ip-allocations/a", "/infra/tier-1s/t1/static-routes/r"} {
		if got := r.realizedState(path); got != "REALIZED" {
			t.Errorf("%s is %q", path, got)
		}
	}
	t.Run("all or nothing", func(t *testing.T) {
		before := r.Snapshot()
		broken := tree(
			child("LBPool", doc{"id": "web", "resource_type": "LBPool", "description": "changed"}),
			child("LBPool", doc{"id": "new", "resource_type": "LBPool"}),
			gone("LBVirtualServer", "web"),
			child("LBPool", doc{"id": "bad", "resource_type": "LBPool", "passive_monitor_path": "/infra/none"}),
		)
		r.refused(400, "500012", "PATCH", "/infra", broken)
		if diff := cmp.Diff(before, r.Snapshot()); diff != "" {
			t.Errorf("something is left of a refused tree (-before +after):\n%s", diff)
		}
		r.refused(400, "500030", "PATCH", "/infra", tree(gone("LBPool", "web")))
	})
	t.Run("read back", func(t *testing.T) {
		infra := r.must("GET", "/infra?type_filter=LBPool%3BIpAddressPool%3BIpAddressAllocation", nil)
		children, _ := infra["children"].([]any)
		if len(children) != 2 {
			t.Fatalf("children: %v", children)
		}
		pool := children[0].(map[string]any)["IpAddressPool"].(map[string]any)
		if below, _ := pool["children"].([]any); len(below) != 1 {
			t.Errorf("the IP pool has %v, want its allocation", below)
		}
	})
	t.Run("deletion", func(t *testing.T) {
		allocation := doc{"resource_type": "ChildIpAddressPool", "marked_for_delete": true, "IpAddressPool": doc{"id": "vips", "children": []doc{
			gone("IpAddressAllocation", "a"), gone("IpAddressPoolSubnet", "s")}}}
		r.must("PATCH", "/infra", tree(gone("LBPool", "web"), allocation, gone("LBVirtualServer", "web"), child("LBPool", doc{"id": "other"})))
		if got := r.List(nsxsim.KindPool); len(got) != 1 || got[0].String("display_name") != "other" {
			t.Errorf("pools: %v", got)
		}
		if len(r.List(nsxsim.KindVirtualServer)) != 0 || len(r.List(nsxsim.KindIPPool)) != 0 {
			t.Error("virtual servers or IP pools are left")
		}
	})
}

func TestPolicyFixedParts(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	clusters := r.call("GET", strings.TrimSuffix(edgeClusters, "/"), nil).results()
	if len(clusters) != 1 || clusters[0].String("path") != edgeClusters+r.EdgeClusterID() {
		t.Errorf("edge clusters: %v", clusters)
	}
	for _, path := range []string{edgeClusters + r.EdgeClusterID(), "/infra", "/infra/domains", "/infra/domains/default", "/infra/sites", "/infra/sites/default", "/infra/sites/default/enforcement-points"} {
		r.must("GET", path, "{}")
	}
	r.refused(404, "600", "GET", edgeClusters+"none", nil)
	r.refused(405, "98", "PUT", "/infra/domains/default", "{}")
	if got := r.must("GET", "/infra/lb-monitor-profiles/default-tcp-lb-monitor", nil); got["resource_type"] != "LBTcpMonitorProfile" || got["_system_owned"] != true {
		t.Errorf("a system monitor: %v", got)
	}
	if got := r.realizedState(tcpProfile); got != "REALIZED" {
		t.Errorf("the system's profile is %q", got)
	}
}

func TestPolicySearch(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	r.must("PATCH", "/infra/lb-pools/a", doc{"tags": []doc{{"scope": "s", "tag": "t"}}})
	r.must("PATCH", "/infra/lb-pools/b", "{}")
	got := r.call("GET", "/search/query?query=resource_type:LBPool%20AND%20tags.scope:s", "{}")
	if found := got.results(); got.body["result_count"] != 1.0 || found[0].String("path") != "/infra/lb-pools/a" {
		t.Errorf("search: %s", got.raw)
	}
	if found := r.do("GET", "/search/query?query=resource_type:LbPool", nil).results(); len(found) != 2 || found[0]["path"] != nil {
		t.Errorf("the Manager's search finds %v, want the two that were realised", found)
	}
}

func TestPolicyByRelease(t *testing.T) {
	t.Run("2.3 has none", func(t *testing.T) {
		r := newPolicyRig(t, nsxsim.Options{Version: "2.3.1"})
		r.refused(404, "98", "GET", "/infra/lb-pools", nil)
		if _, err := r.As("admin").PutIntent("/infra/lb-pools/p", nil); err == nil {
			t.Error("an intent is taken")
		}
	})
	t.Run("9.0 has nothing else", func(t *testing.T) {
		r := newPolicyRig(t, nsxsim.Options{Version: "9.0.0"})
		r.balancer("SMALL")
		r.must("PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.1.0.1", "80", doc{"lb_service_path": "/infra/lb-services/lb"}))
		if got := r.realizedState("/infra/lb-virtual-servers/v"); got != "REALIZED" {
			t.Errorf("virtual server: %q", got)
		}
		if got := r.must("GET", "/infra/tier-0s/tier-0", nil); got["ha_mode"] != "ACTIVE_STANDBY" {
			t.Errorf("tier-0: %v", got)
		}
		if a := r.do("GET", servers, nil); a.status != 404 || a.code() != "98" {
			t.Errorf("the Manager API: %d %s", a.status, a.raw)
		}
	})
}

func TestPolicyKeepsTheRulesOfRequests(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	for user, want := range map[string]int{"auditor": 403, "nobody": 403, "other": 200} {
		if a := (policyRig{r.as(user)}).call("PUT", "/infra/lb-pools/p", "{}"); a.status != want {
			t.Errorf("%s: %d, want %d", user, a.status, want)
		}
	}
	if _, err := r.Faults().Add(nsxsim.Rule{Path: "/policy/api/v1/infra/lb-pools/*", Method: "PATCH", Status: 503, Nth: 1}); err != nil {
		t.Fatal(err)
	}
	if a := r.call("PATCH", "/infra/lb-pools/q", "{}"); a.status != 503 {
		t.Errorf("with a fault: %d", a.status)
	}
	if got := r.Journal().Count("PATCH /policy/api/v1/infra/lb-pools/{id}"); got != 1 {
		t.Errorf("the journal counts %d: %v", got, r.Journal().Counts())
	}
}

func TestPolicySnapshot(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	r.balancer("SMALL")
	r.must("PATCH", "/infra/ip-pools/vips", "{}")
	r.must("PATCH", "/infra/ip-pools/vips/ip-subnets/s", doc{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24",
		"allocation_ranges": []doc{{"start": "10.9.0.1", "end": "10.9.0.9"}}})
	for _, id := range []string{"gone", "kept"} {
		r.must("PATCH", "/infra/ip-pools/vips/ip-allocations/"+id, "{}")
	}
	r.must("DELETE", "/infra/ip-pools/vips/ip-allocations/gone", nil)
	pool := r.must("GET", "/infra/ip-pools/vips", nil).String("unique_id")
	if _, err := r.As("admin").Overwrite().Allocate(pool, "10.9.0.9"); err != nil {
		t.Fatal(err)
	}
	r.must("PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.9.0.2", "80", doc{"lb_service_path": "/infra/lb-services/lb"}))

	again := newPolicyRig(t, nsxsim.Options{RealizationDelay: time.Hour})
	if err := again.Load(r.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Snapshot(), again.Snapshot(), ignoreTimes()); diff != "" {
		t.Errorf("the snapshot of what was loaded (-want +got):\n%s", diff)
	}
	if got := again.allocated("/infra/ip-pools/vips/ip-allocations/kept"); got != "10.9.0.2" {
		t.Errorf("the allocation has now %q", got)
	}
	want, got := r.List(nsxsim.KindLBService)[0], again.List(nsxsim.KindLBService)[0]
	if diff := cmp.Diff(want.Strings("virtual_server_ids"), got.Strings("virtual_server_ids")); diff != "" {
		t.Errorf("the service in the Manager (-want +got):\n%s", diff)
	}
}

// ignoreTimes leaves out what a snapshot does not keep.
func ignoreTimes() cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool {
		key, ok := p.Last().(cmp.MapIndex)
		if !ok {
			return false
		}
		switch key.Key().String() {
		case "_revision", "_create_time", "_last_modified_time", "_last_modified_user":
			return true
		}
		return false
	}, cmp.Ignore())
}

// What a principal identity made, others change only with X-Allow-Overwrite.
func TestPolicyProtectsPrincipals(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{Users: []nsxsim.User{{Name: "admin", Password: "secret"}, {Name: "ncp", Password: "secret", Principal: true}}})
	ncp := policyRig{r.as("ncp")}
	ncp.must("PUT", "/infra/lb-pools/p", "{}")
	if got := r.must("GET", "/infra/lb-pools/p", nil); got["_protection"] != "REQUIRE_OVERRIDE" {
		t.Errorf("as others see it: %v", got)
	}
	r.refused(400, "289", "PATCH", "/infra/lb-pools/p", "{}")
	r.refused(400, "289", "DELETE", "/infra/lb-pools/p", nil)
	if a := r.call("PATCH", "/infra/lb-pools/p", doc{"description": "d"}, "X-Allow-Overwrite", "true"); a.status != 200 {
		t.Errorf("with X-Allow-Overwrite: %d %s", a.status, a.raw)
	}
	r.refused(400, "289", "PATCH", "/infra/lb-pools/p", "{}")
	ncp.must("DELETE", "/infra/lb-pools/p", nil)
}

func TestPolicyVirtualServersReallyServe(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{DataPlane: &dataplane.Options{Housekeeping: 10 * time.Millisecond}, RealizationDelay: 20 * time.Millisecond})
	node, port := newBackend(t, "node"), freePort(t)
	r.balancer("SMALL")
	r.must("PATCH", "/infra/lb-pools/web", doc{"snat_translation": doc{"type": "LBSnatAutoMap"}, "members": []doc{{"ip_address": "127.0.0.1", "port": node.port}}})
	r.must("PATCH", "/infra/lb-virtual-servers/web", virtualServer(vip, port, doc{"pool_path": "/infra/lb-pools/web", "lb_service_path": "/infra/lb-services/lb"}))
	waitFor(t, func() bool { return ask(port) == "node" }) // nobody asks the simulator for anything
	statistics := r.call("GET", "/infra/lb-services/lb/lb-virtual-servers/web/statistics", nil).results()[0]["statistics"].(map[string]any)
	if statistics["total_sessions"].(float64) < 1 {
		t.Errorf("statistics: %v", statistics)
	}
	r.must("DELETE", "/infra/lb-virtual-servers/web", nil)
	waitFor(t, func() bool { return ask(port) == "" })
}
