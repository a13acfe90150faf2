package nsxsim_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// removed9 are the paths of the Manager API that NSX 9.0 no longer has.
var removed9 = []string{services, servers, pools, monitors, profiles, persists, rules, clientSSL, serverSSL, tcpProfiles, ippools, ipsets, groups,
	"/logical-routers", "/logical-router-ports"}

// managerFacts gives more rows of the table, by section: accounts, enumerations,
// references between objects and what is written of single releases.
func managerFacts() map[string][]fact {
	sections := map[string][]fact{}
	add := func(section string, rows ...fact) { sections[section] = append(sections[section], rows...) }

	add("versions", fact{fact: "the Manager LB API is there from 2.3", options: nsxsim.Options{Version: "2.3.1"}, do: get(text(pools)), status: 200},
		fact{fact: "objects of Policy are protected, by the other code", options: nsxsim.Options{Quirks: nsxsim.Quirks{ForeignCode8327: true}}, do: func(b *bench) answer {
			return b.do("DELETE", pools+"/"+b.as("nsx_policy").create(pools, doc{}), nil)
		}, status: 400, code: "8327"},
		fact{fact: "node version decides: 9.0", options: nsxsim.Options{Version: "9.0"}, do: func(b *bench) answer { return b.do("GET", "/node/version", nil) },
			status: 200, body: `{"product_version":"*9.0"}`})
	for _, path := range removed9 {
		add("versions", fact{fact: "removed in 9.0: " + path, options: nsxsim.Options{Version: "9.0"}, do: get(text(path)), status: 404})
	}

	for _, path := range []string{"/edge-clusters", certificates, "/search/query?query=id:x"} {
		add("versions", fact{fact: "still there in 9.0: " + path, options: nsxsim.Options{Version: "9.0"}, do: get(text(path)), status: 200})
	}

	add("surface",
		fact{fact: "delete_associated_rules=false keeps them", do: func(b *bench) answer {
			rule := b.create(rules, doc{"match_strategy": "ALL", "phase": "HTTP_FORWARDING", "actions": []doc{{"type": "LbHttpRejectAction", "reply_status": "403"}}})
			b.ok("DELETE", servers+"/"+b.create(servers, b.httpVS(doc{"rule_ids": []string{rule}}))+"?delete_associated_rules=false", nil)
			return b.do("GET", rules+"/"+rule, nil)
		}, status: 200},
		fact{fact: "status of another source", do: onService("/status?source=guess"), status: 400, code: "255"},
		fact{fact: "an IP pool's subnet has gateway and DNS", do: func(b *bench) answer {
			return b.do("POST", ippools, doc{"subnets": []doc{{"cidr": "10.9.0.0/24", "gateway_ip": "10.9.0.254", "dns_nameservers": []string{"10.9.0.53"},
				"allocation_ranges": []doc{{"start": "10.9.0.1", "end": "10.9.0.3"}}}}})
		}, status: 201, body: `{"subnets":[{"gateway_ip":"10.9.0.254","dns_nameservers":["10.9.0.53"]}]}`},
		fact{fact: "logical routers by type", do: get(text("/logical-routers?router_type=TIER0")), status: 200, body: `{"results":[{"router_type":"TIER0"}]}`},
		fact{fact: "populate_references of the list", do: func(b *bench) answer {
			b.group("10.0.0.1")
			return b.do("GET", groups+"?populate_references=true", nil)
		}, status: 200, body: `{"results":[{"members":[{"target_resource":{"is_valid":true}}]}]}`},
		fact{fact: "Basic authentication on each call", do: get(text(pools)), status: 200},
		fact{fact: "no credentials", do: func(b *bench) answer { return b.as("").do("GET", pools, nil) }, status: 401, code: "403"},
		fact{fact: "Authorization: Remote", options: nsxsim.Options{Users: []nsxsim.User{{Name: "admin", Password: "secret"}, {Name: "jane@corp", Password: "secret", Remote: true}}},
			do: func(b *bench) answer {
				return b.as("").do("GET", pools, nil, "Authorization", "Remote "+base64.StdEncoding.EncodeToString([]byte("jane@corp:secret")))
			}, status: 200},
		fact{fact: "a bearer token", options: nsxsim.Options{Users: []nsxsim.User{{Name: "admin", Password: "secret"}, {Name: "vmc", Token: "t0ken"}}},
			do: func(b *bench) answer { return b.as("").do("GET", pools, nil, "Authorization", "Bearer t0ken") }, status: 200},
		fact{fact: "a session lives on the manager node that made it", do: func(b *bench) answer {
			in := login(b.t, b.rig, "admin", "secret")
			cookie, _, _ := strings.Cut(in.header.Get("Set-Cookie"), ";")
			req := httptest.NewRequest("GET", "/api/v1"+pools, nil)
			req.Header.Set("Cookie", cookie)
			req.Header.Set("X-XSRF-TOKEN", in.header.Get("X-XSRF-TOKEN"))
			w := httptest.NewRecorder()
			b.Node(1).ServeHTTP(w, req)
			return answerOf(b.t, w)
		}, status: 403, code: "403"},
		fact{fact: "1000 results are the default page", do: func(b *bench) answer {
			for i := range 1001 {
				nsxsim.Must(b.As("admin").Create(nsxsim.KindIPSet, nsxsim.Object{"display_name": fmt.Sprint(i)}))
			}
			a := b.do("GET", ipsets, nil)
			if n := len(a.results()); n != 1000 {
				b.t.Errorf("%d results", n)
			}
			return a
		}, status: 200, body: `{"result_count":1001,"cursor":"*"}`},
	)

	for _, algorithm := range []string{"ROUND_ROBIN", "WEIGHTED_ROUND_ROBIN", "LEAST_CONNECTION", "WEIGHTED_LEAST_CONNECTION", "IP_HASH"} {
		add("shapes", fact{fact: "algorithm " + algorithm, do: post(pools, fixed(doc{"algorithm": algorithm})), status: 201})
	}
	for _, monitor := range []string{"LbHttpsMonitor", "LbTcpMonitor", "LbIcmpMonitor"} {
		add("shapes", fact{fact: "defaults of " + monitor, do: post(monitors, fixed(doc{"resource_type": monitor})), status: 201, body: `{"interval":5,"fall_count":3,"rise_count":3,"timeout":15}`})
	}
	for _, snat := range []string{"LbSnatAutoMap", "LbSnatIpPool"} {
		add("shapes", fact{fact: "snat_translation " + snat, do: post(pools, fixed(doc{"snat_translation": doc{"type": snat}})), status: 201})
	}
	for _, state := range []string{"ENABLED", "DISABLED", "GRACEFUL_DISABLED"} {
		member := map[string]string{"ENABLED": "UP"}[state]
		if member == "" {
			member = state
		}
		add("shapes", fact{fact: "admin_state " + state + " is member status " + member, do: func(b *bench) answer {
			_, pool := b.live(doc{"members": []doc{{"ip_address": "10.0.0.1", "admin_state": state}}})
			return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
		}, status: 200, body: `{"members":[{"status":"` + member + `"}]}`})
	}
	for size, capacity := range map[string]string{"SMALL": "20,60,300", "MEDIUM": "100,300,2000", "LARGE": "1000,3000,7500", "XLARGE": "2000,4000,10000"} {
		c := strings.Split(capacity, ",")
		add("shapes", fact{fact: "capacity of " + size, do: func(b *bench) answer {
			return b.do("GET", services+"/"+b.create(services, doc{"size": size})+"/usage", nil)
		}, status: 200, body: fmt.Sprintf(`{"service_size":%q,"virtual_server_capacity":%s,"pool_capacity":%s,"pool_member_capacity":%s}`, size, c[0], c[1], c[2])})
	}
	for filter, want := range map[string]string{"IPV4": `"10.0.0.1"`, "IPV6": `"fd00::1"`} {
		add("shapes", fact{fact: "ip_revision_filter " + filter, do: func(b *bench) answer {
			_, pool := b.live(doc{"member_group": doc{"max_ip_list_size": 9, "ip_revision_filter": filter, "grouping_object": doc{"target_id": b.group("10.0.0.1", "fd00::1")}}})
			return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
		}, status: 200, body: `{"members":[{"ip_address":` + want + `}]}`})
	}
	add("shapes",
		fact{fact: "XLARGE is of 3.x", options: nsxsim.Options{Version: "2.5"}, do: post(services, fixed(doc{"size": "XLARGE"})), status: 400, code: "255"},
		fact{fact: "another capacity [?]", options: nsxsim.Options{Capacity: map[string]nsxsim.Capacity{"SMALL": {VirtualServers: 7, Pools: 8, Members: 9}}}, do: onService("/usage"), status: 200,
			body: `{"virtual_server_capacity":7,"pool_capacity":8,"pool_member_capacity":9}`},
		fact{fact: "display_name defaults to id", do: func(b *bench) answer {
			a := b.do("POST", pools, doc{})
			if a.body.String("display_name") != a.body.ID() {
				b.t.Errorf("display_name %v", a.body["display_name"])
			}
			return a
		}, status: 201, body: `{"_last_modified_user":"admin","_last_modified_time":"*","_system_owned":false,"_protection":"NOT_PROTECTED"}`},
		fact{fact: "the port of a group is an int", do: func(b *bench) answer {
			return b.do("POST", pools, doc{"member_group": doc{"port": "80", "grouping_object": doc{"target_id": b.group()}}})
		}, status: 400, code: "255"},
		fact{fact: "TCP or UDP, never both", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"ip_protocol": "TCP_UDP"}))
		}, status: 400, code: "255"},
		fact{fact: "status of a service: DISABLED", do: func(b *bench) answer {
			b.put(services+"/"+b.lb, doc{"enabled": false})
			return b.do("GET", services+"/"+b.lb+"/status", nil)
		}, status: 200, body: `{"service_status":"DISABLED"}`},
		fact{fact: "status of a service: NO_STANDBY", do: statusWithEdges(1), status: 200, body: `{"service_status":"NO_STANDBY"}`},
		fact{fact: "status of a service: DOWN", do: statusWithEdges(0), status: 200, body: `{"service_status":"DOWN"}`},
		fact{fact: "status of a virtual server: DISABLED", do: func(b *bench) answer {
			vs, _ := b.live(doc{})
			b.put(servers+"/"+vs, doc{"enabled": false})
			return b.do("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil)
		}, status: 200, body: `{"status":"DISABLED"}`},
		fact{fact: "status of a virtual server: DETACHED", do: func(b *bench) answer {
			vs := b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, nil))
			lb := b.create(services, doc{"virtual_server_ids": []string{vs}})
			return b.do("GET", services+"/"+lb+"/virtual-servers/"+vs+"/status", nil)
		}, status: 200, body: `{"status":"DETACHED"}`},
		fact{fact: "status of a virtual server: PRIMARY_DOWN", do: func(b *bench) answer {
			vs, _ := b.live(doc{"members": []doc{{"ip_address": "10.0.0.1", "admin_state": "DISABLED"}, {"ip_address": "10.0.0.2", "backup_member": true}}})
			return b.do("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil)
		}, status: 200, body: `{"status":"PRIMARY_DOWN"}`},
		fact{fact: "status of a virtual server: DOWN", do: func(b *bench) answer {
			vs, _ := b.live(doc{})
			return b.do("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil)
		}, status: 200, body: `{"status":"DOWN"}`},
	)

	add("semantics",
		fact{fact: "a virtual server works only once its id is in a service", do: func(b *bench) answer {
			vs := b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, nil))
			return b.do("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil)
		}, status: 404},
		fact{fact: "attaching with a stale revision", do: func(b *bench) answer {
			service := b.ok("GET", services+"/"+b.lb, nil)
			b.live(doc{})
			return b.do("PUT", services+"/"+b.lb, service)
		}, status: 412, code: "206"},
		fact{fact: "the last virtual server is taken off by an empty list", do: func(b *bench) answer {
			b.live(doc{})
			return b.put(services+"/"+b.lb, doc{"virtual_server_ids": []string{}})
		}, status: 200, body: `{"virtual_server_ids":[]}`},
		fact{fact: "the order of deletion: service, virtual server, pool, monitor", do: func(b *bench) answer {
			monitor := b.create(monitors, doc{"resource_type": "LbTcpMonitor"})
			vs, pool := b.live(doc{"active_monitor_ids": []string{monitor}})
			b.put(services+"/"+b.lb, doc{"virtual_server_ids": []string{}})
			b.ok("DELETE", servers+"/"+vs, nil)
			b.ok("DELETE", pools+"/"+pool, nil)
			return b.do("DELETE", monitors+"/"+monitor, nil)
		}, status: 200, body: "EMPTY"},
	)
	for what, make := range map[string]func(b *bench) string{
		"a virtual server of a service": func(b *bench) string { vs, _ := b.live(doc{}); return servers + "/" + vs },
		"a monitor of a pool": func(b *bench) string {
			monitor := b.create(monitors, doc{"resource_type": "LbTcpMonitor"})
			b.create(pools, doc{"active_monitor_ids": []string{monitor}})
			return monitors + "/" + monitor
		},
		"a profile of a virtual server": func(b *bench) string {
			profile := b.create(profiles, doc{"resource_type": "LbFastTcpProfile"})
			b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"application_profile_id": profile}))
			return profiles + "/" + profile
		},
		"a persistence profile of a virtual server": func(b *bench) string {
			profile := b.create(persists, doc{"resource_type": "LbSourceIpPersistenceProfile"})
			b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"persistence_profile_id": profile}))
			return persists + "/" + profile
		},
		"a group of a pool": func(b *bench) string {
			group := b.group("10.0.0.1")
			b.create(pools, doc{"member_group": doc{"grouping_object": doc{"target_id": group}}})
			return groups + "/" + group
		},
		"an IP set of a group":    func(b *bench) string { b.group("10.0.0.1"); return ipsets + "/" + b.List(nsxsim.KindIPSet)[0].ID() },
		"the router of a service": func(b *bench) string { return "/logical-routers/" + b.tier1 },
	} {
		add("semantics", fact{fact: "deleting what is referenced: " + what, do: func(b *bench) answer { return b.do("DELETE", make(b), nil) },
			status: 400, body: `{"error_message":"*is being referenced"}`})
	}

	add("errors",
		fact{fact: "RELEASE of an address that is in no range", do: func(b *bench) answer {
			return b.do("POST", b.ipPool(nil)+"?action=RELEASE", doc{"allocation_id": "192.0.2.1"})
		}, status: 400},
		fact{fact: "a bad XSRF token", do: func(b *bench) answer {
			cookie, _, _ := strings.Cut(login(b.t, b.rig, "admin", "secret").header.Get("Set-Cookie"), ";")
			return b.as("").do("GET", pools, nil, "Cookie", cookie, "X-XSRF-TOKEN", "wrong")
		}, status: 403, code: "98"},
		fact{fact: "a client certificate that is not trusted", do: func(b *bench) answer {
			made, _, err := nsxsim.NewCertificate("client")
			if err != nil {
				b.t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(made.Certificate[0])
			if err != nil {
				b.t.Fatal(err)
			}
			req := httptest.NewRequest("GET", "/api/v1"+pools, nil)
			req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
			w := httptest.NewRecorder()
			b.ServeHTTP(w, req)
			return answerOf(b.t, w)
		}, status: 500, code: "99"},
		fact{fact: "more than 40 requests of one user at once", options: nsxsim.Options{MaxConcurrent: 1}, do: twoAtOnce, status: 503, code: "604"},
		fact{fact: "more than 40 requests of one user at once, as 429", options: nsxsim.Options{MaxConcurrent: 1, Quirks: nsxsim.Quirks{TooManyAtOnce429: true}}, do: twoAtOnce, status: 429, code: "98"},
		fact{fact: "199 in all", options: nsxsim.Options{MaxConcurrentTotal: 1}, do: twoAtOnce, status: 503, code: "604"},
		fact{fact: "100 requests a second of one user", options: nsxsim.Options{RateLimit: nsxsim.NSXRateLimit, Clock: clocktesting.NewFakeClock(time.Unix(0, 0))}, do: func(b *bench) answer {
			for range 100 {
				b.ok("GET", "/node", nil)
			}
			return b.do("GET", "/node", nil)
		}, status: 429, body: `{"error_message":"Client 'admin' exceeded request rate of 100 per second."}`},
		fact{fact: "an action that does not exist", do: func(b *bench) answer { return b.do("POST", pools+"/"+b.create(pools, doc{})+"?action=FROB", doc{}) }, status: 400},
	)

	add("unsettled",
		fact{fact: "ip_release_delay is in milliseconds", options: nsxsim.Options{Clock: clocktesting.NewFakeClock(time.Unix(0, 0))}, do: releaseAndWait(1500*time.Millisecond, 1500), status: 200},
		fact{fact: "before the delay is over, a released address is refused", options: nsxsim.Options{Clock: clocktesting.NewFakeClock(time.Unix(0, 0))}, do: releaseAndWait(1499*time.Millisecond, 1500), status: 400},
		fact{fact: "the default delay is a manager's choice", options: nsxsim.Options{ReleaseDelay: nsxsim.NSXReleaseDelay, Clock: clocktesting.NewFakeClock(time.Unix(0, 0))},
			do: releaseAndWait(119*time.Second, nil), status: 400},
		fact{fact: "a pool on no enabled virtual server is UNKNOWN", do: func(b *bench) answer {
			vs, pool := b.live(doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
			b.put(servers+"/"+vs, doc{"enabled": false})
			return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
		}, status: 200, body: `{"status":"UNKNOWN"}`},
	)
	return sections
}

// statusWithEdges gives the status of the service when its edge cluster has so many
// members.
func statusWithEdges(n int) func(*bench) answer {
	return func(b *bench) answer {
		path := "/edge-clusters/" + b.EdgeClusterID()
		members := b.ok("GET", path, nil)["members"].([]any)
		b.put(path, doc{"members": members[:n]})
		return b.do("GET", services+"/"+b.lb+"/status", nil)
	}
}

// twoAtOnce sends a request while another is in service.
func twoAtOnce(b *bench) answer {
	var second answer
	b.fault(nsxsim.Rule{Path: services, Hook: func(*http.Request) { second = b.do("GET", pools, nil) }})
	b.ok("GET", services, nil)
	return second
}

// releaseAndWait gives an address back, to a pool with the delay, and asks for it
// again later.
func releaseAndWait(later time.Duration, delay any) func(*bench) answer {
	return func(b *bench) answer {
		pool := b.ipPool(doc{"ip_release_delay": delay})
		b.ok("POST", pool+"?action=ALLOCATE", doc{"allocation_id": "10.9.0.1"})
		b.ok("POST", pool+"?action=RELEASE", doc{"allocation_id": "10.9.0.1"})
		b.clock.(*clocktesting.FakeClock).Step(later)
		return b.do("POST", pool+"?action=ALLOCATE", doc{"allocation_id": "10.9.0.1"})
	}
}
