package nsxsim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

const httpProfile = "/infra/lb-app-profiles/default-http-lb-app-profile"

// managerObject gives what became of an intent, as the Manager API has it.
func (r policyRig) managerObject(k nsxsim.Kind, path string) nsxsim.Object {
	r.t.Helper()
	if got := r.realizedState(path); got != "REALIZED" {
		r.t.Fatalf("%s is %q: %v", path, got, r.entities(path))
	}
	return r.Get(k, r.must("GET", path, nil).String("unique_id"))
}

func TestPolicyCertificates(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	cert, key := pair(t)
	_, otherKey := pair(t)
	r.refused(400, "255", "PATCH", "/infra/certificates/app", doc{"pem_encoded": cert, "private_key": otherKey})
	r.refused(400, "255", "PATCH", "/infra/certificates/app", doc{"private_key": key})

	got := r.must("PUT", "/infra/certificates/app", doc{"resource_type": "TlsTrustData", "pem_encoded": cert, "private_key": key})
	if got.String("resource_type") != "TlsCertificate" || got["has_private_key"] != true || got["tls_certificate_type"] != "CERTIFICATE_SIGNED" || len(got["details"].([]any)) != 1 {
		t.Errorf("certificate: %v", got)
	}
	for _, path := range []string{"/infra/certificates/app", "/infra/certificates", "/infra?type_filter=TlsTrustData", "/search/query?query=resource_type:TlsCertificate"} {
		if a := r.call("GET", path, nil); !strings.Contains(a.raw, "BEGIN CERTIFICATE") || strings.Contains(a.raw, "PRIVATE KEY") {
			t.Errorf("GET %s: %s", path, a.raw)
		}
	}
	if raw := string(mustJSON(t, r.Snapshot())); strings.Contains(raw, "PRIVATE KEY") {
		t.Error("a snapshot has the private key")
	}
	if m := r.managerObject(nsxsim.KindCertificate, "/infra/certificates/app"); m.String("pem_encoded") != cert || m["has_private_key"] != nil {
		t.Errorf("in the Manager: %v", m)
	}
	r.must("PATCH", "/infra/certificates/app", doc{"description": "kept"})
	if got := r.must("GET", "/infra/certificates/app", nil); got["has_private_key"] != true {
		t.Errorf("after a PATCH: %v", got)
	}
	other, _ := pair(t)
	if got := r.must("PUT", "/infra/certificates/app", doc{"pem_encoded": other, "_revision": 1}); got["has_private_key"] != false {
		t.Errorf("another certificate has the old one's key: %v", got)
	}
}

// Bindings and rules become the ids and rules of the Manager's virtual server.
func TestPolicyLayer7IsRealized(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	cert, key := pair(t)
	r.must("PATCH", "/infra/certificates/app", doc{"pem_encoded": cert, "private_key": key})
	r.must("PATCH", "/infra/certificates/ca", doc{"pem_encoded": cert})
	r.must("PATCH", "/infra/lb-client-ssl-profiles/strict", doc{"protocols": []string{"TLS_V1_2"}})
	r.must("PATCH", "/infra/lb-server-ssl-profiles/old", doc{"protocols": []string{"TLS_V1"}, "ciphers": []string{"TLS_RSA_WITH_AES_128_CBC_SHA"}})
	r.must("PATCH", "/infra/lb-pools/a", "{}")
	r.must("PATCH", "/infra/lb-monitor-profiles/m", doc{"resource_type": "LBHttpsMonitorProfile", "server_ssl_profile_binding": doc{
		"ssl_profile_path": "/infra/lb-server-ssl-profiles/old", "server_auth": "REQUIRED", "server_auth_ca_paths": []string{"/infra/certificates/ca"}}})
	uid := func(path string) string { return r.must("GET", path, nil).String("unique_id") }

	monitor := r.managerObject(nsxsim.KindMonitor, "/infra/lb-monitor-profiles/m")
	if diff := cmp.Diff([]string{uid("/infra/certificates/ca")}, monitor.Strings("server_auth_ca_ids")); diff != "" || monitor["server_auth"] != "REQUIRED" ||
		monitor.Strings("protocols")[0] != "TLS_V1" || monitor["server_ssl_profile_binding"] != nil {
		t.Errorf("monitor: %v", monitor)
	}

	selects := func(pool string) doc {
		return doc{"actions": []doc{{"type": "LBSelectPoolAction", "pool_id": pool}},
			"match_conditions": []doc{{"type": "LBHttpRequestUriCondition", "uri": "/a", "match_type": "STARTS_WITH"}}}
	}
	drop := doc{"display_name": "drop", "phase": "HTTP_ACCESS", "match_strategy": "ALL", "actions": []doc{{"type": "LBConnectionDropAction"}}}
	vs := doc{"application_profile_path": httpProfile, "rules": []doc{selects("/infra/lb-pools/a"), drop},
		"client_ssl_profile_binding": doc{"default_certificate_path": "/infra/certificates/app", "ssl_profile_path": "/infra/lb-client-ssl-profiles/strict",
			"sni_certificate_paths": []string{"/infra/certificates/app"}},
		"server_ssl_profile_binding": doc{"ssl_profile_path": "/infra/lb-server-ssl-profiles/old"}}
	r.must("PATCH", "/infra/lb-virtual-servers/web", virtualServer("10.1.0.1", "443", vs))
	if got := r.must("GET", "/infra/lb-virtual-servers/web", nil)["rules"].([]any)[0].(doc); got["match_strategy"] != "ANY" || got["phase"] != "HTTP_FORWARDING" {
		t.Errorf("defaults of a rule: %v", got)
	}
	m := r.managerObject(nsxsim.KindVirtualServer, "/infra/lb-virtual-servers/web")
	want := map[string]any{"default_certificate_id": uid("/infra/certificates/app"), "sni_certificate_ids": []any{uid("/infra/certificates/app")},
		"ssl_profile_id": uid("/infra/lb-client-ssl-profiles/strict"), "client_auth": "IGNORE", "certificate_chain_depth": 3.0}
	if diff := cmp.Diff(want, m["client_ssl_profile_binding"]); diff != "" {
		t.Errorf("client binding (-want +got):\n%s", diff)
	}
	if got := m["server_ssl_profile_binding"].(doc); got["ssl_profile_id"] != uid("/infra/lb-server-ssl-profiles/old") || got["server_auth"] != "AUTO_APPLY" {
		t.Errorf("server binding: %v", got)
	}
	rulesOf := func() (got []string) {
		for _, id := range r.managerObject(nsxsim.KindVirtualServer, "/infra/lb-virtual-servers/web").Strings("rule_ids") {
			rule := r.Get(nsxsim.KindRule, id)
			action := rule["actions"].([]any)[0].(doc)
			name := action["type"].(string)
			if action["pool_id"] != nil {
				if action["pool_id"] != uid("/infra/lb-pools/a") {
					t.Errorf("the rule selects %v", action["pool_id"])
				}
				name += " " + rule["match_conditions"].([]any)[0].(doc)["type"].(string)
			}
			got = append(got, name)
		}
		return got
	}
	if diff := cmp.Diff([]string{"LbSelectPoolAction LbHttpRequestUriCondition", "LbConnectionDropAction"}, rulesOf()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	r.refused(400, "500030", "DELETE", "/infra/lb-pools/a", nil)
	r.refused(400, "500030", "DELETE", "/infra/certificates/app", nil)

	r.must("PATCH", "/infra/lb-virtual-servers/web", doc{"rules": []doc{drop}})
	if diff := cmp.Diff([]string{"LbConnectionDropAction"}, rulesOf()); diff != "" || len(r.List(nsxsim.KindRule)) != 1 {
		t.Errorf("after a rule is gone: %d rules (-want +got):\n%s", len(r.List(nsxsim.KindRule)), diff)
	}
	r.must("PATCH", "/infra/lb-virtual-servers/web", doc{"rules": []doc{drop, selects("/infra/lb-pools/a"), drop}})
	if got := rulesOf(); len(got) != 3 {
		t.Errorf("three rules: %v", got)
	}
	again := newPolicyRig(t, nsxsim.Options{})
	if err := again.Load(r.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if got, want := len(again.List(nsxsim.KindRule)), 3; got != want {
		t.Errorf("%d rules in a snapshot, want %d", got, want)
	}
	r.must("DELETE", "/infra/lb-virtual-servers/web", nil)
	if left := len(r.List(nsxsim.KindRule)) + len(r.List(nsxsim.KindVirtualServer)); left != 0 {
		t.Errorf("%d objects are left in the Manager", left)
	}
}

func TestPolicyRefusesLayer7(t *testing.T) {
	drop := []doc{{"type": "LBConnectionDropAction"}}
	for name, tc := range map[string]struct {
		more doc
		code string
	}{
		"rules on layer 4":             {doc{"rules": []doc{{"actions": drop}}}, "500100"},
		"a binding on layer 4":         {doc{"server_ssl_profile_binding": doc{}}, "500100"},
		"a rule without actions":       {doc{"application_profile_path": httpProfile, "rules": []doc{{}}}, "255"},
		"an action of the Manager":     {doc{"application_profile_path": httpProfile, "rules": []doc{{"actions": []doc{{"type": "LbConnectionDropAction"}}}}}, "255"},
		"an action without its status": {doc{"application_profile_path": httpProfile, "rules": []doc{{"actions": []doc{{"type": "LBHttpRejectAction"}}}}}, "255"},
		"an action of another phase": {doc{"application_profile_path": httpProfile, "rules": []doc{{"phase": "HTTP_ACCESS",
			"actions": []doc{{"type": "LBHttpRequestUriRewriteAction", "uri": "/"}}}}}, "500100"},
		"a pool that does not exist": {doc{"application_profile_path": httpProfile, "rules": []doc{{"actions": []doc{{"type": "LBSelectPoolAction", "pool_id": "/infra/lb-pools/none"}}}}}, "500012"},
		"no certificate":             {doc{"application_profile_path": httpProfile, "client_ssl_profile_binding": doc{}}, "255"},
		"no such certificate":        {doc{"application_profile_path": httpProfile, "client_ssl_profile_binding": doc{"default_certificate_path": "/infra/certificates/none"}}, "500012"},
		"authentication without CAs": {doc{"application_profile_path": httpProfile, "server_ssl_profile_binding": doc{"server_auth": "REQUIRED"}}, "255"},
	} {
		t.Run(name, func(t *testing.T) {
			newPolicyRig(t, nsxsim.Options{}).refused(400, tc.code, "PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.1.0.1", "443", tc.more))
		})
	}
}

func TestPolicyStaticRoutesAreRealized(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	r.must("PATCH", "/infra/tier-1s/t", "{}")
	r.must("PATCH", "/infra/tier-1s/t/static-routes/r", doc{"network": "10.0.0.0/8", "next_hops": []doc{{"ip_address": "192.0.2.1", "admin_distance": 3}}})
	router := r.must("GET", "/infra/tier-1s/t", nil).String("unique_id")
	routes := r.do("GET", "/logical-routers/"+router+"/routing/static-routes", nil).results()
	if len(routes) != 1 || routes[0]["network"] != "10.0.0.0/8" || routes[0]["next_hops"].([]any)[0].(doc)["administrative_distance"] != 3.0 {
		t.Errorf("static routes of the router: %v", routes)
	}
	r.refused(400, "500030", "DELETE", "/infra/tier-1s/t", nil)
	r.must("DELETE", "/infra/tier-1s/t/static-routes/r", nil)
	r.must("DELETE", "/infra/tier-1s/t", nil)
	if got := len(r.List(nsxsim.KindStaticRoute)); got != 0 {
		t.Errorf("%d static routes are left", got)
	}
}

// IP address expressions of a group can be changed one by one.
func TestPolicyAddressExpressions(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{})
	const group = "/infra/domains/default/groups/g"
	one := group + "/ip-address-expressions/"
	addresses := func() string {
		t.Helper()
		var got []string
		results, _ := r.must("GET", group+"/members/ip-addresses", nil)["results"].([]any)
		for _, a := range results {
			got = append(got, a.(string))
		}
		return strings.Join(got, " ")
	}
	r.must("PATCH", group, "{}")
	r.must("PATCH", one+"a", doc{"ip_addresses": []string{"10.0.0.1"}})
	r.must("PATCH", one+"b", doc{"resource_type": "IPAddressExpression", "ip_addresses": []string{"10.0.1.0/24"}})
	if got := addresses(); got != "10.0.0.1 10.0.1.0/24" {
		t.Errorf("two expressions: %s", got)
	}
	r.must("POST", one+"a?action=add", doc{"ip_addresses": []string{"10.0.0.1", "10.0.0.2"}})
	r.must("POST", one+"b?action=remove", doc{"ip_addresses": []string{"10.0.1.0/24"}})
	if got := addresses(); got != "10.0.0.1 10.0.0.2" {
		t.Errorf("added and removed: %s", got)
	}
	r.must("PATCH", one+"a", doc{"ip_addresses": []string{"10.0.0.9"}})
	if got := r.must("GET", one+"a", nil); got.Strings("ip_addresses")[0] != "10.0.0.9" || len(got.Strings("ip_addresses")) != 1 {
		t.Errorf("replaced: %v", got)
	}
	r.must("DELETE", one+"a", nil)
	if got := r.must("GET", group, nil)["expression"].([]any); len(got) != 1 || got[0].(doc)["id"] != "b" {
		t.Errorf("expressions after a deletion: %v", got)
	}
	r.must("DELETE", one+"b", nil)
	for _, req := range [][2]string{{"GET", one + "a"}, {"DELETE", one + "a"}, {"POST", one + "a?action=add"}} {
		r.refused(404, "600", req[0], req[1], doc{"ip_addresses": []string{"10.0.0.1"}})
	}
	r.refused(405, "98", "PUT", one+"a", "{}")
	r.refused(400, "255", "POST", one+"a?action=swap", "{}")
	r.refused(400, "255", "PATCH", one+"a", doc{"ip_addresses": []string{"ten"}})
	r.refused(400, "500100", "PATCH", group, doc{"expression": []doc{{"resource_type": "IPAddressExpression", "ip_addresses": []string{"10.0.0.1"}},
		{"resource_type": "ConjunctionOperator", "conjunction_operator": "AND"}, {"resource_type": "IPAddressExpression", "ip_addresses": []string{"10.0.0.1"}}}})
}

// Deleted by force, an object goes though others refer to it: these keep the path.
func TestPolicyForce(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
	r := newPolicyRig(t, nsxsim.Options{Clock: clock})
	r.must("PATCH", "/infra/lb-pools/web", "{}")
	r.must("PATCH", "/infra/lb-virtual-servers/web", virtualServer("10.1.0.1", "80", doc{"pool_path": "/infra/lb-pools/web"}))
	r.must("PATCH", "/infra/ip-pools/vips", "{}")
	r.must("PATCH", "/infra/ip-pools/vips/ip-allocations/a", "{}")
	r.refused(400, "500030", "DELETE", "/infra/lb-pools/web?force=false", nil)
	r.refused(400, "500030", "DELETE", "/infra/ip-pools/vips?force=true", nil) // it holds another
	r.must("DELETE", "/infra/lb-pools/web?force=true", nil)
	if got := r.must("GET", "/infra/lb-virtual-servers/web", nil); got["pool_path"] != "/infra/lb-pools/web" {
		t.Errorf("the virtual server: %v", got)
	}
	r.refused(400, "500012", "PATCH", "/infra/lb-virtual-servers/web", doc{"description": "d"})

	again := newPolicyRig(t, nsxsim.Options{})
	if err := again.Load(r.Snapshot()); err != nil {
		t.Fatalf("the snapshot does not load: %v", err)
	}
	if got := again.realizedState("/infra/lb-virtual-servers/web"); got != "ERROR" {
		t.Errorf("without its pool the virtual server is %q", got)
	}
	again.must("PATCH", "/infra/lb-pools/web", "{}")
	if got := again.realizedState("/infra/lb-virtual-servers/web"); got != "REALIZED" {
		t.Errorf("with a pool it is %q", got)
	}

	r.must("DELETE", "/infra/lb-virtual-servers/web", nil)
	clock.Step(5 * time.Second)
	if got := len(r.List(nsxsim.KindPool)); got != 0 {
		t.Errorf("%d pools are left in the Manager when nothing uses them", got)
	}
}

func TestPopulateReferencesOfLists(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	set := r.create(ipsets, doc{"display_name": "clients", "ip_addresses": []string{"10.0.0.1"}})
	r.create(groups, doc{"members": []doc{{"op": "EQUALS", "target_type": "IPSet", "target_property": "id", "value": set}}})
	for query, want := range map[string]bool{"": false, "?populate_references=true": true, "?populate_references=true&sort_by=display_name": true} {
		a := r.do("GET", groups+query, nil)
		if got := strings.Contains(a.raw, `"target_display_name":"clients"`); got != want {
			t.Errorf("%q: populated is %t: %s", query, got, a.raw)
		}
	}
}
