package cluster

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares a text with testdata/NAME, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := writeFile(file, []byte(got)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestNetwork(t *testing.T) {
	top := Topology{Number: 2, Nodes: 2}
	var text strings.Builder
	for _, b := range append(top.network(), top.nodeNetwork(1)...) {
		for _, c := range b.commands {
			fmt.Fprintf(&text, "%s: %s\n", b.place, c)
		}
	}
	golden(t, "network.txt", text.String())
}

func TestAddressesDoNotMeet(t *testing.T) {
	top := Topology{Number: 1, Nodes: MaxNodes}
	prefixes := []netip.Prefix{lan, outside, floatingIPs, pods, clusterIPs}
	for i, p := range prefixes {
		for _, q := range prefixes[i+1:] {
			if p.Overlaps(q) {
				t.Errorf("%s meets %s", p, q)
			}
		}
	}
	if nodes := netip.PrefixFrom(top.NodeAddress(1), 16).Masked(); nodes.Contains(top.ClientAddress(1)) {
		t.Errorf("the client %s is in the nodes' %s", top.ClientAddress(1), nodes)
	}
	onLAN := []netip.Addr{edgeOnLAN, controlPlane, snatAddress}
	for i := 1; i <= top.Nodes; i++ {
		onLAN = append(onLAN, top.NodeAddress(i))
		if !pods.Overlaps(top.NodePods(i)) || top.NodePods(i).Masked() != top.NodePods(i) {
			t.Errorf("pods of node %d: %s", i, top.NodePods(i))
		}
	}
	slices.SortFunc(onLAN, netip.Addr.Compare)
	if len(slices.Compact(onLAN)) != 3+top.Nodes {
		t.Errorf("addresses of the LAN are not different: %s", onLAN)
	}
	for _, a := range onLAN {
		if !lan.Contains(a) {
			t.Errorf("%s is not in the LAN", a)
		}
	}
}

func TestNamesTellClustersApart(t *testing.T) {
	seen := map[string]int{}
	for number := 1; number <= 11; number++ { // 1 begins 11
		top := Topology{Number: number, Nodes: MaxNodes}
		names := []string{}
		for _, p := range top.Places() {
			names = append(names, string(p))
		}
		for i := 1; i <= MaxNodes; i++ {
			names = append(names, top.NodeUUID(i))
		}
		for _, name := range names {
			if seen[name] != 0 {
				t.Errorf("%s is in clusters %d and %d", name, seen[name], number)
			}
			seen[name] = number
		}
		for other := 1; other <= 11; other++ {
			if prefix := (Topology{Number: other}).prefix(); other != number && strings.HasPrefix(string(top.Edge()), prefix) {
				t.Errorf("%s begins with %s of cluster %d", top.Edge(), prefix, other)
			}
		}
	}
}
