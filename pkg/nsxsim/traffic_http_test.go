package nsxsim_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// webMember answers with its name and what it was asked.
func webMember(t *testing.T, name string, config *tls.Config) (port string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s for=%s proto=%s", name, r.URL, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"))
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if config != nil {
		srv.TLS = config
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	_, port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	return port
}

// fetch gives status and body of what a virtual server answers; 0
// and the error when it does not.
func fetch(client *http.Client, url string) (int, string, http.Header) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), resp.Header
}

func browser(config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// pemPair gives a certificate of NewCertificate with its key, and its authority.
func pemPair(t *testing.T, hosts ...string) (cert tls.Certificate, chain, key, authority string) {
	t.Helper()
	cert, ca, err := nsxsim.NewCertificate(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return cert, string(pemOf(cert)), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), string(ca)
}

func (b *bench) importPEM(chain, key string) string {
	b.t.Helper()
	body := doc{"pem_encoded": chain}
	if key != "" {
		body["private_key"] = key
	}
	return b.ok("POST", importsPEM, body)["results"].([]any)[0].(doc)["id"].(string)
}

// Rules, profiles and cookies act on the traffic of a layer 7 virtual server, and
// what is edited acts at once.
func TestLayer7ReallyServes(t *testing.T) {
	b := newBench(t, nsxsim.Options{DataPlane: &dataplane.Options{}})
	pool := func(names ...string) string {
		var members []doc
		for _, name := range names {
			members = append(members, doc{"ip_address": "127.0.0.1", "port": webMember(t, name, nil)})
		}
		return b.create(pools, doc{"members": members, "snat_translation": doc{"type": "LbSnatAutoMap"}})
	}
	main, api := pool("main"), pool("api")
	profile := b.create(profiles, doc{"resource_type": "LbHttpProfile", "x_forwarded_for": "INSERT"})
	clients := b.group("127.0.0.1")
	rule := b.create(rules, doc{"phase": "HTTP_FORWARDING", "match_strategy": "ALL",
		"match_conditions": []doc{{"type": "LbHttpRequestUriCondition", "match_type": "STARTS_WITH", "uri": "/API", "case_sensitive": false},
			{"type": "LbIpHeaderCondition", "group_id": clients}, {"type": "LbTcpHeaderCondition", "source_port": "1-65535"}},
		"actions": []doc{{"type": "LbSelectPoolAction", "pool_id": api}}})
	rewrite := b.create(rules, doc{"phase": "HTTP_REQUEST_REWRITE", "match_strategy": "ANY",
		"match_conditions": []doc{{"type": "LbHttpRequestUriCondition", "uri": "^/old/(?<rest>.*)$"}},
		"actions":          []doc{{"type": "LbHttpRequestUriRewriteAction", "uri": "/new/$rest", "uri_arguments": "was=$_uri"}}})
	cookies := b.create(persists, doc{"resource_type": "LbCookiePersistenceProfile", "cookie_name": "LB", "cookie_garble": false,
		"cookie_time": doc{"type": "LbPersistenceCookieTime", "cookie_max_idle": 60}})
	port := freePort(t)
	vs := b.create(servers, b.tcpVS(vip, []string{port}, doc{"application_profile_id": profile, "pool_id": main, "rule_ids": []string{rewrite, rule}, "persistence_profile_id": cookies}))
	b.attach(vs)

	client := browser(nil)
	expect := func(path, want string) {
		t.Helper()
		waitFor(t, func() bool { _, body, _ := fetch(client, "http://"+vip+":"+port+path); return body == want })
	}
	const from = " for=127.0.0.1 proto=http"
	expect("/a", "main /a"+from)
	expect("/api/v1?x=y", "api /api/v1?x=y"+from)
	expect("/old/x", "main /new/x?was=/old/x"+from)
	if _, _, header := fetch(client, "http://"+vip+":"+port); !strings.HasPrefix(header.Get("Set-Cookie"), "LB=127.0.0.1:") || !strings.HasSuffix(header.Get("Set-Cookie"), "; Max-Age=60") {
		t.Errorf("cookie %q", header.Get("Set-Cookie"))
	}

	edit := func(path string, change func(o nsxsim.Object)) {
		t.Helper()
		o := b.ok("GET", path, nil)
		change(o)
		b.ok("PUT", path, o)
	}
	edit(rules+"/"+rule, func(o nsxsim.Object) {
		o["actions"] = []doc{{"type": "LbHttpRedirectAction", "redirect_status": "308", "redirect_url": "https://$_host/moved"}}
	})
	waitFor(t, func() bool {
		status, _, header := fetch(client, "http://"+vip+":"+port+"/api")
		return status == 308 && header.Get("Location") == "https://"+vip+"/moved"
	})
	edit(profiles+"/"+profile, func(o nsxsim.Object) { o["http_redirect_to_https"] = true })
	waitFor(t, func() bool { status, _, _ := fetch(client, "http://"+vip+":"+port+"/a"); return status == 302 })
	edit(profiles+"/"+profile, func(o nsxsim.Object) { o["http_redirect_to_https"] = false })
	edit(servers+"/"+vs, func(o nsxsim.Object) { delete(o, "pool_id"); o["sorry_pool_id"] = api })
	expect("/a", "api /a"+from)
	edit(servers+"/"+vs, func(o nsxsim.Object) { delete(o, "sorry_pool_id") })
	waitFor(t, func() bool { status, _, _ := fetch(client, "http://"+vip+":"+port+"/a"); return status == 503 })
	if got := b.ok("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil).String("status"); got != "UP" {
		t.Errorf("without a default pool it is %s", got)
	}
	if a := b.do("DELETE", groups+"/"+clients, nil); a.status != 400 {
		t.Errorf("DELETE of a group that a rule names: %d", a.status)
	}

	// What the data plane does not know of is not passed over.
	edit(rules+"/"+rule, func(o nsxsim.Object) {
		o["phase"], o["actions"] = "HTTP_ACCESS", []doc{{"type": "LbJwtAuthAction", "realm": "r"}}
	})
	waitFor(t, func() bool {
		return b.ok("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil).String("status") == "DOWN"
	})
}

// TLS ends at the virtual server with the imported certificates, and begins again
// towards members that are verified.
func TestTLSReallyEnds(t *testing.T) {
	b := newBench(t, nsxsim.Options{DataPlane: &dataplane.Options{}})
	_, appChain, appKey, appCA := pemPair(t, "app.example")
	_, wwwChain, wwwKey, wwwCA := pemPair(t, "www.example")
	memberCert, _, _, memberCA := pemPair(t)
	_, _, _, otherCA := pemPair(t)
	app, www := b.importPEM(appChain, appKey), b.importPEM(wwwChain, wwwKey)
	trusted, other := b.importPEM(memberCA, ""), b.importPEM(otherCA, "")
	if raw := b.do("GET", certificates, nil).raw; strings.Contains(raw, "PRIVATE KEY") {
		t.Errorf("the API shows a private key: %s", raw)
	}
	monitor := b.create(monitors, doc{"resource_type": "LbHttpsMonitor", "server_auth": "REQUIRED", "server_auth_ca_ids": []string{trusted}, "interval": 1})
	pool := b.create(pools, doc{"snat_translation": doc{"type": "LbSnatAutoMap"}, "active_monitor_ids": []string{monitor},
		"members": []doc{{"ip_address": "127.0.0.1", "port": webMember(t, "one", &tls.Config{Certificates: []tls.Certificate{memberCert}})}}})
	profile := b.create(profiles, doc{"resource_type": "LbHttpProfile", "x_forwarded_for": "REPLACE"})
	modern := b.create(clientSSL, doc{"protocols": []string{"TLS_V1_2"}, "ciphers": []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}})
	port := freePort(t)
	vs := b.create(servers, b.tcpVS(vip, []string{port}, doc{"application_profile_id": profile, "pool_id": pool,
		"client_ssl_profile_binding": doc{"default_certificate_id": app, "sni_certificate_ids": []string{www}, "ssl_profile_id": modern},
		"server_ssl_profile_binding": doc{"server_auth": "REQUIRED", "server_auth_ca_ids": []string{trusted}}}))
	b.attach(vs)

	visit := func(name, ca string) (int, string) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(ca))
		status, body, _ := fetch(browser(&tls.Config{RootCAs: roots, ServerName: name}), "https://"+vip+":"+port+"/a")
		return status, body
	}
	waitFor(t, func() bool { status, _ := visit("app.example", appCA); return status == 200 })
	if status, body := visit("www.example", wwwCA); status != 200 || body != "one /a for=127.0.0.1 proto=https" {
		t.Errorf("by the other name: %d %s", status, body)
	}
	if status, _ := visit("www.example", appCA); status != 0 {
		t.Error("the default certificate is shown for a name that has one of its own")
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(t.Context(), "tcp", vip+":"+port)
	if err != nil {
		t.Fatal(err)
	}
	if s := conn.(*tls.Conn).ConnectionState(); s.Version != tls.VersionTLS12 || s.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 {
		t.Errorf("%x %s", s.Version, tls.CipherSuiteName(s.CipherSuite))
	}
	conn.Close()

	// What is signed by somebody else is refused, by the monitor and on the way.
	m := b.ok("GET", monitors+"/"+monitor, nil)
	m["server_auth_ca_ids"], m["fall_count"] = []string{other}, 1
	b.ok("PUT", monitors+"/"+monitor, m)
	waitFor(t, func() bool { return strings.HasSuffix(b.memberStates(pool)[0], "=DOWN") })
	m = b.ok("GET", monitors+"/"+monitor, nil)
	m["server_auth"] = "IGNORE"
	delete(m, "server_auth_ca_ids")
	b.ok("PUT", monitors+"/"+monitor, m)
	waitFor(t, func() bool { status, _ := visit("app.example", appCA); return status == 200 })
	o := b.ok("GET", servers+"/"+vs, nil)
	o["server_ssl_profile_binding"] = doc{"server_auth": "AUTO_APPLY", "server_auth_ca_ids": []string{other}}
	b.ok("PUT", servers+"/"+vs, o)
	waitFor(t, func() bool { status, _ := visit("app.example", appCA); return status == 503 })
	o = b.ok("GET", servers+"/"+vs, nil)
	o["server_ssl_profile_binding"] = doc{"server_auth": "AUTO_APPLY"}
	b.ok("PUT", servers+"/"+vs, o)
	waitFor(t, func() bool { status, _ := visit("app.example", appCA); return status == 200 })

	// A certificate without its key cannot be shown.
	o = b.ok("GET", servers+"/"+vs, nil)
	o["client_ssl_profile_binding"] = doc{"default_certificate_id": trusted}
	b.ok("PUT", servers+"/"+vs, o)
	waitFor(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", vip+":"+port)
		if err == nil {
			conn.Close()
		}
		return err != nil && b.ok("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil).String("status") == "DOWN"
	})
}

// Rules and bindings of the Policy API are realised, and act.
func TestLayer7OfThePolicyAPI(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{DataPlane: &dataplane.Options{}})
	r.balancer("SMALL")
	_, chain, key, ca := pemPair(t, "app.example")
	r.must("PUT", "/infra/certificates/app", doc{"pem_encoded": chain, "private_key": key})
	for _, name := range []string{"main", "api"} {
		r.must("PUT", "/infra/lb-pools/"+name, doc{"members": []doc{{"ip_address": "127.0.0.1", "port": webMember(t, name, nil)}}, "snat_translation": doc{"type": "LBSnatAutoMap"}})
	}
	r.must("PUT", "/infra/domains/default/groups/me", doc{"expression": []doc{{"resource_type": "IPAddressExpression", "ip_addresses": []string{"127.0.0.0/8"}}}})
	port := freePort(t)
	r.must("PUT", "/infra/lb-virtual-servers/web", doc{"ip_address": vip, "ports": []string{port}, "pool_path": "/infra/lb-pools/main",
		"lb_service_path": "/infra/lb-services/lb", "application_profile_path": "/infra/lb-app-profiles/default-http-lb-app-profile",
		"client_ssl_profile_binding": doc{"default_certificate_path": "/infra/certificates/app"},
		"rules": []doc{{"match_conditions": []doc{{"type": "LBHttpRequestUriCondition", "uri": "^/api"}, {"type": "LBIpHeaderCondition", "group_path": "/infra/domains/default/groups/me"}},
			"match_strategy": "ALL", "actions": []doc{{"type": "LBSelectPoolAction", "pool_id": "/infra/lb-pools/api"}}}}})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca))
	client := browser(&tls.Config{RootCAs: roots, ServerName: "app.example"})
	for path, want := range map[string]string{"/": "main / for= proto=", "/api": "api /api for= proto="} {
		waitFor(t, func() bool { _, body, _ := fetch(client, "https://"+vip+":"+port+path); return body == want })
	}
}
