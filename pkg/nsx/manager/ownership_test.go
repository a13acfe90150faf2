package manager_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

type tag = map[string]any

func tags(pairs ...string) []any {
	var out []any
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, tag{"scope": pairs[i], "tag": pairs[i+1]})
	}
	return out
}

// strangers are tags that make an object nobody's that this cluster knows.
var strangers = []struct {
	name string
	tags []any
}{
	{"no tags", nil},
	{"a Service, no cluster", tags(nsx.TagServiceUID, "uid-web")},
	{"a use, no cluster", tags(nsx.TagShared, clusterPool().Key())},
	{"the cluster alone", tags(nsx.TagClusterUID, "cluster-1")},
	{"another cluster of the same name", tags(nsx.TagCluster, "test", nsx.TagClusterUID, "cluster-2", nsx.TagServiceUID, "uid-web", nsx.TagService, "default/web")},
	{"the same name, no uid", tags(nsx.TagCluster, "test", nsx.TagServiceUID, "uid-web", nsx.TagService, "default/web")},
	{"the name as uid", tags(nsx.TagClusterUID, "test", nsx.TagServiceUID, "uid-web")},
	{"an empty cluster", tags(nsx.TagClusterUID, "", nsx.TagServiceUID, "uid-web")},
	{"an empty Service", tags(nsx.TagClusterUID, "cluster-1", nsx.TagServiceUID, "")},
	{"an empty use", tags(nsx.TagClusterUID, "cluster-1", nsx.TagShared, "")},
	{"two clusters, ours first", tags(nsx.TagClusterUID, "cluster-1", nsx.TagClusterUID, "cluster-2", nsx.TagServiceUID, "uid-web")},
	{"two clusters, ours last", tags(nsx.TagClusterUID, "cluster-2", nsx.TagClusterUID, "cluster-1", nsx.TagServiceUID, "uid-web")},
	{"two Services", tags(nsx.TagClusterUID, "cluster-1", nsx.TagServiceUID, "uid-web", nsx.TagServiceUID, "uid-other")},
	{"a Service and a use", tags(nsx.TagClusterUID, "cluster-1", nsx.TagServiceUID, "uid-web", nsx.TagShared, clusterPool().Key())},
	{"two uses", tags(nsx.TagClusterUID, "cluster-1", nsx.TagShared, clusterPool().Key(), nsx.TagShared, "node group")},
	{"the scope in another case", tags("NSXT.io/cluster-uid", "cluster-1", nsx.TagServiceUID, "uid-web")},
	{"the cluster in another case", tags(nsx.TagClusterUID, "CLUSTER-1", nsx.TagServiceUID, "uid-web")},
	{"the cluster with a space", tags(nsx.TagClusterUID, "cluster-1 ", nsx.TagServiceUID, "uid-web")},
	{"our uid in a scope of somebody else", tags("example.com/cluster-uid", "cluster-1", nsx.TagServiceUID, "uid-web")},
	{"scope and tag swapped", tags("cluster-1", nsx.TagClusterUID, "uid-web", nsx.TagServiceUID)},
}

// TestStrangersAreNeverTouched: what is not provably ours is not taken for ours by Load, and is as it was after everything
// that a Backend does: publish, nodes, withdraw, tidy, reclaim.
func TestStrangersAreNeverTouched(t *testing.T) {
	for _, s := range strangers {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, nsxsim.Options{})
			as := w.sim.As("somebody")
			make := func(k nsxsim.Kind, o nsxsim.Object) nsxsim.Object {
				if s.tags != nil {
					o["tags"] = s.tags
				}
				return nsxsim.Must(as.Create(k, o))
			}
			monitor := make(nsxsim.KindMonitor, nsxsim.Object{"resource_type": "LbHttpMonitor", "display_name": "test.nodes"})
			pool := make(nsxsim.KindPool, nsxsim.Object{
				"display_name": "test.nodes.ipv4.automap", "algorithm": "ROUND_ROBIN", "active_monitor_ids": []string{monitor.ID()},
				"snat_translation": map[string]any{"type": "LbSnatAutoMap"},
				"members":          []any{map[string]any{"ip_address": "192.168.9.9"}},
			})
			profile, _ := w.Inventory().ApplicationProfile("default-tcp-lb-app-profile")
			make(nsxsim.KindVirtualServer, nsxsim.Object{
				"display_name": "test.default.web.tcp", "ip_address": "10.0.0.4", "ip_protocol": "TCP", "ports": []string{"80"},
				"pool_id": pool.ID(), "application_profile_id": profile,
			})
			make(nsxsim.KindPersistenceProfile, nsxsim.Object{"resource_type": "LbSourceIpPersistenceProfile", "display_name": "test.source-ip.300s"})
			set := make(nsxsim.KindIPSet, nsxsim.Object{"display_name": "test.nodes", "ip_addresses": []string{"192.168.9.9"}})
			make(nsxsim.KindNSGroup, nsxsim.Object{"display_name": "test.nodes", "members": []any{map[string]any{
				"resource_type": "NSGroupSimpleExpression", "target_type": "IPSet", "target_property": "id", "op": "EQUALS", "value": set.ID()}}})
			before := w.strangers()

			w.must(w.Load(t.Context()))
			if got := w.Inventory().Owners(); len(got) != 0 {
				t.Errorf("taken for a Service's: %v", got)
			}
			if p, m := w.Inventory().SharedPools(), w.Inventory().SharedMonitors(); len(p)+len(m) != 0 {
				t.Errorf("taken for the cluster's: %v %v", p, m)
			}
			tcp, own := w.tcp(1), w.tcp(2)
			own.Pool = localPool(30001)
			own.Affinity = 300e9
			w.must(w.publish(owner("web"), tcp))
			w.must(w.publish(owner("own"), own))
			w.must(w.SetNodes(t.Context(), nodes("c")))
			w.must(w.withdraw(owner("web")))
			w.must(w.Apply(t.Context(), lbCollect(w, "own")))
			w.must(w.Tidy(t.Context()))
			w.must(w.Reclaim(t.Context(), w.pool, netip.MustParseAddr("10.0.0.4")))
			if d := cmp.Diff(before, w.strangers()); d != "" {
				t.Errorf("what is somebody else's changed (-want +got):\n%s", d)
			}
		})
	}
}

// lbCollect withdraws what a Service has, and is what removes the rest of it.
func lbCollect(w *world, name string) nsx.Collect {
	w.t.Helper()
	w.must(w.withdraw(owner(name)))
	have := w.Inventory().Observe(owner(name))
	c := nsx.Collect{Owner: owner(name), Monitors: have.Monitors}
	for _, p := range have.Pools {
		c.Pools = append(c.Pools, p.ID)
	}
	return c
}

// strangers are the documents of everything that "somebody" made.
func (w *world) strangers() map[string]string {
	docs := map[string]string{}
	for _, k := range []nsxsim.Kind{nsxsim.KindVirtualServer, nsxsim.KindPool, nsxsim.KindMonitor, nsxsim.KindNSGroup, nsxsim.KindIPSet, nsxsim.KindPersistenceProfile} {
		for _, o := range w.sim.List(k) {
			if o.String("_create_user") == "somebody" {
				docs[fmt.Sprint(k, " ", o.String("display_name"))] = fmt.Sprint(map[string]any(o))
			}
		}
	}
	return docs
}

// TestTwoClustersOfOneNameNeverMeet: each sees and removes its own alone, although names, Services and addresses' pool are
// the same.
func TestTwoClustersOfOneNameNeverMeet(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	other := w.backend("cluster-2")
	w.must(other.Load(t.Context()))
	w.must(other.SetNodes(t.Context(), nodes("x")))
	w.must(w.publish(owner("web"), w.tcp(1)))
	w.must(other.Load(t.Context()))
	if got := other.Inventory().Observe(owner("web")); !got.Empty() {
		t.Fatalf("the other cluster takes ours for its own: %v", got)
	}
	w.must(other.Apply(t.Context(), nsx.Publish{Owner: owner("web"), VirtualServers: []nsx.VirtualServer{w.tcp(2)}}))
	w.wantAllocated("10.0.0.1", "10.0.0.2")

	w.must(w.Load(t.Context()))
	w.must(w.withdraw(owner("web")))
	w.must(w.Tidy(t.Context()))
	w.wantAllocated("10.0.0.2")
	var left []string
	for _, k := range []nsxsim.Kind{nsxsim.KindVirtualServer, nsxsim.KindPool, nsxsim.KindMonitor} {
		for _, o := range w.sim.List(k) {
			if uid := o.Tags()[nsx.TagClusterUID]; uid != "" { // not one that NSX comes with
				left = append(left, string(k)+" of "+uid)
			}
		}
	}
	want := []string{
		string(nsxsim.KindVirtualServer) + " of cluster-2", string(nsxsim.KindPool) + " of cluster-2", string(nsxsim.KindMonitor) + " of cluster-2",
	}
	if d := cmp.Diff(want, left); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// sharedService is a load-balancer service of somebody else as a later release may answer it: fields that nobody here
// knows, keys in no order, numbers that no float64 holds, text that JSON may write in several ways.
const sharedService = `{
  "zz_last_first" : {"b":1, "a":[1.0, 1e400, -0, 12345678901234567890123456789, 0.10], "A":null},
  "relax_scale_validation":true,"attachment":{"target_type":"LogicalRouter","target_id":"t1","is_valid":true},
  "description":"<b>&amp; \u003cquoted\u003e / \/ é \u00e9 \ud83d\ude00",
  "id":"lb","display_name":"lb","virtual_server_ids":["theirs"],"size":"SMALL","enabled":true,
  "big": 9007199254740993, "price":1.10, "empty":{}, "none":null, "":"no name",
  "access_list_control":{"group_id":"g","enabled":false,"action":"DROP"},
  "tags":[{"tag":"x","scope":"y","later":7}], "resource_type":"LbService","_revision":18446744073709551615
}`

// TestSharedDocumentsKeepWhatNobodyKnows: a PUT of a shared document carries each field with the very text that was read,
// but for white space and the list that it is about.
func TestSharedDocumentsKeepWhatNobodyKnows(t *testing.T) {
	n := &answers{}
	b := manager.New(manager.Options{
		Transport: n, ClusterName: "test", ClusterUID: "cluster-1", LBServices: []string{"lb"},
		IPPools: []manager.IPPool{{Name: "floating", ID: "p1"}}, Clock: clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
	})
	if err := b.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := nsx.VirtualServer{
		Protocol: nsx.TCP, Address: netip.MustParseAddr("10.0.0.1"), IPPool: "p1", Class: "default", LBService: "lb",
		Ports: []nsx.PortMap{{Port: 80, NodePort: 30080}}, ApplicationProfile: "profile", Pool: nsx.Pool{Family: nsx.IPv4, SNAT: nsx.Transparent, Algorithm: "ROUND_ROBIN"},
	}
	if err := b.Apply(t.Context(), nsx.Publish{Owner: owner("web"), VirtualServers: []nsx.VirtualServer{v}}); err != nil {
		t.Fatal(err)
	}
	var read, written map[string]json.RawMessage
	for text, into := range map[string]*map[string]json.RawMessage{sharedService: &read, n.put: &written} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	if got, want := string(written["virtual_server_ids"]), `["theirs","new"]`; got != want {
		t.Errorf("virtual servers are %s, want %s", got, want)
	}
	delete(read, "virtual_server_ids")
	delete(written, "virtual_server_ids")
	if d := cmp.Diff(texts(t, read), texts(t, written)); d != "" {
		t.Errorf("-read +written:\n%s", d)
	}
}

// texts are the values of a document without white space. json.Marshal may write the characters <, > and & of a text as
// escapes, which is the same text; nothing else may differ.
func texts(t *testing.T, d map[string]json.RawMessage) map[string]string {
	t.Helper()
	out := map[string]string{}
	for k, v := range d {
		var b bytes.Buffer
		if err := json.Compact(&b, v); err != nil {
			t.Fatal(err)
		}
		out[k] = strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`).Replace(b.String())
	}
	return out
}

// answers is an NSX that answers what it is asked with fixed documents, and keeps what the load-balancer service is
// written as.
type answers struct{ put string }

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	body := []byte("{}")
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	status, text := http.StatusOK, `{"results":[]}`
	switch path := strings.TrimPrefix(r.URL.Path, "/api/v1"); r.Method + " " + path {
	case "GET /loadbalancer/services":
		text = `{"results":[` + sharedService + `]}`
	case "GET /loadbalancer/services/lb/usage":
		text = `{"virtual_server_capacity":20}`
	case "PUT /loadbalancer/services/lb":
		a.put, text = string(body), string(body)
	case "GET /pools/ip-pools":
		text = `{"results":[{"id":"p1","display_name":"floating","subnets":[{"allocation_ranges":[{"start":"10.0.0.1","end":"10.0.0.9"}]}]}]}`
	case "POST /pools/ip-pools/p1":
		text = `{"allocation_id":"10.0.0.1"}`
	case "POST /loadbalancer/pools", "POST /loadbalancer/virtual-servers":
		var d map[string]any
		if err := json.Unmarshal(body, &d); err != nil {
			return nil, err
		}
		d["id"], d["_revision"] = "new", 0
		made, err := json.Marshal(d)
		if err != nil {
			return nil, err
		}
		status, text = http.StatusCreated, string(made)
	}
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)),
	}, nil
}
