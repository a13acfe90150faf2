package nsxsim_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// echoServer answers each line of a TCP client, and each datagram, with the same.
// It gives its port, the same for both.
func echoServer(t *testing.T) string {
	t.Helper()
	tcp, udp := listenOnBoth(t, "127.0.0.1")
	t.Cleanup(func() { tcp.Close(); udp.Close() })
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					fmt.Fprintln(conn, lines.Text())
				}
			}()
		}
	}()
	go echo(udp)
	_, port, _ := net.SplitHostPort(tcp.Addr().String())
	return port
}

// echo answers each datagram with the same, until the socket is closed.
func echo(udp net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := udp.ReadFrom(buf)
		if err != nil {
			return
		}
		udp.WriteTo(buf[:n], from)
	}
}

// talk is a client's connection or flow from an address to a port of vip, on which it is echoed in some time.
func talk(t *testing.T, network, from, port string, wait time.Duration) (net.Conn, error) {
	t.Helper()
	source := netip.AddrPortFrom(netip.MustParseAddr(from), 0)
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(source)}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(source)
	}
	conn, err := d.Dial(network, vip+":"+port)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	return conn, echoed(conn, wait)
}

func echoed(conn net.Conn, wait time.Duration) error {
	conn.SetDeadline(time.Now().Add(wait))
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return err
	}
	_, err := bufio.NewReader(conn).ReadString('\n')
	return err
}

// Access lists decide who may begin to talk, by what is in the group now.
func TestAccessListsDecideOverTraffic(t *testing.T) {
	const named, other = "127.0.0.5", "127.0.0.20"
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			b := newBench(t, nsxsim.Options{DataPlane: &dataplane.Options{}})
			set := b.create(ipsets, doc{"ip_addresses": []string{"127.0.0.4-127.0.0.6"}})
			inner := b.create(groups, doc{"members": []doc{{"op": "EQUALS", "target_type": "IPSet", "target_property": "id", "value": set}}})
			outer := b.create(groups, doc{"members": []doc{{"op": "EQUALS", "target_type": "NSGroup", "target_property": "id", "value": inner}}})
			backend, port := echoServer(t), freePort(t)
			pool := b.create(pools, doc{"members": []doc{{"ip_address": "127.0.0.1", "port": backend}}, "snat_translation": doc{"type": "LbSnatAutoMap"}})
			body := b.tcpVS(vip, []string{port}, doc{"pool_id": pool, "access_list_control": doc{"action": "ALLOW", "enabled": true, "group_id": outer}})
			if network == "udp" {
				body["ip_protocol"] = "UDP"
				body["application_profile_id"] = b.named(nsxsim.KindApplicationProfile, "default-udp-lb-app-profile")
			}
			vs := b.create(servers, body)
			b.attach(vs)

			const silence = 100 * time.Millisecond // for which what is dropped answers nothing
			letIn := func(from string, wait time.Duration) bool {
				if network == "tcp" { // which is reset
					wait = patience
				}
				_, err := talk(t, network, from, port, wait)
				return err == nil
			}
			expect := func(when string, wantNamed, wantOther bool) {
				t.Helper()
				waitFor(t, func() bool { return letIn(named, silence) == wantNamed && letIn(other, silence) == wantOther })
				for from, want := range map[string]bool{named: wantNamed, other: wantOther} {
					wait := silence
					if want {
						wait = patience
					}
					if letIn(from, wait) != want {
						t.Errorf("%s: %s is let in: %t, and a moment ago %t", when, from, !want, want)
					}
				}
			}
			edit := func(path string, change func(o nsxsim.Object)) {
				t.Helper()
				o := b.ok("GET", path, nil)
				change(o)
				b.ok("PUT", path, o)
			}
			control := func(more doc) {
				t.Helper()
				edit(servers+"/"+vs, func(o nsxsim.Object) {
					for k, v := range more {
						o["access_list_control"].(doc)[k] = v
					}
				})
			}

			expect("ALLOW", true, false)
			old, err := talk(t, network, named, port, patience)
			if err != nil {
				t.Fatal(err)
			}
			edit(ipsets+"/"+set, func(o nsxsim.Object) { o["ip_addresses"] = []string{"127.0.0.16/28"} })
			expect("another IPSet", false, true)
			if err := echoed(old, patience); err != nil {
				t.Errorf("a connection that was let in before: %v", err)
			}
			control(doc{"action": "DROP"})
			expect("DROP", true, false)
			control(doc{"enabled": false})
			expect("not enabled", true, true)
			control(doc{"enabled": true, "action": "ALLOW"})
			expect("ALLOW again", false, true)
			edit(groups+"/"+inner, func(o nsxsim.Object) { o["members"] = []doc{} })
			expect("nobody", false, false)
			edit(servers+"/"+vs, func(o nsxsim.Object) { delete(o, "access_list_control") })
			expect("no list", true, true)
		})
	}
}

// The same by the Policy API, whose groups hold addresses themselves, and at
// layer 7.
func TestAccessListsOfThePolicyAPI(t *testing.T) {
	r := newPolicyRig(t, nsxsim.Options{DataPlane: &dataplane.Options{}})
	r.balancer("SMALL")
	clients := func(addresses ...string) {
		r.must("PATCH", "/infra/domains/default/groups/clients", doc{"expression": []doc{{"resource_type": "IPAddressExpression", "ip_addresses": addresses}}})
	}
	clients("127.0.0.1/32")
	backend := newBackend(t, "one")
	r.must("PATCH", "/infra/lb-pools/web", doc{"snat_translation": doc{"type": "LBSnatAutoMap"}, "members": []doc{{"ip_address": "127.0.0.1", "port": backend.port}}})
	const vs, group = "/infra/lb-virtual-servers/", "/infra/domains/default/groups/clients"
	free := freePorts(t, vip, 2)
	ports := map[string]string{"tcp": free[0], "http": free[1]}
	for kind, port := range ports {
		r.must("PATCH", vs+kind, virtualServer(vip, port, doc{"pool_path": "/infra/lb-pools/web", "lb_service_path": "/infra/lb-services/lb",
			"application_profile_path": "/infra/lb-app-profiles/default-" + kind + "-lb-app-profile",
			"access_list_control":      doc{"action": "DROP", "enabled": true, "group_path": group}}))
	}
	answers := func(want string) func() bool {
		return func() bool { return ask(ports["tcp"]) == want && ask(ports["http"]) == want }
	}
	clients("127.0.0.2")
	waitFor(t, answers("one"))
	clients("127.0.0.2", "127.0.0.0-127.0.0.1")
	waitFor(t, answers(""))
	for kind := range ports {
		r.must("PATCH", vs+kind, doc{"access_list_control": doc{"action": "ALLOW", "enabled": true, "group_path": group}})
	}
	waitFor(t, answers("one"))

	if a := r.call("DELETE", group, nil); a.status != 400 {
		t.Errorf("DELETE of a group in use: %d %s, want 400", a.status, a.raw)
	}
	for name, list := range map[string]doc{"an unknown group": {"action": "ALLOW", "group_path": "/infra/domains/default/groups/nope"}, "no group": {"action": "ALLOW"}} {
		if a := r.call("PUT", vs+"new", virtualServer("127.0.0.1", "9", doc{"access_list_control": list})); a.status != 400 {
			t.Errorf("%s: %d %s, want 400", name, a.status, a.raw)
		}
	}
}

func TestRulesOfAccessLists(t *testing.T) {
	list := func(group string) doc { return doc{"access_list_control": doc{"action": "ALLOW", "group_id": group}} }
	for _, c := range []refusal{
		{rule: "its group exists", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, list("nope")))
		}, status: 400, message: "The object nope referenced by access_list_control.group_id does not exist"},
		{rule: "its group is given", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"access_list_control": doc{"action": "ALLOW"}}))
		}, status: 400, code: "255", message: "access_list_control.group_id is required"},
		{rule: "its action is given", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"access_list_control": doc{"group_id": b.group()}}))
		}, status: 400, code: "255", message: "access_list_control.action is required"},
		{rule: "its group cannot be deleted", do: func(b *bench) answer {
			group := b.group("10.0.0.1")
			b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, list(group)))
			return b.do("DELETE", groups+"/"+group, nil)
		}, status: 400, message: "is being referenced by LbVirtualServer/"},
	} {
		t.Run(c.rule, c.run)
	}
}

// To a release before access lists, they are a field that it does not know.
func TestAccessListsOfOldReleases(t *testing.T) {
	b := newBench(t, nsxsim.Options{Version: "2.5", DataPlane: &dataplane.Options{}})
	backend, port := newBackend(t, "one"), freePort(t)
	pool := b.create(pools, doc{"members": []doc{{"ip_address": "127.0.0.1", "port": backend.port}}, "snat_translation": doc{"type": "LbSnatAutoMap"}})
	vs := b.ok("POST", servers, b.tcpVS(vip, []string{port}, doc{"pool_id": pool,
		"access_list_control": doc{"action": "ALLOW", "enabled": true, "group_id": "nope"}}))
	if vs["access_list_control"].(doc)["group_id"] != "nope" {
		t.Errorf("the field was not kept: %v", vs)
	}
	b.attach(vs.ID())
	waitFor(t, func() bool { return ask(port) == "one" })
}
