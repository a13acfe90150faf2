package nsxsim_test

import (
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
)

const (
	certificates = "/trust-management/certificates"
	rules        = "/loadbalancer/rules"
	clientSSL    = "/loadbalancer/client-ssl-profiles"
	serverSSL    = "/loadbalancer/server-ssl-profiles"
	tcpProfiles  = "/loadbalancer/tcp-profiles"
	importsPEM   = certificates + "?action=import"
	groups       = "/ns-groups"
	ipsets       = "/ip-sets"
)

// pair gives a certificate and its key as PEM.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	made, _, err := nsxsim.NewCertificate("app.example")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pemOf(made)), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (r *rig) importCertificate() string {
	r.t.Helper()
	cert, key := pair(r.t)
	a := r.do("POST", importsPEM, doc{"display_name": "app", "pem_encoded": cert, "private_key": key})
	if a.status != 201 || len(a.results()) != 1 {
		r.t.Fatalf("import: %d %s", a.status, a.raw)
	}
	return a.results()[0].ID()
}

// httpVS gives a virtual server of layer 7.
func (r *rig) httpVS(more doc) doc {
	d := r.tcpVS("10.1.0.1", []string{"443"}, more)
	d["application_profile_id"] = r.named(nsxsim.KindApplicationProfile, "default-http-lb-app-profile")
	return d
}

func TestCertificates(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	cert, key := pair(t)
	_, otherKey := pair(t)
	for name, body := range map[string]doc{
		"no PEM": {"pem_encoded": "secret"}, "nothing": {}, "a key only": {"pem_encoded": key},
		"another's key": {"pem_encoded": cert, "private_key": otherKey},
	} {
		if a := r.do("POST", importsPEM, body); a.status != 400 || a.code() != "255" {
			t.Errorf("%s: %d %s, want 400 and 255", name, a.status, a.raw)
		}
	}
	id := r.importCertificate()
	path := certificates + "/" + id
	o := r.ok("GET", path, nil)
	if o["private_key"] != nil || o.String("resource_type") != "certificate_signed" || o.String("display_name") != "app" {
		t.Errorf("%v", o)
	}
	detail := nsxsim.Object(o["details"].([]any)[0].(doc))
	if detail.String("subject_cn") != "nsxsim" || detail.String("issuer_cn") != "nsxsim CA" || detail["is_ca"] != false || detail["is_valid"] != true || detail["public_key_length"] != 256.0 {
		t.Errorf("details %v", detail)
	}
	if got := r.do("GET", certificates, nil).ids(); got != id {
		t.Errorf("the list has %q, want %s", got, id)
	}
	if a := r.do("PUT", path, o); a.status != 405 {
		t.Errorf("PUT: %d, want 405", a.status)
	}
	if a := r.do("POST", certificates, doc{"pem_encoded": cert}); a.status != 405 {
		t.Errorf("POST without import: %d, want 405", a.status)
	}
	vs := r.create(servers, r.httpVS(doc{"client_ssl_profile_binding": doc{"default_certificate_id": id}}))
	if a := r.do("DELETE", path, nil); a.status != 400 {
		t.Errorf("DELETE of a certificate in use: %d, want 400", a.status)
	}
	r.ok("DELETE", servers+"/"+vs, nil)
	r.ok("DELETE", path, nil)
}

func TestLayer7Defaults(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	cert := r.importCertificate()
	pool := r.create(pools, doc{})
	for _, c := range []struct {
		path string
		body doc
		want doc
	}{
		{clientSSL, doc{}, doc{"resource_type": "LbClientSslProfile", "prefer_server_ciphers": true, "session_cache_enabled": true,
			"session_cache_timeout": 300.0, "protocols": []any{"TLS_V1_1", "TLS_V1_2"}, "is_secure": true}},
		{serverSSL, doc{"protocols": []string{"SSL_V3"}}, doc{"resource_type": "LbServerSslProfile", "session_cache_enabled": true,
			"protocols": []any{"SSL_V3"}, "is_secure": false}},
		{tcpProfiles, doc{}, doc{"resource_type": "LbTcpProfile", "nagle_algorithm_enabled": true}},
		{rules, doc{"actions": []doc{{"type": "LbSelectPoolAction", "pool_id": pool}}, "match_strategy": "ALL", "phase": "HTTP_FORWARDING"},
			doc{"resource_type": "LbRule", "match_strategy": "ALL", "phase": "HTTP_FORWARDING", "actions": []any{doc{"type": "LbSelectPoolAction", "pool_id": pool}}}},
		{persists, doc{"resource_type": "LbCookiePersistenceProfile", "cookie_name": "LB"}, doc{"resource_type": "LbCookiePersistenceProfile",
			"persistence_shared": false, "cookie_name": "LB", "cookie_mode": "INSERT", "cookie_fallback": true, "cookie_garble": true}},
		{profiles, doc{"resource_type": "LbHttpProfile"}, doc{"resource_type": "LbHttpProfile", "idle_timeout": 15.0, "http_redirect_to_https": false,
			"ntlm": false, "request_header_size": 1024.0, "response_timeout": 60.0}},
		{monitors, doc{"resource_type": "LbHttpsMonitor"}, doc{"resource_type": "LbHttpsMonitor", "interval": 5.0, "fall_count": 3.0, "rise_count": 3.0, "timeout": 15.0,
			"request_method": "GET", "request_url": "/", "request_version": "HTTP_VERSION_1_1", "response_status_codes": []any{200.0},
			"server_auth": "IGNORE", "certificate_chain_depth": 3.0}},
		{monitors, doc{"resource_type": "LbIcmpMonitor"}, doc{"resource_type": "LbIcmpMonitor", "interval": 5.0, "fall_count": 3.0, "rise_count": 3.0, "timeout": 15.0, "data_length": 56.0}},
		{servers, r.httpVS(doc{"client_ssl_profile_binding": doc{"default_certificate_id": cert}, "server_ssl_profile_binding": doc{}}), nil},
	} {
		got := r.ok("POST", c.path, c.body)
		if c.want == nil {
			want := doc{"client_ssl_profile_binding": doc{"default_certificate_id": cert, "client_auth": "IGNORE", "certificate_chain_depth": 3.0},
				"server_ssl_profile_binding": doc{"server_auth": "IGNORE", "certificate_chain_depth": 3.0}}
			if diff := cmp.Diff(want, doc{"client_ssl_profile_binding": got["client_ssl_profile_binding"], "server_ssl_profile_binding": got["server_ssl_profile_binding"]}); diff != "" {
				t.Errorf("bindings (-want +got):\n%s", diff)
			}
			continue
		}
		if diff := cmp.Diff(nsxsim.Object(c.want), without(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.path, diff)
		}
	}
}

func TestRulesOfLayer7(t *testing.T) {
	action := func(kind string, more doc) []doc {
		d := doc{"type": kind}
		for k, v := range more {
			d[k] = v
		}
		return []doc{d}
	}
	rule := func(phase string, actions []doc) doc {
		return doc{"phase": phase, "match_strategy": "ANY", "actions": actions}
	}
	for _, c := range []refusal{
		{rule: "a rule needs actions", do: post(rules, fixed(doc{"match_strategy": "ALL", "phase": "HTTP_FORWARDING"})), status: 400, code: "255", message: "actions is required"},
		{rule: "a rule needs a phase", do: post(rules, fixed(doc{"match_strategy": "ALL", "actions": action("LbHttpRejectAction", doc{"reply_status": "403"})})), status: 400, code: "255", message: "phase is required"},
		{rule: "an action is one of NSX's", do: post(rules, fixed(rule("HTTP_FORWARDING", action("LbDanceAction", nil)))), status: 400, code: "255", message: "actions[0].type"},
		{rule: "an action has what it needs", do: post(rules, fixed(rule("HTTP_FORWARDING", action("LbHttpRedirectAction", nil)))), status: 400, code: "255", message: "redirect_status is required"},
		{rule: "an action fits its phase", do: post(rules, fixed(rule("HTTP_FORWARDING", action("LbHttpRequestUriRewriteAction", doc{"uri": "/"})))), status: 400, message: "does not fit phase"},
		{rule: "a rule's pool exists", do: post(rules, fixed(rule("HTTP_FORWARDING", action("LbSelectPoolAction", doc{"pool_id": "nope"})))), status: 400, message: "does not exist"},
		{rule: "a pool that a rule selects cannot be deleted", do: func(b *bench) answer {
			pool := b.create(pools, doc{})
			b.create(rules, rule("HTTP_FORWARDING", action("LbSelectPoolAction", doc{"pool_id": pool})))
			return b.do("DELETE", pools+"/"+pool, nil)
		}, status: 400, message: "is being referenced by LbRule/"},
		{rule: "layer 4 takes no rules", do: func(b *bench) answer {
			id := b.create(rules, rule("HTTP_FORWARDING", action("LbHttpRejectAction", doc{"reply_status": "403"})))
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"rule_ids": []string{id}}))
		}, status: 400, message: "rule_ids needs a virtual server with an LbHttpProfile"},
		{rule: "layer 4 takes no SSL", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"server_ssl_profile_binding": doc{}}))
		}, status: 400, message: "needs a virtual server with an LbHttpProfile"},
		{rule: "a binding needs its certificate", do: func(b *bench) answer {
			return b.do("POST", servers, b.httpVS(doc{"client_ssl_profile_binding": doc{}}))
		}, status: 400, code: "255", message: "default_certificate_id is required"},
		{rule: "authentication of clients needs authorities", do: func(b *bench) answer {
			return b.do("POST", servers, b.httpVS(doc{"client_ssl_profile_binding": doc{"default_certificate_id": b.importCertificate(), "client_auth": "REQUIRED"}}))
		}, status: 400, code: "255", message: "client_auth_ca_ids is required"},
		{rule: "protocols of SSL profiles", do: post(clientSSL, fixed(doc{"protocols": []string{"TLS_V9"}})), status: 400, code: "255", message: "protocols[0]"},
		{rule: "an SSL profile in use cannot be deleted", do: func(b *bench) answer {
			p := b.create(serverSSL, doc{})
			b.create(servers, b.httpVS(doc{"server_ssl_profile_binding": doc{"ssl_profile_id": p}}))
			return b.do("DELETE", serverSSL+"/"+p, nil)
		}, status: 400, message: "is being referenced"},
	} {
		t.Run(c.rule, c.run)
	}
}

func TestRulesGoWithTheirVirtualServer(t *testing.T) {
	for _, c := range []struct {
		query string
		gone  bool
	}{{"", false}, {"?delete_associated_rules=false", false}, {"?delete_associated_rules=true", true}} {
		r := newRig(t, nsxsim.Options{})
		rule := func() string {
			return r.create(rules, doc{"phase": "HTTP_FORWARDING", "match_strategy": "ALL", "actions": []doc{{"type": "LbHttpRejectAction", "reply_status": "403"}}})
		}
		own, shared := rule(), rule()
		vs := r.create(servers, r.httpVS(doc{"rule_ids": []string{own, shared}}))
		r.create(servers, r.httpVS(doc{"rule_ids": []string{shared}, "ip_address": "10.1.0.2"}))
		r.ok("DELETE", servers+"/"+vs+c.query, nil)
		if gone := r.Get(nsxsim.KindRule, own) == nil; gone != c.gone {
			t.Errorf("DELETE%s: the rule is gone: %t, want %t", c.query, gone, c.gone)
		}
		if r.Get(nsxsim.KindRule, shared) == nil {
			t.Errorf("DELETE%s took a rule that another virtual server has", c.query)
		}
	}
}

func TestGroupsByTags(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	set := func(addr string, tags ...doc) string {
		return r.create(ipsets, doc{"ip_addresses": []string{addr}, "tags": tags})
	}
	tag := func(scope, tag string) doc { return doc{"scope": scope, "tag": tag} }
	set("10.0.0.1", tag("role", "node"))
	set("10.0.0.2", tag("role", "node-old"), tag("zone", "a"))
	set("10.0.0.3", tag("zone", "a"))
	set("10.0.0.4")
	expression := func(more doc) doc {
		d := doc{"resource_type": "NSGroupTagExpression", "target_type": "IPSet"}
		for k, v := range more {
			d[k] = v
		}
		return d
	}
	for _, c := range []struct {
		name     string
		criteria []doc
		want     string
	}{
		{"scope and tag", []doc{expression(doc{"scope": "role", "tag": "node"})}, `["10.0.0.1"]`},
		{"scope only", []doc{expression(doc{"scope": "role"})}, `["10.0.0.1","10.0.0.2"]`},
		{"tag only", []doc{expression(doc{"tag": "a"})}, `["10.0.0.2","10.0.0.3"]`},
		{"part of a tag", []doc{expression(doc{"tag": "ode", "tag_op": "CONTAINS"})}, `["10.0.0.1","10.0.0.2"]`},
		{"end of a tag", []doc{expression(doc{"scope": "role", "tag": "-old", "tag_op": "ENDSWITH"})}, `["10.0.0.2"]`},
		{"one of two criteria", []doc{expression(doc{"tag": "node"}), expression(doc{"tag": "node-old"})}, `["10.0.0.1","10.0.0.2"]`},
		{"both expressions", []doc{{"resource_type": "NSGroupComplexExpression", "expressions": []doc{expression(doc{"scope": "role"}), expression(doc{"scope": "zone"})}}}, `["10.0.0.2"]`},
		{"virtual machines, of which there are none", []doc{{"resource_type": "NSGroupTagExpression", "target_type": "VirtualMachine", "tag": "node"}}, `[]`},
	} {
		id := r.create(groups, doc{"membership_criteria": c.criteria})
		outer := r.create(groups, doc{"members": []doc{{"op": "EQUALS", "target_type": "NSGroup", "target_property": "id", "value": id}}})
		for _, id := range []string{id, outer} {
			a := r.do("GET", groups+"/"+id+"/effective-ip-address-members", nil)
			if got := string(mustJSON(t, a.body["results"])); got != c.want {
				t.Errorf("%s: %s, want %s", c.name, got, c.want)
			}
		}
	}
	if a := r.do("POST", groups, doc{"membership_criteria": []doc{{"resource_type": "NSGroupWish"}}}); a.status != 400 || a.code() != "255" {
		t.Errorf("an unknown criterion: %d %s", a.status, a.raw)
	}
	late := r.create(groups, doc{"membership_criteria": []doc{expression(doc{"tag": "late"})}})
	set("10.0.0.9", tag("", "late"))
	if got := string(mustJSON(t, r.ok("GET", groups+"/"+late+"/effective-ip-address-members", nil)["results"])); got != `["10.0.0.9"]` {
		t.Errorf("a set that comes later: %s", got)
	}
}
