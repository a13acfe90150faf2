package nsxsim_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// sapSession sends the whole Set-Cookie back for a cookie.
func sapSession(t *testing.T, base string) http.Header {
	t.Helper()
	resp, err := http.PostForm(base+"/api/session/create", url.Values{"j_username": {nsxsim.DefaultUsername}, "j_password": {nsxsim.DefaultPassword}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	return http.Header{"Cookie": {resp.Header.Get("Set-Cookie")}, "X-Xsrf-Token": {resp.Header.Get("X-XSRF-TOKEN")}}
}

// policyClients are those of the Policy API.
func policyClients() []client {
	return []client{
		{name: "nsx-operator: its sessions and its caches", login: session, calls: append(policyBalancer("SMALL"), []call{
			{do: "GET /api/v1/reverse-proxy/node/health", status: 200, want: `{"healthy":true}`},
			{do: "GET /api/v1/licenses/licensed-features", status: 200, want: `{"result_count":"*"}`, keep: []string{"feature=results.0.feature_name", "licensed=results.0.is_licensed"}},
			{do: "PATCH /policy/api/v1/infra/lb-pools/a", header: []string{"X-Allow-Overwrite", "True"}, body: `{"resource_type":"LBPool","tags":[{"scope":"nsx-op/cluster","tag":"k8s:1"}]}`, status: 200, want: "EMPTY"},
			{do: "PATCH /policy/api/v1/infra/lb-pools/b", body: `{"resource_type":"LBPool","tags":[{"scope":"nsx-op/cluster","tag":"k8s:1"}]}`, status: 200},
			// It reads result_count of each page, and the cursor as a number.
			{do: `GET /policy/api/v1/search/query?page_size=1&query=resource_type:LBPool%20AND%20tags.scope:nsx-op%5C%2Fcluster%20AND%20tags.tag:k8s%5C:1%20AND%20marked_for_delete:false`, status: 200,
				want: `{"results":[{"path":"/infra/lb-pools/a"}],"cursor":"1","result_count":2}`},
			{do: `GET /policy/api/v1/search/query?page_size=1&cursor=1&query=resource_type:LBPool%20AND%20tags.scope:nsx-op%5C%2Fcluster%20AND%20tags.tag:k8s%5C:1%20AND%20marked_for_delete:false`, status: 200,
				want: `{"results":[{"path":"/infra/lb-pools/b"}],"cursor":"2","result_count":2}`},
		}...)},
		{name: "Terraform's provider: data sources", calls: append(policyBalancer("SMALL"), []call{
			{do: `GET /policy/api/v1/search/query?query=resource_type:PolicyEdgeCluster%20AND%20display_name:edge%5C-cluster*%20AND%20marked_for_delete:false%20AND%20path:%5C%2Finfra*`, status: 200,
				want: `{"result_count":1,"results":[{"resource_type":"PolicyEdgeCluster","display_name":"edge-cluster","path":"*edge-clusters/{edge-cluster}"}]}`},
			{do: `GET /policy/api/v1/search/query?query=resource_type:PolicyTransportZone%20AND%20display_name:nsx%5C-overlay*%20AND%20marked_for_delete:false%20AND%20path:%5C%2Finfra*`, status: 200, want: `{"result_count":1}`},
			{do: `GET /policy/api/v1/search/query?query=id:t1%20AND%20marked_for_delete:false%20AND%20path:%5C%2Finfra*`, status: 200, want: `{"results":[{"resource_type":"Tier1","path":"/infra/tier-1s/t1"}]}`},
			{do: `GET /policy/api/v1/search/query?query=resource_type:LBAppProfile%20AND%20id:none`, status: 200, want: `{"results":[],"result_count":0}`},
			{do: `GET /policy/api/v1/search/query?query=resource_type:PolicyEdgeNode%20AND%20display_name:edge%5C-node%5C-1*%20AND%20marked_for_delete:false%20AND%20parent_path:%22%2Finfra%2Fsites%2Fdefault%2Fenforcement-points%2Fdefault%2Fedge-clusters%2F{edge-cluster}%22`, status: 200,
				want: `{"result_count":1,"results":[{"resource_type":"PolicyEdgeNode","member_index":0,"nsx_id":"*"}]}`, keep: []string{"node=results.0.path"}},
			{do: "GET /policy/api/v1{node}", status: 200, want: `{"display_name":"edge-node-1"}`},
		}...)},
		{name: "Terraform's provider: resources of a load balancer", calls: append(policyBalancer("SMALL"), []call{
			{do: "GET /policy/api/v1/infra/lb-monitor-profiles/m", status: 404, want: `{"httpStatus":"NOT_FOUND"}`},
			{do: "PATCH /policy/api/v1/infra/lb-monitor-profiles/m", body: `{"display_name":"m","description":"d","fall_count":2,"interval":2,"monitor_port":8080,"request_body":"b","request_headers":[{"header_name":"h","header_value":"v"}],
				"request_method":"HEAD","request_url":"/","request_version":"HTTP_VERSION_1_1","resource_type":"LBHttpMonitorProfile","response_body":"r","response_status_codes":[200],"rise_count":2,"tags":[{"scope":"s","tag":"t"}],"timeout":2}`, status: 200, want: "EMPTY"},
			{do: "PATCH /policy/api/v1/infra/lb-pools/p", body: `{"active_monitor_paths":["/infra/lb-monitor-profiles/m"],"algorithm":"WEIGHTED_ROUND_ROBIN","display_name":"p","members":[{"admin_state":"ENABLED","backup_member":false,
				"display_name":"member1","ip_address":"5.5.5.5","max_concurrent_connections":7,"port":"77","weight":1}],"min_active_members":2,"resource_type":"LBPool","snat_translation":{"type":"LBSnatIpPool","ip_addresses":[{"ip_address":"1.1.1.1"}]},
				"tags":[{"scope":"s","tag":"t"}],"tcp_multiplexing_enabled":true,"tcp_multiplexing_number":8}`, status: 200},
			{do: "GET /policy/api/v1/infra/lb-pools/p", status: 200, want: `{"_revision":0,"path":"/infra/lb-pools/p","members":[{"display_name":"member1"}],"snat_translation":{"type":"LBSnatIpPool","ip_addresses":[{"ip_address":"1.1.1.1"}]}}`},
			{do: "PATCH /policy/api/v1/infra/lb-virtual-servers/v", body: `{"access_log_enabled":false,"application_profile_path":"/infra/lb-app-profiles/default-tcp-lb-app-profile","default_pool_member_ports":["30080"],"display_name":"v",
				"enabled":true,"ip_address":"10.1.0.1","lb_service_path":"/infra/lb-services/lb","log_significant_event_only":true,"max_concurrent_connections":6,"max_new_connection_rate":20,"pool_path":"/infra/lb-pools/p","ports":["80"],
				"resource_type":"LBVirtualServer","sorry_pool_path":""}`, status: 200},
			{do: "GET /policy/api/v1/infra/lb-virtual-servers/v", status: 200, keep: []string{"revision=_revision"}},
			{do: "PUT /policy/api/v1/infra/lb-virtual-servers/v", body: `{"_revision":{revision},"application_profile_path":"/infra/lb-app-profiles/default-tcp-lb-app-profile","display_name":"v2","enabled":true,"ip_address":"10.1.0.1",
				"lb_service_path":"/infra/lb-services/lb","ports":["80","443"],"default_pool_member_ports":["30080","30443"],"pool_path":"/infra/lb-pools/p","resource_type":"LBVirtualServer"}`, status: 200, want: `{"_revision":1,"ports":["80","443"]}`},
			{do: "DELETE /policy/api/v1/infra/lb-virtual-servers/v?force=true", status: 200, want: "EMPTY"},
			{do: "DELETE /policy/api/v1/infra/lb-pools/p?force=true", status: 200},
			{do: "DELETE /policy/api/v1/infra/lb-monitor-profiles/m?force=true", status: 200},
			{do: "DELETE /policy/api/v1/infra/lb-services/lb?force=true", status: 200},
			{do: "GET /policy/api/v1/infra/realized-state/realized-entities?intent_path=/infra/tier-1s/t1", status: 200, want: `{"results":[{"state":"REALIZED","entity_type":"RealizedLogicalRouter"}]}`},
		}...)},
		{name: "Terraform's provider and ansible-for-nsxt: groups of virtual machines", machines: []string{"web-1", "db-1"}, calls: []call{
			{do: "GET /policy/api/v1/search/query?query=resource_type:VirtualMachine%20AND%20display_name:web%5C-1*", status: 200, want: `{"result_count":1,"results":[{"external_id":"web-1"}]}`},
			{do: "POST /policy/api/v1/infra/realized-state/enforcement-points/default/virtual-machines?action=update_tags", body: `{"tags":[{"scope":"tier","tag":"web"}],"virtual_machine_id":"web-1"}`, status: 204, want: "EMPTY"},
			{do: "PATCH /policy/api/v1/infra/domains/default/groups/g", body: `{"display_name":"g","expression":[{"resource_type":"Condition","key":"Tag","member_type":"VirtualMachine","operator":"EQUALS","value":"tier|web"},
				{"resource_type":"ConjunctionOperator","conjunction_operator":"OR"},{"resource_type":"Condition","key":"Name","member_type":"VirtualMachine","operator":"STARTSWITH","value":"db"}]}`, status: 200},
			{do: "GET /policy/api/v1/infra/domains/default/groups/g/members/virtual-machines?sort_ascending=true", status: 200, want: `{"results":[{"display_name":"web-1"},{"display_name":"db-1"}]}`},
			{do: "GET /policy/api/v1/infra/domains/default/groups/g/member-types", status: 200, want: `{"results":["VirtualMachine"]}`},
			{do: "GET /policy/api/v1/infra/realized-state/enforcement-points/default/virtual-machines", status: 200, want: `{"result_count":2}`},
			{do: "DELETE /policy/api/v1/infra/domains/default/groups/g?fail_if_subtree_exists=false&force=false", status: 200},
		}},
		{name: "networking-nsx-t of SAP", login: sapSession, calls: []call{
			{do: "GET /api/v1/node/version", status: 200, want: `{"product_version":"*"}`},
			{do: "PUT /policy/api/v1/infra/domains/default/groups/g", body: `{"display_name":"0.0.0.0/0","expression":[{"resource_type":"IPAddressExpression","ip_addresses":["0.0.0.0/0"]}],"tags":[{"scope":"agent_id","tag":"a"}]}`, status: 200, keep: []string{"revision=_revision"}},
			{do: "PUT /policy/api/v1/infra/domains/default/groups/g", body: `{"display_name":"again"}`, status: 400,
				want: `{"error_code":500127,"module_name":"Policy","error_message":"Cannot create an object with path=[/infra/domains/default/groups/g] as it already exists."}`},
			{do: "PUT /policy/api/v1/infra/domains/default/groups/g", body: `{"display_name":"again","_revision":{revision}}`, status: 200},
			{do: "PUT /policy/api/v1/infra/domains/default/groups/g", body: `{"display_name":"again","_revision":{revision}}`, status: 412, want: `{"error_message":"*Fetch the latest copy of the object and retry"}`},
			{do: "GET /policy/api/v1/infra/realized-state/status?intent_path=/infra/domains/default/groups/g", status: 200, want: `{"consolidated_status":{"consolidated_status":"SUCCESS"}}`},
			{do: "PATCH /policy/api/v1/infra/tier-1s/t1", body: `{}`, status: 200},
			{do: "PATCH /policy/api/v1/infra/tier-1s/t1/locale-services/ls", body: `{}`, status: 200},
			{do: "DELETE /policy/api/v1/infra/tier-1s/t1", status: 400, want: `{"error_code":500030,"error_message":"*cannot be deleted as either it has children or it is being referenced by other objects path"}`},
			// While a search's cursor, of digits only, is not the number of results, there is more.
			{do: "GET /policy/api/v1/search/query?query=resource_type:Group&page_size=250&cursor=", status: 200, want: `{"cursor":"1","result_count":1}`},
		}},
		{name: "Terraform's provider: gateways as trees", calls: []call{
			{do: "PATCH /policy/api/v1/infra", body: `{"resource_type":"Infra","children":[{"resource_type":"ChildTier1","marked_for_delete":false,"Tier1":{"resource_type":"Tier1","id":"t1","display_name":"t1",
				"default_rule_logging":false,"disable_firewall":true,"enable_standby_relocation":false,"failover_mode":"PREEMPTIVE","ha_mode":"ACTIVE_STANDBY","pool_allocation":"ROUTING","route_advertisement_types":["TIER1_STATIC_ROUTES","TIER1_LB_VIP"],
				"ipv6_profile_paths":["/infra/ipv6-ndra-profiles/default","/infra/ipv6-dad-profiles/default"],"tags":[],"type":"ROUTED","children":[{"resource_type":"ChildLocaleServices","marked_for_delete":false,
				"LocaleServices":{"resource_type":"LocaleServices","id":"default-locale-service","edge_cluster_path":"/infra/sites/default/enforcement-points/default/edge-clusters/{edge-cluster}"}}]}}]}`, status: 200, want: "EMPTY"},
			{do: "GET /policy/api/v1/infra/tier-1s/t1", status: 200, want: `{"failover_mode":"PREEMPTIVE","ha_mode":"ACTIVE_STANDBY","_revision":0,"children":null}`},
			{do: "GET /policy/api/v1/infra/tier-1s/t1/locale-services?include_mark_for_delete_objects=false", status: 200, want: `{"result_count":1,"results":[{"id":"default-locale-service"}]}`},
			{do: "GET /policy/api/v1/infra/realized-state/realized-entities?intent_path=/infra/tier-1s/t1", status: 200, want: `{"results":[{"state":"REALIZED","realization_specific_identifier":"*-"}]}`},
			{do: "PATCH /policy/api/v1/infra", body: `{"resource_type":"Infra","children":[{"resource_type":"ChildTier1","marked_for_delete":false,"Tier1":{"resource_type":"Tier1","id":"t1","display_name":"t1b","_revision":0}}]}`, status: 200},
			{do: "PATCH /policy/api/v1/infra?enforce_revision_check=true", body: `{"resource_type":"Infra","children":[{"resource_type":"ChildTier1","Tier1":{"resource_type":"Tier1","id":"t1","display_name":"t1c","_revision":0}}]}`, status: 412},
			{do: "PATCH /policy/api/v1/infra", body: `{"resource_type":"Infra","children":[{"resource_type":"ChildTier1","marked_for_delete":true,"Tier1":{"resource_type":"Tier1","id":"t1","children":[{"resource_type":"ChildLocaleServices","marked_for_delete":true,
				"LocaleServices":{"resource_type":"LocaleServices","id":"default-locale-service"}}]}}]}`, status: 200},
			{do: "GET /policy/api/v1/infra/tier-1s/t1", status: 404},
		}},
		{name: "vmware-nsxlib: what became of intents", login: session, calls: []call{
			{do: "PATCH /policy/api/v1/infra/ip-pools/p", body: `{"display_name":"p"}`, status: 200},
			{do: "PATCH /policy/api/v1/infra/ip-pools/p/ip-allocations/a", body: `{}`, status: 200},
			{do: "GET /policy/api/v1/infra/realized-state/alarms", status: 200, want: `{"result_count":1,"results":[{"source_reference":"/infra/ip-pools/p/ip-allocations/a","message":"*"}]}`},
			{do: "GET /policy/api/v1/infra/realized-state/realized-entities?intent_path=/infra/ip-pools/p/ip-allocations/a", status: 200, want: `{"results":[{"state":"ERROR","alarms":["*"]}]}`},
			{do: "PATCH /policy/api/v1/infra/ip-pools/p/ip-subnets/s", body: `{"resource_type":"IpAddressPoolStaticSubnet","cidr":"10.9.0.0/24","allocation_ranges":[{"start":"10.9.0.1","end":"10.9.0.2"}]}`, status: 200},
			{do: "PATCH /policy/api/v1/infra/ip-pools/p/ip-allocations/b", body: `{"display_name":"b"}`, status: 200},
			{do: "GET /policy/api/v1/infra/realized-state/realized-entities?intent_path=/infra/ip-pools/p/ip-allocations/b", status: 200,
				want: `{"results":[{"state":"REALIZED","extended_attributes":[{"key":"allocation_ip","values":["*10.9.0."]}]}]}`},
			{do: "GET /policy/api/v1/infra/realized-state/realized-entities?intent_path=/infra/ip-pools/none", status: 404},
			{do: "DELETE /policy/api/v1/infra/ip-pools/p/ip-allocations/b", status: 200},
		}},
		{name: "ansible-for-nsxt: the modules of the Policy", calls: []call{
			{do: "GET /policy/api/v1/infra/tier-1s", status: 200, want: `{"results":[]}`},
			{do: "GET /policy/api/v1/infra/tier-1s/t1", status: 404, want: `{"error_code":600}`},
			{do: "PATCH /policy/api/v1/infra/tier-1s/t1", body: `{"display_name":"t1","failover_mode":"NON_PREEMPTIVE","route_advertisement_rules":[],"route_advertisement_types":["TIER1_LB_VIP"],"tags":[]}`, status: 200},
			{do: "GET /policy/api/v1/infra/tier-1s/t1", status: 200, keep: []string{"uid=unique_id"}},
			// Its updates are the whole object as it was read, with the changes in it.
			{do: "PATCH /policy/api/v1/infra/tier-1s/t1", body: `{"display_name":"t1","description":"new","failover_mode":"NON_PREEMPTIVE","route_advertisement_types":["TIER1_LB_VIP"],"resource_type":"Tier1","id":"t1","path":"/infra/tier-1s/t1",
				"relative_path":"t1","parent_path":"/infra","unique_id":"{uid}","marked_for_delete":false,"overridden":false,"_create_user":"admin","_system_owned":false,"_protection":"NOT_PROTECTED","_revision":0}`, status: 200},
			{do: "GET /policy/api/v1/infra/tier-1s/t1", status: 200, want: `{"_revision":1,"description":"new","unique_id":"{uid}"}`},
			{do: "PATCH /policy/api/v1/infra/tier-1s/t1/locale-services/ls", body: `{"edge_cluster_path":"/infra/sites/default/enforcement-points/default/edge-clusters/{edge-cluster}","preferred_edge_paths":[]}`, status: 200},
			{do: "PATCH /policy/api/v1/infra/segments/s", body: `{"display_name":"s","connectivity_path":"/infra/tier-1s/t1","subnets":[{"gateway_address":"10.3.0.1/24"}],"transport_zone_path":"/infra/sites/default/enforcement-points/default/transport-zones/{nsx-overlay-transportzone}"}`, status: 200},
			{do: "GET /policy/api/v1/infra/segments/s/state", status: 200, want: `{"state":"success","segment_path":"/infra/segments/s"}`},
			{do: "DELETE /policy/api/v1/infra/segments/s", status: 200},
			{do: "DELETE /policy/api/v1/infra/tier-1s/t1/locale-services/ls", status: 200},
			{do: "DELETE /policy/api/v1/infra/tier-1s/t1", status: 200},
			{do: "GET /policy/api/v1/infra/tier-1s/t1", status: 404},
		}},
	}
}
