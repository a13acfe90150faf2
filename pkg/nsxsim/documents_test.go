package nsxsim_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

// without leaves out what differs from run to run, or is tested elsewhere.
func without(o nsxsim.Object, names ...string) nsxsim.Object {
	kept := nsxsim.Object{}
	for k, v := range o {
		kept[k] = v
	}
	for _, name := range append(names, "id", "display_name", "_create_time", "_create_user", "_last_modified_time",
		"_last_modified_user", "_revision", "_protection", "_system_owned") {
		delete(kept, name)
	}
	return kept
}

func TestDefaultsAndMirrors(t *testing.T) {
	for _, c := range []struct {
		name string
		path string
		body func(*rig) doc
		want string // as JSON, without the members of all objects
	}{
		{"pool", pools, nil, `{"resource_type":"LbPool","algorithm":"ROUND_ROBIN","min_active_members":1,"tcp_multiplexing_enabled":false,"tcp_multiplexing_number":6}`},
		{"members", pools, func(*rig) doc { return doc{"members": []doc{{"ip_address": "10.0.0.1"}}} },
			`{"resource_type":"LbPool","algorithm":"ROUND_ROBIN","min_active_members":1,"tcp_multiplexing_enabled":false,"tcp_multiplexing_number":6,
			"members":[{"ip_address":"10.0.0.1","weight":1,"admin_state":"ENABLED","backup_member":false}]}`},
		{"member group", pools, func(r *rig) doc {
			return doc{"member_group": doc{"grouping_object": doc{"target_id": r.createAs("/ns-groups", "g", doc{})}}}
		}, `{"resource_type":"LbPool","algorithm":"ROUND_ROBIN","min_active_members":1,"tcp_multiplexing_enabled":false,"tcp_multiplexing_number":6,
			"member_group":{"grouping_object":{"target_type":"NSGroup","target_id":"g"},"ip_revision_filter":"IPV4"}}`},
		{"service", services, nil, `{"resource_type":"LbService","enabled":true,"size":"SMALL","error_log_level":"INFO","access_log_enabled":false}`},
		{"HTTP monitor", monitors, func(*rig) doc { return doc{"resource_type": "LbHttpMonitor"} },
			`{"resource_type":"LbHttpMonitor","interval":5,"fall_count":3,"rise_count":3,"timeout":15,"request_method":"GET","request_url":"/","request_version":"HTTP_VERSION_1_1","response_status_codes":[200]}`},
		{"TCP monitor", monitors, func(*rig) doc { return doc{"resource_type": "LbTcpMonitor"} },
			`{"resource_type":"LbTcpMonitor","interval":5,"fall_count":3,"rise_count":3,"timeout":15}`},
		{"passive monitor", monitors, func(*rig) doc { return doc{"resource_type": "LbPassiveMonitor"} },
			`{"resource_type":"LbPassiveMonitor","max_fails":5,"timeout":5}`},
		{"TCP profile", profiles, func(*rig) doc { return doc{"resource_type": "LbFastTcpProfile"} },
			`{"resource_type":"LbFastTcpProfile","idle_timeout":1800,"close_timeout":8,"ha_flow_mirroring_enabled":false}`},
		{"UDP profile", profiles, func(*rig) doc { return doc{"resource_type": "LbFastUdpProfile"} },
			`{"resource_type":"LbFastUdpProfile","idle_timeout":300,"flow_mirroring_enabled":false}`},
		{"persistence", persists, func(*rig) doc { return doc{"resource_type": "LbSourceIpPersistenceProfile"} },
			`{"resource_type":"LbSourceIpPersistenceProfile","purge":"FULL","timeout":300,"persistence_shared":false,"ha_persistence_mirroring_enabled":false}`},
		{"virtual server: the lists win over the single ports", servers, func(r *rig) doc {
			return doc{"ip_address": "10.1.0.1", "ports": []string{"80", "443"}, "port": "1", "application_profile_id": r.tcp(), "default_pool_member_ports": []string{"8080", "8443"}}
		}, `{"resource_type":"LbVirtualServer","ip_address":"10.1.0.1","ip_protocol":"TCP","enabled":true,"access_log_enabled":false,"application_profile_id":"PROFILE",
			"port":"80","ports":["80","443"],"default_pool_member_port":"8080","default_pool_member_ports":["8080","8443"]}`},
		{"virtual server: single ports become lists", servers, func(r *rig) doc {
			return doc{"ip_address": "10.1.0.1", "port": "80", "application_profile_id": r.tcp(), "default_pool_member_port": "8080"}
		}, `{"resource_type":"LbVirtualServer","ip_address":"10.1.0.1","ip_protocol":"TCP","enabled":true,"access_log_enabled":false,"application_profile_id":"PROFILE",
			"port":"80","ports":["80"],"default_pool_member_port":"8080","default_pool_member_ports":["8080"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nsxsim.Options{})
			body := doc{}
			if c.body != nil {
				body = c.body(r)
			}
			got := r.ok("POST", c.path, body)
			var want nsxsim.Object
			if err := json.Unmarshal([]byte(strings.ReplaceAll(c.want, "PROFILE", r.tcp())), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, without(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// createAs makes an object with an id of one's choice.
func (r *rig) createAs(path, id string, body doc) string {
	r.t.Helper()
	kinds := map[string]nsxsim.Kind{"/ns-groups": nsxsim.KindNSGroup, pools: nsxsim.KindPool, monitors: nsxsim.KindMonitor}
	body["id"] = id
	if _, err := r.As("admin").Create(kinds[path], body); err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) tcp() string {
	return r.named(nsxsim.KindApplicationProfile, "default-tcp-lb-app-profile")
}

func TestManagedMembers(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.UnixMilli(1000))
	r := newRig(t, nsxsim.Options{Clock: clock})
	got := r.ok("POST", pools, doc{"id": "mine", "_revision": 7, "_create_user": "me", "_system_owned": true, "_protection": "PROTECTED"})
	want := nsxsim.Object{"id": got.ID(), "display_name": got.ID(), "_create_user": "admin", "_create_time": 1000.0,
		"_last_modified_user": "admin", "_last_modified_time": 1000.0, "_revision": 0.0, "_system_owned": false, "_protection": "NOT_PROTECTED"}
	managed := func(o nsxsim.Object) nsxsim.Object {
		m := nsxsim.Object{}
		for k := range want {
			m[k] = o[k]
		}
		return m
	}
	if diff := cmp.Diff(want, managed(got)); diff != "" {
		t.Errorf("after POST (-want +got):\n%s", diff)
	}
	if got.ID() == "mine" {
		t.Error("the client chose the id")
	}
	clock.Step(time.Second)
	got = r.as("other").ok("PUT", pools+"/"+got.ID(), doc{"_revision": 0, "display_name": "new"})
	want["_last_modified_user"], want["_last_modified_time"], want["_revision"], want["display_name"] = "other", 2000.0, 1.0, "new"
	if diff := cmp.Diff(want, managed(got)); diff != "" {
		t.Errorf("after PUT (-want +got):\n%s", diff)
	}
}

// What the simulator does not know of comes back as it went in: order of
// members within it, large numbers, characters that JSON encoders escape.
func TestUnknownFieldsSurvive(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	unknown := `{"z":1,"a":[12345678901234567890,1.50,"<&>"],"b":null}`
	created := r.do("POST", pools, `{"relax":`+unknown+`,"members":[{"ip_address":"10.0.0.1","note":`+unknown+`}]}`)
	path := pools + "/" + created.body.ID()
	read := r.do("GET", path, nil)
	written := r.do("PUT", path, read.raw)
	for name, a := range map[string]answer{"POST": created, "GET": read, "PUT": written, "list": r.do("GET", pools, nil)} {
		if !strings.Contains(a.raw, `"relax":`+unknown) || !strings.Contains(a.raw, `"note":`+unknown) {
			t.Errorf("%s lost an unknown field: %s", name, a.raw)
		}
	}
}

func TestPutReplacesTheWholeObject(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	id := r.create(pools, doc{"algorithm": "IP_HASH", "description": "d", "members": []doc{{"ip_address": "10.0.0.1"}}})
	got := r.ok("PUT", pools+"/"+id, doc{"_revision": 0})
	if got.String("algorithm") != "ROUND_ROBIN" || got["description"] != nil || got["members"] != nil {
		t.Errorf("something of the old object is left: %v", got)
	}
}

func TestPaging(t *testing.T) {
	for _, final := range []bool{false, true} {
		t.Run(fmt.Sprint("final cursor ", final), func(t *testing.T) {
			r := newRig(t, nsxsim.Options{Quirks: nsxsim.Quirks{FinalCursor: final}})
			var want []string
			for i := range 7 {
				want = append(want, r.create(pools, doc{"display_name": fmt.Sprint("p", i)}))
			}
			var got []string
			cursor, pages := "", 0
			for {
				a := r.do("GET", pools+"?page_size=3&cursor="+cursor, nil)
				if _, ok := a.body["result_count"]; ok != (pages == 0) {
					t.Errorf("page %d: result_count is there: %v", pages, ok)
				}
				for _, o := range a.results() {
					got = append(got, o.ID())
				}
				pages++
				// An object of a page read already goes: no other is skipped by that.
				if pages == 1 {
					r.do("DELETE", pools+"/"+want[0], nil)
				}
				cursor = a.body.String("cursor")
				if cursor == "" || strings.HasPrefix(cursor, "0000") {
					if (cursor != "") != final {
						t.Errorf("last cursor %q", cursor)
					}
					break
				}
			}
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestListsSortedFilteredAndCut(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	for _, name := range []string{"b", "c", "a"} {
		r.create(pools, doc{"display_name": name})
	}
	names := func(path string) string {
		var list []string
		for _, o := range r.do("GET", path, nil).results() {
			list = append(list, o.String("display_name"))
		}
		return strings.Join(list, " ")
	}
	next := func(path string) string { return path + "&cursor=" + r.ok("GET", path, nil).String("cursor") }
	for path, want := range map[string]string{
		pools:                           "b c a",
		pools + "?sort_by=display_name": "a b c",
		pools + "?sort_by=display_name&sort_ascending=false":     "c b a",
		next(pools + "?sort_by=display_name&page_size=2"):        "c",
		monitors + "?type=HTTP":                                  "default-http-lb-monitor",
		profiles + "?type=FAST_UDP":                              "default-udp-lb-app-profile",
		persists + "?type=SOURCE_IP":                             "default-source-ip-lb-persistence-profile",
		"/logical-routers?router_type=TIER0":                     "tier-0",
		"/logical-router-ports?logical_router_id=" + r.Tier0ID(): "",
		profiles:         "default-tcp-lb-app-profile default-udp-lb-app-profile default-http-lb-app-profile",
		"/edge-clusters": "edge-cluster",
	} {
		if got := names(path); got != want {
			t.Errorf("GET %s: %q, want %q", path, got, want)
		}
	}
	first := r.do("GET", pools+"?included_fields=display_name,_revision", nil).results()[0]
	if diff := cmp.Diff(nsxsim.Object{"display_name": "b", "_revision": 0.0}, first); diff != "" {
		t.Errorf("included_fields (-want +got):\n%s", diff)
	}
}

func TestMemberActions(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	path := pools + "/" + r.create(pools, doc{"members": []doc{{"ip_address": "10.0.0.1", "port": "80"}, {"ip_address": "10.0.0.2", "port": "80", "note": "kept"}}})
	steps := []struct {
		action string
		given  doc
		want   string
	}{
		{"ADD_MEMBERS", doc{"ip_address": "10.0.0.3"}, "10.0.0.1:80 ENABLED; 10.0.0.2:80 ENABLED; 10.0.0.3: ENABLED"},
		{"UPDATE_MEMBERS", doc{"ip_address": "10.0.0.2", "port": "80", "admin_state": "GRACEFUL_DISABLED"}, "10.0.0.1:80 ENABLED; 10.0.0.2:80 GRACEFUL_DISABLED; 10.0.0.3: ENABLED"},
		{"REMOVE_MEMBERS", doc{"ip_address": "10.0.0.1", "port": "80"}, "10.0.0.2:80 GRACEFUL_DISABLED; 10.0.0.3: ENABLED"},
	}
	for i, step := range steps {
		pool := r.ok("POST", path+"?action="+step.action, doc{"members": []doc{step.given}})
		var got []string
		for _, v := range pool["members"].([]any) {
			m := nsxsim.Object(v.(doc))
			got = append(got, m.String("ip_address")+":"+m.String("port")+" "+m.String("admin_state"))
		}
		if strings.Join(got, "; ") != step.want {
			t.Errorf("after %s: %s, want %s", step.action, strings.Join(got, "; "), step.want)
		}
		if pool.Revision() != i+1 {
			t.Errorf("after %s: revision %d, want %d", step.action, pool.Revision(), i+1)
		}
	}
	if raw := r.do("GET", path, nil).raw; !strings.Contains(raw, `"note":"kept"`) {
		t.Errorf("an unknown field of a member is lost: %s", raw)
	}
}

func TestGroupsAndTheirAddresses(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	member := func(kind, id string) doc {
		return doc{"op": "EQUALS", "target_type": kind, "target_property": "id", "value": id}
	}
	one := r.create("/ip-sets", doc{"ip_addresses": []string{"10.0.0.1", "127.0.0.1"}})
	two := r.create("/ip-sets", doc{"ip_addresses": []string{"10.0.0.1", "10.0.1.0/24"}})
	inner := r.create("/ns-groups", doc{"members": []doc{member("IPSet", two)}})
	outer := r.create("/ns-groups", doc{"members": []doc{member("IPSet", one), member("NSGroup", inner)}})
	list := r.ok("GET", "/ns-groups/"+outer+"/effective-ip-address-members", nil)
	if diff := cmp.Diff([]any{"10.0.0.1", "127.0.0.1", "10.0.1.0/24"}, list["results"]); diff != "" {
		t.Errorf("effective members (-want +got):\n%s", diff)
	}
	group := r.ok("GET", "/ns-groups/"+outer+"?populate_references=true", nil)
	if group["member_count"] != 2.0 {
		t.Errorf("member_count %v, want 2", group["member_count"])
	}
	want := doc{"target_id": one, "target_type": "IPSet", "target_display_name": one, "is_valid": true}
	if diff := cmp.Diff(want, group["members"].([]any)[0].(doc)["target_resource"]); diff != "" {
		t.Errorf("populated reference (-want +got):\n%s", diff)
	}
}

func TestAdvertisementBelongsToItsRouter(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	router := r.create("/logical-routers", doc{"router_type": "TIER1", "edge_cluster_id": r.EdgeClusterID()})
	path := "/logical-routers/" + router + "/routing/advertisement"
	adv := r.ok("GET", path, nil)
	if adv["enabled"] != false || adv["advertise_lb_vip"] != false || adv.Revision() != 0 || adv.String("logical_router_id") != router {
		t.Errorf("a new router's: %v", adv)
	}
	adv["enabled"], adv["advertise_lb_vip"] = true, true
	if got := r.ok("PUT", path, adv); got["advertise_lb_vip"] != true || got.Revision() != 1 {
		t.Errorf("after PUT: %v", got)
	}
	if a := r.do("PUT", path, adv); a.status != 412 {
		t.Errorf("stale PUT: %d, want 412", a.status)
	}
	r.ok("DELETE", "/logical-routers/"+router, nil)
	if left := r.Get(nsxsim.KindAdvertisement, router); left != nil {
		t.Errorf("left over: %v", left)
	}
}

func TestLinkedRouterPortsShowEachOther(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	tier1 := nsxsim.Must(r.AddTier1("t1")).ID()
	up := r.create("/logical-router-ports", doc{"resource_type": "LogicalRouterLinkPortOnTIER0", "logical_router_id": r.Tier0ID()})
	down := r.create("/logical-router-ports", doc{"resource_type": "LogicalRouterLinkPortOnTIER1", "logical_router_id": tier1,
		"linked_logical_router_port_id": doc{"target_type": "LogicalRouterLinkPortOnTIER0", "target_id": up}})
	if got := r.ok("GET", "/logical-router-ports/"+up, nil).String("linked_logical_router_port_id"); got != down {
		t.Errorf("the tier-0's port shows %q, want %q", got, down)
	}
}

func TestUsageTellsCapacityAndUse(t *testing.T) {
	b := newBench(t, nsxsim.Options{})
	pool := b.create(pools, doc{"members": []doc{{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2"}}})
	b.attach(b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"pool_id": pool})),
		b.create(servers, b.tcpVS("10.1.0.2", []string{"80"}, doc{"pool_id": pool})))
	got := b.ok("GET", services+"/"+b.lb+"/usage", nil)
	delete(got, "last_update_timestamp")
	want := nsxsim.Object{"service_id": b.lb, "service_size": "SMALL", "severity": "GREEN", "usage_percentage": 10.0,
		"virtual_server_capacity": 20.0, "pool_capacity": 60.0, "pool_member_capacity": 300.0,
		"current_virtual_server_count": 2.0, "current_pool_count": 1.0, "current_pool_member_count": 2.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a shared pool counts once (-want +got):\n%s", diff)
	}
}

func TestForcedDeletionOfARouterTakesItsPorts(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	router := r.create("/logical-routers", doc{"router_type": "TIER1", "edge_cluster_id": r.EdgeClusterID()})
	r.create("/logical-router-ports", doc{"resource_type": "LogicalRouterLinkPortOnTIER1", "logical_router_id": router})
	lb := r.create(services, doc{"attachment": doc{"target_type": "LogicalRouter", "target_id": router}})
	path := "/logical-routers/" + router + "?force=true"
	if a := r.do("DELETE", path, nil); a.status != 400 || len(r.List(nsxsim.KindLogicalRouterPort)) != 1 {
		t.Errorf("with a service attached: %d and %d ports, want 400 and all ports", a.status, len(r.List(nsxsim.KindLogicalRouterPort)))
	}
	r.ok("DELETE", services+"/"+lb, nil)
	r.ok("DELETE", path, nil)
	if left := len(r.List(nsxsim.KindLogicalRouterPort)); left != 0 {
		t.Errorf("%d ports left over", left)
	}
}

func TestGroupActions(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	set := r.create("/ip-sets", doc{"ip_addresses": []string{"10.0.0.1"}})
	group := "/ns-groups/" + r.create("/ns-groups", doc{})
	members := doc{"members": []doc{{"op": "EQUALS", "target_type": "IPSet", "target_property": "id", "value": set}}}
	for _, step := range []struct {
		action string
		want   float64
	}{{"ADD_MEMBERS", 1}, {"ADD_MEMBERS", 1}, {"REMOVE_MEMBERS", 0}} {
		if got := r.ok("POST", group+"?action="+step.action, members)["member_count"]; got != step.want {
			t.Errorf("after %s: %v members, want %v", step.action, got, step.want)
		}
	}
	r.ok("DELETE", "/ip-sets/"+set, nil)
	if a := r.do("POST", group+"?action=ADD_MEMBERS", members); a.status != 400 {
		t.Errorf("a member that is gone: %d, want 400", a.status)
	}
}

func TestSettingsOfGroupMembers(t *testing.T) {
	b := newBench(t, nsxsim.Options{})
	set := b.create("/ip-sets", doc{"ip_addresses": []string{"10.0.0.1", "10.0.0.2"}})
	group := b.create("/ns-groups", doc{"members": []doc{{"op": "EQUALS", "target_type": "IPSet", "target_property": "id", "value": set}}})
	pool := b.create(pools, doc{"member_group": doc{"grouping_object": doc{"target_id": group}, "max_ip_list_size": 9}})
	b.attach(b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"pool_id": pool})))
	update := pools + "/" + pool + "?action=UPDATE_MEMBERS"
	for _, state := range []string{"DISABLED", "GRACEFUL_DISABLED"} {
		b.ok("POST", update, doc{"members": []doc{{"ip_address": "10.0.0.2", "admin_state": state}}})
		if diff := cmp.Diff([]string{"10.0.0.1=UP", "10.0.0.2=" + state}, b.memberStates(pool)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if a := b.do("POST", update, doc{"members": []doc{{"ip_address": "10.0.0.2", "weight": 3}}}); a.status != 400 {
		t.Errorf("a weight: %d, want 400", a.status)
	}
}
