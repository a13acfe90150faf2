package nsxsim_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	clocktesting "k8s.io/utils/clock/testing"
)

// get asks for the pools, with the request as changed.
func (r *rig) get(change func(*http.Request)) answer {
	r.t.Helper()
	req := httptest.NewRequest("GET", "/api/v1"+pools, nil)
	change(req)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return answerOf(r.t, w)
}

func TestCredentials(t *testing.T) {
	other, _, err := nsxsim.NewCertificate("other")
	if err != nil {
		t.Fatal(err)
	}
	mine, _, err := nsxsim.NewCertificate("mine")
	if err != nil {
		t.Fatal(err)
	}
	users := []nsxsim.User{
		{Name: "admin", Password: "secret"},
		{Name: "ncp", Certificate: pemOf(mine)},
		{Name: "cloud", Token: "t0ken"},
		{Name: "jane@corp", Password: "secret", Remote: true},
	}
	withCert := func(c tls.Certificate) func(*http.Request) {
		return func(req *http.Request) {
			leaf, err := x509.ParseCertificate(c.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		}
	}
	basic := func(user, password string) func(*http.Request) {
		return func(req *http.Request) { req.SetBasicAuth(user, password) }
	}
	header := func(authorization string) func(*http.Request) {
		return func(req *http.Request) { req.Header.Set("Authorization", authorization) }
	}
	jane := base64.StdEncoding.EncodeToString([]byte("jane@corp:secret"))
	for _, c := range []struct {
		name   string
		quirks nsxsim.Quirks
		change func(*http.Request)
		status int
		code   string
	}{
		{name: "none", change: func(*http.Request) {}, status: 401, code: "403"},
		{name: "password", change: basic("admin", "secret"), status: 200},
		{name: "wrong password", change: basic("admin", "x"), status: 403, code: "403"},
		{name: "wrong password, the other status", quirks: nsxsim.Quirks{BadCredentials401: true}, change: basic("admin", "x"), status: 401, code: "403"},
		{name: "unknown user", change: basic("nobody", "secret"), status: 403, code: "403"},
		{name: "user without a password", change: basic("ncp", ""), status: 403, code: "403"},
		{name: "bearer token", change: header("Bearer t0ken"), status: 200},
		{name: "wrong bearer token", change: header("Bearer x"), status: 403, code: "403"},
		{name: "user of an identity manager", change: header("Remote " + jane), status: 200},
		{name: "user of an identity manager, as a local one", change: header("Basic " + jane), status: 403, code: "403"},
		{name: "local user, as one of an identity manager", change: header("Remote " + base64.StdEncoding.EncodeToString([]byte("admin:secret"))), status: 403, code: "403"},
		{name: "no base64", change: header("Remote %%%"), status: 403, code: "403"},
		{name: "another scheme", change: header("Digest x"), status: 401, code: "403"},
		{name: "certificate", change: withCert(mine), status: 200},
		{name: "unknown certificate", change: withCert(other), status: 500, code: "99"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nsxsim.Options{Users: users, Quirks: c.quirks})
			a := r.get(c.change)
			if a.status != c.status || c.code != "" && a.code() != c.code {
				t.Errorf("%d %s, want %d and error_code %s", a.status, a.raw, c.status, c.code)
			}
		})
	}
}

func login(t *testing.T, r *rig, user, password string) answer {
	t.Helper()
	form := url.Values{"j_username": {user}, "j_password": {password}}
	req := httptest.NewRequest("POST", "/api/session/create", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return answerOf(t, w)
}

func TestSessions(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(0, 0))
	r := newRig(t, nsxsim.Options{Clock: clock, SessionTimeout: time.Minute})
	if a := login(t, r, "admin", "wrong"); a.status != 403 || a.code() != "403" {
		t.Errorf("log-in with a wrong password: %d %s", a.status, a.raw)
	}
	in := login(t, r, "admin", "secret")
	cookie, token := in.header.Get("Set-Cookie"), in.header.Get("X-XSRF-TOKEN")
	if in.status != 200 || !strings.HasPrefix(cookie, "JSESSIONID=") || token == "" {
		t.Fatalf("log-in: %d %v", in.status, in.header)
	}
	cookie, _, _ = strings.Cut(cookie, ";")
	session := func(req *http.Request) {
		req.Header.Set("Cookie", cookie)
		req.Header.Set("X-XSRF-TOKEN", token)
	}
	if a := r.get(session); a.status != 200 {
		t.Errorf("in the session: %d %s", a.status, a.raw)
	}
	if a := r.get(func(req *http.Request) { req.Header.Set("Cookie", cookie) }); a.status != 403 || a.code() != "98" {
		t.Errorf("without the token: %d %s, want 403 and 98", a.status, a.raw)
	}
	for range 3 { // use keeps it alive
		clock.Step(time.Minute - 1)
		if a := r.get(session); a.status != 200 {
			t.Errorf("in use: %d %s", a.status, a.raw)
		}
	}
	clock.Step(time.Minute)
	if a := r.get(session); a.status != 403 || a.code() != "403" {
		t.Errorf("after the time-out: %d %s, want 403", a.status, a.raw)
	}
	if a := r.get(func(req *http.Request) { session(req); req.SetBasicAuth("admin", "secret") }); a.status != 200 {
		t.Errorf("after the time-out, with Basic authentication: %d %s", a.status, a.raw)
	}

	for name, end := range map[string]func(){
		"the manager's restart": r.EndSessions,
		"log-out":               func() { r.as("").do("POST", "/api/session/destroy", nil, "Cookie", cookie) },
	} {
		in = login(t, r, "admin", "secret")
		cookie, _, _ = strings.Cut(in.header.Get("Set-Cookie"), ";")
		token = in.header.Get("X-XSRF-TOKEN")
		if a := r.get(session); a.status != 200 {
			t.Errorf("before %s: %d", name, a.status)
		}
		end()
		if a := r.get(session); a.status != 403 {
			t.Errorf("after %s: %d, want 403", name, a.status)
		}
	}
}

// Users of an identity manager have no form to send: the session is for the user
// of the header.
func TestSessionsByHeader(t *testing.T) {
	r := newRig(t, nsxsim.Options{Users: []nsxsim.User{{Name: "jane@corp", Password: "secret", Remote: true}}})
	for credentials, want := range map[string]int{"jane@corp:secret": 200, "jane@corp:wrong": 403} {
		in := r.as("").do("POST", "/api/session/create", nil, "Authorization", "Remote "+base64.StdEncoding.EncodeToString([]byte(credentials)))
		if in.status != want {
			t.Fatalf("%s: %d %s", credentials, in.status, in.raw)
		}
		if want != 200 {
			continue
		}
		cookie, _, _ := strings.Cut(in.header.Get("Set-Cookie"), ";")
		if a := r.as("").do("GET", pools, nil, "Cookie", cookie, "X-XSRF-TOKEN", in.header.Get("X-XSRF-TOKEN")); a.status != 200 {
			t.Errorf("in the session: %d %s", a.status, a.raw)
		}
	}
}

func TestChangedPassword(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	in := login(t, r, "admin", "secret")
	if err := r.SetPassword("admin", "another"); err != nil {
		t.Fatal(err)
	}
	cookie, _, _ := strings.Cut(in.header.Get("Set-Cookie"), ";")
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"old password": {func(req *http.Request) { req.SetBasicAuth("admin", "secret") }, 403},
		"new password": {func(req *http.Request) { req.SetBasicAuth("admin", "another") }, 200},
		"old session": {func(req *http.Request) {
			req.Header.Set("Cookie", cookie)
			req.Header.Set("X-XSRF-TOKEN", in.header.Get("X-XSRF-TOKEN"))
		}, 403},
	} {
		if a := r.get(c.change); a.status != c.status {
			t.Errorf("%s: %d, want %d", name, a.status, c.status)
		}
	}
	if err := r.SetPassword("nobody", "x"); err == nil {
		t.Error("an unknown user was given a password")
	}
}

func TestReadOnlyUsers(t *testing.T) {
	r := newRig(t, nsxsim.Options{}).as("auditor")
	if a := r.do("GET", pools, nil); a.status != 200 {
		t.Errorf("GET: %d", a.status)
	}
	if a := r.do("POST", pools, doc{}); a.status != 403 {
		t.Errorf("POST: %d, want 403", a.status)
	}
}

func TestRateLimit(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(0, 0))
	r := newRig(t, nsxsim.Options{Clock: clock, RateLimit: 3})
	for range 3 {
		r.ok("GET", pools, nil)
	}
	a := r.do("GET", pools, nil)
	if a.status != 429 || a.code() != "102" || a.message() != "Client 'admin' exceeded request rate of 3 per second." {
		t.Errorf("%d %s", a.status, a.raw)
	}
	r.as("other").ok("GET", pools, nil) // each user has a limit of his own
	clock.Step(time.Second)
	r.ok("GET", pools, nil)
}

func TestConcurrencyLimits(t *testing.T) {
	for _, c := range []struct {
		name    string
		options nsxsim.Options
		other   int // the status that another user gets meanwhile
	}{
		{"of a user", nsxsim.Options{MaxConcurrent: 1}, 200},
		{"of all", nsxsim.Options{MaxConcurrentTotal: 1}, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.options)
			inside, goOn := make(chan struct{}), make(chan struct{})
			if _, err := r.Faults().Add(nsxsim.Rule{Method: "POST", Hook: func(*http.Request) { close(inside); <-goOn }}); err != nil {
				t.Fatal(err)
			}
			done := make(chan answer)
			go func() { done <- r.do("POST", pools, doc{}) }()
			<-inside
			if a := r.do("GET", pools, nil); a.status != 503 {
				t.Errorf("the same user: %d, want 503", a.status)
			}
			if a := r.as("other").do("GET", pools, nil); a.status != c.other {
				t.Errorf("another user: %d, want %d", a.status, c.other)
			}
			close(goOn)
			if a := <-done; a.status != 201 {
				t.Errorf("the first: %d", a.status)
			}
			r.ok("GET", pools, nil)
		})
	}
}

func pemOf(c tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
}
