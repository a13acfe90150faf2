package nsxsim_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// rig is a simulator under test with a client on it, in memory.
type rig struct {
	*nsxsim.Sim
	t     *testing.T
	user  string
	clock clock.Clock // of the options
}

func newRig(t *testing.T, o nsxsim.Options) *rig {
	t.Helper()
	if o.NewID == nil {
		o.NewID = nsxsim.SequentialIDs()
	}
	if len(o.Users) == 0 {
		o.Users = []nsxsim.User{
			{Name: "admin", Password: "secret"},
			{Name: "other", Password: "secret"},
			{Name: "auditor", Password: "secret", ReadOnly: true},
			{Name: "nsx_policy", Password: "secret", Principal: true},
		}
	}
	sim, err := nsxsim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	return &rig{Sim: sim, t: t, user: "admin", clock: o.Clock}
}

func (r *rig) as(user string) *rig {
	c := *r
	c.user = user
	return &c
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    string
	body   nsxsim.Object // nil when there is none
}

func (a answer) code() string { return fmt.Sprint(a.body["error_code"]) }

func (a answer) message() string { return a.body.String("error_message") }

func (a answer) results() []nsxsim.Object {
	var list struct{ Results []nsxsim.Object }
	_ = json.Unmarshal([]byte(a.raw), &list)
	return list.Results
}

// do sends a request: path is below /api/v1, body is JSON or a value.
func (r *rig) do(method, path string, body any, header ...string) answer {
	r.t.Helper()
	return answerOf(r.t, r.raw(method, path, body, header...))
}

// raw is do for answers that are no JSON object.
func (r *rig) raw(method, path string, body any, header ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/_") {
		path = "/api/v1" + path
	}
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		reader = strings.NewReader(string(raw))
	}
	req := httptest.NewRequest(method, path, reader)
	if r.user != "" {
		req.SetBasicAuth(r.user, "secret")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

func answerOf(t *testing.T, w *httptest.ResponseRecorder) answer {
	t.Helper()
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if a.raw != "" {
		if err := json.Unmarshal([]byte(a.raw), &a.body); err != nil {
			t.Fatalf("the answer is not JSON: %v: %s", err, a.raw)
		}
	}
	return a
}

// ok is do that fails the test unless the answer is 2xx; it gives the body.
func (r *rig) ok(method, path string, body any) nsxsim.Object {
	r.t.Helper()
	a := r.do(method, path, body)
	if a.status/100 != 2 {
		r.t.Fatalf("%s %s: %d %s", method, path, a.status, a.raw)
	}
	return a.body
}

func (r *rig) create(path string, body any) string {
	r.t.Helper()
	a := r.do("POST", path, body)
	if a.status != http.StatusCreated {
		r.t.Fatalf("POST %s: %d %s", path, a.status, a.raw)
	}
	return a.body.ID()
}

// Paths of the load balancer's kinds.
const (
	services = "/loadbalancer/services"
	servers  = "/loadbalancer/virtual-servers"
	pools    = "/loadbalancer/pools"
	monitors = "/loadbalancer/monitors"
	profiles = "/loadbalancer/application-profiles"
	persists = "/loadbalancer/persistence-profiles"
	ippools  = "/pools/ip-pools"
)

type doc = map[string]any

// profile gives the id of a system profile or monitor by its name.
func (r *rig) named(k nsxsim.Kind, name string) string {
	r.t.Helper()
	for _, o := range r.List(k) {
		if o.String("display_name") == name {
			return o.ID()
		}
	}
	r.t.Fatalf("no %s is named %s", k, name)
	return ""
}

// tcpVS gives a body of a virtual server; more replaces or adds members.
func (r *rig) tcpVS(ip string, ports []string, more doc) doc {
	d := doc{"ip_address": ip, "ip_protocol": "TCP", "ports": ports,
		"application_profile_id": r.named(nsxsim.KindApplicationProfile, "default-tcp-lb-app-profile")}
	for k, v := range more {
		if v == nil {
			delete(d, k)
		} else {
			d[k] = v
		}
	}
	return d
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
