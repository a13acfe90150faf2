package transport

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	good := func() Options { return Options{Managers: []string{"https://nsx.example"}, Credentials: fixed} }
	tests := []struct {
		name string
		edit func(*Options)
		want string // in the error; empty for none
	}{
		{"least", func(*Options) {}, ""},
		{"port and slash", func(o *Options) { o.Managers = []string{"https://10.0.0.1:8443/", "https://[2001:db8::1]"} }, ""},
		{"plain http on loopback", func(o *Options) { o.Managers = []string{"http://127.0.0.1:80", "http://[::1]:80", "http://localhost"} }, ""},
		{"plain http", func(o *Options) { o.Managers = []string{"http://nsx.example"} }, "loopback"},
		{"no manager", func(o *Options) { o.Managers = nil }, "no NSX manager"},
		{"no scheme", func(o *Options) { o.Managers = []string{"nsx.example"} }, "https URL"},
		{"no host", func(o *Options) { o.Managers = []string{"https://"} }, "no host"},
		{"a path", func(o *Options) { o.Managers = []string{"https://nsx.example/api"} }, "more than"},
		{"a user", func(o *Options) { o.Managers = []string{"https://admin@nsx.example"} }, "credentials"},
		{"not a URL", func(o *Options) { o.Managers = []string{"https://nsx.example:port"} }, "not a URL"},
		{"no credentials", func(o *Options) { o.Credentials = nil }, "exactly one"},
		{"both credentials", func(o *Options) { o.ClientCertificate = func() (*tls.Certificate, error) { return nil, nil } }, "exactly one"},
		{"authentication", func(o *Options) { o.Authentication = "Magic" }, `"Magic"`},
		{"negative rate", func(o *Options) { o.RequestsPerSecond = -1 }, "negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := good()
			tt.edit(&o)
			tr, err := New(o)
			if err == nil {
				tr.Close(context.Background())
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
