//go:build linux

package nftables_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	google "github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2/ktesting"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane/nftables"
)

// world is the edge, which the tests run in, a client on one side and nodes on the other:
//
//	client 192.0.2.2, .3, .4 -- 192.0.2.1 edge 10.200.N.1 -- 10.200.N.2 node N
//
// and the same for IPv6: 2001:db8:192::2 and on, 2001:db8:192::1, 2001:db8:20N::1, 2001:db8:20N::2.
// All hosts route by the edge. Nodes serve TCP and UDP on 30080 and 30081.
type world struct {
	client *host
	nodes  []*host
}

const (
	clientA = "192.0.2.2"
	clientB = "192.0.2.3"
	clientC = "192.0.2.4"
	vip     = "198.51.100.10"
)

var theWorld struct {
	once sync.Once
	world
	hosts []*host
	err   error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if unavailable != nil {
		t.Skip(unavailable)
	}
	theWorld.once.Do(func() { theWorld.err = makeWorld() })
	switch err := theWorld.err; {
	case errors.Is(err, nftables.ErrUnavailable), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS), errors.Is(err, unix.EOPNOTSUPP):
		t.Skip("this system does not let us: ", err)
	case err != nil:
		t.Fatal(err)
	}
	return &theWorld.world
}

func makeWorld() error {
	for name, value := range map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
		"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0", // tests see more refusals in a second than clients do
	} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644); err != nil {
			return err
		}
	}
	trial, err := nftables.New(dataplane.Options{})
	if err != nil {
		return err
	}
	trial.Close()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	connect := func(name string, routers []string, addresses ...string) (*host, error) {
		h, err := startHost(name)
		if err != nil {
			return nil, err
		}
		theWorld.hosts = append(theWorld.hosts, h)
		return h, h.connect(routers, addresses...)
	}
	theWorld.client, err = connect("client", []string{"192.0.2.1", "2001:db8:192::1"},
		clientA, clientB, clientC, "2001:db8:192::2", "2001:db8:192::3")
	if err != nil {
		return err
	}
	for n := range 3 {
		routers := []string{fmt.Sprintf("10.200.%d.1", n+1), fmt.Sprintf("2001:db8:20%d::1", n+1)}
		node, err := connect(fmt.Sprintf("node-%d", n+1), routers, nodeAddress(n+1).String(), fmt.Sprintf("2001:db8:20%d::2", n+1))
		if err != nil {
			return err
		}
		theWorld.nodes = append(theWorld.nodes, node)
		for _, network := range []string{"tcp", "udp"} {
			for _, port := range []int{30080, 30081} {
				var none struct{}
				if err := node.rpc.Call("Host.Serve", Serve{network, fmt.Sprintf(":%d", port), node.name}, &none); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func nodeAddress(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 200, byte(n), 2}) }

// connect lays a cable between the edge and the host, and makes the edge its router.
func (h *host) connect(routers []string, addresses ...string) error {
	name := "to-" + h.name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer"}); err != nil {
		return fmt.Errorf("cable to %s: %w", h.name, err)
	}
	peer, err := netlink.LinkByName("peer")
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPid(h.process.Process.Pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := netlink.LinkSetNsFd(peer, int(ns)); err != nil {
		return err
	}
	there, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer there.Close()
	here, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer here.Close()
	if err := errors.Join(up(here, name, routers...), up(there, "lo"), up(there, "peer", addresses...)); err != nil {
		return fmt.Errorf("cable to %s: %w", h.name, err)
	}
	for _, r := range routers {
		if err := there.RouteAdd(&netlink.Route{Gw: addrOf(r).AsSlice()}); err != nil {
			return fmt.Errorf("route of %s by %s: %w", h.name, r, err)
		}
	}
	return nil
}

func up(h *netlink.Handle, name string, addresses ...string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		addr := &netlink.Addr{IPNet: netipx.PrefixIPNet(netip.PrefixFrom(addrOf(a), 24))}
		if addrOf(a).Is6() {
			addr.IPNet.Mask = net.CIDRMask(64, 128)
			addr.Flags = unix.IFA_F_NODAD // usable at once
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return h.LinkSetUp(link)
}

func stopWorld() error {
	var errs []error
	for _, h := range theWorld.hosts {
		errs = append(errs, h.stop())
	}
	return errors.Join(errs...)
}

// newPlane starts a data plane, which ends with the test.
func newPlane(t testing.TB, opts dataplane.Options) *nftables.Plane {
	t.Helper()
	opts.Logger, _ = ktesting.NewTestContext(t)
	opts.InitiallyUp = true
	p, err := nftables.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func apply(t testing.TB, p *nftables.Plane, all ...dataplane.VirtualServer) {
	t.Helper()
	if err := p.Apply(context.Background(), dataplane.Config{VirtualServers: all}); err != nil {
		t.Fatal(err)
	}
}

// web is a virtual server, vip:80 to port 30080 of all nodes, changed as told.
func web(change ...func(*dataplane.VirtualServer)) dataplane.VirtualServer {
	vs := dataplane.VirtualServer{
		ID: "web", Address: netip.MustParseAddr(vip), Protocol: dataplane.TCP,
		Ports: []dataplane.PortMap{{Listen: 80, Member: 30080}}, Pool: nodes(1, 2, 3),
	}
	for _, c := range change {
		c(&vs)
	}
	return vs
}

func udp(vs *dataplane.VirtualServer) { vs.Protocol = dataplane.UDP }

func transparent(vs *dataplane.VirtualServer) { vs.Pool.SNAT = dataplane.Transparent }

// nodes are a pool.
func nodes(numbers ...int) *dataplane.Pool {
	p := &dataplane.Pool{ID: "nodes"}
	for _, n := range numbers {
		p.Members = append(p.Members, dataplane.Member{Address: nodeAddress(n)})
	}
	return p
}

func with(pool *dataplane.Pool) func(*dataplane.VirtualServer) {
	return func(vs *dataplane.VirtualServer) { vs.Pool = pool }
}

// caller is a connection of a client.
type caller struct {
	t    testing.TB
	host *host
	id   int
}

// dial connects a client's address to a virtual server.
func (w *world) dial(t testing.TB, network, from, to string) caller {
	t.Helper()
	a := call[Dial, Answer](t, w.client, "Dial", Dial{Network: network, From: from, To: to})
	if a.Failure != "" {
		t.Fatalf("%s from %s to %s: %s", network, from, to, a.Failure)
	}
	t.Cleanup(func() { caller{t, w.client, a.Conn}.close() })
	return caller{t, w.client, a.Conn}
}

// ask sends something, and gives the name of the member, the address it saw, and what went wrong.
func (c caller) ask() (member string, from netip.AddrPort, failure string) {
	c.t.Helper()
	a := call[Ask, Answer](c.t, c.host, "Ask", Ask{Conn: c.id, Text: "hello"})
	if a.Failure != "" {
		return "", netip.AddrPort{}, a.Failure
	}
	words := strings.Fields(a.Text)
	if len(words) != 3 || words[2] != "hello" {
		c.t.Fatalf("the answer is %q", a.Text)
	}
	return words[0], netip.MustParseAddrPort(words[1]), ""
}

func (c caller) close() { call[int, struct{}](c.t, c.host, "Close", c.id) }

// member that answers.
func (c caller) member() string {
	c.t.Helper()
	member, _, failure := c.ask()
	if failure != "" {
		c.t.Fatalf("no answer: %s", failure)
	}
	return member
}

// once asks on a new connection.
func (w *world) once(t testing.TB, network, from, to string) (member string, source netip.AddrPort, failure string) {
	t.Helper()
	a := call[Dial, Answer](t, w.client, "Dial", Dial{Network: network, From: from, To: to})
	if a.Failure != "" {
		return "", netip.AddrPort{}, a.Failure
	}
	defer call[int, struct{}](t, w.client, "Close", a.Conn)
	return caller{t, w.client, a.Conn}.ask()
}

// spread asks n times, and counts which members answer.
func (w *world) spread(t testing.TB, network, from, to string, n int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		member, _, failure := w.once(t, network, from, to)
		if failure != "" {
			t.Fatalf("%s from %s to %s: %s", network, from, to, failure)
		}
		counts[member]++
	}
	return counts
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func addrOf(s string) netip.Addr { return netip.MustParseAddr(s) }

// traces are the tables and local routes of the edge, but for those that come and go with its cables.
func traces(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	tables, err := (&google.Conn{}).ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		fmt.Fprintf(&b, "table %d %s\n", table.Family, table.Name)
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: 255}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst == nil || !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast() {
			fmt.Fprintln(&b, r)
		}
	}
	return b.String()
}
