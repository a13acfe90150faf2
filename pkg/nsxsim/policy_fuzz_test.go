package nsxsim_test

import (
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Whatever is sent to the Policy API, it neither panics nor answers 5xx, and its
// state stays one that can be saved and loaded.
func FuzzPolicy(f *testing.F) {
	for _, seed := range [][3]string{
		{"PATCH", "/infra/lb-pools/p", `{"members":[{"ip_address":"10.0.0.1","port":"80"}],"snat_translation":{"type":"LBSnatDisabled"}}`},
		{"PUT", "/infra/lb-pools/p", `{"_revision":0,"member_group":{"group_path":"/infra/domains/default/groups/g"}}`},
		{"PATCH", "/infra/lb-virtual-servers/v", `{"ports":["1-65535"],"default_pool_member_ports":["1-65535"],"lb_service_path":null}`},
		{"PATCH", "/infra/lb-virtual-servers/w", `{"ip_address":"::1","ports":["80"],"application_profile_path":"/infra/lb-app-profiles/default-udp-lb-app-profile","sorry_pool_path":"/infra/lb-pools/p"}`},
		{"PATCH", "/infra/lb-monitor-profiles/m", `{"resource_type":"LBUdpMonitorProfile","send":"a","receive":"b","monitor_port":0}`},
		{"PATCH", "/infra/domains/default/groups/g", `{"expression":[{"resource_type":"IPAddressExpression","ip_addresses":["10.0.0.0/8","::-::9"]},{"resource_type":"ConjunctionOperator"},{"resource_type":"PathExpression","paths":["/infra/domains/default/groups/g"]}]}`},
		{"PATCH", "/infra/ip-pools/i/ip-subnets/t", `{"resource_type":"IpAddressPoolStaticSubnet","cidr":"::/0","allocation_ranges":[{"start":"::","end":"ffff::"}]}`},
		{"PATCH", "/infra/ip-pools/i/ip-allocations/b", `{"allocation_ip":"10.9.0.2"}`},
		{"DELETE", "/infra/ip-pools/i/ip-subnets/s", ``},
		{"DELETE", "/infra/lb-virtual-servers/v", `{}`},
		{"PATCH", "/infra/tier-1s/t/locale-services/l", `{"edge_cluster_path":null}`},
		{"PATCH", "/infra/tier-1s/t", `{"route_advertisement_types":["TIER1_LB_VIP"],"tier0_path":null}`},
		{"PATCH", "/infra", `{"resource_type":"Infra","children":[{"resource_type":"ChildResourceReference","id":"default","target_type":"Domain","children":[{"resource_type":"ChildGroup","marked_for_delete":true,"Group":{"id":"g"}}]},{"resource_type":"ChildLBVirtualServer","marked_for_delete":true,"LBVirtualServer":{"id":"v"}},{"resource_type":"ChildIpAddressPool","IpAddressPool":{"id":"i","children":[{"resource_type":"ChildIpAddressAllocation","IpAddressAllocation":{"id":"c"}}]}}]}`},
		{"PATCH", "/infra", `{"children":[{"resource_type":"ChildLBPool","LBPool":{"id":"a/b"}},null,{}]}`},
		{"DELETE", "/infra/lb-pools/p?force=true", ``},
		{"DELETE", "/infra/tier-1s/t?force=true", ``},
		{"PATCH", "/infra/lb-virtual-servers/v", `{"application_profile_path":"/infra/lb-app-profiles/default-http-lb-app-profile","rules":[{"actions":[{"type":"LBSelectPoolAction","pool_id":"/infra/lb-pools/p"}],"match_conditions":[{"type":"LBHttpRequestUriCondition"}]},{"actions":[{"type":"LBHttpRejectAction","reply_status":"403"}],"phase":"TRANSPORT"}],"server_ssl_profile_binding":{"server_auth":"IGNORE"}}`},
		{"PUT", "/infra/certificates/c", `{"pem_encoded":"-----BEGIN CERTIFICATE-----","private_key":"x"}`},
		{"PATCH", "/infra/domains/default/groups/g/ip-address-expressions/e", `{"ip_addresses":["10.0.0.0/30","::1"]}`},
		{"POST", "/infra/domains/default/groups/g/ip-address-expressions/e?action=add", `{"ip_addresses":["10.0.0.2"]}`},
		{"DELETE", "/infra/domains/default/groups/g/ip-address-expressions/e", ``},
		{"PATCH", "/infra/tier-1s/t/static-routes/r", `{"network":"10.0.0.0/8","next_hops":[{"ip_address":"::1","scope":["/infra/tier-1s/t"]}]}`},
		{"GET", "/infra/lb-frobs?page_size=7&force=true", ``},
		{"PATCH", "/global-infra/lb-pools/p", `{}`},
		{"GET", "/infra/realized-state/realized-entities?intent_path=/infra/lb-virtual-servers/v", `{}`},
		{"GET", "/infra/realized-state/status?intent_path=/infra/ip-pools/i/ip-allocations", ``},
		{"GET", "/infra/lb-services/s/lb-pools/p/detailed-status?source=cached", ``},
		{"GET", "/infra?filter=Type-LBPool|IpAddressPool|IpAddressAllocation", ``},
		{"GET", "/search/query?query=resource_type:LB*&page_size=1", ``},
		{"GET", "/infra/domains/default/groups/g/members/ip-addresses?cursor=bzE", ``},
		{"GET", "/infra/sites/default/enforcement-points/default/edge-clusters/%2F", ``},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		fill := func(sim *nsxsim.Sim) error {
			for _, o := range []struct {
				path string
				body nsxsim.Object
			}{
				{"/infra/tier-1s/t", nil},
				{"/infra/tier-1s/t/locale-services/l", nsxsim.Object{"edge_cluster_path": edgeClusters + sim.EdgeClusterID()}},
				{"/infra/lb-services/s", nsxsim.Object{"connectivity_path": "/infra/tier-1s/t"}},
				{"/infra/domains/default/groups/g", nsxsim.Object{"expression": []any{map[string]any{"id": "e", "resource_type": "IPAddressExpression", "ip_addresses": []any{"10.0.0.1"}}}}},
				{"/infra/lb-pools/p", nil},
				{"/infra/lb-virtual-servers/v", nsxsim.Object{"ip_address": "10.1.0.1", "ports": []any{"80"}, "pool_path": "/infra/lb-pools/p",
					"application_profile_path": tcpProfile, "lb_service_path": "/infra/lb-services/s"}},
				{"/infra/ip-pools/i", nil},
				{"/infra/ip-pools/i/ip-subnets/s", nsxsim.Object{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24",
					"allocation_ranges": []any{map[string]any{"start": "10.9.0.1", "end": "10.9.0.2"}}}},
				{"/infra/ip-pools/i/ip-allocations/a", nil},
			} {
				if o.body == nil {
					o.body = nsxsim.Object{}
				}
				if _, err := sim.As("admin").PutIntent(o.path, o.body); err != nil {
					return err
				}
			}
			return nil
		}
		endure(t, fill, method, "/policy/api/v1"+path, body,
			"/policy/api/v1/infra/lb-services/s/detailed-status", "/policy/api/v1/infra/lb-services/s/service-usage",
			"/policy/api/v1/infra/ip-pools", "/policy/api/v1/infra/domains/default/groups/g/members/ip-addresses",
			"/api/v1/loadbalancer/services", "/api/v1/pools/ip-pools")
	})
}
