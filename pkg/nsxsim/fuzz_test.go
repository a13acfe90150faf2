package nsxsim_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// No body and no path makes the simulator panic or fail: whatever a client
// sends is taken or refused.
func FuzzRequests(f *testing.F) {
	paths := []string{services, servers, pools, monitors, profiles, persists, "/ns-groups", "/ip-sets", ippools, "/logical-routers",
		"/logical-router-ports", "/edge-clusters", pools + "/p?action=ADD_MEMBERS", pools + "/p?action=UPDATE_MEMBERS",
		pools + "/g?action=UPDATE_MEMBERS", ippools + "/i?action=ALLOCATE", ippools + "/i?action=RELEASE", "/loadbalancer/rules"}
	for _, path := range paths {
		for _, method := range []string{"POST", "PUT", "GET", "DELETE"} {
			f.Add(method, path, `{"resource_type":"LbUdpMonitor","members":[{"ip_address":"10.0.0.1"},null,3],"tags":null}`)
		}
		f.Add("PUT", path+"/p", `{"_revision":0,"member_group":{"grouping_object":{"target_id":"g"},"max_ip_list_size":-1}}`)
		f.Add("GET", path+"/%2e%2e//x?page_size=0&cursor=czA&sort_by=id&included_fields=,", "")
	}
	for _, query := range []string{`a:(b%20OR%20"c\"%20)`, `NOT%20(tags.scope:x*?%20AND%20tags.tag:y)`, `members.ip_address:1\%20`, `a::b`, `*:*`, `member_group.grouping_object.target_id:ng`} {
		f.Add("GET", "/search/query?query="+query, "")
	}
	f.Add("POST", servers, `{"ip_address":"::1","ports":["1-65535"],"default_pool_member_ports":["1-65535"],"application_profile_id":"a"}`)
	f.Add("POST", ippools, `{"subnets":[{"cidr":"::/0","allocation_ranges":[{"start":"::","end":"ffff::"}]}]}`)
	f.Add("POST", ippools, `{"subnets":[{"cidr":"10.0.0.0/8","allocation_ranges":[{"start":"10.0.0.1","end":"::1"}]}]}`)
	f.Fuzz(func(t *testing.T, method, path, body string) {
		seed := nsxsim.Inventory{Objects: []nsxsim.Object{
			{"kind": "NSGroup", "id": "ng"},
			{"kind": "LbPool", "id": "p", "members": []any{map[string]any{"ip_address": "10.0.0.1"}}},
			{"kind": "LbPool", "id": "g", "member_group": map[string]any{"grouping_object": map[string]any{"target_id": "ng"}}},
			{"kind": "LbVirtualServer", "id": "v", "ip_address": "10.1.0.1", "ports": []any{"80"}, "pool_id": "p", "application_profile_id": "default-tcp-lb-app-profile"},
			{"kind": "LogicalRouter", "id": "t", "router_type": "TIER1", "edge_cluster_id": "edge-cluster"},
			{"kind": "LbService", "id": "s", "virtual_server_ids": []any{"v"}, "attachment": map[string]any{"target_type": "LogicalRouter", "target_id": "t"}},
			{"kind": "IpPool", "id": "i", "subnets": []any{map[string]any{"cidr": "10.9.0.0/24", "allocation_ranges": []any{map[string]any{"start": "10.9.0.1", "end": "10.9.0.2"}}}}},
		}}
		endure(t, func(sim *nsxsim.Sim) error { return sim.Load(seed) }, method, "/api/v1"+path, body,
			"/api/v1"+services+"/s/status", "/api/v1"+services+"/s/usage", "/api/v1"+services+"/s/statistics", "/api/v1"+services+"/s/debug-info",
			"/api/v1"+ippools, "/api/v1"+pools, "/api/v1/ns-groups")
	})
}

// endure sends a request to a simulator that was filled, and then asks for what that must not have hurt: lists, and
// documents of objects that it may have deleted.
func endure(t *testing.T, fill func(*nsxsim.Sim) error, method, path, body string, then ...string) {
	t.Helper()
	target, err := url.ParseRequestURI(path)
	if err != nil || !validMethod(method) {
		t.Skip("no HTTP request can say so")
	}
	sim, err := nsxsim.New(nsxsim.Options{NewID: nsxsim.SequentialIDs()})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	if err := fill(sim); err != nil {
		t.Fatal(err)
	}
	send := func(method string, target *url.URL, body string) int {
		r := httptest.NewRequest(method, "/", strings.NewReader(body))
		r.URL = target
		r.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
		w := httptest.NewRecorder()
		sim.ServeHTTP(w, r)
		checkAnswer(t, sim, r, w)
		if w.Code >= 500 {
			t.Errorf("%s %s %q: %d %s", method, target, body, w.Code, w.Body)
		}
		return w.Code
	}
	send(method, target, body)
	for _, path := range then {
		ofAnObject := strings.Contains(path, "/s/") || strings.Contains(path, "/g/")
		if code := send(http.MethodGet, &url.URL{Path: path}, ""); code != http.StatusOK && !ofAnObject {
			t.Errorf("then GET %s: %d", path, code)
		}
	}
	again, err := nsxsim.New(nsxsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Load(sim.Snapshot()); err != nil {
		t.Errorf("the snapshot after %s %s %q does not load: %v", method, target, body, err)
	}
}

// checkAnswer holds what every answer must be, whatever was asked: a refusal is an
// error of NSX's, an unknown endpoint is refused, and either is in the journal.
func checkAnswer(t *testing.T, sim *nsxsim.Sim, r *http.Request, w *httptest.ResponseRecorder) {
	t.Helper()
	entries := sim.Journal().Entries()
	if len(entries) == 0 || entries[len(entries)-1].Status != w.Code {
		t.Errorf("%s %s: the journal does not end with its answer %d", r.Method, r.URL, w.Code)
		return
	}
	if strings.HasSuffix(entries[len(entries)-1].Op, "(unknown)") && w.Code < 400 {
		t.Errorf("%s %s is unknown and answered %d", r.Method, r.URL, w.Code)
	}
	if w.Code < 400 {
		return
	}
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body["error_code"] == nil || body["httpStatus"] == nil || body["error_message"] == "" {
		t.Errorf("%s %s: %d without an error of NSX's: %s", r.Method, r.URL, w.Code, w.Body)
	}
}

func validMethod(m string) bool {
	_, err := http.NewRequest(m, "/", nil)
	return err == nil && m != ""
}

// No file makes the simulator panic.
func FuzzFiles(f *testing.F) {
	if text, err := os.ReadFile("testdata/inventory.yaml"); err == nil {
		f.Add(text)
	}
	f.Add([]byte("- {path: '/**', method: GET, status: 503}"))
	f.Add([]byte("objects: [{kind: LbPool, members: [null]}, {kind: AdvertisementConfig}]"))
	f.Add([]byte("objects: [{kind: LbService, virtual_server_ids: [null], attachment: 3}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		sim, err := nsxsim.New(nsxsim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer sim.Close()
		if rules, err := nsxsim.ParseRules(text); err == nil {
			if _, err := sim.Faults().Add(rules...); err != nil {
				t.Errorf("rules that parse cannot be added: %v", err)
			}
		}
		if inv, err := nsxsim.ParseInventory(text); err == nil {
			_ = sim.Load(inv) // refused or not: it must come back
		}
	})
}
