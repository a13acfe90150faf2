package dataplane_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// httpScene is a layer 7 virtual server with one member that answers with what
// it was asked.
func httpScene(t *testing.T, h dataplane.HTTP) (*scene, *http.Client) {
	t.Helper()
	s := newScene(t, dataplane.TCP, dataplane.Options{})
	at := serveHTTP(t, netip.AddrPortFrom(s.addr(31), 0), nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "echo" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			line, _ := rw.ReadString('\n')
			fmt.Fprint(conn, line)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s host=%s for=%v", r.Method, r.URL, body, r.Host, r.Header["X-Forwarded-For"])
	})
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
		vs.HTTP = &h
		vs.Pool.Members = []dataplane.Member{{Address: at.Addr(), Port: at.Port()}}
	}))
	return s, browser(t, s.addr(clientHost), nil)
}

func (s *scene) url(path string) string { return "http://" + s.vip.String() + path }

func TestForwardedForAtLayer7(t *testing.T) {
	for _, c := range []struct {
		mode   dataplane.XForwardedFor
		before []string
		want   string // CLIENT stands for the client's address
	}{
		{"", nil, "[]"},
		{"", []string{"1.2.3.4"}, "[1.2.3.4]"},
		{dataplane.ForwardedForInsert, nil, "[CLIENT]"},
		{dataplane.ForwardedForInsert, []string{"1.2.3.4"}, "[1.2.3.4, CLIENT]"},
		{dataplane.ForwardedForReplace, []string{"1.2.3.4", "5.6.7.8"}, "[CLIENT]"},
	} {
		s, client := httpScene(t, dataplane.HTTP{XForwardedFor: c.mode})
		want := "POST /a?b=c body host=app.example for=" + strings.ReplaceAll(c.want, "CLIENT", s.addr(clientHost).String())
		if _, got := fetch(t, client, "POST", s.url("/a?b=c"), "body", http.Header{"Host": {"app.example"}, "X-Forwarded-For": c.before}); got != want {
			t.Errorf("%q with %v: the member saw %q, want %q", c.mode, c.before, got, want)
		}
	}
}

// Each request goes over a connection of its own to a member, unless the profile keeps that.
func TestLayer7Counts(t *testing.T) {
	for keep, connections := range map[bool]uint64{false: 3, true: 1} {
		s, client := httpScene(t, dataplane.HTTP{ServerKeepAlive: keep})
		for _, path := range []string{"/1", "/2", "/3"} {
			fetch(t, client, "GET", s.url(path), "", http.Header{})
		}
		st := s.plane.Status()
		for what, c := range map[string]dataplane.Counters{"virtual server": st.VirtualServers[0].Counters, "pool": st.Pools[0].Counters, "member": st.Pools[0].Members[0].Counters} {
			want := connections
			if what == "virtual server" {
				want = 1
			}
			if c.HTTPRequests != 3 || c.TotalConnections != want || c.BytesIn == 0 || c.BytesOut == 0 {
				t.Errorf("kept alive %t: %s: %+v, want 3 requests on %d connections", keep, what, c, want)
			}
		}
		client.CloseIdleConnections()
		eventually(t, func() error {
			st := s.plane.Status()
			if st.VirtualServers[0].Counters.CurrentConnections != 0 || st.Pools[0].Counters.CurrentConnections != 0 {
				return fmt.Errorf("connections after the client went: %+v", st)
			}
			return nil
		})
	}
}

func TestLayer7Redirects(t *testing.T) {
	for want, h := range map[string]dataplane.HTTP{
		"https://app.example/a?b=c": {RedirectToHTTPS: true}, "https://elsewhere.example/": {RedirectTo: "https://elsewhere.example/"},
	} {
		s, client := httpScene(t, h)
		if resp, _ := fetch(t, client, "GET", s.url("/a?b=c"), "", http.Header{"Host": {"app.example"}}); resp.StatusCode != 302 || resp.Header.Get("Location") != want {
			t.Errorf("%s to %q, want 302 to %s", resp.Status, resp.Header.Get("Location"), want)
		}
	}
}

func TestLayer7WithoutAMemberIsUnavailable(t *testing.T) {
	s, client := httpScene(t, dataplane.HTTP{})
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) { vs.HTTP = &dataplane.HTTP{}; vs.Pool.Members = nil }))
	if resp, _ := fetch(t, client, "GET", s.url("/"), "", http.Header{}); resp.StatusCode != 503 {
		t.Errorf("%s, want 503", resp.Status)
	}
	if n := s.plane.Status().VirtualServers[0].Counters.RefusedConnections; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
}

func TestLayer7PassesUpgradesOn(t *testing.T) {
	s, _ := httpScene(t, dataplane.HTTP{})
	conn, err := net.Dial("tcp", s.vip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v, %v", resp, err)
	}
	fmt.Fprintln(conn, "hello")
	if line, err := in.ReadString('\n'); line != "hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestLayer7IsTCP(t *testing.T) {
	for _, vs := range []dataplane.VirtualServer{
		newScene(t, dataplane.UDP, dataplane.Options{}).with(func(vs *dataplane.VirtualServer) { vs.HTTP = &dataplane.HTTP{} }),
		newScene(t, dataplane.TCP, dataplane.Options{}).with(func(vs *dataplane.VirtualServer) { vs.HTTP = &dataplane.HTTP{XForwardedFor: "MAYBE"} }),
		newScene(t, dataplane.TCP, dataplane.Options{}).with(func(vs *dataplane.VirtualServer) { vs.Pool.Passive = &dataplane.Passive{MaxFails: -1} }),
	} {
		if err := newPlane(t, dataplane.Options{}).Apply(t.Context(), dataplane.Config{VirtualServers: []dataplane.VirtualServer{vs}}); !errors.Is(err, dataplane.ErrInvalid) {
			t.Errorf("%v, want ErrInvalid", err)
		}
	}
}

// A member that refuses connections is left alone after some of them, tried
// again later, and back as soon as it answers.
func TestPassiveMonitor(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(1000, 0))
	s := newScene(t, dataplane.TCP, dataplane.Options{Clock: clock})
	dead := netip.AddrPortFrom(s.addr(41), s.freePort(t, s.addr(41)))
	apply(t, s.plane, s.with(func(vs *dataplane.VirtualServer) {
		vs.Pool.Passive = &dataplane.Passive{MaxFails: 2, Timeout: 10 * time.Second}
		vs.Pool.Members = append(vs.Pool.Members[:1:1], dataplane.Member{Address: dead.Addr(), Port: dead.Port()})
	}))
	connect := func(times int) {
		for range times {
			if c := mustConnect(t, s.addr(clientHost), s.vip); c.name == "" {
				t.Error("a client got no member")
			}
		}
	}
	look := func() (states []dataplane.State, refused uint64) {
		for _, m := range s.plane.Status().Pools[0].Members {
			states = append(states, m.State)
		}
		return states, s.plane.Status().Pools[0].Members[1].Counters.RefusedConnections
	}
	expect := func(when string, state dataplane.State, refused uint64) {
		t.Helper()
		states, n := look()
		if diff := cmp.Diff([]dataplane.State{dataplane.StateUp, state}, states); diff != "" || n != refused {
			t.Errorf("%s: %d refused, want %d; states (-want +got):\n%s", when, n, refused, diff)
		}
	}
	connect(2)
	expect("after one failure", dataplane.StateUp, 1)
	connect(2)
	expect("after two", dataplane.StateDown, 2)
	connect(6)
	expect("while it is left alone", dataplane.StateDown, 2)
	clock.Step(10 * time.Second)
	expect("after the time-out", dataplane.StateUp, 2)
	connect(2)
	expect("tried once more", dataplane.StateDown, 3)
	b := newBackend(t, dead.Addr(), dead.Port())
	clock.Step(10 * time.Second)
	got := map[string]bool{}
	for range 2 {
		got[mustConnect(t, s.addr(clientHost), s.vip).name] = true
	}
	if !got[b.name] {
		t.Errorf("the member that is well again gets no connection: %v", got)
	}
	expect("well again", dataplane.StateUp, 3)
}
