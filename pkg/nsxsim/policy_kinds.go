package nsxsim

import (
	"fmt"
	"net/netip"

	"go4.org/netipx"
)

// The kinds of the Policy API. The id of their objects is the path:
// "/infra/lb-pools/web" for Get, Editor and inventories alike.
const (
	KindPolicyTier0              Kind = "Tier0"
	KindPolicyTier0LocaleService Kind = "Tier0LocaleServices"
	KindPolicyTier0StaticRoutes  Kind = "Tier0StaticRoutes"
	KindPolicyTier1              Kind = "Tier1"
	KindPolicyTier1LocaleService Kind = "Tier1LocaleServices"
	KindPolicyTier1StaticRoutes  Kind = "Tier1StaticRoutes"
	KindPolicySegment            Kind = "Segment"
	KindPolicyGroup              Kind = "Group"
	KindPolicyIPPool             Kind = "IpAddressPool"
	KindPolicyIPSubnet           Kind = "IpAddressPoolSubnet"
	KindPolicyIPAllocation       Kind = "IpAddressAllocation"
	KindPolicyCertificate        Kind = "TlsCertificate"
	KindPolicyServerSSLProfile   Kind = "LBServerSslProfile"
	KindPolicyClientSSLProfile   Kind = "LBClientSslProfile"
	KindPolicyMonitor            Kind = "LBMonitorProfile"
	KindPolicyAppProfile         Kind = "LBAppProfile"
	KindPolicyPersistence        Kind = "LBPersistenceProfile"
	KindPolicyPool               Kind = "LBPool"
	KindPolicyLBService          Kind = "LBService"
	KindPolicyVirtualServer      Kind = "LBVirtualServer"
)

// policyKind describes a kind of the Policy API: what the Manager's kinds have,
// and where its objects stand in the tree below /infra.
type policyKind struct {
	kind
	parent     Kind   // whose objects hold those of this kind; empty for /infra itself
	collection string // below the parent: "lb-pools", "domains/default/groups"
	child      string // X of the ChildX that wraps an object in a tree: "LBPool"
	rank       int    // parents and what is referred to come first
	target     Kind   // the Manager's kind that it is realised in; empty for none
	part       bool   // the Manager has it as a part of its parent
	realize    func(s *Sim, o *object, rec *realization) *Error
}

// policyKinds gives the kinds of the Policy API, what is referred to first.
func policyKinds() []*policyKind {
	localeServices := []field{
		{name: "edge_cluster_path", shape: stringShape},
		{name: "preferred_edge_paths", shape: listShape},
	}
	staticRoutes := []field{
		{name: "network", shape: stringShape, required: true, check: checkPrefix},
		{name: "enabled_on_secondary", shape: boolShape, def: "false"},
		{name: "next_hops", shape: listShape, required: true, min: 1, fields: []field{
			{name: "ip_address", shape: stringShape, check: checkAddress},
			{name: "admin_distance", shape: intShape, def: "1", min: 1, max: 255},
		}},
	}
	kinds := []*policyKind{
		{
			kind: kind{name: KindPolicyTier0, types: []string{"Tier0"}, fields: []field{
				{name: "ha_mode", shape: stringShape, def: `"ACTIVE_ACTIVE"`, oneOf: []string{"ACTIVE_ACTIVE", "ACTIVE_STANDBY"}},
				{name: "failover_mode", shape: stringShape, def: `"NON_PREEMPTIVE"`, oneOf: []string{"PREEMPTIVE", "NON_PREEMPTIVE"}},
				{name: "transit_subnets", shape: listShape, item: &field{shape: stringShape, check: checkPrefix}},
			}},
			collection: "tier-0s", child: "Tier0", target: KindLogicalRouter, realize: realizeTier0,
		},
		{
			kind:   kind{name: KindPolicyTier0LocaleService, types: []string{"LocaleServices"}, fields: localeServices, check: checkLocaleServices},
			parent: KindPolicyTier0, collection: "locale-services", child: "LocaleServices", part: true, realize: realizePart,
		},
		{
			kind:   kind{name: KindPolicyTier0StaticRoutes, types: []string{"StaticRoutes"}, fields: staticRoutes},
			parent: KindPolicyTier0, collection: "static-routes", child: "StaticRoutes", target: KindStaticRoute, realize: realizeStaticRoutes,
		},
		{
			kind: kind{name: KindPolicyTier1, types: []string{"Tier1"}, fields: []field{
				{name: "tier0_path", shape: stringShape, ref: []Kind{KindPolicyTier0}},
				{name: "type", shape: stringShape, oneOf: []string{"ROUTED", "ISOLATED", "NATTED"}},
				{name: "ha_mode", shape: stringShape, oneOf: []string{"ACTIVE_ACTIVE", "ACTIVE_STANDBY"}},
				{name: "failover_mode", shape: stringShape, def: `"NON_PREEMPTIVE"`, oneOf: []string{"PREEMPTIVE", "NON_PREEMPTIVE"}},
				{name: "route_advertisement_types", shape: listShape, item: &field{shape: stringShape, oneOf: []string{
					"TIER1_STATIC_ROUTES", "TIER1_CONNECTED", "TIER1_NAT", "TIER1_LB_VIP", "TIER1_LB_SNAT", "TIER1_DNS_FORWARDER_IP", "TIER1_IPSEC_LOCAL_ENDPOINT"}}},
				{name: "pool_allocation", shape: stringShape, def: `"ROUTING"`, oneOf: []string{"ROUTING", "LB_SMALL", "LB_MEDIUM", "LB_LARGE", "LB_XLARGE"}},
			}},
			collection: "tier-1s", child: "Tier1", target: KindLogicalRouter, realize: realizeTier1,
		},
		{
			kind:   kind{name: KindPolicyTier1LocaleService, types: []string{"LocaleServices"}, fields: localeServices, check: checkLocaleServices},
			parent: KindPolicyTier1, collection: "locale-services", child: "LocaleServices", part: true, realize: realizePart,
		},
		{
			kind:   kind{name: KindPolicyTier1StaticRoutes, types: []string{"StaticRoutes"}, fields: staticRoutes},
			parent: KindPolicyTier1, collection: "static-routes", child: "StaticRoutes", target: KindStaticRoute, realize: realizeStaticRoutes,
		},
		{
			kind: kind{name: KindPolicySegment, types: []string{"Segment"}, check: checkSegment, fields: []field{
				{name: "transport_zone_path", shape: stringShape},
				{name: "connectivity_path", shape: stringShape, ref: []Kind{KindPolicyTier1, KindPolicyTier0}},
				{name: "admin_state", shape: stringShape, def: `"UP"`, oneOf: []string{"UP", "DOWN"}},
				{name: "replication_mode", shape: stringShape, def: `"MTEP"`, oneOf: []string{"MTEP", "SOURCE"}},
				{name: "vlan_ids", shape: listShape, item: &field{shape: stringShape, min: 1}},
				{name: "subnets", shape: listShape, fields: []field{{name: "gateway_address", shape: stringShape, check: checkPrefix}}},
				{name: "type", readOnly: true},
			}},
			collection: "segments", child: "Segment", target: KindLogicalSwitch, realize: realizeSegment,
		},
		{
			kind: kind{name: KindPolicyGroup, types: []string{"Group"}, refs: groupPaths, check: checkPolicyGroup, subs: policyGroupSubs, fields: []field{
				{name: "group_type", shape: listShape, item: &field{shape: stringShape, oneOf: []string{"IPAddress", "ANTREA"}}},
				{name: "expression", shape: listShape, fields: []field{
					{name: "resource_type", shape: stringShape, required: true, oneOf: []string{"IPAddressExpression", "PathExpression", "ConjunctionOperator",
						"Condition", "NestedExpression", "MACAddressExpression", "ExternalIDExpression", "IdentityGroupExpression"}},
					{name: "ip_addresses", shape: listShape, max: 4000, item: &field{shape: stringShape, check: checkAddressRange}},
					{name: "paths", shape: listShape, max: 500, item: &field{shape: stringShape, min: 1}},
					{name: "conjunction_operator", shape: stringShape, oneOf: []string{"AND", "OR"}},
				}},
			}},
			collection: "domains/default/groups", child: "Group", target: KindNSGroup, realize: realizeGroup,
		},
		{
			kind: kind{name: KindPolicyIPPool, types: []string{"IpAddressPool"}, render: renderPolicyPoolUsage, fields: []field{
				{name: "ip_release_delay", shape: intShape, min: 0},
				{name: "check_overlap_with_existing_pools", shape: boolShape, def: "false"},
				{name: "pool_usage", readOnly: true},
			}},
			collection: "ip-pools", child: "IpAddressPool", target: KindIPPool, realize: realizeIPPool,
		},
		{
			kind: kind{name: KindPolicyIPSubnet, types: []string{"IpAddressPoolStaticSubnet"}, check: checkPolicySubnet, fields: []field{
				{name: "cidr", shape: stringShape, required: true, check: checkPrefix},
				{name: "allocation_ranges", shape: listShape, required: true, min: 1, fields: []field{
					{name: "start", shape: stringShape, required: true, check: checkAddress},
					{name: "end", shape: stringShape, required: true, check: checkAddress},
				}},
				{name: "gateway_ip", shape: stringShape, check: checkAddress},
				{name: "dns_nameservers", shape: listShape, max: 3, item: &field{shape: stringShape, check: checkAddress}},
				{name: "dns_suffix", shape: stringShape},
			}},
			parent: KindPolicyIPPool, collection: "ip-subnets", child: "IpAddressPoolSubnet", part: true, realize: realizePart,
		},
		{
			kind: kind{name: KindPolicyIPAllocation, types: []string{"IpAddressAllocation"}, check: checkIPAllocation, fields: []field{
				{name: "allocation_ip", shape: stringShape, check: checkAddress},
			}},
			parent: KindPolicyIPPool, collection: "ip-allocations", child: "IpAddressAllocation", realize: realizeIPAllocation,
		},
		policyCertificateKind(),
		{
			kind:       kind{name: KindPolicyServerSSLProfile, types: []string{"LBServerSslProfile"}, fields: policySSLFields, check: checkSSLProfile},
			collection: "lb-server-ssl-profiles", child: "LBServerSslProfile", target: KindServerSSLProfile, realize: realizeAlike,
		},
		{
			kind: kind{name: KindPolicyClientSSLProfile, types: []string{"LBClientSslProfile"}, check: checkSSLProfile, fields: append([]field{
				{name: "session_cache_timeout", shape: intShape, def: "300", min: 1, max: 86400},
				{name: "prefer_server_ciphers", shape: boolShape, def: "true"},
			}, policySSLFields...)},
			collection: "lb-client-ssl-profiles", child: "LBClientSslProfile", target: KindClientSSLProfile, realize: realizeAlike,
		},
		{
			kind: kind{name: KindPolicyMonitor,
				types:  []string{"LBHttpMonitorProfile", "LBHttpsMonitorProfile", "LBTcpMonitorProfile", "LBUdpMonitorProfile", "LBIcmpMonitorProfile", "LBPassiveMonitorProfile"},
				fields: policyMonitorFields()},
			collection: "lb-monitor-profiles", child: "LBMonitorProfile", target: KindMonitor, realize: realizeMonitor,
		},
		{
			kind: kind{name: KindPolicyAppProfile, types: []string{"LBFastTcpProfile", "LBFastUdpProfile", "LBHttpProfile"}, fields: []field{
				{name: "idle_timeout", types: []string{"LBFastTcpProfile"}, shape: intShape, def: "1800", min: 1, max: 2147483},
				{name: "close_timeout", types: []string{"LBFastTcpProfile"}, shape: intShape, def: "8", min: 1, max: 60},
				{name: "ha_flow_mirroring_enabled", types: []string{"LBFastTcpProfile"}, shape: boolShape, def: "false"},
				{name: "idle_timeout", types: []string{"LBFastUdpProfile"}, shape: intShape, def: "300", min: 1, max: 2147483},
				{name: "flow_mirroring_enabled", types: []string{"LBFastUdpProfile"}, shape: boolShape, def: "false"},
				{name: "idle_timeout", types: []string{"LBHttpProfile"}, shape: intShape, def: "15", min: 1, max: 5400},
				{name: "http_redirect_to_https", types: []string{"LBHttpProfile"}, shape: boolShape, def: "false"},
				{name: "ntlm", types: []string{"LBHttpProfile"}, shape: boolShape},
				{name: "server_keep_alive", types: []string{"LBHttpProfile"}, shape: boolShape},
				{name: "request_header_size", types: []string{"LBHttpProfile"}, shape: intShape, def: "1024", min: 1, max: 65536},
				{name: "response_timeout", types: []string{"LBHttpProfile"}, shape: intShape, def: "60", min: 1, max: 2147483},
				{name: "x_forwarded_for", types: []string{"LBHttpProfile"}, shape: stringShape, oneOf: []string{"INSERT", "REPLACE"}},
			}},
			collection: "lb-app-profiles", child: "LBAppProfile", target: KindApplicationProfile, realize: realizeAlike,
		},
		{
			kind: kind{name: KindPolicyPersistence, types: []string{"LBSourceIpPersistenceProfile", "LBCookiePersistenceProfile", "LBGenericPersistenceProfile"}, fields: []field{
				{name: "persistence_shared", shape: boolShape, def: "false"},
				{name: "purge", types: []string{"LBSourceIpPersistenceProfile"}, shape: stringShape, def: `"FULL"`, oneOf: []string{"FULL", "NO_PURGE"}},
				{name: "timeout", types: []string{"LBSourceIpPersistenceProfile", "LBGenericPersistenceProfile"}, shape: intShape, def: "300", min: 1, max: 2147483},
				{name: "ha_persistence_mirroring_enabled", types: []string{"LBSourceIpPersistenceProfile", "LBGenericPersistenceProfile"}, shape: boolShape, def: "false"},
				{name: "cookie_name", types: []string{"LBCookiePersistenceProfile"}, shape: stringShape, def: `"NSXLB"`},
				{name: "cookie_mode", types: []string{"LBCookiePersistenceProfile"}, shape: stringShape, def: `"INSERT"`, oneOf: []string{"INSERT", "PREFIX", "REWRITE"}},
				{name: "cookie_fallback", types: []string{"LBCookiePersistenceProfile"}, shape: boolShape, def: "true"},
				{name: "cookie_garble", types: []string{"LBCookiePersistenceProfile"}, shape: boolShape, def: "true"},
			}},
			collection: "lb-persistence-profiles", child: "LBPersistenceProfile", target: KindPersistenceProfile, realize: realizeAlike,
		},
		{
			kind: kind{name: KindPolicyPool, types: []string{"LBPool"}, check: checkPolicyPool, fields: []field{
				{name: "algorithm", shape: stringShape, def: `"ROUND_ROBIN"`,
					oneOf: []string{"ROUND_ROBIN", "WEIGHTED_ROUND_ROBIN", "LEAST_CONNECTION", "WEIGHTED_LEAST_CONNECTION", "IP_HASH"}},
				{name: "active_monitor_paths", shape: listShape, item: &field{shape: stringShape, min: 1}, ref: []Kind{KindPolicyMonitor}},
				{name: "passive_monitor_path", shape: stringShape, ref: []Kind{KindPolicyMonitor}},
				{name: "min_active_members", shape: intShape, def: "1", min: 1},
				{name: "tcp_multiplexing_enabled", shape: boolShape, def: "false"},
				{name: "tcp_multiplexing_number", shape: intShape, def: "6", min: 0},
				{name: "snat_translation", shape: objectShape, fields: []field{
					{name: "type", shape: stringShape, required: true, oneOf: []string{"LBSnatAutoMap", "LBSnatDisabled", "LBSnatIpPool"}},
				}},
				{name: "members", shape: listShape, fields: memberFields},
				{name: "member_group", shape: objectShape, fields: []field{
					{name: "group_path", shape: stringShape, required: true, ref: []Kind{KindPolicyGroup}},
					{name: "ip_revision_filter", shape: stringShape, def: `"IPV4"`, oneOf: []string{"IPV4", "IPV6", "IPV4_IPV6"}},
					{name: "max_ip_list_size", shape: intShape, min: 0, max: 2147483647},
					{name: "port", shape: intShape, min: 1, max: 65535},
					{name: "customized_members", shape: listShape, fields: memberSettingFields},
				}},
			}},
			collection: "lb-pools", child: "LBPool", target: KindPool, realize: realizePool,
		},
		{
			kind: kind{name: KindPolicyLBService, types: []string{"LBService"}, keys: connectivityKeys, check: checkPolicyLBService, subs: policyLBServiceSubs, fields: []field{
				{name: "connectivity_path", shape: stringShape, ref: []Kind{KindPolicyTier1}},
				{name: "size", shape: stringShape, def: `"SMALL"`, oneOf: []string{"SMALL", "MEDIUM", "LARGE", "XLARGE", "DLB"}},
				{name: "enabled", shape: boolShape, def: "true"},
				{name: "access_log_enabled", shape: boolShape},
				{name: "relax_scale_validation", shape: boolShape},
				{name: "error_log_level", shape: stringShape, def: `"INFO"`,
					oneOf: []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY"}},
			}},
			collection: "lb-services", child: "LBService", target: KindLBService, realize: realizeLBService,
		},
		{
			kind: kind{name: KindPolicyVirtualServer, types: []string{"LBVirtualServer"}, keys: policyVIPKeys, check: checkPolicyVirtualServer, fields: []field{
				{name: "ip_address", shape: stringShape, required: true, check: checkAddress},
				{name: "ports", shape: listShape, required: true, min: 1, item: &field{shape: stringShape, check: checkPortRange}},
				{name: "default_pool_member_ports", shape: listShape, max: 14, item: &field{shape: stringShape, check: checkPortRange}},
				{name: "application_profile_path", shape: stringShape, required: true, ref: []Kind{KindPolicyAppProfile}},
				{name: "lb_persistence_profile_path", shape: stringShape, ref: []Kind{KindPolicyPersistence}},
				{name: "lb_service_path", shape: stringShape, ref: []Kind{KindPolicyLBService}},
				{name: "pool_path", shape: stringShape, ref: []Kind{KindPolicyPool}},
				{name: "sorry_pool_path", shape: stringShape, ref: []Kind{KindPolicyPool}},
				{name: "enabled", shape: boolShape, def: "true"},
				{name: "access_log_enabled", shape: boolShape, def: "false"},
				{name: "log_significant_event_only", shape: boolShape, def: "false"},
				{name: "max_concurrent_connections", shape: intShape, min: 1},
				{name: "max_new_connection_rate", shape: intShape, min: 1},
				{name: "client_ssl_profile_binding", shape: objectShape, fields: policyClientBindingFields},
				{name: "server_ssl_profile_binding", shape: objectShape, fields: policyServerBindingFields},
				{name: "rules", shape: listShape, max: 4000, fields: policyRuleFields()},
				{name: "access_list_control", shape: objectShape, since: accessListsSince, fields: []field{
					{name: "action", shape: stringShape, required: true, oneOf: []string{"ALLOW", "DROP"}},
					{name: "enabled", shape: boolShape, def: "false"},
					{name: "group_path", shape: stringShape, required: true, ref: []Kind{KindPolicyGroup}},
				}},
			}},
			collection: "lb-virtual-servers", child: "LBVirtualServer", target: KindVirtualServer, realize: realizeVirtualServer,
		},
	}
	for i, k := range kinds {
		k.rank = i
	}
	return kinds
}

// policyMonitorFields are those of the Manager's monitors, but for the port,
// which is a number here.
func policyMonitorFields() []field {
	active := []string{"LBHttpMonitorProfile", "LBHttpsMonitorProfile", "LBTcpMonitorProfile", "LBUdpMonitorProfile", "LBIcmpMonitorProfile"}
	http := active[:2]
	passive := []string{"LBPassiveMonitorProfile"}
	return []field{
		{name: "interval", types: active, shape: intShape, def: "5", min: 1, max: 2147483},
		{name: "fall_count", types: active, shape: intShape, def: "3", min: 1, max: 2147483647},
		{name: "rise_count", types: active, shape: intShape, def: "3", min: 1, max: 2147483647},
		{name: "timeout", types: active, shape: intShape, def: "15", min: 1, max: 2147483},
		{name: "monitor_port", types: active, shape: intShape, min: 0, max: 65535},
		{name: "request_method", types: http, shape: stringShape, def: `"GET"`, oneOf: []string{"GET", "OPTIONS", "POST", "HEAD", "PUT"}},
		{name: "request_url", types: http, shape: stringShape, def: `"/"`},
		{name: "request_version", types: http, shape: stringShape, def: `"HTTP_VERSION_1_1"`, oneOf: []string{"HTTP_VERSION_1_0", "HTTP_VERSION_1_1"}},
		{name: "request_headers", types: http, shape: listShape, fields: []field{
			{name: "header_name", shape: stringShape, required: true},
			{name: "header_value", shape: stringShape, required: true},
		}},
		{name: "request_body", types: http, shape: stringShape},
		{name: "response_status_codes", types: http, shape: listShape, def: "[200]", max: 64, item: &field{shape: intShape, min: 100, max: 599}},
		{name: "response_body", types: http, shape: stringShape},
		{name: "server_ssl_profile_binding", types: []string{"LBHttpsMonitorProfile"}, shape: objectShape, fields: policyServerBindingFields},
		{name: "send", types: []string{"LBUdpMonitorProfile"}, shape: stringShape, required: true},
		{name: "receive", types: []string{"LBUdpMonitorProfile"}, shape: stringShape, required: true},
		{name: "send", types: []string{"LBTcpMonitorProfile"}, shape: stringShape},
		{name: "receive", types: []string{"LBTcpMonitorProfile"}, shape: stringShape},
		{name: "data_length", types: []string{"LBIcmpMonitorProfile"}, shape: intShape, def: "56", min: 0, max: 65507},
		{name: "max_fails", types: passive, shape: intShape, def: "5", min: 1, max: 2147483647},
		{name: "timeout", types: passive, shape: intShape, def: "5", min: 1, max: 2147483},
	}
}

// policyFields are those of every object of the Policy API, beside commonFields:
// all but the parent's relation are the server's.
var policyFields = []field{
	{name: "path", readOnly: true},
	{name: "relative_path", readOnly: true},
	{name: "parent_path", readOnly: true},
	{name: "unique_id", readOnly: true},
	{name: "realization_id", readOnly: true},
	{name: "remote_path", readOnly: true},
	{name: "owner_id", readOnly: true},
	{name: "origin_site_id", readOnly: true},
	{name: "overridden", readOnly: true},
	{name: "marked_for_delete", readOnly: true},
	{name: "children", readOnly: true}, // applied on their own by whoever takes trees
}

// The rules of the Policy API that go across fields and objects.

func checkLocaleServices(c *change) *Error {
	if path := c.doc.str("edge_cluster_path"); path != "" {
		if c.edgeClusterAt(path) == nil {
			return invalidPath(path)
		}
	}
	return nil
}

// checkPolicySubnet: ranges lie in the subnet, and overlap none of the pool.
func checkPolicySubnet(c *change) *Error {
	var others []netipx.IPRange
	for _, o := range c.childrenOf(parentPath(c.id), KindPolicyIPSubnet) {
		if o.id != c.id {
			others = append(others, allocationRanges(document{"subnets": encode([]document{o.doc})})...)
		}
	}
	cidr, _ := netip.ParsePrefix(c.doc.str("cidr"))
	for _, r := range allocationRanges(document{"subnets": encode([]document{c.doc})}) {
		switch {
		case !r.IsValid():
			return invalid(fmt.Sprintf("allocation_ranges %s-%s is no range", r.From(), r.To()))
		case !cidr.Contains(r.From()) || !cidr.Contains(r.To()):
			return refusePolicy(codePolicyInvalid, "Range %s does not lie in subnet %s.", r, cidr)
		}
		for _, o := range others {
			if o.Overlaps(r) {
				return refusePolicy(codePolicyInvalid, "Range %s overlaps range %s of the IP pool.", r, o)
			}
		}
		others = append(others, r)
	}
	return nil
}

func checkIPAllocation(c *change) *Error {
	if c.old != nil && canonicalAddress(c.old.doc.str("allocation_ip")) != canonicalAddress(c.doc.str("allocation_ip")) {
		return refusePolicy(codePolicyInvalid, "allocation_ip of path=[%s] cannot be changed.", c.id)
	}
	return nil
}

func checkPolicyPool(c *change) *Error {
	if len(c.doc.objects("members")) > 0 && c.doc.has("member_group") {
		return invalid("members and member_group exclude each other")
	}
	for _, path := range c.doc.strs("active_monitor_paths") {
		if c.store.get(KindPolicyMonitor, path).doc.str("resource_type") == "LBPassiveMonitorProfile" {
			return refusePolicy(codePolicyInvalid, "Monitor path=[%s] is passive: it cannot be an active monitor of a pool.", path)
		}
	}
	if path := c.doc.str("passive_monitor_path"); path != "" {
		if c.store.get(KindPolicyMonitor, path).doc.str("resource_type") != "LBPassiveMonitorProfile" {
			return refusePolicy(codePolicyInvalid, "Monitor path=[%s] is not passive: it cannot be the passive monitor of a pool.", path)
		}
	}
	return nil
}

func connectivityKeys(doc document) []string {
	if path := doc.str("connectivity_path"); path != "" {
		return []string{"policy-lb-on/" + path}
	}
	return nil
}

// checkPolicyLBService: a tier-1 holds one load balancer service.
func checkPolicyLBService(c *change) *Error {
	if err := c.checkSize(); err != nil {
		return err
	}
	for _, key := range connectivityKeys(c.doc) {
		for _, other := range c.store.withKey(key) {
			if other.id != c.id {
				return refusePolicy(codePolicyConflict, "LBService path=[%s] is already attached to path=[%s].", other.id, c.doc.str("connectivity_path"))
			}
		}
	}
	return nil
}

func policyVIPKeys(doc document) []string {
	return []string{"policy-vip/" + canonicalAddress(doc.str("ip_address"))}
}

// protocolOf is that of a virtual server, which its application profile says.
func (s *Sim) protocolOf(vs document) string {
	profile := s.store.get(KindPolicyAppProfile, vs.str("application_profile_path"))
	if profile != nil && profile.doc.str("resource_type") == "LBFastUdpProfile" {
		return "UDP"
	}
	return "TCP"
}

func checkPolicyVirtualServer(c *change) *Error {
	ports := parsePorts(c.doc.strs("ports"))
	if wrong := checkPortShapes(ports, parsePorts(c.doc.strs("default_pool_member_ports"))); wrong != "" {
		return invalid(wrong)
	}
	layer7 := c.store.get(KindPolicyAppProfile, c.doc.str("application_profile_path")).doc.str("resource_type") == "LBHttpProfile"
	if layer7 && (len(ports) != 1 || ports[0].width() != 1) {
		return refusePolicy(codePolicyInvalid, "A virtual server with an LBHttpProfile takes a single port: path=[%s].", c.id)
	}
	if path := c.doc.str("lb_persistence_profile_path"); path != "" && !layer7 {
		if t := c.store.get(KindPolicyPersistence, path).doc.str("resource_type"); t != "LBSourceIpPersistenceProfile" {
			return refusePolicy(codePolicyInvalid, "Persistence profile path=[%s] of type %s does not fit a layer 4 virtual server.", path, t)
		}
	}
	if err := checkPolicyLayer7(c, layer7); err != nil {
		return err
	}
	protocol := c.protocolOf(c.doc)
	for i, a := range ports {
		for _, b := range ports[:i] {
			if a.overlaps(b) {
				return invalid(fmt.Sprintf("ports %s and %s overlap", b, a))
			}
		}
	}
	for _, other := range c.store.withKey(policyVIPKeys(c.doc)[0]) {
		if other.id == c.id || c.protocolOf(other.doc) != protocol {
			continue
		}
		for _, theirs := range parsePorts(other.doc.strs("ports")) {
			for _, ours := range ports {
				if ours.overlaps(theirs) {
					return refusePolicy(codePolicyConflict, "LBVirtualServer path=[%s] already uses IP address %s, protocol %s and port %s.",
						other.id, c.doc.str("ip_address"), protocol, theirs)
				}
			}
		}
	}
	return nil
}
