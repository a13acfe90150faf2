package nsxsim_test

import (
	"fmt"
	"strings"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// policyFacts are the rows of the table on the Policy API.
func policyFacts() []fact {
	var rows []fact
	add := func(more ...fact) { rows = append(rows, more...) }
	// in wraps what is asked of the Policy API.
	in := func(do func(r policyRig) answer) func(*bench) answer {
		return func(b *bench) answer { return do(policyRig{b.rig}) }
	}
	call := func(method, path string, body any) func(*bench) answer {
		return in(func(r policyRig) answer { return r.call(method, path, body) })
	}
	delayed := func() nsxsim.Options {
		return nsxsim.Options{RealizationDelay: 300 * time.Millisecond, Clock: clocktesting.NewFakeClock(time.Unix(1e9, 0))}
	}
	allocation := func(r policyRig) string {
		r.must("PATCH", "/infra/ip-pools/i", "{}")
		r.must("PATCH", "/infra/ip-pools/i/ip-subnets/s", doc{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24",
			"allocation_ranges": []doc{{"start": "10.9.0.1", "end": "10.9.0.2"}}})
		return "/infra/ip-pools/i/ip-allocations/a"
	}
	entities := func(r policyRig, path string) answer {
		return r.call("GET", "/infra/realized-state/realized-entities?intent_path="+path, "{}")
	}

	add(fact{fact: "the Policy LB API exists from 2.4", options: nsxsim.Options{Version: "2.4.0"}, do: call("GET", "/infra/lb-pools", nil), status: 200},
		fact{fact: "before 2.4 there is none", options: nsxsim.Options{Version: "2.3.0"}, do: call("GET", "/infra/lb-pools", nil), status: 404},
		fact{fact: "9.0 has the Policy LB API", options: nsxsim.Options{Version: "9.0", Empty: true}, do: call("GET", "/infra/lb-services", nil), status: 200})

	// GET list, GET, PUT, PATCH and DELETE by id, of every kind that clients use.
	for collection, body := range map[string]doc{
		"lb-services": {}, "lb-pools": {}, "ip-pools": {}, "domains/default/groups": {}, "tier-0s": {}, "tier-1s": {},
		"lb-monitor-profiles":     {"resource_type": "LBTcpMonitorProfile"},
		"lb-app-profiles":         {"resource_type": "LBFastTcpProfile"},
		"lb-persistence-profiles": {"resource_type": "LBSourceIpPersistenceProfile"},
		"lb-virtual-servers":      {"ip_address": "10.1.0.1", "ports": []string{"80"}, "application_profile_path": tcpProfile},
		"lb-client-ssl-profiles":  {}, "lb-server-ssl-profiles": {},
	} {
		add(fact{fact: "create, read, replace, list and delete of /infra/" + collection, status: 200, body: `{"result_count":"*"}`, do: in(func(r policyRig) answer {
			path := "/infra/" + collection + "/x"
			made := r.call("PUT", path, body)
			if made.status != 200 || made.body["_revision"] != 0.0 {
				r.t.Fatalf("PUT on a new id: %d %s", made.status, made.raw)
			}
			made.body["description"] = "changed"
			if a := r.call("PUT", path, made.body); a.status != 200 || a.body["_revision"] != 1.0 {
				r.t.Errorf("PUT: %d %s", a.status, a.raw)
			}
			if a := r.call("PUT", path, made.body); a.status != 412 || a.code() != "206" {
				r.t.Errorf("PUT with a stale _revision: %d %s", a.status, a.raw)
			}
			if a := r.call("PATCH", path, doc{"resource_type": made.body["resource_type"], "description": "patched"}); a.status != 200 || a.raw != "" {
				r.t.Errorf("PATCH: %d %s", a.status, a.raw)
			}
			if a := r.call("GET", path, "{}"); a.body["description"] != "patched" || a.body["_revision"] != 2.0 {
				r.t.Errorf("GET: %d %s", a.status, a.raw)
			}
			list := r.call("GET", "/infra/"+collection, "{}")
			last := list.results()[len(list.results())-1]
			for name, want := range (doc{"id": "x", "path": path, "relative_path": "x", "parent_path": path[:strings.LastIndex(path[:strings.LastIndex(path, "/")], "/")],
				"resource_type": made.body["resource_type"], "_revision": 2.0, "unique_id": made.body["unique_id"]}) {
				if last[name] != want {
					r.t.Errorf("in the list, %s is %v, want %v", name, last[name], want)
				}
			}
			if a := r.call("DELETE", path, nil); a.status != 200 || a.raw != "" {
				r.t.Errorf("DELETE: %d %s", a.status, a.raw)
			}
			if a := r.call("GET", path, nil); a.status != 404 {
				r.t.Errorf("GET after DELETE: %d", a.status)
			}
			return list
		})})
	}

	add(
		fact{fact: "PATCH on a new id creates", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.call("GET", "/infra/lb-pools/p", nil)
		}), status: 200, body: `{"_revision":0,"unique_id":"*-"}`},
		fact{fact: "DELETE of a referenced object", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			r.must("PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.1.0.1", "80", doc{"pool_path": "/infra/lb-pools/p"}))
			return r.call("DELETE", "/infra/lb-pools/p", nil)
		}), status: 400, code: "500030", body: `{"error_message":"*being referenced by other objects path=[/infra/lb-virtual-servers/v]"}`},
		fact{fact: "DELETE of a referenced object by force", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			r.must("PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.1.0.1", "80", doc{"pool_path": "/infra/lb-pools/p"}))
			return r.call("DELETE", "/infra/lb-pools/p?force=true", nil)
		}), status: 200, body: "EMPTY"},
		fact{fact: "a path that names nothing", do: call("PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.1.0.1", "80", doc{"pool_path": "/infra/lb-pools/none"})), status: 400, code: "500012"},
		fact{fact: "a virtual server names its service: no shared list to PUT", do: in(func(r policyRig) answer {
			r.balancer("SMALL")
			for i := range 3 {
				r.must("PATCH", fmt.Sprintf("/infra/lb-virtual-servers/v%d", i), virtualServer(fmt.Sprintf("10.1.0.%d", i+1), "80", doc{"lb_service_path": "/infra/lb-services/lb"}))
			}
			if on := r.managerObject(nsxsim.KindLBService, "/infra/lb-services/lb").Strings("virtual_server_ids"); len(on) != 3 {
				r.t.Errorf("the Manager's service has %v", on)
			}
			return r.call("GET", "/infra/lb-services/lb", nil)
		}), status: 200, body: `{"_revision":0}`},
		fact{fact: "ip-allocations: PUT on an id of the client's choice, with tags", do: in(func(r policyRig) answer {
			return r.call("PUT", allocation(r), doc{"tags": []doc{{"scope": "owner", "tag": "me"}}})
		}), status: 200, body: `{"id":"a","tags":[{"scope":"owner","tag":"me"}],"parent_path":"/infra/ip-pools/i"}`},
		fact{fact: "ip-allocations: PATCH is idempotent", do: in(func(r policyRig) answer {
			path := allocation(r)
			for range 3 {
				r.must("PATCH", path, "{}")
			}
			if got := r.Allocations(r.must("GET", "/infra/ip-pools/i", nil).String("unique_id")); len(got) != 1 {
				r.t.Errorf("addresses: %v", got)
			}
			return r.call("GET", "/infra/ip-pools/i/ip-allocations", "{}")
		}), status: 200, body: `{"result_count":1,"results":[{"resource_type":"IpAddressAllocation"}]}`},
		fact{fact: "realized-entities tell allocation_ip", do: in(func(r policyRig) answer {
			path := allocation(r)
			r.must("PATCH", path, "{}")
			return entities(r, path)
		}), status: 200, body: `{"result_count":1,"results":[{"state":"REALIZED","intent_paths":["/infra/ip-pools/i/ip-allocations/a"],
			"extended_attributes":[{"key":"allocation_ip","values":["10.9.0.1"]}]}]}`},
		fact{fact: "realised some hundred ms later: not yet", options: delayed(), do: in(func(r policyRig) answer {
			path := allocation(r)
			r.must("PATCH", path, "{}")
			r.clock.(*clocktesting.FakeClock).Step(299 * time.Millisecond)
			return entities(r, path)
		}), status: 200, body: `{"results":[]}`},
		fact{fact: "realised some hundred ms later: then", options: delayed(), do: in(func(r policyRig) answer {
			path := allocation(r)
			r.must("PATCH", path, "{}")
			r.clock.(*clocktesting.FakeClock).Step(300 * time.Millisecond)
			return entities(r, path)
		}), status: 200, body: `{"results":[{"extended_attributes":[{"values":["10.9.0.1"]}]}]}`},
		fact{fact: "an address asked for", do: in(func(r policyRig) answer {
			path := allocation(r)
			r.must("PUT", path, doc{"allocation_ip": "10.9.0.2"})
			return entities(r, path)
		}), status: 200, body: `{"results":[{"extended_attributes":[{"values":["10.9.0.2"]}]}]}`},
		fact{fact: "an exhausted pool is told in the realised state", do: in(func(r policyRig) answer {
			path := allocation(r)
			for _, id := range []string{"", "b", "c"} {
				r.must("PATCH", path+id, "{}")
			}
			return entities(r, path+"c")
		}), status: 200, body: `{"results":[{"state":"ERROR","alarms":[{"message":"*exhausted"}]}]}`},
		fact{fact: "search/query", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", doc{"tags": []doc{{"scope": "x", "tag": "a/b"}}})
			r.must("PATCH", "/infra/lb-pools/q", "{}")
			return r.call("GET", `/search/query?query=resource_type:LBPool%20AND%20tags.scope:x%20AND%20tags.tag:a%5C%2Fb`, "{}")
		}), status: 200, body: `{"result_count":1,"results":[{"path":"/infra/lb-pools/p"}]}`},
		fact{fact: "search/query by path", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.call("GET", `/search/query?query=path:%5C%2Finfra%5C%2Flb-pools%5C%2Fp`, nil)
		}), status: 200, body: `{"result_count":1,"results":[{"id":"p"}]}`},
		fact{fact: "PATCH /infra takes a tree: many objects in one call", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra", doc{"resource_type": "Infra", "children": []doc{
				{"resource_type": "ChildLBVirtualServer", "LBVirtualServer": virtualServer("10.1.0.1", "80", doc{"id": "v", "pool_path": "/infra/lb-pools/p"})},
				{"resource_type": "ChildLBPool", "LBPool": doc{"id": "p", "resource_type": "LBPool"}}}})
			return r.call("GET", "/infra/lb-virtual-servers/v", nil)
		}), status: 200, body: `{"pool_path":"/infra/lb-pools/p","_revision":0}`},
		fact{fact: "a tree is taken whole or not at all", do: in(func(r policyRig) answer {
			r.refused(400, "255", "PATCH", "/infra", doc{"resource_type": "Infra", "children": []doc{
				{"resource_type": "ChildLBPool", "LBPool": doc{"id": "p"}}, {"resource_type": "ChildLBPool", "LBPool": doc{"id": "q", "algorithm": "NONE"}}}})
			return r.call("GET", "/infra/lb-pools/p", nil)
		}), status: 404},
		fact{fact: "a tree deletes by marked_for_delete", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			r.must("PATCH", "/infra", doc{"resource_type": "Infra", "children": []doc{{"resource_type": "ChildLBPool", "marked_for_delete": true, "LBPool": doc{"id": "p"}}}})
			return r.call("GET", "/infra/lb-pools/p", nil)
		}), status: 404},
		fact{fact: "a body on GET is tolerated, even one that is no JSON", do: call("GET", "/infra/lb-pools", "{"), status: 200},
		fact{fact: "Basic authentication on every request, and no session", do: in(func(r policyRig) answer {
			a := r.call("GET", "/infra/lb-pools", nil)
			if a.header.Get("Set-Cookie") != "" {
				r.t.Errorf("a cookie: %v", a.header)
			}
			return a
		}), status: 200},
		fact{fact: "no credentials on the Policy API", do: func(b *bench) answer { return policyRig{b.as("")}.call("GET", "/infra/lb-pools", nil) }, status: 401},
		fact{fact: "what is realised is owned by nsx_policy", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.do("GET", pools+"/"+r.must("GET", "/infra/lb-pools/p", nil).String("unique_id"), nil)
		}), status: 200, body: `{"_create_user":"nsx_policy","_protection":"REQUIRE_OVERRIDE"}`},
		fact{fact: "a Manager client does not write it", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.do("DELETE", pools+"/"+r.must("GET", "/infra/lb-pools/p", nil).String("unique_id"), nil)
		}), status: 400, code: "289"},
		fact{fact: "a Manager client does not write it, by the other code", options: nsxsim.Options{Quirks: nsxsim.Quirks{ForeignCode8327: true}}, do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.do("DELETE", pools+"/"+r.must("GET", "/infra/lb-pools/p", nil).String("unique_id"), nil)
		}), status: 400, code: "8327"},
		fact{fact: "unless with X-Allow-Overwrite", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			path := pools + "/" + r.must("GET", "/infra/lb-pools/p", nil).String("unique_id")
			return r.do("PUT", path, doc{"_revision": 0, "description": "d"}, "X-Allow-Overwrite", "true")
		}), status: 200, body: `{"description":"d"}`},
		fact{fact: "a stale revision as 409", options: nsxsim.Options{Quirks: nsxsim.Quirks{StaleIsConflict: true}}, do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.call("PUT", "/infra/lb-pools/p", doc{"_revision": 7})
		}), status: 409, code: "206"},
		fact{fact: "PUT on what exists, without _revision", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.call("PUT", "/infra/lb-pools/p", "{}")
		}), status: 400, code: "500127", body: `{"module_name":"Policy","error_message":"Cannot create an object with path=[/infra/lb-pools/p] as it already exists."}`},
		fact{fact: "_revision may be a string", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.call("PUT", "/infra/lb-pools/p", doc{"_revision": "0"})
		}), status: 200, body: `{"_revision":1}`},
		fact{fact: "a stale _revision may be a string", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			return r.call("PUT", "/infra/lb-pools/p", doc{"_revision": "7"})
		}), status: 412, code: "206", body: `{"error_message":"*Fetch the latest copy of the object and retry"}`},
		fact{fact: "ip-allocations: PUT is idempotent, whatever the revision", do: in(func(r policyRig) answer {
			path := allocation(r)
			r.must("PUT", path, "{}")
			r.must("PUT", path, "{}")
			return r.call("PUT", path, doc{"_revision": 7})
		}), status: 200, body: `{"_revision":0,"id":"a"}`},
		fact{fact: "ip-allocations: one that is made is not updated", do: in(func(r policyRig) answer {
			path := allocation(r)
			r.must("PUT", path, doc{"allocation_ip": "10.9.0.2"})
			r.must("PATCH", path, doc{"allocation_ip": "10.9.0.1", "description": "other"})
			return r.call("GET", path, nil)
		}), status: 200, body: `{"_revision":0,"allocation_ip":"10.9.0.2","description":null}`},
		fact{fact: "access_list_control names a group by path", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/domains/default/groups/g", "{}")
			r.must("PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.1.0.1", "80", doc{"access_list_control": doc{"action": "DROP", "enabled": true, "group_path": "/infra/domains/default/groups/g"}}))
			return r.call("GET", "/infra/lb-virtual-servers/v", nil)
		}), status: 200, body: `{"access_list_control":{"action":"DROP","enabled":true,"group_path":"/infra/domains/default/groups/g"}}`},
		fact{fact: "the tier-1's locale-services name the edge cluster", do: in(func(r policyRig) answer {
			r.balancer("SMALL")
			return r.do("GET", "/logical-routers/"+r.must("GET", "/infra/tier-1s/t1", nil).String("unique_id"), nil)
		}), status: 200, body: `{"router_type":"TIER1","edge_cluster_id":"*-"}`},
		fact{fact: "static routes", do: in(func(r policyRig) answer {
			r.must("PATCH", "/infra/tier-1s/t", "{}")
			r.must("PATCH", "/infra/tier-1s/t/static-routes/r", doc{"network": "10.0.0.0/8", "next_hops": []doc{{"ip_address": "192.0.2.1"}}})
			return entities(r, "/infra/tier-1s/t/static-routes/r")
		}), status: 200, body: `{"results":[{"state":"REALIZED","intent_paths":["/infra/tier-1s/t/static-routes/r"]}]}`},
		fact{fact: "an unknown endpoint", do: call("GET", "/infra/frobs", nil), status: 404, body: `{"httpStatus":"NOT_FOUND","error_code":"*","error_message":"*could not be found"}`},
		fact{fact: "an unknown object", do: call("GET", "/infra/lb-pools/none", nil), status: 404, code: "600"},
	)
	return rows
}
