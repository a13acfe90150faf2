package vcenter_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"regexp"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// front is a vCenter whose answers a test can disturb: a reverse proxy before the simulator.
type front struct {
	*vcsim.Server
	proxy *httptest.Server

	mu      sync.Mutex
	calls   map[string]int
	disturb func(call string, w http.ResponseWriter, r *http.Request) bool
}

var soapMethod = regexp.MustCompile(`<(?:\w+:)?Body[^>]*><(?:\w+:)?(\w+)`)

func newFront(t *testing.T, inv vcsim.Inventory) *front {
	t.Helper()
	server, err := vcsim.Start(t.Context(), inv, vcsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	f := &front{Server: server, calls: map[string]int{}}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: target.Scheme, Host: target.Host})
		},
		Transport:    transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	f.proxy = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		call := r.Method + " " + r.URL.Path
		if m := soapMethod.FindSubmatch(body); m != nil {
			call = string(m[1])
		}
		f.mu.Lock()
		f.calls[call]++
		disturb := f.disturb
		f.mu.Unlock()
		if disturb == nil || !disturb(call, w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		f.proxy.Close()
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// setDisturb makes f see each call first; it returns true if it has answered. A call is the name of a SOAP method, or
// the method and path of a REST request.
func (f *front) setDisturb(disturb func(call string, w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disturb = disturb
}

// count returns how often a call came.
func (f *front) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

// config is the client's configuration of this vCenter, with the password of this moment.
func (f *front) config() vcenter.Server {
	user, password := f.Credentials()
	return vcenter.Server{
		Address:     f.proxy.URL,
		CA:          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.proxy.Certificate().Raw}),
		Credentials: func(context.Context) (string, string, error) { return user, password, nil },
	}
}

// hang never answers a call: it waits until the client gives up, or the test ends.
func hang(t *testing.T, call string) func(string, http.ResponseWriter, *http.Request) bool {
	return func(got string, _ http.ResponseWriter, r *http.Request) bool {
		if got != call {
			return false
		}
		select {
		case <-r.Context().Done():
		case <-t.Context().Done():
		}
		panic(http.ErrAbortHandler) // which sends nothing; a client that is just hanging up could still read an answer
	}
}

// soapFault answers with a fault of the given type, whose content is XML.
func soapFault(w http.ResponseWriter, kind, content string) {
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<soapenv:Body><soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>a fault</faultstring>
<detail><%[1]sFault xmlns="urn:vim25" xsi:type="%[1]s">%[2]s</%[1]sFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>`, kind, content)
}

func newClient(t *testing.T, opts vcenter.Options) *vcenter.Client {
	t.Helper()
	client, err := vcenter.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		// Of interest to the test of Close alone: here the vCenter may be down.
		_ = client.Close(ctx)
	})
	return client
}

func clientOf(t *testing.T, fronts ...*front) *vcenter.Client {
	t.Helper()
	return newClient(t, optionsOf(fronts...))
}

func optionsOf(fronts ...*front) vcenter.Options {
	opts := vcenter.Options{Clock: clocktesting.NewFakePassiveClock(time.Unix(1_000_000, 0))}
	for _, f := range fronts {
		opts.Servers = append(opts.Servers, f.config())
	}
	return opts
}

// The VMs of vcsim/testdata/two-datacenters.yaml.
const (
	node1   = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a01"
	node2   = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a02"
	node3   = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a03"
	node4   = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a04"
	unknown = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2aff"
)

func twoDatacenters(t *testing.T) vcsim.Inventory {
	t.Helper()
	inv, err := vcsim.Load("../../vcsim/testdata/two-datacenters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// otherVCenter is an inventory without the VMs of twoDatacenters.
func otherVCenter() vcsim.Inventory {
	return vcsim.Generate(1, [][]netip.Addr{{netip.MustParseAddr("10.9.0.1")}})
}
