package nsxsim_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// backend is a node that answers with its name, and its health check.
type backend struct {
	name string
	ill  atomic.Bool
	port string
}

func newBackend(t *testing.T, name string) *backend {
	t.Helper()
	b := &backend{name: name}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && b.ill.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, b.name)
	}))
	t.Cleanup(srv.Close)
	_, b.port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	return b
}

// vip is the address of virtual servers that really serve: one of this process's own, so that nobody else listens on a port
// of it that is free.
var vip = netip.AddrFrom4([4]byte{127, byte(64 + rand.IntN(160)), byte(rand.IntN(256)), 1}).String()

// freePort gives a port of vip that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	return freePorts(t, vip, 1)[0]
}

// freePorts gives ports of an address that nobody listens on now.
func freePorts(t *testing.T, address string, n int) []string {
	t.Helper()
	var ports []string
	for range n {
		tcp, udp := listenOnBoth(t, address)
		defer tcp.Close() // when all are chosen
		defer udp.Close()
		ports = append(ports, strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port))
	}
	return ports
}

// listenOnBoth listens on the same port for TCP and UDP.
func listenOnBoth(t *testing.T, address string) (net.Listener, net.PacketConn) {
	t.Helper()
	for {
		tcp, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp
		}
		tcp.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// ask gives what the virtual server answers; "" when it does not.
func ask(port string) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + vip + ":" + port)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(body)
}

func TestVirtualServersReallyServe(t *testing.T) {
	b := newBench(t, nsxsim.Options{
		DataPlane: &dataplane.Options{Housekeeping: 10 * time.Millisecond},
		Quirks:    nsxsim.Quirks{UncheckedMembersDown: true},
	})
	one, two := newBackend(t, "one"), newBackend(t, "two")
	port := freePort(t)
	monitor := b.create(monitors, doc{"resource_type": "LbHttpMonitor", "request_url": "/healthz", "interval": 1, "fall_count": 1, "rise_count": 1})
	pool := b.create(pools, doc{"active_monitor_ids": []string{monitor}, "snat_translation": doc{"type": "LbSnatAutoMap"},
		"members": []doc{{"ip_address": "127.0.0.1", "port": one.port}, {"ip_address": "127.0.0.1", "port": two.port}}})
	vs := b.create(servers, b.tcpVS(vip, []string{port}, doc{"pool_id": pool}))
	if got := ask(port); got != "" {
		t.Fatalf("a virtual server on no service answers %q", got)
	}

	b.attach(vs)
	state := func(want string) func() bool {
		return func() bool {
			return b.ok("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil).String("status") == want
		}
	}
	waitFor(t, state("UP"))
	answers := map[string]bool{}
	waitFor(t, func() bool { answers[ask(port)] = true; return answers["one"] && answers["two"] })

	two.ill.Store(true)
	waitFor(t, state("PARTIALLY_UP"))
	for range 4 {
		if got := ask(port); got != "one" {
			t.Errorf("with one member DOWN: %q answers", got)
		}
	}
	statistics := b.ok("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/statistics", nil)["statistics"].(doc)
	if statistics["total_sessions"].(float64) < 6 || statistics["bytes_out"].(float64) == 0 {
		t.Errorf("statistics: %v", statistics)
	}

	b.ok("POST", pools+"/"+pool+"?action=UPDATE_MEMBERS", doc{"members": []doc{{"ip_address": "127.0.0.1", "port": one.port, "admin_state": "DISABLED"}}})
	waitFor(t, state("DOWN"))
	b.ok("POST", pools+"/"+pool+"?action=UPDATE_MEMBERS", doc{"members": []doc{{"ip_address": "127.0.0.1", "port": one.port, "admin_state": "ENABLED"}}})
	waitFor(t, func() bool { return ask(port) == "one" })

	advertise := func(vips bool) {
		if _, err := b.As("admin").Update(nsxsim.KindAdvertisement, b.tier1, func(o nsxsim.Object) { o["advertise_lb_vip"] = vips }); err != nil {
			t.Fatal(err)
		}
	}
	advertise(false)
	waitFor(t, func() bool { return ask(port) == "" })
	if !state("PARTIALLY_UP")() {
		t.Error("a virtual server that nobody can reach is not PARTIALLY_UP any more")
	}
	advertise(true)
	waitFor(t, func() bool { return ask(port) == "one" })

	b.attach()
	waitFor(t, func() bool { return ask(port) == "" && b.canListen(port) })
}

func (b *bench) canListen(port string) bool {
	l, err := net.Listen("tcp", vip+":"+port)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// An address that the host does not have is told of, not hidden.
func TestAVirtualServerThatCannotListenIsDown(t *testing.T) {
	b := newBench(t, nsxsim.Options{DataPlane: &dataplane.Options{}})
	pool := b.create(pools, doc{"members": []doc{{"ip_address": "127.0.0.1"}}})
	vs := b.create(servers, b.tcpVS("192.0.2.1", []string{"80"}, doc{"pool_id": pool}))
	b.attach(vs)
	waitFor(t, func() bool {
		return b.ok("GET", services+"/"+b.lb+"/virtual-servers/"+vs+"/status", nil).String("status") == "DOWN"
	})
}
