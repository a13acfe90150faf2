//go:build linux

package nftables_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane/nftables"
)

// Whatever configuration follows whatever other, the kernel takes the change, and has then what it should.
func TestTheKernelTakesEveryChange(t *testing.T) {
	newWorld(t)
	p := newPlane(t, dataplane.Options{Housekeeping: time.Hour})
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			cfg := drawConfig(t)
			if err := p.Apply(context.Background(), cfg); err != nil {
				t.Fatalf("%+v: %v", cfg, err)
			}
			for _, d := range differences(t, p) {
				t.Error(d)
			}
		}
	})
}

// differences between what the kernel has and what it should: those that stay, as a list of many elements may lack some
// while the kernel makes their hash table larger.
func differences(t interface{ Fatal(...any) }, p *nftables.Plane) []string {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		all, err := p.Differences()
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 || time.Now().After(deadline) {
			return all
		}
	}
}

func drawConfig(t *rapid.T) dataplane.Config {
	oneOf := func(label string, texts ...string) string { return rapid.SampledFrom(texts).Draw(t, label) }
	often := func(label string) bool { return rapid.Bool().Draw(t, label) }
	prefixes := func(label string, of ...string) []netip.Prefix {
		var all []netip.Prefix
		for _, text := range rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, 4, rapid.ID[string]).Draw(t, label) {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	pools := []*dataplane.Pool{nil}
	for i := range 3 {
		pool := &dataplane.Pool{
			ID: fmt.Sprint("pool-", i), Algorithm: oneOf("algorithm", dataplane.RoundRobin, dataplane.WeightedRoundRobin, dataplane.IPHash),
			SNAT: dataplane.SNAT(oneOf("SNAT", string(dataplane.AutoMap), string(dataplane.Transparent))),
		}
		for _, address := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"10.200.1.2", "10.200.2.2", "10.200.3.2", "2001:db8:201::2"}), 0, 4, rapid.ID[string]).Draw(t, "members") {
			pool.Members = append(pool.Members, dataplane.Member{
				Address: addrOf(address), Port: rapid.SampledFrom([]uint16{0, 0, 8080}).Draw(t, "member port"), Weight: rapid.IntRange(1, 3).Draw(t, "weight"),
				AdminState: dataplane.AdminState(oneOf("state", "ENABLED", "ENABLED", "DISABLED", "GRACEFUL_DISABLED")), Backup: often("backup"),
			})
		}
		if often("SNAT addresses") {
			pool.SNATAddresses = prefixes("SNAT addresses", "203.0.113.1/32", "203.0.113.4/30", "2001:db8:113::/120")
		}
		pools = append(pools, pool)
	}
	var cfg dataplane.Config
	for i := range rapid.IntRange(0, 5).Draw(t, "virtual servers") {
		vs := dataplane.VirtualServer{
			ID: fmt.Sprint("server ", i), Address: addrOf(oneOf("address", vip, "198.51.100.11", "2001:db8:1::10")),
			Protocol: dataplane.Protocol(oneOf("protocol", "TCP", "UDP")),
			// No two have a port in common.
			Ports: []dataplane.PortMap{{Listen: uint16(100 + i), Member: 30080}, {Listen: uint16(200 + i)}}[:rapid.IntRange(1, 2).Draw(t, "ports")],
			Pool:  rapid.SampledFrom(pools).Draw(t, "pool"), SorryPool: rapid.SampledFrom(pools).Draw(t, "sorry pool"),
			MaxConnections: rapid.IntRange(0, 2).Draw(t, "connections"), MaxConnectionRate: rapid.IntRange(0, 2).Draw(t, "rate"),
			IdleTimeout: time.Duration(rapid.IntRange(0, 2).Draw(t, "idle")) * time.Minute, Disabled: rapid.IntRange(0, 4).Draw(t, "disabled") == 0,
		}
		if often("persistence") {
			vs.Persistence = &dataplane.Persistence{Timeout: time.Minute, Shared: oneOf("shared", "", "profile")}
		}
		if often("access") {
			vs.Access = &dataplane.Access{
				Action: dataplane.AccessAction(oneOf("action", "ALLOW", "DROP")),
				Prefixes: prefixes("clients", "0.0.0.0/0", "192.0.2.0/31", "192.0.2.2/32", "192.0.2.3/32", "192.0.2.4/30", "255.255.255.255/32",
					"0.0.0.0/32", "10.0.0.0/8", "2001:db8::/32", "::/0", "2001:db8::/128"),
			}
		}
		cfg.VirtualServers = append(cfg.VirtualServers, vs)
	}
	return cfg
}
