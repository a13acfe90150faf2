package nsxsim_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// numbers gives a member of a statistics document.
func numbers(o map[string]any) map[string]float64 {
	all := map[string]float64{}
	for name, v := range o["statistics"].(doc) {
		all[name] = v.(float64)
	}
	return all
}

// What services, virtual servers, pools and members count agrees, on both layers.
func TestStatisticsAgree(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	b := newBench(t, nsxsim.Options{Clock: clock, DataPlane: &dataplane.Options{Clock: clock}})
	echo, web := echoServer(t), webMember(t, "one", nil)
	free := freePorts(t, vip, 2)
	l4, l7 := free[0], free[1]
	pool := func(port string) string {
		return b.create(pools, doc{"members": []doc{{"ip_address": "127.0.0.1", "port": port}}, "snat_translation": doc{"type": "LbSnatAutoMap"}})
	}
	echoes, webs := pool(echo), pool(web)
	tcp := b.create(servers, b.tcpVS(vip, []string{l4}, doc{"pool_id": echoes,
		"persistence_profile_id": b.named(nsxsim.KindPersistenceProfile, "default-source-ip-lb-persistence-profile"),
		"access_list_control":    doc{"action": "DROP", "enabled": true, "group_id": b.group("127.0.0.9")}}))
	drop := b.create(rules, doc{"phase": "HTTP_FORWARDING", "match_strategy": "ALL", "match_conditions": []doc{{"type": "LbHttpRequestUriCondition", "uri": "^/drop"}},
		"actions": []doc{{"type": "LbConnectionDropAction"}}})
	http7 := b.create(servers, b.tcpVS(vip, []string{l7}, doc{"pool_id": webs, "rule_ids": []string{drop},
		"application_profile_id": b.named(nsxsim.KindApplicationProfile, "default-http-lb-app-profile")}))
	b.attach(tcp, http7)
	state := func(vs string) string {
		return b.ok("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil).String("status")
	}
	waitFor(t, func() bool { return state(tcp) == "UP" && state(http7) == "UP" })

	for range 3 {
		if _, err := talk(t, "tcp", "127.0.0.5", l4, patience); err != nil { // "hello\n" and back; it stays open
			t.Fatal(err)
		}
	}
	if _, err := talk(t, "tcp", "127.0.0.9", l4, patience); err == nil {
		t.Fatal("a client that is to be kept out is let in")
	}
	for range 2 {
		if status, body, _ := fetch(browser(nil), "http://"+vip+":"+l7+"/"); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	fetch(browser(nil), "http://"+vip+":"+l7+"/drop")

	get := func(path string) map[string]any {
		return b.ok("GET", services+"/"+b.lb+path+"/statistics", nil)
	}
	expect := func(what string, got map[string]float64, want map[string]float64) {
		t.Helper()
		for name, n := range want {
			if v, ok := got[name]; !ok || v != n {
				t.Errorf("%s: %s is %v, want %v", what, name, v, n)
			}
		}
	}
	waitFor(t, func() bool { return numbers(get("/virtual-servers/" + http7))["current_sessions"] == 0 })
	counts := map[string]float64{"bytes_in": 18, "bytes_out": 18, "packets_in": 3, "packets_out": 3, "current_sessions": 3, "max_sessions": 3, "total_sessions": 3, "http_requests": 0}
	expect("layer 4", numbers(get("/virtual-servers/"+tcp)), counts)
	expect("layer 4", numbers(get("/virtual-servers/"+tcp)), map[string]float64{"dropped_packets_by_access_list": 1, "dropped_sessions_by_lbrule_action": 0, "source_ip_persistence_entry_size": 1})
	expect("its pool", numbers(get("/pools/"+echoes)), counts)
	expect("its member", numbers(get("/pools/" + echoes)["members"].([]any)[0].(doc)), counts)
	expect("layer 7", numbers(get("/virtual-servers/"+http7)), map[string]float64{"http_requests": 3, "total_sessions": 3, "dropped_sessions_by_lbrule_action": 1})
	expect("its pool", numbers(get("/pools/"+webs)), map[string]float64{"http_requests": 2, "total_sessions": 2, "current_sessions": 0})
	service := get("")
	expect("the service", numbers(service), map[string]float64{"l4_current_sessions": 3, "l4_max_sessions": 3, "l4_total_sessions": 3,
		"l7_current_sessions": 0, "l7_total_sessions": 3})
	for _, v := range service["virtual_servers"].([]any) {
		id := nsxsim.Object(v.(doc)).String("virtual_server_id")
		expect("the service's virtual server", numbers(v.(doc)), numbers(get("/virtual-servers/"+id)))
	}
	// The rates are those of the last five seconds.
	waitFor(t, func() bool {
		if _, err := talk(t, "tcp", "127.0.0.5", l4, patience); err != nil {
			t.Fatal(err)
		}
		clock.Step(time.Second)
		got := numbers(get("/virtual-servers/" + tcp))
		return got["bytes_in_rate"] > 0 && got["current_session_rate"] > 0
	})
	waitFor(t, func() bool {
		clock.Step(time.Second)
		got := numbers(get("/virtual-servers/" + tcp))
		return got["bytes_in_rate"] == 0 && got["current_session_rate"] == 0
	})
}

// The status of a member tells since when it is what it is, and why it is DOWN.
func TestStatusOfMembersTellsTimesAndCause(t *testing.T) {
	b := newBench(t, nsxsim.Options{DataPlane: &dataplane.Options{}})
	node := newBackend(t, "one")
	good := b.create(monitors, doc{"resource_type": "LbHttpMonitor", "request_url": "/", "interval": 1})
	bad := b.create(monitors, doc{"resource_type": "LbHttpMonitor", "request_url": "/healthz", "interval": 1, "fall_count": 1, "rise_count": 1})
	pool := b.create(pools, doc{"active_monitor_ids": []string{good, bad}, "members": []doc{{"ip_address": "127.0.0.1", "port": node.port}}})
	vs := b.create(servers, b.tcpVS(vip, []string{freePort(t)}, doc{"pool_id": pool}))
	b.attach(vs)
	member := func() nsxsim.Object {
		return nsxsim.Object(b.ok("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)["members"].([]any)[0].(doc))
	}
	waitFor(t, func() bool { return member()["last_check_time"] != nil })
	if m := member(); m.String("status") != "UP" || m["failure_cause"] != nil || m["last_state_change_time"] != nil {
		t.Errorf("at first: %v", m)
	}
	before := float64(time.Now().UnixMilli())
	node.ill.Store(true)
	waitFor(t, func() bool { return member().String("status") == "DOWN" })
	m := member()
	cause := m.String("failure_cause")
	if !strings.HasPrefix(cause, bad+":") || !strings.Contains(cause, "status 503") || strings.Contains(cause, good+":") {
		t.Errorf("failure_cause %q", cause)
	}
	if changed, _ := m["last_state_change_time"].(float64); changed < before || m["last_check_time"].(float64) < changed {
		t.Errorf("changed at %v, checked at %v; the test began at %v", m["last_state_change_time"], m["last_check_time"], before)
	}
	o := b.ok("GET", servers+"/"+vs, nil)
	o["enabled"] = false
	b.ok("PUT", servers+"/"+vs, o)
	if got := member().String("status"); got != "UNKNOWN" {
		t.Errorf("on no enabled virtual server it is %s", got)
	}
}

// IPv6: virtual servers and members on ::1, told apart by their ports.
func TestIPv6ReallyServes(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("the host has no ::1: %v", err)
	} else {
		l.Close()
	}
	l, udp := listenOnBoth(t, "::1")
	defer udp.Close()
	go echo(udp)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "six for "+r.Header.Get("X-Forwarded-For"))
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	b := newBench(t, nsxsim.Options{DataPlane: &dataplane.Options{}, AllowLoopbackMembers: true})
	monitor := b.create(monitors, doc{"resource_type": "LbHttpMonitor", "interval": 1})
	pool := b.create(pools, doc{"active_monitor_ids": []string{monitor}, "snat_translation": doc{"type": "LbSnatAutoMap"},
		"member_group": doc{"grouping_object": doc{"target_id": b.group("127.0.0.1", "::1")}, "ip_revision_filter": "IPV6", "max_ip_list_size": 4, "port": portNumber(t, port)}})
	profile := func(name string) string {
		return b.named(nsxsim.KindApplicationProfile, "default-"+name+"-lb-app-profile")
	}
	forwards := b.create(profiles, doc{"resource_type": "LbHttpProfile", "x_forwarded_for": "INSERT"})
	free := freePorts(t, "::1", 3)
	ports := map[string]string{"tcp": free[0], "http": free[1], "udp": free[2]}
	vs := func(name, profile, protocol string) string {
		return b.create(servers, doc{"ip_address": "::1", "ip_protocol": protocol, "ports": []string{ports[name]}, "application_profile_id": profile, "pool_id": pool,
			"access_list_control": doc{"action": "ALLOW", "enabled": true, "group_id": b.group("::/64")}})
	}
	b.attach(vs("tcp", profile("tcp"), "TCP"), vs("http", forwards, "TCP"), vs("udp", profile("udp"), "UDP"))
	for name, want := range map[string]string{"tcp": "six for ", "http": "six for ::1"} {
		waitFor(t, func() bool {
			resp, err := browser(nil).Get("http://[::1]:" + ports[name])
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			return string(body) == want
		})
	}
	waitFor(t, func() bool {
		conn, err := net.Dial("udp", "[::1]:"+ports["udp"])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return echoed(conn, 200*time.Millisecond) == nil
	})
	if got := b.memberStates(pool); len(got) != 1 || got[0] != "::1:"+port+"=UP" {
		t.Errorf("members %v", got)
	}
}

// portNumber gives a port as a number.
func portNumber(t *testing.T, port string) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(port, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
