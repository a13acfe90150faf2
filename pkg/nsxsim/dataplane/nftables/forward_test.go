//go:build linux

package nftables_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

func TestForwardsToAllMembers(t *testing.T) {
	w := newWorld(t)
	for _, protocol := range []dataplane.Protocol{dataplane.TCP, dataplane.UDP} {
		t.Run(string(protocol), func(t *testing.T) {
			p := newPlane(t, dataplane.Options{})
			apply(t, p, web(func(vs *dataplane.VirtualServer) { vs.Protocol = protocol }))
			network := map[dataplane.Protocol]string{dataplane.TCP: "tcp", dataplane.UDP: "udp"}[protocol]
			got := w.spread(t, network, clientA, vip+":80", 9)
			if diff := cmp.Diff(map[string]int{"node-1": 3, "node-2": 3, "node-3": 3}, got); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSourceThatMembersSee(t *testing.T) {
	w := newWorld(t)
	for _, network := range []string{"tcp", "udp"} {
		for _, c := range []struct {
			name   string
			opts   dataplane.Options
			change func(*dataplane.VirtualServer)
			want   string
		}{
			{"automap", dataplane.Options{}, func(*dataplane.VirtualServer) {}, "10.200.1.1"},
			{"automap with an address", dataplane.Options{SNATAddress: netip.MustParseAddr("192.0.2.1")}, func(*dataplane.VirtualServer) {}, "192.0.2.1"},
			{"transparent", dataplane.Options{}, transparent, clientB},
		} {
			t.Run(network+" "+c.name, func(t *testing.T) {
				p := newPlane(t, c.opts)
				vs := web(with(nodes(1)), c.change)
				if network == "udp" {
					udp(&vs)
				}
				apply(t, p, vs)
				_, from, failure := w.once(t, network, clientB, vip+":80")
				if failure != "" || from.Addr().String() != c.want {
					t.Errorf("the member sees %v (%s), want %s", from, failure, c.want)
				}
			})
		}
	}
}
