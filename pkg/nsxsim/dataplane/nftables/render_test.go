//go:build linux

package nftables

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

var update = flag.Bool("update", false, "write the golden files")

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// rendering is what a configuration becomes, with members that are all UP but those named.
func rendering(t testing.TB, marks *marks, down map[string]bool, servers ...dataplane.VirtualServer) desired {
	t.Helper()
	valid, err := dataplane.Config{VirtualServers: servers}.Valid()
	if err != nil {
		t.Fatal(err)
	}
	d := desired{pools: map[string]choice{}}
	for _, vs := range valid.VirtualServers {
		d.virtualServers = append(d.virtualServers, served{vs, vs.HTTP != nil})
		for _, pool := range poolsOf(vs) {
			var states []dataplane.MemberStatus
			for _, m := range pool.Members {
				s := dataplane.MemberStatus{Address: m.Address, Port: m.Port}
				if down[m.Address.String()] {
					s.FailureCause = "no answer"
				}
				states = append(states, s)
			}
			d.pools[pool.ID] = choose(pool, states, nil, marks, false)
		}
	}
	return d
}

func TestRuleset(t *testing.T) {
	cluster := &dataplane.Pool{ID: "cluster", Members: []dataplane.Member{
		{Address: addr("10.0.0.1")}, {Address: addr("10.0.0.2")}, {Address: addr("10.0.0.3"), AdminState: dataplane.GracefulDisabled},
		{Address: addr("10.0.0.4"), AdminState: dataplane.Disabled}, {Address: addr("10.0.0.5")},
	}}
	d := rendering(t, newMarks(), map[string]bool{"10.0.0.5": true},
		dataplane.VirtualServer{
			ID: "plain", Address: addr("192.0.2.1"), Protocol: dataplane.TCP, Pool: cluster,
			Ports: []dataplane.PortMap{{Listen: 80, Member: 30080}, {Listen: 443, Member: 30443}}, IdleTimeout: time.Minute,
		},
		dataplane.VirtualServer{
			ID: "special", Address: addr("192.0.2.2"), Protocol: dataplane.UDP, Pool: cluster, Ports: []dataplane.PortMap{{Listen: 53}},
			Persistence: &dataplane.Persistence{Timeout: time.Minute}, MaxConnections: 100, MaxConnectionRate: 10,
			Access: &dataplane.Access{Action: dataplane.Allow, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/25")}},
		},
		dataplane.VirtualServer{
			ID: "weighted and transparent", Address: addr("192.0.2.3"), Protocol: dataplane.TCP, Ports: []dataplane.PortMap{{Listen: 22}},
			Access: &dataplane.Access{Action: dataplane.Drop, Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}},
			Pool: &dataplane.Pool{
				ID: "weighted", SNAT: dataplane.Transparent, Algorithm: dataplane.WeightedRoundRobin, MinActiveMembers: 2,
				Members: []dataplane.Member{{Address: addr("10.0.1.1"), Port: 2222, Weight: 4}, {Address: addr("10.0.1.2"), Weight: 2}, {Address: addr("10.0.1.3"), Backup: true}},
			},
		},
		dataplane.VirtualServer{ID: "no-pool", Address: addr("192.0.2.3"), Protocol: dataplane.UDP, Ports: []dataplane.PortMap{{Listen: 22}}},
		dataplane.VirtualServer{
			ID: "backups-serve", Address: addr("192.0.2.4"), Protocol: dataplane.TCP, Ports: []dataplane.PortMap{{Listen: 22}},
			Pool: &dataplane.Pool{ID: "backed", Members: []dataplane.Member{{Address: addr("10.0.0.5")}, {Address: addr("10.0.1.3"), Backup: true}}},
		},
		dataplane.VirtualServer{
			ID: "nobody-serves", Address: addr("192.0.2.4"), Protocol: dataplane.TCP, Ports: []dataplane.PortMap{{Listen: 23}},
			Pool: &dataplane.Pool{ID: "down", Members: []dataplane.Member{{Address: addr("10.0.0.5")}}},
		},
		dataplane.VirtualServer{
			ID: "sorry", Address: addr("192.0.2.5"), Protocol: dataplane.TCP, Ports: []dataplane.PortMap{{Listen: 23}},
			Pool:        &dataplane.Pool{ID: "down", Members: []dataplane.Member{{Address: addr("10.0.0.5")}}},
			SorryPool:   cluster,
			Persistence: &dataplane.Persistence{Shared: "common"},
		},
		dataplane.VirtualServer{
			ID: "shares-persistence", Address: addr("192.0.2.5"), Protocol: dataplane.TCP, Ports: []dataplane.PortMap{{Listen: 24}},
			Pool: cluster, Persistence: &dataplane.Persistence{Shared: "common"},
		},
		dataplane.VirtualServer{
			ID: "layer-7", Address: addr("192.0.2.4"), Protocol: dataplane.TCP, Ports: []dataplane.PortMap{{Listen: 80}},
			Pool: cluster, HTTP: &dataplane.HTTP{},
		},
		dataplane.VirtualServer{
			ID: "six", Address: addr("2001:db8::1"), Protocol: dataplane.TCP, Ports: []dataplane.PortMap{{Listen: 80, Member: 30080}},
			Pool:        &dataplane.Pool{ID: "six", SNATAddresses: []netip.Prefix{netip.MustParsePrefix("fd00::100/124"), netip.MustParsePrefix("fd00::200/128")}, Algorithm: dataplane.RoundRobin, Members: []dataplane.Member{{Address: addr("fd00::1")}, {Address: addr("10.0.0.1")}}},
			Persistence: &dataplane.Persistence{},
		},
	)
	d.snatAddress = addr("10.0.0.254")
	var got bytes.Buffer
	render(d).writeTo(&got)
	golden := filepath.Join("testdata", "ruleset.nft")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("ruleset (-want +got):\n%s", diff)
	}
}
