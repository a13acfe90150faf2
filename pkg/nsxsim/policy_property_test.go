package nsxsim_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Whatever is asked of the Policy API, and in whatever order and time it is
// realised: in the end the Manager has what the intents say, and nothing else.
func TestPolicyConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := clocktesting.NewFakeClock(time.Unix(1e9, 0))
		r := newPolicyRig(t, nsxsim.Options{Clock: clock, RealizationDelay: time.Second})
		defer r.Close()
		one := func(what string, of ...string) string { return rapid.SampledFrom(of).Draw(rt, what) }
		id := func() string { return one("id", "a", "b") }
		write := func(path string, body doc) {
			method := one("method", "PATCH", "PATCH", "PATCH", "DELETE")
			if method == "DELETE" {
				body = nil
			}
			if a := r.call(method, path, body); a.status >= 500 {
				rt.Fatalf("%s %s: %d %s", method, path, a.status, a.raw)
			}
		}
		group, pool, service := "/infra/domains/default/groups/", "/infra/lb-pools/", "/infra/lb-services/"
		steps := map[string]func(*rapid.T){
			"time": func(*rapid.T) {
				clock.Step(time.Duration(rapid.IntRange(1, 3).Draw(rt, "s")) * 500 * time.Millisecond)
				r.List(nsxsim.KindPool)
			},
			"tier-1": func(*rapid.T) { write("/infra/tier-1s/"+id(), doc{}) },
			"locale": func(*rapid.T) {
				write("/infra/tier-1s/"+id()+"/locale-services/l", doc{"edge_cluster_path": edgeClusters + r.EdgeClusterID()})
			},
			"service": func(*rapid.T) { write(service+id(), doc{"connectivity_path": "/infra/tier-1s/" + id()}) },
			"group": func(*rapid.T) {
				expressions := []doc{{"resource_type": "IPAddressExpression", "ip_addresses": []string{"10.0.0.1"}},
					{"resource_type": "PathExpression", "paths": []string{group + id()}}}
				write(group+id(), doc{"expression": expressions[rapid.IntRange(0, 1).Draw(rt, "from"):][:1]})
			},
			"pool": func(*rapid.T) { write(pool+id(), doc{"member_group": doc{"group_path": group + id()}}) },
			"server": func(*rapid.T) {
				write("/infra/lb-virtual-servers/"+id(), virtualServer("10.1.0."+one("ip", "1", "2"), "80", doc{"pool_path": pool + id(), "lb_service_path": service + id()}))
			},
			"IP pool": func(*rapid.T) { write("/infra/ip-pools/"+id(), doc{}) },
			"subnet": func(*rapid.T) {
				write("/infra/ip-pools/"+id()+"/ip-subnets/s", doc{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24",
					"allocation_ranges": []doc{{"start": "10.9.0.1", "end": "10.9.0.1"}}})
			},
			"allocation": func(*rapid.T) { write("/infra/ip-pools/"+id()+"/ip-allocations/"+id(), doc{}) },
			"the other's server": func(*rapid.T) {
				if err := r.As("admin").Delete(nsxsim.KindVirtualServer, "theirs"); err != nil {
					// Refused when the address is taken.
					_, _ = r.As("admin").Create(nsxsim.KindVirtualServer, nsxsim.Object{"id": "theirs", "ip_address": "10.1.0.1", "ip_protocol": "TCP",
						"ports": []any{"80"}, "application_profile_id": r.named(nsxsim.KindApplicationProfile, "default-tcp-lb-app-profile")})
				}
			},
		}
		rt.Repeat(steps)

		_ = r.As("admin").Delete(nsxsim.KindVirtualServer, "theirs") // what it stood in the way of can be realised now
		for range 10 {
			clock.Step(10 * time.Second)
			r.List(nsxsim.KindPool)
		}
		for policy, manager := range map[nsxsim.Kind]nsxsim.Kind{nsxsim.KindPolicyPool: nsxsim.KindPool, nsxsim.KindPolicyVirtualServer: nsxsim.KindVirtualServer,
			nsxsim.KindPolicyGroup: nsxsim.KindNSGroup, nsxsim.KindPolicyIPPool: nsxsim.KindIPPool} {
			if want, got := names(r.List(policy)), names(r.List(manager)); !slices.Equal(want, got) {
				rt.Errorf("%s %v are realised as %s %v", policy, want, manager, got)
			}
		}
		onService := map[string]int{}
		for _, s := range r.List(nsxsim.KindLBService) {
			for _, id := range s.Strings("virtual_server_ids") {
				onService[id]++
			}
		}
		for _, vs := range r.List(nsxsim.KindPolicyVirtualServer) {
			path := vs.String("lb_service_path")
			// A service that was moved to where it cannot be still is what it was.
			if got := onService[vs.String("unique_id")]; got > 1 || got == 0 && r.realizedState(path) == "REALIZED" {
				rt.Errorf("%s is on %d services, want %s", vs.String("path"), got, path)
			}
		}
		allocated := 0
		for _, p := range r.List(nsxsim.KindIPPool) {
			allocated += len(r.Allocations(p.ID()))
		}
		for _, a := range r.List(nsxsim.KindPolicyIPAllocation) {
			if r.allocated(a.String("path")) != "" {
				allocated--
			}
		}
		if allocated != 0 {
			rt.Errorf("%d addresses are allocated to no intent", allocated)
		}
	})
}

// names gives unique_id or, in the Manager, id, with the name of each.
func names(objects []nsxsim.Object) []string {
	var list []string
	for _, o := range objects {
		id := o.String("unique_id")
		if id == "" {
			id = o.ID()
		}
		list = append(list, fmt.Sprintf("%s (%s)", id, o.String("display_name")))
	}
	slices.Sort(list)
	return list
}
