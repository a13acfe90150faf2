package nsxsim_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"strings"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// restOfFacts are rows of the table on single values: of enumerations, of states, of
// ways to authenticate.
func restOfFacts() map[string][]fact {
	portsOf := func(n int) (ports []string) {
		for i := range n {
			ports = append(ports, fmt.Sprint(8000+i))
		}
		return ports
	}
	poolOfGroup := func(b *bench, action string) answer {
		pool := b.create(pools, doc{"member_group": doc{"grouping_object": doc{"target_id": b.group("10.0.0.1")}}})
		return b.do("POST", pools+"/"+pool+"?action="+action, doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
	}
	statusOf := func(what string, pool doc) func(b *bench) answer {
		return func(b *bench) answer {
			vs, id := b.live(pool)
			return b.do("GET", services+"/"+b.lb+strings.NewReplacer("{vs}", vs, "{pool}", id).Replace(what)+"/status", nil)
		}
	}
	half := doc{"members": []doc{{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2", "admin_state": "DISABLED"}}}
	onBackup := doc{"members": []doc{{"ip_address": "10.0.0.1", "admin_state": "DISABLED"}, {"ip_address": "10.0.0.2", "backup_member": true}}}
	// again makes what was deleted before that is realised, or after it.
	again := func(after time.Duration) func(*bench) answer {
		return func(b *bench) answer {
			r := policyRig{b.rig}
			r.must("PATCH", "/infra/lb-pools/p", "{}")
			r.clock.(*clocktesting.FakeClock).Step(time.Second)
			r.must("DELETE", "/infra/lb-pools/p", nil)
			r.clock.(*clocktesting.FakeClock).Step(after)
			return r.call("PUT", "/infra/lb-pools/p", "{}")
		}
	}
	marked := func(q nsxsim.Quirks) nsxsim.Options {
		return nsxsim.Options{RealizationDelay: time.Second, Clock: clocktesting.NewFakeClock(time.Unix(1e9, 0)), Quirks: q}
	}
	return map[string][]fact{
		"unsettled": {
			{fact: "a path that was deleted is had again at once", options: marked(nsxsim.Quirks{}), do: again(0), status: 200, body: `{"_revision":0}`},
			{fact: "a path that was deleted is pending", options: marked(nsxsim.Quirks{PendingDelete: true}), do: again(999 * time.Millisecond), status: 400, code: "500045",
				body: `{"error_message":"*path=[/infra/lb-pools/p] is marked for deletion"}`},
			{fact: "a path that was deleted is free when that is realised", options: marked(nsxsim.Quirks{PendingDelete: true}), do: again(time.Second), status: 200, body: `{"_revision":0}`},
		},
		"surface": {
			{fact: "REMOVE_MEMBERS of a group is refused", do: func(b *bench) answer { return poolOfGroup(b, "REMOVE_MEMBERS") }, status: 400},
			{fact: "a session by cookie and token, without other credentials", do: func(b *bench) answer {
				in := login(b.t, b.rig, "admin", "secret")
				cookie, _, _ := strings.Cut(in.header.Get("Set-Cookie"), ";")
				return b.as("").do("GET", pools, nil, "Cookie", cookie, "X-XSRF-TOKEN", in.header.Get("X-XSRF-TOKEN"))
			}, status: 200},
			{fact: "a client certificate", do: byCertificate, status: 201, body: `{"_create_user":"ncp"}`},
			{fact: "the form of a log-in needs no other credentials", do: func(b *bench) answer { return login(b.t, b.rig, "admin", "wrong") }, status: 403, code: "403"},
			{fact: "search says how many results there are on each page, with a number for cursor", do: func(b *bench) answer {
				b.create(pools, doc{})
				b.create(pools, doc{})
				return b.do("GET", "/search/query?query=resource_type:LbPool&page_size=1&cursor=1", nil)
			}, status: 200, body: `{"results":["*"],"cursor":"2","result_count":2}`},
			{fact: "an empty page of a search has no cursor", do: func(b *bench) answer { return b.search("resource_type:LbRule") }, status: 200, body: `{"results":[],"cursor":null,"result_count":0}`},
			{fact: "DELETE of an IP pool with addresses in use", do: func(b *bench) answer {
				pool := b.ipPool(nil)
				b.ok("POST", pool+"?action=ALLOCATE", `{"allocation_id":null}`)
				return b.do("DELETE", pool, nil)
			}, status: 400},
			{fact: "node health", do: get(text("/reverse-proxy/node/health")), status: 200, body: `{"healthy":true}`},
			{fact: "cluster status", do: get(text("/cluster/status")), status: 200, body: `{"mgmt_cluster_status":{"status":"STABLE"},"control_cluster_status":{"status":"STABLE"}}`},
			{fact: "_revision as a string", do: func(b *bench) answer { return b.do("PUT", pools+"/"+b.create(pools, doc{}), doc{"_revision": "0"}) }, status: 200, body: `{"_revision":1}`},
		},
		"shapes": {
			{fact: "ip_revision_filter IPV4_IPV6", do: func(b *bench) answer {
				_, pool := b.live(doc{"member_group": doc{"max_ip_list_size": 9, "ip_revision_filter": "IPV4_IPV6", "grouping_object": doc{"target_id": b.group("10.0.0.1", "fd00::1")}}})
				return b.do("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)
			}, status: 200, body: `{"members":[{"ip_address":"10.0.0.1"},{"ip_address":"fd00::1"}]}`},
			{fact: "an unknown ip_revision_filter", do: func(b *bench) answer {
				return b.do("POST", pools, doc{"member_group": doc{"ip_revision_filter": "IPV5", "grouping_object": doc{"target_id": b.group()}}})
			}, status: 400, code: "255"},
			{fact: "purge NO_PURGE", do: post(persists, fixed(doc{"resource_type": "LbSourceIpPersistenceProfile", "purge": "NO_PURGE"})), status: 201, body: `{"purge":"NO_PURGE"}`},
			{fact: "another purge", do: post(persists, fixed(doc{"resource_type": "LbSourceIpPersistenceProfile", "purge": "SOME"})), status: 400, code: "255"},
			{fact: "a service of size DLB", do: post(services, fixed(doc{"size": "DLB"})), status: 201},
			{fact: "a service is attached to routers only", do: func(b *bench) answer {
				return b.do("POST", services, doc{"attachment": doc{"target_type": "LogicalSwitch", "target_id": b.tier1}})
			}, status: 400, code: "255"},
			{fact: "access_list_control: DROP", do: func(b *bench) answer {
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"access_list_control": doc{"action": "DROP", "enabled": true, "group_id": b.group()}}))
			}, status: 201, body: `{"access_list_control":{"action":"DROP","enabled":true}}`},
			{fact: "access_list_control of another action", do: func(b *bench) answer {
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"access_list_control": doc{"action": "REJECT", "group_id": b.group()}}))
			}, status: 400, code: "255"},
			{fact: "a member's port is optional", do: post(pools, fixed(doc{"members": []doc{{"ip_address": "10.0.0.1"}}})), status: 201, body: `{"members":[{"port":null}]}`},
			{fact: "status of a virtual server: PARTIALLY_UP", do: statusOf("/virtual-servers/{vs}", half), status: 200, body: `{"status":"PARTIALLY_UP"}`},
			{fact: "status of a virtual server: UNKNOWN on a service that is off", do: func(b *bench) answer {
				vs, _ := b.live(half)
				b.put(services+"/"+b.lb, doc{"enabled": false})
				return b.do("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil)
			}, status: 200, body: `{"status":"UNKNOWN"}`},
			{fact: "status of a pool: PRIMARY_DOWN", do: statusOf("/pools/{pool}", onBackup), status: 200, body: `{"status":"PRIMARY_DOWN"}`},
			{fact: "status of a pool: DOWN", do: statusOf("/pools/{pool}", doc{}), status: 200, body: `{"status":"DOWN"}`},
			{fact: "a member without a monitor is UP", do: statusOf("/pools/{pool}", doc{"members": []doc{{"ip_address": "10.0.0.1"}}}), status: 200, body: `{"members":[{"status":"UP"}]}`},
		},
		"semantics": {
			{fact: "15 ports without default pool member ports", do: func(b *bench) answer { return b.do("POST", servers, b.tcpVS("10.1.0.1", portsOf(15), nil)) }, status: 201},
			{fact: "14 ports with member ports", do: func(b *bench) answer {
				return b.do("POST", servers, b.tcpVS("10.1.0.1", portsOf(14), doc{"default_pool_member_ports": portsOf(14)}))
			}, status: 201},
			{fact: "a port given alone is that of ports", do: func(b *bench) answer {
				return b.do("POST", servers, doc{"ip_address": "10.1.0.1", "ip_protocol": "TCP", "port": "80", "default_pool_member_port": "30080",
					"application_profile_id": b.named(nsxsim.KindApplicationProfile, "default-tcp-lb-app-profile")})
			}, status: 201, body: `{"ports":["80"],"default_pool_member_ports":["30080"]}`},
			{fact: "a UDP profile does not fit TCP", do: func(b *bench) answer {
				return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"application_profile_id": b.named(nsxsim.KindApplicationProfile, "default-udp-lb-app-profile")}))
			}, status: 400},
		},
		"errors": {
			{fact: "a stale revision says what to do", do: func(b *bench) answer { return b.do("PUT", pools+"/"+b.create(pools, doc{}), doc{"_revision": 5}) }, status: 412, code: "206",
				body: `{"httpStatus":"PRECONDITION_FAILED","error_message":"*Fetch the latest copy of the object and retry"}`},
		},
	}
}

// byCertificate asks as a user that a client certificate authenticates.
func byCertificate(b *bench) answer {
	made, _, err := nsxsim.NewCertificate("ncp")
	if err != nil {
		b.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(made.Certificate[0])
	if err != nil {
		b.t.Fatal(err)
	}
	r := newRig(b.t, nsxsim.Options{Users: []nsxsim.User{{Name: "admin", Password: "secret"},
		{Name: "ncp", Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), Principal: true}}})
	req := httptest.NewRequest("POST", "/api/v1"+pools, strings.NewReader("{}"))
	req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return answerOf(b.t, w)
}
