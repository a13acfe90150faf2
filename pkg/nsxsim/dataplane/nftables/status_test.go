//go:build linux

package nftables_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane/nftables"
)

func TestCounters(t *testing.T) {
	w := newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		shares := web(protocol, with(nodes(1, 2)), func(vs *dataplane.VirtualServer) { vs.ID, vs.Ports[0].Listen = "shares-the-pool", 81 })
		configured := []dataplane.VirtualServer{web(protocol, with(nodes(1, 2))), shares}
		apply(t, p, configured...)
		var open []caller
		for range 4 {
			c := w.dial(t, network, clientA, vip+":80")
			c.member()
			open = append(open, c)
		}
		w.dial(t, network, clientA, vip+":81").member()

		st := p.Status()
		bytes := cmpopts.IgnoreFields(dataplane.Counters{}, "BytesIn", "BytesOut", "PacketsIn", "PacketsOut")
		check := func(what string, got, want dataplane.Counters) {
			t.Helper()
			if diff := cmp.Diff(want, got, bytes); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
			// Each hello and its answer are some tens of bytes with their headers.
			if least := 30 * want.TotalConnections; got.BytesIn < least || got.BytesOut < least || got.BytesIn > 100*least {
				t.Errorf("%s: %d bytes in, %d out, with %d connections", what, got.BytesIn, got.BytesOut, want.TotalConnections)
			}
			if least := want.TotalConnections; got.PacketsIn < least || got.PacketsOut < least || got.PacketsIn > 20*least {
				t.Errorf("%s: %d packets in, %d out, with %d connections", what, got.PacketsIn, got.PacketsOut, want.TotalConnections)
			}
		}
		check("virtual server", st.VirtualServers[0].Counters, dataplane.Counters{CurrentConnections: 4, MaxConnections: 4, TotalConnections: 4})
		check("the other one", st.VirtualServers[1].Counters, dataplane.Counters{CurrentConnections: 1, MaxConnections: 1, TotalConnections: 1})
		check("pool", st.Pools[0].Counters, dataplane.Counters{CurrentConnections: 5, MaxConnections: 5, TotalConnections: 5})
		check("member", st.Pools[0].Members[1].Counters, dataplane.Counters{CurrentConnections: 2, MaxConnections: 2, TotalConnections: 2})
		if got, want := st.VirtualServers[0].Listeners, []dataplane.ListenerStatus{{Port: 80}}; !cmp.Equal(got, want) {
			t.Errorf("listeners: %v", got)
		}

		if network == "tcp" {
			for _, c := range open {
				c.close()
			}
			eventually(t, "connections end", func() bool { return p.Status().VirtualServers[0].Counters.CurrentConnections == 0 })
		}
		// What was counted stays when another virtual server takes the address over, with those that it was counted for.
		heir := configured[0]
		heir.ID = "heir"
		apply(t, p, heir, shares)
		w.dial(t, network, clientB, vip+":80").member()
		st = p.Status()
		if got := st.VirtualServers[0].Counters.TotalConnections; got != 1 {
			t.Errorf("the heir has %d connections, want 1", got)
		}
		if got := st.Pools[0].Counters.TotalConnections; got != 6 {
			t.Errorf("the pool has %d connections, want 6", got)
		}
	})
}

func TestStatesOfWhatCannotBeServed(t *testing.T) {
	newWorld(t)
	p := newPlane(t, dataplane.Options{})
	twice := web(func(vs *dataplane.VirtualServer) { vs.ID = "twice" })
	invalid := web(func(vs *dataplane.VirtualServer) { vs.ID, vs.Ports = "invalid", nil })
	disabled := web(func(vs *dataplane.VirtualServer) { vs.ID, vs.Disabled = "disabled", true })
	err := p.Apply(context.Background(), dataplane.Config{VirtualServers: []dataplane.VirtualServer{web(), twice, invalid, disabled}})
	if !errors.Is(err, dataplane.ErrInvalid) {
		t.Errorf("the error is %v", err)
	}
	got := map[string]dataplane.State{}
	for _, vs := range p.Status().VirtualServers {
		got[vs.ID] = vs.State
		if vs.State == dataplane.StateDown && vs.Reason == "" {
			t.Errorf("%s is DOWN for no reason", vs.ID)
		}
	}
	want := map[string]dataplane.State{
		"web": dataplane.StateUp, "twice": dataplane.StateDown, "invalid": dataplane.StateDown, "disabled": dataplane.StateDisabled,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	p.Close()
	if err := p.Apply(context.Background(), dataplane.Config{}); !errors.Is(err, dataplane.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Layer 7 is served by sockets on the same address.
func TestLayer7BesideLayer4(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	member := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		io.WriteString(rw, r.Header.Get("X-Forwarded-For"))
	}))
	member.Start() // on the edge itself
	defer member.Close()
	at := netip.MustParseAddrPort(member.Listener.Addr().String())
	apply(t, p, web(), web(func(vs *dataplane.VirtualServer) {
		vs.ID, vs.Ports = "layer-7", []dataplane.PortMap{{Listen: 8080}}
		vs.HTTP = &dataplane.HTTP{XForwardedFor: dataplane.ForwardedForInsert}
		vs.Pool = &dataplane.Pool{ID: "http", Members: []dataplane.Member{{Address: at.Addr(), Port: at.Port()}}}
	}))
	c := w.dial(t, "tcp", clientB, vip+":8080")
	a := call[Ask, Answer](t, w.client, "Ask", Ask{Conn: c.id, Text: "GET / HTTP/1.0\r\nConnection: close\r\n\r", ToEnd: true})
	if !strings.Contains(a.Text, clientB) {
		t.Errorf("the answer is %q (%s), want it to name the client", a.Text, a.Failure)
	}
	if got := w.spread(t, "tcp", clientA, vip+":80", 3); len(got) != 3 {
		t.Errorf("layer 4 is served by %v", got)
	}
	for _, vs := range p.Status().VirtualServers {
		if vs.State != dataplane.StateUp || vs.Counters.TotalConnections == 0 {
			t.Errorf("%s: %+v", vs.ID, vs)
		}
	}
}

// The simulator's API tells the truth about this data plane.
func TestSimulator(t *testing.T) {
	w := newWorld(t)
	sim := nsxsim.Start(t, nsxsim.Options{
		DataPlane:    &dataplane.Options{},
		NewDataPlane: func(o dataplane.Options) (nsxsim.DataPlane, error) { return nftables.New(o) },
	})
	admin := sim.As(nsxsim.DefaultUsername)
	create := func(k nsxsim.Kind, o nsxsim.Object) string { return nsxsim.Must(admin.Create(k, o)).ID() }
	tier1 := nsxsim.Must(sim.AddTier1("tier-1"))
	lb := nsxsim.Must(sim.AddLBService("lb", "SMALL", tier1.ID())).ID()
	monitor := create(nsxsim.KindMonitor, nsxsim.Object{
		"resource_type": "LbTcpMonitor", "monitor_port": "30080", "interval": 1, "timeout": 3, "fall_count": 1, "rise_count": 1,
	})
	member := func(address string) nsxsim.Object { return nsxsim.Object{"ip_address": address} }
	pool := create(nsxsim.KindPool, nsxsim.Object{
		"members":            []nsxsim.Object{member("10.200.1.2"), member("10.200.2.2"), member("10.200.3.9")}, // the last is nobody's
		"active_monitor_ids": []string{monitor}, "snat_translation": nsxsim.Object{"type": "LbSnatAutoMap"},
	})
	vs := create(nsxsim.KindVirtualServer, nsxsim.Object{
		"ip_address": vip, "ip_protocol": "TCP", "ports": []string{"80"}, "default_pool_member_ports": []string{"30080"},
		"pool_id": pool, "application_profile_id": create(nsxsim.KindApplicationProfile, nsxsim.Object{"resource_type": "LbFastTcpProfile"}),
	})
	attach := func(ids ...string) {
		t.Helper()
		nsxsim.Must(admin.Update(nsxsim.KindLBService, lb, func(o nsxsim.Object) { o["virtual_server_ids"] = append([]string{}, ids...) }))
	}
	attach(vs)
	get := func(path string) nsxsim.Object { return fetch(t, sim, "/api/v1/loadbalancer/services/"+lb+path) }
	eventually(t, "the API tells that one member is DOWN", func() bool {
		return get("/virtual-servers/"+vs+"/status").String("status") == "PARTIALLY_UP"
	})
	if got := w.spread(t, "tcp", clientA, vip+":80", 4); got["node-1"] != 2 || got["node-2"] != 2 {
		t.Errorf("members %v serve", got)
	}
	statistics := get("/pools/" + pool + "/statistics")["statistics"].(map[string]any)
	if statistics["total_sessions"] != 4.0 || statistics["bytes_in"] == 0.0 || statistics["bytes_out"] == 0.0 {
		t.Errorf("statistics: %v", statistics)
	}
	c := w.dial(t, "tcp", clientA, vip+":80")
	c.member()
	attach()
	eventually(t, "the connection is cut", func() bool {
		return call[Ask, Answer](t, w.client, "Ask", Ask{Conn: c.id, Text: "hello", Short: true}).Failure != ""
	})
}

// fetch gets a document of the simulator's API.
func fetch(t *testing.T, sim *nsxsim.Server, path string) nsxsim.Object {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	answer := httptest.NewRecorder()
	sim.ServeHTTP(answer, r)
	var o nsxsim.Object
	if err := json.Unmarshal(answer.Body.Bytes(), &o); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, answer.Code, answer.Body)
	}
	return o
}

// Without rights over its network namespace, a process is told so.
func TestNotPermitted(t *testing.T) {
	newWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stranger := exec.Command(self)
	stranger.Env = append(os.Environ(), roleEnv+"="+roleStranger)
	stranger.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER} // of a user namespace that does not own the network's
	got, err := stranger.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	const want = "true: the nftables data plane needs CAP_NET_ADMIN"
	if !strings.HasPrefix(string(got), want) {
		t.Errorf("it says %q, want %q", got, want)
	}
}

// tryToStart tells whether a data plane is unavailable, and why.
func tryToStart() {
	p, err := nftables.New(dataplane.Options{})
	if err == nil {
		p.Close()
	}
	fmt.Printf("%t: %v", errors.Is(err, nftables.ErrUnavailable), err)
}

func TestNeedsARouter(t *testing.T) {
	newWorld(t)
	const file = "/proc/sys/net/ipv4/ip_forward"
	set := func(value string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("0")
	defer set("1")
	if _, err := nftables.New(dataplane.Options{}); !errors.Is(err, nftables.ErrUnavailable) || !strings.Contains(err.Error(), "ip_forward") {
		t.Errorf("the error is %v", err)
	}
}
