package nsxsim_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// The test that docs/reference/nsxsim.md shows.
func TestClient(t *testing.T) {
	sim := nsxsim.Start(t, nsxsim.Options{NewID: nsxsim.SequentialIDs()}) // TLS on a free port, ended with the test
	tier1 := nsxsim.Must(sim.AddTier1("tier-1"))
	lb := nsxsim.Must(sim.AddLBService("lb", "SMALL", tier1.ID()))
	pool := nsxsim.Must(sim.AddIPPool("vips", "192.168.100.0/24", "192.168.100.10-192.168.100.20"))

	// The answer to the first ALLOCATE is lost.
	if _, err := sim.Faults().Add(nsxsim.Rule{Action: "ALLOCATE", Nth: 1, When: nsxsim.AfterCommit, Drop: true}); err != nil {
		t.Fatal(err)
	}

	run(t, sim.URL, sim.CA, nsxsim.DefaultUsername, nsxsim.DefaultPassword) // the client under test

	if got := len(sim.Get(nsxsim.KindLBService, lb.ID()).Strings("virtual_server_ids")); got != 1 {
		t.Errorf("%d virtual servers, want 1", got)
	}
	if n := len(sim.Allocations(pool.ID())); n != 1 {
		t.Errorf("%d addresses allocated, want 1", n)
	}
	if n := sim.Journal().Count("PUT /loadbalancer/services/{id}"); n != 1 {
		t.Errorf("%d writes of the load-balancer service, want 1", n)
	}
}

// run is a client that puts a virtual server on the first address of the first IP pool, into the first load-balancer
// service. An ALLOCATE without an answer is looked up and not repeated.
func run(t *testing.T, url string, ca []byte, username, password string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	call := func(method, path string, body any) (answer nsxsim.Object, err error) {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(t.Context(), method, url+"/api/v1"+path, bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		r.SetBasicAuth(username, password)
		r.Header.Set("Content-Type", "application/json")
		resp, err := transport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if text, err = io.ReadAll(resp.Body); err != nil {
			return nil, err
		}
		if resp.StatusCode >= 300 {
			return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
		}
		return answer, json.Unmarshal(text, &answer)
	}
	first := func(path string) nsxsim.Object {
		t.Helper()
		list, err := call(http.MethodGet, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		results, ok := list["results"].([]any)
		if !ok || len(results) == 0 {
			t.Fatalf("%s is empty: %v", path, list)
		}
		return results[0].(map[string]any)
	}

	pool := first("/pools/ip-pools")
	const address = "192.168.100.10"
	if _, err := call(http.MethodPost, "/pools/ip-pools/"+pool.ID()+"?action=ALLOCATE", nsxsim.Object{"allocation_id": address}); err == nil {
		t.Fatal("the answer to the first ALLOCATE came")
	}
	if allocated := first("/pools/ip-pools/" + pool.ID() + "/allocations"); allocated.String("allocation_id") != address {
		t.Fatalf("allocated is %v, want %s", allocated, address)
	}
	vs, err := call(http.MethodPost, "/loadbalancer/virtual-servers", nsxsim.Object{
		"ip_address": address, "ports": []string{"80"}, "ip_protocol": "TCP",
		"application_profile_id": first("/loadbalancer/application-profiles?resource_type=LbFastTcpProfile").ID(),
	})
	if err != nil {
		t.Fatal(err)
	}
	lb := first("/loadbalancer/services")
	lb["virtual_server_ids"] = []string{vs.ID()}
	if _, err := call(http.MethodPut, "/loadbalancer/services/"+lb.ID(), lb); err != nil {
		t.Fatal(err)
	}
}
