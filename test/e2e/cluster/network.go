package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Links of the edge: its bridge to the LAN, and to the client.
const (
	lanLink     = "lan"
	outsideLink = "outside"
)

// batch is a list of commands for `ip -batch`, run in the namespace of a place.
type batch struct {
	place    Place
	commands []string
}

// network lists the commands that lay the cables of the cluster, whose namespaces exist.
func (t Topology) network() []batch {
	edge := batch{t.Edge(), []string{
		"link set lo up",
		// Left to itself, a bridge takes the lowest hardware address of what is plugged in, and another one when a node boots:
		// the others would send their answers to nobody for as long as they remember the old one.
		fmt.Sprintf("link add %s address %s type bridge", lanLink, hardwareAddress(edgeOnLAN)),
		fmt.Sprintf("addr add %s/%d dev %s", edgeOnLAN, lan.Bits(), lanLink),
		fmt.Sprintf("addr add %s/%d dev %s", snatAddress, lan.Bits(), lanLink),
		"link set " + lanLink + " up",
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", outsideLink, t.Client()),
		fmt.Sprintf("addr add %s/%d dev %s", edgeOnOutside, outside.Bits(), outsideLink),
		"link set " + outsideLink + " up",
	}}
	client := batch{t.Client(), []string{"link set lo up"}}
	for i := 1; i <= Clients; i++ {
		client.commands = append(client.commands, fmt.Sprintf("addr add %s/%d dev eth0", t.ClientAddress(i), outside.Bits()))
	}
	client.commands = append(client.commands, "link set eth0 up", fmt.Sprintf("route add default via %s", edgeOnOutside))

	cable, cp := t.cable(t.ControlPlane(), "cp", controlPlane)
	batches := []batch{edge, client, cable, cp}
	for i := 1; i <= t.Nodes; i++ {
		batches = append(batches, t.nodeNetwork(i)...)
		route := fmt.Sprintf("route add %s via %s", t.NodePods(i), t.NodeAddress(i))
		batches = append(batches, batch{t.Edge(), []string{route}}, batch{t.ControlPlane(), []string{route}})
	}
	return batches
}

// nodeNetwork lists the commands for one node, whose namespace is new.
func (t Topology) nodeNetwork(i int) []batch {
	cable, node := t.cable(t.Node(i), t.NodeName(i), t.NodeAddress(i))
	for j := 1; j <= t.Nodes; j++ {
		if j != i {
			node.commands = append(node.commands, fmt.Sprintf("route add %s via %s", t.NodePods(j), t.NodeAddress(j)))
		}
	}
	return []batch{cable, node}
}

// cable connects a place to the LAN, where the edge is its way out. Its hardware address is the same after a reboot.
func (t Topology) cable(to Place, link string, address netip.Addr) (edge, other batch) {
	edge = batch{t.Edge(), []string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", link, to),
		fmt.Sprintf("link set %s master %s up", link, lanLink),
	}}
	other = batch{to, []string{
		"link set lo up",
		fmt.Sprintf("link set eth0 address %s", hardwareAddress(address)),
		fmt.Sprintf("addr add %s/%d dev eth0", address, lan.Bits()),
		"link set eth0 up",
		fmt.Sprintf("route add default via %s", edgeOnLAN),
	}}
	return edge, other
}

// hardwareAddress is that of the machine on the LAN with an address.
func hardwareAddress(of netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{2, 0}, of.AsSlice()...)
}

// Settings of the kernel. A router tells nobody of shorter ways, because the way back must cross it as well.
var (
	edgeSettings = map[string]string{
		"net/ipv4/ip_forward":                  "1",
		"net/ipv4/conf/all/rp_filter":          "0",
		"net/ipv4/conf/default/rp_filter":      "0",
		"net/ipv4/conf/all/send_redirects":     "0",
		"net/ipv4/conf/default/send_redirects": "0",
		"net/bridge/bridge-nf-call-iptables":   "0",
	}
	nodeSettings = map[string]string{
		"net/ipv4/ip_forward":             "1",
		"net/ipv4/conf/all/rp_filter":     "0",
		"net/ipv4/conf/default/rp_filter": "0",
		// A pod that talks to a pod of its own node through a Service: the answer passes the bridge alone.
		"net/bridge/bridge-nf-call-iptables": "1",
	}
)

func (t Topology) settings(p Place) map[string]string {
	switch p {
	case t.Edge():
		return edgeSettings
	case t.Client(), t.ControlPlane():
		return nil
	}
	return nodeSettings
}

// connect makes the namespaces and lays all cables.
func (t Topology) connect(ctx context.Context) error {
	for _, p := range t.Places() {
		if err := addNamespace(ctx, p, t.settings(p)); err != nil {
			return err
		}
	}
	return runBatches(ctx, t.network())
}

// reconnectNode makes the namespace of a node anew, as a machine that has booted: what its kernel knew is gone.
func (t Topology) reconnectNode(ctx context.Context, i int) error {
	p := t.Node(i)
	if err := ip(ctx, nil, "-netns", string(t.Edge()), "link", "delete", t.NodeName(i)); err != nil {
		return err
	}
	if err := ip(ctx, nil, "netns", "delete", string(p)); err != nil {
		return err
	}
	if err := addNamespace(ctx, p, nodeSettings); err != nil {
		return err
	}
	return runBatches(ctx, t.nodeNetwork(i))
}

// pull disconnects the cable of a node, or plugs it in again.
func (t Topology) pull(ctx context.Context, i int, out bool) error {
	state := "up"
	if out {
		state = "down"
	}
	return ip(ctx, nil, "-netns", string(t.Edge()), "link", "set", t.NodeName(i), state)
}

func addNamespace(ctx context.Context, p Place, settings map[string]string) error {
	if err := ip(ctx, nil, "netns", "add", string(p)); err != nil {
		return err
	}
	return p.Do(func() error {
		for name, value := range settings {
			// The kernel shows the settings of the calling thread's namespace.
			if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
				return fmt.Errorf("kernel setting: %w", err)
			}
		}
		return nil
	})
}

func runBatches(ctx context.Context, batches []batch) error {
	for _, b := range batches {
		if err := ip(ctx, b.commands, "-netns", string(b.place), "-batch", "-"); err != nil {
			return err
		}
	}
	return nil
}

// namespaces lists the network namespaces whose names begin with a prefix.
func namespaces(prefix string) []Place {
	paths, err := filepath.Glob(filepath.Join(namespaceDir, prefix+"*"))
	if err != nil {
		panic(err) // the pattern is ours
	}
	var places []Place
	for _, path := range paths {
		places = append(places, Place(filepath.Base(path)))
	}
	return places
}

// disconnect deletes all namespaces, also those that a cluster of this number left behind.
func (t Topology) disconnect(ctx context.Context) error {
	var errs []error
	for _, p := range namespaces(t.prefix()) {
		errs = append(errs, ip(ctx, nil, "netns", "delete", string(p)))
	}
	return errors.Join(errs...)
}

// ip runs the program ip, with lines for its standard input.
func ip(ctx context.Context, lines []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
