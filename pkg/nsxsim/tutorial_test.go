package nsxsim_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// The test that docs/tutorial-nsxsim.md shows.
func TestVirtualServerAnswers(t *testing.T) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer node.Close()
	_, port, err := net.SplitHostPort(node.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}

	// An NSX on a free port, which ends with the test.
	sim := nsxsim.Start(t, nsxsim.Options{DataPlane: &dataplane.Options{}})
	put := func(path string, o nsxsim.Object) {
		t.Helper()
		if _, err := sim.As("admin").PutIntent(path, o); err != nil {
			t.Fatal(err)
		}
	}
	edgeCluster := "/infra/sites/default/enforcement-points/default/edge-clusters/" + sim.EdgeClusterID()
	put("/infra/tier-1s/t1", nsxsim.Object{"route_advertisement_types": []string{"TIER1_LB_VIP"}})
	put("/infra/tier-1s/t1/locale-services/default", nsxsim.Object{"edge_cluster_path": edgeCluster})
	put("/infra/lb-services/lb", nsxsim.Object{"connectivity_path": "/infra/tier-1s/t1"})

	// Here the client under test would go to work, with sim.URL, sim.CA,
	// nsxsim.DefaultUsername and nsxsim.DefaultPassword.
	put("/infra/lb-pools/web", nsxsim.Object{"members": []any{map[string]any{"ip_address": "127.0.0.1", "port": port}}})
	put("/infra/lb-virtual-servers/web", nsxsim.Object{
		"ip_address": "127.78.0.10", "ports": []string{port}, "pool_path": "/infra/lb-pools/web", "lb_service_path": "/infra/lb-services/lb",
		"application_profile_path": "/infra/lb-app-profiles/default-tcp-lb-app-profile",
	})

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	var answer []byte
	for deadline := time.Now().Add(10 * time.Second); string(answer) != "hello" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		resp, err := client.Get("http://127.78.0.10:" + port)
		if err != nil {
			continue // not yet
		}
		answer, _ = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if string(answer) != "hello" {
		t.Errorf("the virtual server answers %q", answer)
	}
	if vs := sim.List(nsxsim.KindVirtualServer); len(vs) != 1 || vs[0].String("ip_protocol") != "TCP" {
		t.Errorf("virtual servers in the Manager: %v", vs)
	}
}
