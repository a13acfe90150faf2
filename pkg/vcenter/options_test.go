package vcenter_test

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
)

func TestNewRefuses(t *testing.T) {
	credentials := func(context.Context) (string, string, error) { return "user", "S3cret", nil }
	for name, tc := range map[string]struct {
		server vcenter.Server
		want   string
	}{
		"no address":             {vcenter.Server{Credentials: credentials}, "names no host"},
		"an address without TLS": {vcenter.Server{Address: "http://vcenter", Credentials: credentials}, "http://vcenter/sdk is not https"},
		"a bad address":          {vcenter.Server{Address: "https://user:S3cret@vcenter:port", Credentials: credentials}, "not a host or a URL"},
		"an address with credentials": {
			vcenter.Server{Address: "https://user:S3cret@vcenter", Credentials: credentials}, "holds credentials",
		},
		"no credentials":       {vcenter.Server{Address: "vcenter"}, "no credentials"},
		"a CA that is not PEM": {vcenter.Server{Address: "vcenter", Credentials: credentials, CA: []byte("x")}, "no certificate in PEM"},
		"a bad thumbprint":     {vcenter.Server{Address: "vcenter", Credentials: credentials, Thumbprint: "AA:BB"}, "neither SHA-256 nor SHA-1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := vcenter.New(vcenter.Options{Servers: []vcenter.Server{tc.server}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "S3cret") {
				t.Errorf("error %q shows the password", err)
			}
		})
	}
	if _, err := vcenter.New(vcenter.Options{}); err == nil {
		t.Error("no servers: no error")
	}
}

func TestTrust(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	leaf := f.proxy.Certificate().Raw
	sum256, sum1 := sha256.Sum256(leaf), sha1.Sum(leaf)
	for name, tc := range map[string]struct {
		change  func(*vcenter.Server)
		trusted bool
	}{
		"the CA":                  {func(*vcenter.Server) {}, true},
		"no CA":                   {func(s *vcenter.Server) { s.CA = nil }, false},
		"insecure":                {func(s *vcenter.Server) { s.CA, s.Insecure = nil, true }, true},
		"SHA-256 thumbprint":      {func(s *vcenter.Server) { s.CA, s.Thumbprint = nil, hex.EncodeToString(sum256[:]) }, true},
		"SHA-1 thumbprint":        {func(s *vcenter.Server) { s.CA, s.Thumbprint = nil, colons(sum1[:]) }, true},
		"another thumbprint":      {func(s *vcenter.Server) { s.Thumbprint = strings.Repeat("ab", 32) }, false},
		"another, and insecure":   {func(s *vcenter.Server) { s.Thumbprint, s.Insecure = strings.Repeat("ab", 32), true }, false},
		"a URL with the SDK path": {func(s *vcenter.Server) { s.Address += "/sdk" }, true},
		"a host and port":         {func(s *vcenter.Server) { s.Address = strings.TrimPrefix(s.Address, "https://") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			opts := optionsOf(f)
			tc.change(&opts.Servers[0])
			vm, err := newClient(t, opts).ByUUID(t.Context(), node1)
			if tc.trusted && (err != nil || vm.Name != "node-1") {
				t.Errorf("got %s, %v", vm.Name, err)
			}
			if !tc.trusted {
				notProven(t, err)
			}
		})
	}
}

func colons(sum []byte) string {
	var parts []string
	for _, b := range sum {
		parts = append(parts, strings.ToUpper(hex.EncodeToString([]byte{b})))
	}
	return strings.Join(parts, ":")
}
