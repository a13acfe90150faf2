package nsxsim_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

const principalIdentities = "/trust-management/principal-identities"

// clientCertificate gives a certificate, and its PEM.
func clientCertificate(t *testing.T) (*x509.Certificate, string) {
	t.Helper()
	made, _, err := nsxsim.NewCertificate("client")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(made.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}))
}

// asCertificate sends a request on a connection with a client certificate.
func (r *rig) asCertificate(cert *x509.Certificate, method, path, body string) answer {
	r.t.Helper()
	req := httptest.NewRequest(method, "/api/v1"+path, strings.NewReader(body))
	req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return answerOf(r.t, w)
}

// A principal identity works from its registration to its deletion, and what it makes
// is its own.
func TestPrincipalIdentities(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	cert, text := clientCertificate(t)
	if a := r.asCertificate(cert, "GET", pools, ""); a.status != 500 || a.code() != "99" {
		t.Fatalf("before it is registered: %d %s", a.status, a.raw)
	}
	imported := r.do("POST", certificates+"?action=import", doc{"pem_encoded": text}).results()[0].ID()
	pi := r.do("POST", principalIdentities, doc{"name": "ncp", "node_id": "node-1", "certificate_id": imported, "permission_group": "superusers", "is_protected": "true"})
	if pi.status != 201 || !holds(map[string]any(pi.body), parsed(t, `{"resource_type":"PrincipalIdentity","name":"ncp","is_protected":true,"_create_user":"admin"}`)) {
		t.Fatalf("registered: %d %s", pi.status, pi.raw)
	}
	made := r.asCertificate(cert, "POST", pools, "{}")
	if made.status != 201 || made.body["_create_user"] != "ncp" {
		t.Fatalf("as itself: %d %s", made.status, made.raw)
	}
	if a := r.do("DELETE", pools+"/"+made.body.ID(), nil); a.status != 400 || a.code() != "289" {
		t.Errorf("another deletes what it made: %d %s", a.status, a.raw)
	}
	if a := r.do("DELETE", certificates+"/"+imported, nil); a.status != 400 {
		t.Errorf("its certificate is deleted: %d", a.status)
	}

	again := newRig(t, nsxsim.Options{})
	if err := again.Load(r.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if a := again.asCertificate(cert, "DELETE", pools+"/"+made.body.ID(), ""); a.status != 200 {
		t.Errorf("in a snapshot it may not delete what it made: %d %s", a.status, a.raw)
	}
	empty := newRig(t, nsxsim.Options{}).Snapshot()
	if err := again.Restore(empty); err != nil {
		t.Fatal(err)
	}
	if a := again.asCertificate(cert, "GET", pools, ""); a.status != 500 {
		t.Errorf("after a restore without it: %d", a.status)
	}

	other, otherText := clientCertificate(t)
	renewed := r.do("POST", certificates+"?action=import", doc{"pem_encoded": otherText}).results()[0].ID()
	r.ok("POST", principalIdentities+"?action=update_certificate", doc{"principal_identity_id": pi.body.ID(), "certificate_id": renewed})
	if old, now := r.asCertificate(cert, "GET", pools, "").status, r.asCertificate(other, "GET", pools, "").status; old != 500 || now != 200 {
		t.Errorf("with another certificate, the old one gets %d and the new one %d", old, now)
	}
	r.ok("DELETE", certificates+"/"+imported, nil)
	r.ok("DELETE", principalIdentities+"/"+pi.body.ID(), nil)
	if a := r.asCertificate(other, "GET", pools, ""); a.status != 500 {
		t.Errorf("after its deletion: %d", a.status)
	}
	r.ok("DELETE", certificates+"/"+renewed, nil)
}

func TestPrincipalIdentityWithCertificate(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	cert, text := clientCertificate(t)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	// As scripts write it: the lines of the certificate joined by spaces.
	joined := lines[0] + "\n" + strings.Join(lines[1:len(lines)-1], " ") + " \n" + lines[len(lines)-1] + "\n"
	body := doc{"name": "auditors", "node_id": "api", "role": "auditor", "is_protected": "true", "certificate_pem": joined}
	a := r.do("POST", principalIdentities+"/with-certificate", body)
	if a.status != 201 || !holds(map[string]any(a.body), parsed(t, `{"name":"auditors","node_id":"api","certificate_id":"*-","certificate_pem":"*BEGIN"}`)) {
		t.Fatalf("registered: %d %s", a.status, a.raw)
	}
	if got := r.do("GET", principalIdentities, nil); got.body["result_count"] != 1.0 || got.results()[0]["certificate_pem"] != nil {
		t.Errorf("listed: %s", got.raw)
	}
	if read, write := r.asCertificate(cert, "GET", pools, "").status, r.asCertificate(cert, "POST", pools, "{}").status; read != 200 || write != 403 {
		t.Errorf("an auditor reads with %d and writes with %d", read, write)
	}
	certs := len(r.List(nsxsim.KindCertificate))
	for name, wrong := range map[string]doc{
		"again":            body,
		"without a name":   {"node_id": "api", "certificate_pem": text},
		"as admin":         {"name": "admin", "node_id": "api", "certificate_pem": text},
		"no certificate":   {"name": "x", "node_id": "api"},
		"a bad one":        {"name": "x", "node_id": "api", "certificate_pem": "x"},
		"no such group":    {"name": "x", "node_id": "api", "certificate_pem": text, "permission_group": "gods"},
		"a word for a bit": {"name": "x", "node_id": "api", "certificate_pem": text, "is_protected": "perhaps"},
	} {
		if a := r.do("POST", principalIdentities+"/with-certificate", wrong); a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	if n := len(r.List(nsxsim.KindCertificate)); n != certs {
		t.Errorf("%d certificates after refusals, were %d", n, certs)
	}
	one := principalIdentities + "/" + a.body.ID()
	for method, path := range map[string]string{"PUT": one, "PATCH": one, "DELETE": principalIdentities, "GET": principalIdentities + "/with-certificate"} {
		if a := r.do(method, path, body); a.status != 405 {
			t.Errorf("%s %s: %d", method, path, a.status)
		}
	}
}

// A session of a principal identity ends with it.
func TestSessionsOfPrincipalIdentities(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	cert, text := clientCertificate(t)
	pi := r.do("POST", principalIdentities+"/with-certificate", doc{"name": "ncp", "node_id": "n", "role": "enterprise_admin", "certificate_pem": text})
	req := httptest.NewRequest("POST", "/api/session/create", nil)
	req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	in := answerOf(t, w)
	cookie, _, _ := strings.Cut(in.header.Get("Set-Cookie"), ";")
	ask := func() answer {
		return r.as("").do("GET", "/aaa/user-info", nil, "Cookie", cookie, "X-XSRF-TOKEN", in.header.Get("X-XSRF-TOKEN"))
	}
	if a := ask(); a.status != 200 || a.body["user_name"] != "ncp" {
		t.Errorf("in its session: %d %s", a.status, a.raw)
	}
	r.ok("DELETE", principalIdentities+"/"+pi.body.ID(), nil)
	if a := ask(); a.status != 403 {
		t.Errorf("after its deletion: %d", a.status)
	}
}
