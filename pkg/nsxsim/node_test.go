package nsxsim_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// The nodes of a manager have the same objects, and limits of their own.
func TestNodesShareObjects(t *testing.T) {
	r := newRig(t, nsxsim.Options{RateLimit: 2, Clock: clocktesting.NewFakeClock(time.Unix(1e9, 0))})
	send := func(node int, method, path string) answer {
		req := httptest.NewRequest(method, "/api/v1"+path, strings.NewReader("{}"))
		req.SetBasicAuth("admin", "secret")
		w := httptest.NewRecorder()
		r.Node(node).ServeHTTP(w, req)
		return answerOf(t, w)
	}
	made := send(1, "POST", pools)
	if a := send(2, "GET", pools+"/"+made.body.ID()); a.status != 200 {
		t.Errorf("what one node made, another answers with %d", a.status)
	}
	send(1, "GET", pools)
	if a := send(1, "GET", pools); a.status != 429 {
		t.Errorf("over the rate on one node: %d", a.status)
	}
	if a := send(2, "GET", pools); a.status != 200 {
		t.Errorf("on another node: %d", a.status)
	}
	if e := r.Journal().Entries(); e[0].Node != 1 || e[1].Node != 2 {
		t.Errorf("nodes in the journal: %+v", e)
	}
}

// A node that goes down takes its sessions along, and nothing else.
func TestANodeGoesDown(t *testing.T) {
	sim := nsxsim.StartPlain(t, nsxsim.Options{})
	if _, err := sim.ListenNode(0, nsxsim.ListenOptions{Plain: true}); err == nil {
		t.Error("a further node with the number of the first")
	}
	listen := func() *nsxsim.Server {
		t.Helper()
		node, err := sim.ListenNode(1, nsxsim.ListenOptions{Plain: true})
		if err != nil {
			t.Fatal(err)
		}
		return node
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	send := func(srv *nsxsim.Server, session *http.Response) int {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, srv.URL+"/api/v1/node", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(session.Cookies()[0])
		req.Header.Set("X-XSRF-TOKEN", session.Header.Get("X-XSRF-TOKEN"))
		resp, err := client.Do(req)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	login := func(srv *nsxsim.Server) *http.Response {
		t.Helper()
		resp, err := client.PostForm(srv.URL+"/api/session/create", url.Values{"j_username": {nsxsim.DefaultUsername}, "j_password": {nsxsim.DefaultPassword}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	node := listen()
	there, here := login(node), login(sim)
	if got := [3]int{send(node, there), send(sim, there), send(sim, here)}; got != [3]int{200, 403, 200} {
		t.Errorf("in the sessions: %v", got)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	if got := send(node, there); got != 0 {
		t.Errorf("a node that is down answers %d", got)
	}
	again := listen()
	defer again.Close()
	if got := [2]int{send(again, there), send(sim, here)}; got != [2]int{403, 200} {
		t.Errorf("in the sessions from before: %v", got)
	}
}
