package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func TestUsersOfAFile(t *testing.T) {
	certificate, _, err := nsxsim.NewCertificate("ncp")
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}))
	p := start(t, "--users", write(t, "users.yaml", `
- {name: auditor, password: secret, readOnly: true}
- {name: vmc, token: t0ken}
- {name: jane@corp, password: secret, remote: true}
- name: ncp
  principal: true
  certificate: |
    `+strings.ReplaceAll(text, "\n", "\n    ")))
	ca, err := os.ReadFile(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(ca)
	send := func(method, authorization string, certificates ...tls.Certificate) int {
		t.Helper()
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities, Certificates: certificates, MinVersion: tls.VersionTLS12}}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(context.Background(), method, p.url+"/api/v1/loadbalancer/pools", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	basic := func(credentials string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
	}
	for _, c := range []struct {
		what string
		got  int
		want int
	}{
		{"admin is there, too", send("POST", basic("admin:"+nsxsim.DefaultPassword)), 201},
		{"an auditor reads", send("GET", basic("auditor:secret")), 200},
		{"an auditor does not write", send("POST", basic("auditor:secret")), 403},
		{"a bearer token", send("POST", "Bearer t0ken"), 201},
		{"a user of an identity manager", send("POST", "Remote "+base64.StdEncoding.EncodeToString([]byte("jane@corp:secret"))), 201},
		{"the same by Basic", send("POST", basic("jane@corp:secret")), 403},
		{"a client certificate", send("POST", "", certificate), 201},
		{"no credentials", send("GET", ""), 401},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.what, c.got, c.want)
		}
	}
}

func TestUsersThatAreNone(t *testing.T) {
	for what, text := range map[string]string{
		"no list": "name: x", "an unknown key": "- {name: x, sudo: true}", "no name": "- {password: x}",
		"no PEM": "- {name: x, certificate: abc}", "a name that is taken": "- {name: admin}", "a name twice": "- {name: x}\n- {name: x}",
	} {
		command := newCommand()
		command.SetArgs([]string{"--users", write(t, "users.yaml", text)})
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // should it start after all
		if err := command.ExecuteContext(ctx); err == nil {
			t.Errorf("%s is taken", what)
		} else if strings.Contains(err.Error(), "abc") {
			t.Errorf("%s: the error tells the secret: %v", what, err)
		}
	}
	command := newCommand()
	command.SetArgs([]string{"--users", "none.yaml"})
	if err := command.ExecuteContext(context.Background()); err == nil {
		t.Error("a file that does not exist is taken")
	}
}
