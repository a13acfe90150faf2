package nsxsim_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func TestServersServe(t *testing.T) {
	for name, srv := range map[string]*nsxsim.Server{
		"TLS":   nsxsim.Start(t, nsxsim.Options{}),
		"plain": nsxsim.StartPlain(t, nsxsim.Options{}),
	} {
		client := srv.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
		t.Cleanup(client.CloseIdleConnections)
		resp, err := client.Get(srv.URL + "/api/v1/node/version")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), nsxsim.DefaultVersion) {
			t.Errorf("%s: %s %v", name, body, err)
		}
	}
}

func TestTheCertificateIsVerified(t *testing.T) {
	srv, stranger := nsxsim.Start(t, nsxsim.Options{}), nsxsim.Start(t, nsxsim.Options{})
	client := srv.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	t.Cleanup(client.CloseIdleConnections)
	_, err := client.Get(stranger.URL)
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) {
		t.Errorf("another simulator's certificate: %v", err)
	}
}

func TestClientCertificatesOverTLS(t *testing.T) {
	cert, _, err := nsxsim.NewCertificate("ncp")
	if err != nil {
		t.Fatal(err)
	}
	srv := nsxsim.Start(t, nsxsim.Options{Users: []nsxsim.User{{Name: "ncp", Certificate: pemOf(cert), Principal: true}}})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: srv.CertPool(), Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}}}
	t.Cleanup(client.CloseIdleConnections)
	resp, err := client.Post(srv.URL+"/api/v1"+pools, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := srv.List(nsxsim.KindPool); resp.StatusCode != 201 || got[0].String("_create_user") != "ncp" {
		t.Errorf("%s, made by %s", resp.Status, got[0].String("_create_user"))
	}
}

// Closing does not wait for requests that a fault holds, nor for connections
// that a client keeps open.
func TestCloseEndsWhatIsHeld(t *testing.T) {
	sim, err := nsxsim.New(nsxsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := sim.Listen(nsxsim.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan struct{})
	_, err = srv.Faults().Add(nsxsim.Rule{Method: "POST", Hook: func(*http.Request) { close(entered) }},
		nsxsim.Rule{Method: "POST", Delay: nsxsim.Duration(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	client := srv.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	t.Cleanup(client.CloseIdleConnections)
	failed := make(chan error)
	go func() {
		resp, err := client.Post(srv.URL+"/api/v1"+pools, "application/json", strings.NewReader("{}"))
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("the request that was held got an answer")
	}
	if n := len(srv.List(nsxsim.KindPool)); n != 0 {
		t.Errorf("%d pools, want none", n)
	}
}
