package nsxsim_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	clocktesting "k8s.io/utils/clock/testing"
)

// fact is a row of the table of what NSX does: what a reader of the API's
// reference would look for, one request over HTTP, and the answer. A fact that no
// reference settles has a row for each way, with the option that chooses it.
type fact struct {
	fact    string
	options nsxsim.Options
	do      func(b *bench) answer
	status  int
	code    string // error_code; "" is not looked at
	body    string // JSON that the answer's body must hold: objects may have more members, "*" is anything
}

// bench gives what the row starts from: in 9.0 there is no load balancer of the
// Manager API.
func (f fact) bench(t *testing.T) *bench {
	if strings.HasPrefix(f.options.Version, "9.") {
		return &bench{rig: newRig(t, f.options)}
	}
	return newBench(t, f.options)
}

func (f fact) run(t *testing.T) {
	b := f.bench(t)
	a := f.do(b)
	if a.status != f.status || f.code != "" && a.code() != f.code {
		t.Fatalf("got %d %s; want %d with error_code %q", a.status, a.raw, f.status, f.code)
	}
	if f.status == 200 && f.body == "EMPTY" {
		if a.raw != "" {
			t.Errorf("the body is %s, want none", a.raw)
		}
		return
	}
	if f.body == "" {
		return
	}
	var want any
	if err := json.Unmarshal([]byte(f.body), &want); err != nil {
		t.Fatal(err)
	}
	if !holds(map[string]any(a.body), want) {
		t.Errorf("the body is %s, want it to hold %s", a.raw, f.body)
	}
}

// holds tells whether got has all of want.
func holds(got, want any) bool {
	switch w := want.(type) {
	case string:
		if part, ok := strings.CutPrefix(w, "*"); ok {
			s, isText := got.(string)
			return got != nil && (part == "" || isText && strings.Contains(s, part))
		}
	case map[string]any:
		g, ok := got.(map[string]any)
		for k, v := range w {
			if v == nil && g[k] != nil || v != nil && !holds(g[k], v) {
				return false
			}
		}
		return ok
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !holds(g[i], w[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(got, want)
}

// live makes a pool on a virtual server on the service.
func (b *bench) live(pool doc) (vs, poolID string) {
	poolID = b.create(pools, pool)
	vs = b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"pool_id": poolID}))
	b.attach(vs)
	return vs, poolID
}

func (b *bench) put(path string, change doc) answer {
	o := b.ok("GET", path, nil)
	for k, v := range change {
		o[k] = v
	}
	return b.do("PUT", path, o)
}

func (b *bench) ipPool(more doc) string {
	d := doc{"subnets": []doc{{"cidr": "10.9.0.0/24", "allocation_ranges": []doc{{"start": "10.9.0.1", "end": "10.9.0.3"}}}}}
	for k, v := range more {
		d[k] = v
	}
	return ippools + "/" + b.create(ippools, d)
}

func (b *bench) group(addrs ...string) string {
	set := b.create(ipsets, doc{"ip_addresses": addrs})
	return b.create(groups, doc{"members": []doc{{"op": "EQUALS", "target_type": "IPSet", "target_property": "id", "value": set}}})
}

func get(path func(b *bench) string) func(*bench) answer {
	return func(b *bench) answer { return b.do("GET", path(b), nil) }
}

func text(path string) func(*bench) string { return func(*bench) string { return path } }

func onService(path string) func(*bench) answer {
	return func(b *bench) answer {
		vs, pool := b.live(doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
		return b.do("GET", services+"/"+b.lb+strings.NewReplacer("{vs}", vs, "{pool}", pool).Replace(path), nil)
	}
}

func TestFacts(t *testing.T) {
	v25, quirk := nsxsim.Options{Version: "2.5"}, func(q nsxsim.Quirks) nsxsim.Options { return nsxsim.Options{Quirks: q} }
	// roundtrip creates, reads, replaces and deletes an object, and gives what the list said in between.
	roundtrip := func(path string, body func(b *bench) doc) fact {
		return fact{fact: "create, read, replace, list and delete of " + path, status: 200, body: `{"results":["*"]}`, do: func(b *bench) answer {
			o := b.do("POST", path, body(b))
			if o.status != 201 || o.body.String("display_name") != o.body.ID() || o.body["_revision"] != 0.0 || o.body["_create_user"] != "admin" ||
				o.body["_create_time"] == nil || o.body["_system_owned"] != false || o.body["_protection"] != "NOT_PROTECTED" || o.body.String("resource_type") == "" {
				b.t.Fatalf("created: %d %s", o.status, o.raw)
			}
			one := path + "/" + o.body.ID()
			o.body["display_name"] = "mine"
			if a := b.do("PUT", one, o.body); a.status != 200 || a.body.Revision() != 1 {
				b.t.Fatalf("replaced: %d %s", a.status, a.raw)
			}
			if a := b.do("GET", one, nil); a.status != 200 || a.body.String("display_name") != "mine" {
				b.t.Fatalf("read: %d %s", a.status, a.raw)
			}
			list := b.do("GET", path, nil)
			var mine []any
			for _, r := range list.body["results"].([]any) {
				if r.(doc)["display_name"] == "mine" {
					mine = append(mine, "x")
				}
			}
			list.body["results"] = mine
			if a := b.do("DELETE", one, nil); a.status != 200 || a.raw != "" {
				b.t.Fatalf("deleted: %d %s", a.status, a.raw)
			}
			if a := b.do("GET", one, nil); a.status != 404 {
				b.t.Fatalf("read again: %d", a.status)
			}
			return list
		}}
	}
	plain := func(d doc) func(*bench) doc { return func(*bench) doc { return d } }
	reject := doc{"match_strategy": "ALL", "phase": "HTTP_FORWARDING", "actions": []doc{{"type": "LbHttpRejectAction", "reply_status": "403"}}}

	sections := map[string][]fact{
		"versions": {
			{fact: "node version", do: get(text("/node/version")), status: 200, body: `{"node_version":"3.2.3.0.0.21703641","product_version":"3.2.3.0.0.21703641"}`},
			{fact: "the Manager LB API is there in 2.5", options: v25, do: get(text(pools)), status: 200},
			{fact: "the Manager LB API is there in 4.1", options: nsxsim.Options{Version: "4.1"}, do: get(text(pools)), status: 200},
			{fact: "objects of Policy are protected", do: func(b *bench) answer {
				return b.do("PUT", pools+"/"+b.as("nsx_policy").create(pools, doc{}), doc{"_revision": 0})
			}, status: 400, code: "289"},
			{fact: "X-Allow-Overwrite writes them", do: func(b *bench) answer {
				return b.do("PUT", pools+"/"+b.as("nsx_policy").create(pools, doc{}), doc{"_revision": 0}, "X-Allow-Overwrite", "true")
			}, status: 200},
		},
		"surface": {
			roundtrip(services, plain(doc{})), roundtrip(pools, plain(doc{})), roundtrip(tcpProfiles, plain(doc{})),
			roundtrip(servers, func(b *bench) doc { return b.tcpVS("10.1.0.9", []string{"80"}, nil) }),
			roundtrip(monitors, plain(doc{"resource_type": "LbTcpMonitor"})), roundtrip(profiles, plain(doc{"resource_type": "LbHttpProfile"})),
			roundtrip(persists, plain(doc{"resource_type": "LbSourceIpPersistenceProfile"})), roundtrip(rules, plain(reject)),
			roundtrip(clientSSL, plain(doc{})), roundtrip(serverSSL, plain(doc{})), roundtrip(groups, plain(doc{})), roundtrip(ipsets, plain(doc{})),
			roundtrip("/edge-clusters", plain(doc{})), roundtrip("/logical-routers", plain(doc{"router_type": "TIER1"})),
			roundtrip("/logical-router-ports", func(b *bench) doc {
				return doc{"resource_type": "LogicalRouterLinkPortOnTIER1", "logical_router_id": b.tier1}
			}),
			roundtrip(ippools, plain(doc{})),
			{fact: "ADD_MEMBERS", do: func(b *bench) answer {
				return b.do("POST", pools+"/"+b.create(pools, doc{})+"?action=ADD_MEMBERS", doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
			}, status: 200, body: `{"_revision":1,"members":[{"ip_address":"10.0.0.1","weight":1,"admin_state":"ENABLED","backup_member":false}]}`},
			{fact: "UPDATE_MEMBERS", do: func(b *bench) answer {
				pool := b.create(pools, doc{"members": []doc{{"ip_address": "10.0.0.1", "weight": 7}}})
				return b.do("POST", pools+"/"+pool+"?action=UPDATE_MEMBERS", doc{"members": []doc{{"ip_address": "10.0.0.1", "admin_state": "GRACEFUL_DISABLED"}}})
			}, status: 200, body: `{"members":[{"ip_address":"10.0.0.1","weight":7,"admin_state":"GRACEFUL_DISABLED"}]}`},
			{fact: "REMOVE_MEMBERS", do: func(b *bench) answer {
				pool := b.create(pools, doc{"members": []doc{{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2"}}})
				return b.do("POST", pools+"/"+pool+"?action=REMOVE_MEMBERS", doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
			}, status: 200, body: `{"members":[{"ip_address":"10.0.0.2"}]}`},
			{fact: "UPDATE_MEMBERS of a group is kept in customized_members", do: func(b *bench) answer {
				pool := b.create(pools, doc{"member_group": doc{"grouping_object": doc{"target_id": b.group("10.0.0.1")}}})
				return b.do("POST", pools+"/"+pool+"?action=UPDATE_MEMBERS", doc{"members": []doc{{"ip_address": "10.0.0.1", "admin_state": "DISABLED"}}})
			}, status: 200, body: `{"member_group":{"customized_members":[{"ip_address":"10.0.0.1","admin_state":"DISABLED"}]}}`},
			{fact: "ADD_MEMBERS to a group is refused", do: func(b *bench) answer {
				pool := b.create(pools, doc{"member_group": doc{"grouping_object": doc{"target_id": b.group()}}})
				return b.do("POST", pools+"/"+pool+"?action=ADD_MEMBERS", doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
			}, status: 400},
			{fact: "delete_associated_rules", do: func(b *bench) answer {
				rule := b.create(rules, reject)
				b.ok("DELETE", servers+"/"+b.create(servers, b.httpVS(doc{"rule_ids": []string{rule}}))+"?delete_associated_rules=true", nil)
				return b.do("GET", rules+"/"+rule, nil)
			}, status: 404},
			{fact: "status of a service", do: onService("/status?source=realtime"), status: 200,
				body: `{"service_id":"*","service_status":"UP","virtual_servers":[{"status":"UP"}],"pools":[{"status":"UP"}]}`},
			{fact: "cached status", do: onService("/status?source=cached"), status: 200, body: `{"service_status":"UP"}`},
			{fact: "statistics of a service", do: onService("/statistics"), status: 200,
				body: `{"statistics":{"l4_total_sessions":0},"virtual_servers":[{"statistics":{"total_sessions":0}}],"pools":[{"members":["*"]}]}`},
			{fact: "usage", do: onService("/usage"), status: 200, body: `{"virtual_server_capacity":20,"pool_capacity":60,"pool_member_capacity":300,
				"current_virtual_server_count":1,"current_pool_count":1,"current_pool_member_count":1}`},
			{fact: "debug-info", do: onService("/debug-info"), status: 200, body: `{"service":{"id":"*"},"virtual_servers":["*"],"pools":["*"]}`},
			{fact: "status of all pools", do: onService("/pools/status"), status: 200, body: `{"results":[{"status":"UP"}]}`},
			{fact: "status of all virtual servers", do: onService("/virtual-servers/status"), status: 200, body: `{"results":[{"status":"UP"}]}`},
			{fact: "status of a pool", do: onService("/pools/{pool}/status"), status: 200, body: `{"status":"UP","members":[{"ip_address":"10.0.0.1","status":"UP"}]}`},
			{fact: "statistics of a pool", do: onService("/pools/{pool}/statistics"), status: 200, body: `{"statistics":{"bytes_in":0},"members":["*"]}`},
			{fact: "status of a virtual server", do: onService("/virtual-servers/{vs}/status"), status: 200, body: `{"status":"UP"}`},
			{fact: "statistics of a virtual server", do: onService("/virtual-servers/{vs}/statistics"), status: 200, body: `{"statistics":{"current_sessions":0}}`},
			{fact: "allocations have no name, tags or owner", do: func(b *bench) answer {
				pool := b.ipPool(nil)
				b.ok("POST", pool+"?action=ALLOCATE", `{"allocation_id":null}`)
				return b.do("GET", pool+"/allocations", nil)
			}, status: 200, body: `{"result_count":1,"results":[{"allocation_id":"10.9.0.1","display_name":null,"tags":null,"_create_user":null}]}`},
			{fact: "5 subnets", do: func(b *bench) answer { return b.do("POST", ippools, doc{"subnets": make([]doc, 6)}) }, status: 400, code: "255"},
			{fact: "chosen address: honoured", do: func(b *bench) answer {
				return b.do("POST", b.ipPool(nil)+"?action=ALLOCATE", doc{"allocation_id": "10.9.0.2"})
			}, status: 200, body: `{"allocation_id":"10.9.0.2"}`},
			{fact: "chosen address: refused", options: quirk(nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressRefused}), do: func(b *bench) answer {
				return b.do("POST", b.ipPool(nil)+"?action=ALLOCATE", doc{"allocation_id": "10.9.0.2"})
			}, status: 400},
			{fact: "chosen address: ignored", options: quirk(nsxsim.Quirks{ChosenAddress: nsxsim.ChosenAddressIgnored}), do: func(b *bench) answer {
				return b.do("POST", b.ipPool(nil)+"?action=ALLOCATE", doc{"allocation_id": "10.9.0.2"})
			}, status: 200, body: `{"allocation_id":"10.9.0.1"}`},
			{fact: "effective addresses of a nested group", do: func(b *bench) answer {
				outer := b.create(groups, doc{"members": []doc{{"op": "EQUALS", "target_type": "NSGroup", "target_property": "id", "value": b.group("10.0.0.1", "10.0.0.2-10.0.0.3")}}})
				return b.do("GET", groups+"/"+outer+"/effective-ip-address-members", nil)
			}, status: 200, body: `{"results":["10.0.0.1","10.0.0.2-10.0.0.3"],"result_count":2}`},
			{fact: "populate_references", do: func(b *bench) answer { return b.do("GET", groups+"/"+b.group()+"?populate_references=true", nil) }, status: 200,
				body: `{"members":[{"target_resource":{"target_type":"IPSet","is_valid":true}}],"member_count":1}`},
			{fact: "route advertisement", do: func(b *bench) answer {
				return b.put("/logical-routers/"+b.tier1+"/routing/advertisement", doc{"advertise_nat_routes": true})
			}, status: 200, body: `{"enabled":true,"advertise_lb_vip":true,"advertise_nat_routes":true,"resource_type":"AdvertisementConfig"}`},
			{fact: "import of a certificate", do: func(b *bench) answer { return b.do("GET", certificates+"/"+b.importCertificate(), nil) }, status: 200,
				body: `{"pem_encoded":"*BEGIN CERTIFICATE","private_key":null,"details":["*"]}`},
			{fact: "search by type and tag", do: func(b *bench) answer {
				b.create(pools, doc{"tags": []doc{{"scope": "x", "tag": "y"}}})
				b.create(pools, doc{})
				return b.search("resource_type:LbPool AND tags.scope:x AND tags.tag:y")
			}, status: 200, body: `{"results":[{"resource_type":"LbPool"}],"result_count":1}`},
			{fact: "the older search", do: func(b *bench) answer { return b.do("GET", "/search?query=resource_type:LbService", nil) }, status: 200, body: `{"result_count":1}`},
			{fact: "search is eventually consistent", options: nsxsim.Options{SearchDelay: time.Hour, Clock: clocktesting.NewFakeClock(time.Unix(0, 0))}, do: func(b *bench) answer {
				b.create(pools, doc{})
				return b.search("resource_type:LbPool")
			}, status: 200, body: `{"results":[],"result_count":0}`},
			{fact: "search while indexing", options: nsxsim.Options{SearchDelay: time.Hour, Clock: clocktesting.NewFakeClock(time.Unix(0, 0)), Quirks: nsxsim.Quirks{SearchRefusesWhileIndexing: true}},
				do: func(b *bench) answer { return b.search("resource_type:LbPool") }, status: 400, code: "60508"},
			{fact: "search that times out", do: func(b *bench) answer {
				b.fault(nsxsim.Rule{Path: "/search/**", Status: 400, Code: 60514})
				return b.search("resource_type:LbPool")
			}, status: 400, code: "60514"},
			{fact: "log-in gives a cookie and a token", do: func(b *bench) answer {
				a := login(b.t, b.rig, "admin", "secret")
				if !strings.HasPrefix(a.header.Get("Set-Cookie"), "JSESSIONID=") || a.header.Get("X-XSRF-TOKEN") == "" {
					b.t.Errorf("header %v", a.header)
				}
				return a
			}, status: 200},
			{fact: "a session without its token", do: func(b *bench) answer {
				cookie, _, _ := strings.Cut(login(b.t, b.rig, "admin", "secret").header.Get("Set-Cookie"), ";")
				return b.as("").do("GET", pools, nil, "Cookie", cookie)
			}, status: 403, code: "98"},
			{fact: "paging: page_size, cursor, result_count", do: func(b *bench) answer {
				for range 3 {
					b.create(pools, doc{})
				}
				first := b.do("GET", pools+"?page_size=2", nil)
				if first.body["result_count"] != 3.0 || len(first.results()) != 2 {
					b.t.Errorf("first page %s", first.raw)
				}
				return b.do("GET", pools+"?page_size=2&cursor="+first.body.String("cursor"), nil)
			}, status: 200, body: `{"results":["*"],"cursor":null,"result_count":null}`},
			{fact: "the last page's cursor starts with 0000", options: quirk(nsxsim.Quirks{FinalCursor: true}), do: get(text(pools)), status: 200, body: `{"cursor":"*0000"}`},
			{fact: "page_size over 1000", do: get(text(pools + "?page_size=1001")), status: 400, code: "255"},
			{fact: "page_size 0 is the default", do: get(text(services + "?page_size=0")), status: 200, body: `{"results":["*"]}`},
			{fact: "sort_by and included_fields", do: get(text(profiles + "?sort_by=display_name&included_fields=display_name&page_size=1")), status: 200,
				body: `{"results":[{"display_name":"default-http-lb-app-profile","id":null}],"sort_by":"display_name"}`},
			{fact: "a body on GET is tolerated", do: func(b *bench) answer { return b.do("GET", pools, doc{}) }, status: 200},
		},
		"shapes": {
			{fact: "HTTP monitor", do: post(monitors, fixed(doc{"resource_type": "LbHttpMonitor"})), status: 201, body: `{"interval":5,"fall_count":3,"rise_count":3,"timeout":15,
				"request_method":"GET","request_version":"HTTP_VERSION_1_1","request_url":"*","response_status_codes":[200]}`},
			{fact: "UDP monitor needs send and receive", do: post(monitors, fixed(doc{"resource_type": "LbUdpMonitor"})), status: 400, code: "255"},
			{fact: "monitor_port is a string", do: post(monitors, fixed(doc{"resource_type": "LbTcpMonitor", "monitor_port": 80})), status: 400, code: "255"},
			{fact: "passive monitor", do: post(monitors, fixed(doc{"resource_type": "LbPassiveMonitor"})), status: 201, body: `{"max_fails":5,"timeout":5}`},
			{fact: "pool", do: post(pools, fixed(doc{})), status: 201, body: `{"algorithm":"ROUND_ROBIN","min_active_members":1}`},
			{fact: "members XOR member_group", do: func(b *bench) answer {
				return b.do("POST", pools, doc{"members": []doc{{"ip_address": "10.0.0.1"}}, "member_group": doc{"grouping_object": doc{"target_id": b.group()}}})
			}, status: 400, code: "255"},
			{fact: "one active monitor in 2.5", options: v25, do: func(b *bench) answer {
				return b.do("POST", pools, doc{"active_monitor_ids": []string{b.named(nsxsim.KindMonitor, "default-tcp-lb-monitor"), b.named(nsxsim.KindMonitor, "default-http-lb-monitor")}})
			}, status: 400, code: "255"},
			{fact: "several active monitors in 3.x", do: func(b *bench) answer {
				return b.do("POST", pools, doc{"active_monitor_ids": []string{b.named(nsxsim.KindMonitor, "default-tcp-lb-monitor"), b.named(nsxsim.KindMonitor, "default-http-lb-monitor")}})
			}, status: 201},
			{fact: "SNAT", do: post(pools, fixed(doc{"snat_translation": doc{"type": "LbSnatNone"}})), status: 400, code: "255"},
			{fact: "member", do: post(pools, fixed(doc{"members": []doc{{"ip_address": "10.0.0.1", "port": "80"}}})), status: 201,
				body: `{"members":[{"ip_address":"10.0.0.1","port":"80","weight":1,"admin_state":"ENABLED","backup_member":false}]}`},
			{fact: "member group", do: func(b *bench) answer {
				return b.do("POST", pools, doc{"member_group": doc{"port": 80, "grouping_object": doc{"target_id": b.group()}}})
			}, status: 201, body: `{"member_group":{"port":80,"ip_revision_filter":"IPV4","grouping_object":{"target_type":"NSGroup"}}}`},
			{fact: "loopback and link-local addresses of a group are dropped, surplus is UNUSED", do: func(b *bench) answer {
				_, pool := b.live(doc{"member_group": doc{"max_ip_list_size": 1, "grouping_object": doc{"target_id": b.group("127.0.0.1", "169.254.0.1", "10.0.0.1", "10.0.0.2")}}})
				return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
			}, status: 200, body: `{"members":[{"ip_address":"10.0.0.1","status":"UP"},{"ip_address":"10.0.0.2","status":"UNUSED"}]}`},
			{fact: "fast TCP profile", do: post(profiles, fixed(doc{"resource_type": "LbFastTcpProfile"})), status: 201, body: `{"idle_timeout":1800,"close_timeout":8,"ha_flow_mirroring_enabled":false}`},
			{fact: "fast UDP profile", do: post(profiles, fixed(doc{"resource_type": "LbFastUdpProfile"})), status: 201, body: `{"idle_timeout":300,"flow_mirroring_enabled":false}`},
			{fact: "system profiles", do: get(text(profiles + "?sort_by=display_name")), status: 200,
				body: `{"results":[{"display_name":"default-http-lb-app-profile","_system_owned":true},{"display_name":"default-tcp-lb-app-profile"},{"display_name":"default-udp-lb-app-profile"}]}`},
			{fact: "source IP persistence", do: post(persists, fixed(doc{"resource_type": "LbSourceIpPersistenceProfile"})), status: 201, body: `{"purge":"FULL","timeout":300,"persistence_shared":false}`},
			{fact: "layer 4 takes no other persistence", do: func(b *bench) answer {
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"persistence_profile_id": b.create(persists, doc{"resource_type": "LbCookiePersistenceProfile", "cookie_name": "c"})}))
			}, status: 400},
			{fact: "virtual server", do: func(b *bench) answer { return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, nil)) }, status: 201,
				body: `{"ip_protocol":"TCP","enabled":true,"access_log_enabled":false,"port":"80","ports":["80"]}`},
			{fact: "application_profile_id is required", do: post(servers, fixed(doc{"ip_address": "10.1.0.1", "ports": []string{"80"}})), status: 400, code: "255"},
			{fact: "access_list_control", do: func(b *bench) answer {
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"access_list_control": doc{"action": "ALLOW", "group_id": b.group()}}))
			}, status: 201, body: `{"access_list_control":{"action":"ALLOW","enabled":false,"group_id":"*"}}`},
			{fact: "service", do: post(services, fixed(doc{})), status: 201, body: `{"size":"SMALL","enabled":true,"error_log_level":"INFO"}`},
			{fact: "service status DETACHED", do: func(b *bench) answer { return b.do("GET", services+"/"+b.create(services, doc{})+"/status", nil) }, status: 200, body: `{"service_status":"DETACHED"}`},
			{fact: "pool status PARTIALLY_UP, member status DOWN", do: func(b *bench) answer {
				_, pool := b.live(doc{"members": []doc{{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2"}}, "active_monitor_ids": []string{b.named(nsxsim.KindMonitor, "default-tcp-lb-monitor")}})
				b.SetMemberHealth(netip.MustParseAddr("10.0.0.1"), false)
				return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
			}, status: 200, body: `{"status":"PARTIALLY_UP","members":[{"status":"DOWN","failure_cause":"*"},{"status":"UP"}]}`},
			{fact: "15 tags in 2.5", options: v25, do: post(pools, fixed(doc{"tags": make([]doc, 16)})), status: 400, code: "255"},
			{fact: "30 tags later", do: post(pools, fixed(doc{"tags": make([]doc, 31)})), status: 400, code: "255"},
			{fact: "tag scope", do: post(pools, fixed(doc{"tags": []doc{{"scope": strings.Repeat("x", 129)}}})), status: 400, code: "255"},
			{fact: "tag", do: post(pools, fixed(doc{"tags": []doc{{"tag": strings.Repeat("x", 257)}}})), status: 400, code: "255"},
		},
		"semantics": {
			{fact: "one virtual server carries many ports and ranges, paired by position", do: func(b *bench) answer {
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80", "1234-1236"}, doc{"default_pool_member_ports": []string{"30080", "31234-31236"}}))
			}, status: 201, body: `{"port":"80","default_pool_member_port":"30080"}`},
			{fact: "unequal shapes", do: func(b *bench) answer {
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80", "1234-1236"}, doc{"default_pool_member_ports": []string{"30080", "31234"}}))
			}, status: 400, code: "255"},
			{fact: "14 default pool member ports", do: func(b *bench) answer {
				var ports []string
				for i := range 15 {
					ports = append(ports, fmt.Sprint(8000+i))
				}
				return b.do("POST", servers, b.tcpVS("10.1.0.1", ports, doc{"default_pool_member_ports": ports}))
			}, status: 400, code: "255"},
			{fact: "virtual servers share a pool, and an address on other ports", do: func(b *bench) answer {
				_, pool := b.live(doc{})
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"81"}, doc{"pool_id": pool}))
			}, status: 201},
			{fact: "same address, protocol and port", do: func(b *bench) answer {
				b.live(doc{})
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, nil))
			}, status: 400},
			{fact: "same address and port, other protocol", do: func(b *bench) answer {
				b.live(doc{})
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"ip_protocol": "UDP",
					"application_profile_id": b.named(nsxsim.KindApplicationProfile, "default-udp-lb-app-profile")}))
			}, status: 201},
			{fact: "attaching is a PUT on the service with its revision", do: func(b *bench) answer {
				b.live(doc{})
				return b.do("GET", services+"/"+b.lb, nil)
			}, status: 200, body: `{"_revision":1,"virtual_server_ids":["*"]}`},
			{fact: "one service a tier-1", do: func(b *bench) answer {
				return b.do("POST", services, doc{"attachment": doc{"target_type": "LogicalRouter", "target_id": b.tier1}})
			}, status: 400},
			{fact: "the tier-1 needs an edge cluster", do: func(b *bench) answer {
				bare := b.create("/logical-routers", doc{"router_type": "TIER1"})
				return b.do("POST", services, doc{"attachment": doc{"target_type": "LogicalRouter", "target_id": bare}})
			}, status: 400},
			{fact: "deleting what is referenced", do: func(b *bench) answer {
				_, pool := b.live(doc{})
				return b.do("DELETE", pools+"/"+pool, nil)
			}, status: 400, body: `{"error_message":"*is being referenced"}`},
			{fact: "PUT replaces the whole object", do: func(b *bench) answer {
				id := b.create(pools, doc{"description": "old", "members": []doc{{"ip_address": "10.0.0.1"}}})
				return b.do("PUT", pools+"/"+id, doc{"_revision": 0})
			}, status: 200, body: `{"description":null,"members":null,"_revision":1}`},
			{fact: "unknown fields survive", do: func(b *bench) answer {
				return b.do("GET", servers+"/"+b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"later_field": doc{"a": 1}})), nil)
			}, status: 200, body: `{"later_field":{"a":1}}`},
			{fact: "no revision", do: func(b *bench) answer { return b.do("PUT", pools+"/"+b.create(pools, doc{}), doc{}) }, status: 412, code: "206"},
			{fact: "stale revision", do: func(b *bench) answer { return b.do("PUT", pools+"/"+b.create(pools, doc{}), doc{"_revision": 9}) }, status: 412, code: "206"},
			{fact: "stale revision as 409", options: quirk(nsxsim.Quirks{StaleIsConflict: true}), do: func(b *bench) answer {
				return b.do("PUT", pools+"/"+b.create(pools, doc{}), doc{"_revision": 9})
			}, status: 409, code: "206"},
		},
		"errors": {
			{fact: "shape", do: get(text(pools + "/X")), status: 404, code: "600", body: `{"httpStatus":"NOT_FOUND","module_name":"*","details":"","related_errors":[],
				"error_message":"The requested object : X could not be found. Object identifiers are case sensitive."}`},
			{fact: "error_code as a string", options: quirk(nsxsim.Quirks{ErrorCodeIsString: true}), do: get(text(pools + "/X")), status: 404, body: `{"error_code":"600"}`},
			{fact: "not found as 202", options: quirk(nsxsim.Quirks{NotFoundCode202: true}), do: get(text(pools + "/X")), status: 404, code: "202"},
			{fact: "field validation", do: post(pools, fixed(doc{"algorithm": "X"})), status: 400, code: "255", body: `{"error_message":"*Field level validation errors: {"}`},
			{fact: "RELEASE of an unknown address", do: func(b *bench) answer {
				return b.do("POST", b.ipPool(nil)+"?action=RELEASE", doc{"allocation_id": "10.9.0.1"})
			}, status: 400, body: `{"error_message":"*is not allocated"}`},
			{fact: "RELEASE has no body", do: func(b *bench) answer {
				pool := b.ipPool(nil)
				b.ok("POST", pool+"?action=ALLOCATE", `{"allocation_id":null}`)
				return b.do("POST", pool+"?action=RELEASE", doc{"allocation_id": "10.9.0.1"})
			}, status: 200, body: "EMPTY"},
			{fact: "exhausted pool", do: func(b *bench) answer {
				pool := b.ipPool(nil)
				for range 3 {
					b.ok("POST", pool+"?action=ALLOCATE", `{"allocation_id":null}`)
				}
				return b.do("POST", pool+"?action=ALLOCATE", `{"allocation_id":null}`)
			}, status: 400, body: `{"error_message":"*exhausted"}`},
			{fact: "capacity", options: nsxsim.Options{Capacity: map[string]nsxsim.Capacity{"SMALL": {}}}, do: func(b *bench) answer {
				return b.put(services+"/"+b.lb, doc{"virtual_server_ids": []string{b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, nil))}})
			}, status: 400},
			{fact: "bad credentials", do: func(b *bench) answer { return b.as("nobody").do("GET", pools, nil) }, status: 403, code: "403"},
			{fact: "bad credentials as 401", options: quirk(nsxsim.Quirks{BadCredentials401: true}), do: func(b *bench) answer { return b.as("nobody").do("GET", pools, nil) }, status: 401, code: "403"},
			{fact: "over the rate", options: nsxsim.Options{RateLimit: 1, Clock: clocktesting.NewFakeClock(time.Unix(0, 0))}, do: func(b *bench) answer {
				b.do("GET", pools, nil)
				return b.do("GET", pools, nil)
			}, status: 429, code: "102", body: `{"error_message":"Client 'admin' exceeded request rate of 1 per second."}`},
			{fact: "the cluster reconfigures, by a fault rule", do: func(b *bench) answer {
				b.fault(nsxsim.Rule{Status: 500, Code: 607})
				return b.do("GET", pools, nil)
			}, status: 500, code: "607"},
			{fact: "an unknown endpoint", do: get(text("/loadbalancer/frobs")), status: 404, body: `{"httpStatus":"NOT_FOUND","error_message":"*could not be found"}`},
		},
		"unsettled": {
			{fact: "a released address stays listed", do: func(b *bench) answer {
				pool := b.ipPool(doc{"ip_release_delay": 60000})
				b.ok("POST", pool+"?action=ALLOCATE", `{"allocation_id":null}`)
				b.ok("POST", pool+"?action=RELEASE", doc{"allocation_id": "10.9.0.1"})
				return b.do("GET", pool+"/allocations", nil)
			}, status: 200, body: `{"result_count":1}`},
			{fact: "a released address is unlisted", options: quirk(nsxsim.Quirks{ReleasedUnlisted: true}), do: func(b *bench) answer {
				pool := b.ipPool(doc{"ip_release_delay": 60000})
				b.ok("POST", pool+"?action=ALLOCATE", `{"allocation_id":null}`)
				b.ok("POST", pool+"?action=RELEASE", doc{"allocation_id": "10.9.0.1"})
				return b.do("GET", pool+"/allocations", nil)
			}, status: 200, body: `{"result_count":0}`},
			{fact: "a released address cannot be had at once", do: func(b *bench) answer {
				pool := b.ipPool(doc{"ip_release_delay": 60000})
				b.ok("POST", pool+"?action=ALLOCATE", `{"allocation_id":null}`)
				b.ok("POST", pool+"?action=RELEASE", doc{"allocation_id": "10.9.0.1"})
				return b.do("POST", pool+"?action=ALLOCATE", doc{"allocation_id": "10.9.0.1"})
			}, status: 400},
			{fact: "a pool in two services", do: func(b *bench) answer {
				_, pool := b.live(doc{})
				return b.do("POST", services, doc{"virtual_server_ids": []string{b.create(servers, b.tcpVS("10.1.0.2", []string{"80"}, doc{"pool_id": pool}))}})
			}, status: 201},
			{fact: "a pool in one service only", options: quirk(nsxsim.Quirks{PoolPerService: true}), do: func(b *bench) answer {
				_, pool := b.live(doc{})
				return b.do("POST", services, doc{"virtual_server_ids": []string{b.create(servers, b.tcpVS("10.1.0.2", []string{"80"}, doc{"pool_id": pool}))}})
			}, status: 400},
			{fact: "a member before its first check is UP", do: func(b *bench) answer {
				_, pool := b.live(doc{"members": []doc{{"ip_address": "10.0.0.1"}}, "active_monitor_ids": []string{b.named(nsxsim.KindMonitor, "default-tcp-lb-monitor")}})
				return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
			}, status: 200, body: `{"status":"UP"}`},
			{fact: "a member before its first check is DOWN", options: quirk(nsxsim.Quirks{UncheckedMembersDown: true}), do: func(b *bench) answer {
				_, pool := b.live(doc{"members": []doc{{"ip_address": "10.0.0.1"}}, "active_monitor_ids": []string{b.named(nsxsim.KindMonitor, "default-tcp-lb-monitor")}})
				return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
			}, status: 200, body: `{"status":"DOWN"}`},
			{fact: "a group without max_ip_list_size budgets one member", do: func(b *bench) answer {
				_, pool := b.live(doc{"member_group": doc{"grouping_object": doc{"target_id": b.group("10.0.0.1", "10.0.0.2")}}})
				return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
			}, status: 200, body: `{"members":[{"status":"UP"},{"status":"DISABLED"}]}`},
			{fact: "a group without max_ip_list_size serves whole", options: quirk(nsxsim.Quirks{UnsizedGroupServes: true}), do: func(b *bench) answer {
				_, pool := b.live(doc{"member_group": doc{"grouping_object": doc{"target_id": b.group("10.0.0.1", "10.0.0.2")}}})
				return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
			}, status: 200, body: `{"members":[{"status":"UP"},{"status":"UP"}]}`},
		},
	}
	for _, further := range []map[string][]fact{managerFacts(), restOfFacts()} {
		for section, more := range further {
			sections[section] = append(sections[section], more...)
		}
	}
	sections["policy"] = policyFacts()
	for _, section := range []string{"versions", "surface", "shapes", "semantics", "errors", "unsettled", "policy"} {
		for _, f := range sections[section] {
			t.Run(section+"/"+f.fact, f.run)
		}
	}
}

// Unknown endpoints get an error of NSX's and are in the journal, whatever the
// method.
func TestUnknownEndpointsAreRefusedAndJournalled(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	for _, path := range []string{"/", "/api", "/api/v1", "/api/v1/", "/api/v1/loadbalancer", "/api/v1/loadbalancer/frobs", "/api/v2/loadbalancer/pools",
		"/api/v1/loadbalancer/pools/x/y/z", "/api/v1/search/everything", "/policy", "/policy/api/v1", "/policy/api/v1/frobs",
		"/policy/api/v1/infra/frobs", "/policy/api/v1/infra/domains/other/groups/g", "/policy/api/v1/infra/lb-pools/p/frobs", "/policy/api/v1/infra//lb-pools",
		"/policy/api/v1/infra/realized-state/frobs", "/policy/api/v1/global-infra/lb-pools", "/policy/api/v1/infra/sites/other", "/api/v1/logical-routers/r/routing/frobs", "/login", "/api/v1/%2e%2e/pools", "/api/v1//pools"} {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "FROB"} {
			r.Journal().Reset()
			req := httptest.NewRequest(method, "/", strings.NewReader("{}"))
			target, err := url.Parse(path)
			if err != nil {
				t.Fatal(err)
			}
			req.URL = target
			req.SetBasicAuth("admin", "secret")
			w := httptest.NewRecorder()
			r.ServeHTTP(w, req)
			var body map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code < 400 || w.Code >= 500 || body["error_code"] == nil || body["httpStatus"] == nil {
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
			if e := r.Journal().Entries(); len(e) != 1 || e[0].Status != w.Code || e[0].Method != method || e[0].User != "admin" || !strings.HasSuffix(e[0].Op, "(unknown)") {
				t.Errorf("%s %s: journal %+v", method, path, e)
			}
		}
	}
}
