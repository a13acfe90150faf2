package nsxsim_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// client is what a client of NSX that others wrote asks in its life, call by call and
// byte by byte as it sends it, and what it looks at in the answers.
type client struct {
	name    string
	options nsxsim.Options
	login   func(t *testing.T, base string) http.Header // how it authenticates; nil is Basic on each call
	// machines are virtual machines that are there.
	machines []string
	calls    []call
}

// call is one request. In path, header, body and want, {name} stands for what an
// earlier call kept, or for what newClientRig has to offer.
type call struct {
	do     string   // method and path
	header []string // name, value, ...
	body   string
	status int
	want   string   // JSON that the answer holds, as in fact.body; EMPTY for no body
	keep   []string // name=path of a value in the answer: id=results.0.id
}

// clientRig is a simulator on a socket, and what the calls to it know.
type clientRig struct {
	*nsxsim.Server
	t     *testing.T
	known map[string]string
}

func newClientRig(t *testing.T, o nsxsim.Options) *clientRig {
	t.Helper()
	if o.NewID == nil {
		o.NewID = nsxsim.SequentialIDs()
	}
	sim := nsxsim.StartPlain(t, o)
	r := &clientRig{Server: sim, t: t, known: map[string]string{"edge-cluster": sim.EdgeClusterID(), "tier-0": sim.Tier0ID()}}
	for k, names := range map[nsxsim.Kind][]string{
		nsxsim.KindApplicationProfile: {"default-tcp-lb-app-profile", "default-udp-lb-app-profile", "default-http-lb-app-profile"},
		nsxsim.KindMonitor:            {"default-tcp-lb-monitor", "default-http-lb-monitor"},
		nsxsim.KindTransportZone:      {"nsx-overlay-transportzone", "nsx-vlan-transportzone"},
	} {
		for _, o := range sim.List(k) {
			for _, name := range names {
				if o.String("display_name") == name {
					r.known[name] = o.ID()
				}
			}
		}
	}
	return r
}

// fill puts what is known in the place of the names in braces.
func (r *clientRig) fill(text string) string {
	for name, value := range r.known {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return text
}

// valueAt gives the value at a path of names and positions.
func valueAt(v any, path string) (any, bool) {
	for _, part := range strings.Split(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, v != nil
}

func (r *clientRig) send(c call, credentials http.Header) {
	r.t.Helper()
	method, path, _ := strings.Cut(r.fill(c.do), " ")
	req, err := http.NewRequest(method, r.URL+path, strings.NewReader(r.fill(c.body)))
	if err != nil {
		r.t.Fatal(err)
	}
	for name, values := range credentials {
		req.Header[name] = values
	}
	if c.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(c.header); i += 2 {
		req.Header.Set(c.header[i], r.fill(c.header[i+1]))
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if resp.StatusCode != c.status {
		r.t.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, raw, c.status)
	}
	if c.want == "EMPTY" {
		if len(raw) > 0 {
			r.t.Errorf("%s %s: a body, %s", method, path, raw)
		}
		return
	}
	var got, want any
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &got); err != nil {
			r.t.Fatalf("%s %s: the answer is not JSON: %s", method, path, raw)
		}
	}
	if c.want != "" {
		if err := json.Unmarshal([]byte(r.fill(c.want)), &want); err != nil {
			r.t.Fatalf("%s %s: %v in %s", method, path, err, r.fill(c.want))
		}
		if !holds(got, want) {
			r.t.Errorf("%s %s: %s, want it to hold %s", method, path, raw, r.fill(c.want))
		}
	}
	for _, k := range c.keep {
		name, at, _ := strings.Cut(k, "=")
		v, ok := valueAt(got, at)
		if !ok {
			r.t.Fatalf("%s %s: no %s in %s", method, path, at, raw)
		}
		if n, isNumber := v.(float64); isNumber {
			v = int64(n)
		}
		r.known[name] = fmt.Sprint(v)
	}
}

func basic(*testing.T, string) http.Header {
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	return req.Header
}

// session logs in as VMware's own clients do: the form, and Basic beside it; from then
// on cookie and token, and Basic still.
func session(t *testing.T, base string) http.Header {
	t.Helper()
	form := url.Values{"j_username": {nsxsim.DefaultUsername}, "j_password": {nsxsim.DefaultPassword}}
	req, err := http.NewRequest(http.MethodPost, base+"/api/session/create", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = basic(t, base)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cookie, _, found := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	if resp.StatusCode != http.StatusOK || !found || !strings.HasPrefix(cookie, "JSESSIONID=") || len(resp.Header["X-Xsrf-Token"]) != 1 {
		t.Fatalf("log-in: %d %v", resp.StatusCode, resp.Header)
	}
	h := basic(t, base)
	h.Set("Cookie", cookie+";")
	h.Set("X-XSRF-TOKEN", resp.Header.Get("X-XSRF-TOKEN"))
	h.Set("Accept", "application/json")
	return h
}

func TestClients(t *testing.T) {
	var clients []client
	clients = append(clients, managerClients()...)
	clients = append(clients, policyClients()...)
	clients = append(clients, monitoringClients()...)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			r := newClientRig(t, c.options)
			for _, name := range c.machines {
				nsxsim.Must(r.As("admin").Create(nsxsim.KindVirtualMachine, nsxsim.Object{"id": name, "display_name": name}))
			}
			login := c.login
			if login == nil {
				login = basic
			}
			credentials := login(t, r.URL)
			for _, call := range c.calls {
				r.send(call, credentials)
			}
		})
	}
}

// monitoringClients look, and change nothing.
func monitoringClients() []client {
	return []client{
		{name: "check_vmware_nsxt, for Icinga", calls: []call{
			{do: "GET /api/v1/cluster/status", status: 200, want: `{"control_cluster_status":{"status":"STABLE"},
				"mgmt_cluster_status":{"status":"STABLE","online_nodes":["*"],"offline_nodes":[]}, "detailed_cluster_status":{"overall_status":"STABLE"}}`,
				keep: []string{"type=detailed_cluster_status.groups.0.group_type", "status=detailed_cluster_status.groups.0.group_status", "member=detailed_cluster_status.groups.0.members.0.member_uuid"}},
			{do: "GET /api/v1/alarms?page_size=100&status=OPEN&sort_ascending=false", status: 200, want: `{"results":[],"result_count":0}`},
		}},
		{name: "nsxt_exporter of Gojek, by go-vmware-nsxt", calls: []call{
			{do: "GET /api/v1/logical-routers?cursor=", status: 200, want: `{"results":[{"router_type":"TIER0"}],"cursor":null}`, keep: []string{"router=results.0.id"}},
			{do: "GET /api/v1/logical-routers/{router}/status", status: 200, want: `{"logical_router_id":"{router}",
				"per_node_status":[{"high_availability_status":"ACTIVE","transport_node_id":"*"},{"high_availability_status":"STANDBY"}]}`},
			{do: "POST /api/v1/logical-routers/{router}/nat/rules", body: `{"action":"SNAT","translated_network":"10.9.0.1"}`, status: 201, keep: []string{"rule=id"}},
			{do: "GET /api/v1/logical-routers/{router}/nat/rules?cursor=", status: 200, want: `{"results":[{"id":"{rule}"}]}`},
			{do: "GET /api/v1/logical-routers/{router}/nat/rules/{rule}/statistics?source=realtime", status: 200, want: `{"total_bytes":0}`},
			{do: "POST /api/v1/logical-router-ports", body: `{"resource_type":"LogicalRouterLinkPortOnTIER0","logical_router_id":"{router}"}`, status: 201, keep: []string{"port=id"}},
			{do: "GET /api/v1/logical-router-ports?cursor=", status: 200, want: `{"results":["*"]}`},
			{do: "GET /api/v1/logical-router-ports/{port}/statistics/summary", status: 200, want: `{"logical_router_port_id":"{port}","rx":{"total_bytes":0},"tx":{"dropped_packets":0}}`},
			{do: "GET /api/v1/transport-nodes?cursor=", status: 200, want: `{"results":["*","*"],"result_count":2}`, keep: []string{"node=results.0.id"}},
			{do: "GET /api/v1/transport-nodes/{node}/status", status: 200, want: `{"status":"UP","node_uuid":"{node}"}`},
			{do: "GET /api/v1/edge-clusters?cursor=", status: 200, want: `{"results":[{"members":[{"transport_node_id":"{node}"},"*"]}]}`},
			{do: "GET /api/v1/cluster/status", status: 200, want: `{"mgmt_cluster_status":{"status":"STABLE"}}`},
			{do: "GET /api/v1/cluster/nodes/status", status: 200, want: `{"controller_cluster":["*"],"management_cluster":["*"]}`},
			{do: "GET /api/v1/node/services/nsx-message-bus/status", status: 200, want: `{"runtime_state":"running"}`},
			{do: "GET /api/v1/node/services/search/status", status: 200, want: `{"monitor_runtime_state":"running"}`},
			{do: "POST /api/v1/logical-switches", body: `{"transport_zone_id":"{nsx-overlay-transportzone}","admin_state":"UP"}`, status: 201, keep: []string{"switch=id"}},
			{do: "GET /api/v1/logical-switches/{switch}/state", status: 200, want: `{"state":"success"}`},
			{do: "GET /api/v1/logical-switches/{switch}/statistics", status: 200, want: `{"rx_bytes":{"total":0}}`},
			{do: "POST /api/v1/logical-ports", body: `{"logical_switch_id":"{switch}","admin_state":"UP"}`, status: 201, keep: []string{"lport=id"}},
			{do: "GET /api/v1/logical-ports/{lport}/status", status: 200, want: `{"status":"UP"}`},
			{do: "POST /api/v1/loadbalancer/services", body: `{"display_name":"lb"}`, status: 201, keep: []string{"lb=id"}},
			{do: "GET /api/v1/loadbalancer/services?cursor=", status: 200, want: `{"results":[{"display_name":"lb"}]}`},
			{do: "GET /api/v1/loadbalancer/services/{lb}/status", status: 200, want: `{"service_status":"DETACHED"}`},
		}},
		{name: "nsxt_exporter of Orange, by both SDKs", calls: append(policyBalancer("SMALL"),
			call{do: "PATCH /policy/api/v1/infra/lb-pools/web", body: `{"members":[{"ip_address":"10.0.0.1","port":"80"}]}`, status: 200},
			call{do: "PATCH /policy/api/v1/infra/lb-virtual-servers/web", body: `{"ip_address":"10.1.0.1","ports":["80"],"pool_path":"/infra/lb-pools/web",
				"lb_service_path":"/infra/lb-services/lb","application_profile_path":"/infra/lb-app-profiles/default-tcp-lb-app-profile"}`, status: 200},
			call{do: "GET /policy/api/v1/infra/lb-services?include_mark_for_delete_objects=false", status: 200, want: `{"results":[{"id":"lb","display_name":"lb"}],"cursor":null}`},
			call{do: "GET /policy/api/v1/infra/lb-services/lb/detailed-status?include_instance_details=false&source=realtime", status: 200,
				want: `{"results":[{"resource_type":"LBServiceStatus","service_status":"UP","virtual_servers":[{"virtual_server_path":"/infra/lb-virtual-servers/web","status":"UP"}],
					"pools":[{"pool_path":"/infra/lb-pools/web","members":[{"ip_address":"10.0.0.1","port":"80","status":"UP"}]}]}]}`},
			call{do: "GET /policy/api/v1/infra/lb-services/lb/statistics?source=realtime", status: 200,
				want: `{"results":[{"resource_type":"LBServiceStatistics","virtual_servers":[{"virtual_server_path":"/infra/lb-virtual-servers/web"}],
					"pools":[{"pool_path":"/infra/lb-pools/web","members":[{"ip_address":"10.0.0.1","port":"80"}]}]}]}`},
			call{do: "GET /policy/api/v1/infra/tier-1s/t1/state", status: 200, want: `{"tier1_state":{"state":"success"},"tier1_status":{"per_node_status":["*","*"]}}`},
			call{do: "GET /policy/api/v1/infra/tier-0s?include_mark_for_delete_objects=false", status: 200},
			call{do: "GET /api/v1/cluster/nodes", status: 200, want: `{"result_count":1}`, keep: []string{"node=results.0.id"}},
			call{do: "GET /api/v1/cluster/nodes/{node}/status", status: 200, want: `{"mgmt_cluster_status":{"mgmt_cluster_status":"CONNECTED"},"system_status":{"load_average":["*","*","*"],"uptime":"*"}}`},
			call{do: "GET /api/v1/cluster/nodes/{node}", status: 200, want: `{"id":"{node}"}`},
			call{do: "GET /api/v1/cluster/nodes/{node}/network/interfaces", status: 200, keep: []string{"nic=results.0.interface_id"}},
			call{do: "GET /api/v1/cluster/nodes/{node}/network/interfaces/{nic}", status: 200, want: `{"admin_status":"UP"}`},
			call{do: "GET /api/v1/cluster/nodes/{node}/network/interfaces/{nic}/stats", status: 200, want: `{"rx_bytes":0}`},
			call{do: "GET /api/v1/cluster/nodes/none/status", status: 404},
			call{do: "GET /api/v1/cluster/nodes/{node}/network/interfaces/none", status: 404},
		)},
	}
}

// policyBalancer makes a load-balancer service lb on a tier-1 t1.
func policyBalancer(size string) []call {
	return []call{
		{do: "PATCH /policy/api/v1/infra/tier-1s/t1", body: `{"route_advertisement_types":["TIER1_LB_VIP"]}`, status: 200, want: "EMPTY"},
		{do: "PATCH /policy/api/v1/infra/tier-1s/t1/locale-services/default",
			body: `{"edge_cluster_path":"/infra/sites/default/enforcement-points/default/edge-clusters/{edge-cluster}"}`, status: 200, want: "EMPTY"},
		{do: "PATCH /policy/api/v1/infra/lb-services/lb", body: `{"connectivity_path":"/infra/tier-1s/t1","size":"` + size + `"}`, status: 200, want: "EMPTY"},
	}
}

// Load balancers before managers find a healthy one by this text.
func TestHealthIsWrittenAsNSXWritesIt(t *testing.T) {
	a := newRig(t, nsxsim.Options{}).do("GET", "/reverse-proxy/node/health", nil)
	if !strings.Contains(a.raw, `"healthy" : true`) {
		t.Errorf("it says %s", a.raw)
	}
}

// parsed reads JSON of a test.
func parsed(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
