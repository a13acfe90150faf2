package nsxsim

import (
	"net/http"
	"slices"
	"strings"
)

// Kind names a class of objects of the Manager API. Objects of one kind share a
// collection and a path; some kinds (monitors, profiles, router ports) hold
// several resource types.
type Kind string

// The kinds of the Manager API.
const (
	KindLBService          Kind = "LbService"
	KindVirtualServer      Kind = "LbVirtualServer"
	KindPool               Kind = "LbPool"
	KindMonitor            Kind = "LbMonitor"
	KindApplicationProfile Kind = "LbAppProfile"
	KindPersistenceProfile Kind = "LbPersistenceProfile"
	KindRule               Kind = "LbRule"
	KindClientSSLProfile   Kind = "LbClientSslProfile"
	KindServerSSLProfile   Kind = "LbServerSslProfile"
	KindTCPProfile         Kind = "LbTcpProfile"
	KindNSGroup            Kind = "NSGroup"
	KindIPSet              Kind = "IPSet"
	KindIPPool             Kind = "IpPool"
	KindLogicalRouter      Kind = "LogicalRouter"
	KindLogicalRouterPort  Kind = "LogicalRouterPort"
	KindEdgeCluster        Kind = "EdgeCluster"
	KindCertificate        Kind = "Certificate"
	KindAdvertisement      Kind = "AdvertisementConfig" // by the id of its logical router
	KindStaticRoute        Kind = "StaticRoute"
	KindNatRule            Kind = "NatRule"
	KindTransportZone      Kind = "TransportZone"
	KindLogicalSwitch      Kind = "LogicalSwitch"
	KindLogicalPort        Kind = "LogicalPort"
)

// kind describes all that differs between the kinds; the rest of the package is
// the same for all of them. A new kind is one entry in manager().
type kind struct {
	name    Kind
	path    string   // below /api/v1; empty for kinds reached through another object
	types   []string // allowed resource_type; where there is one, clients may omit it
	removed string   // the NSX release that no longer has the kind, if any
	traffic bool     // changes of it may change what the data plane does
	imports bool     // made by POST ?action=import, and never changed
	fields  []field

	mirror  func(document)                             // derives fields from others, before checks
	refs    func(document) []idField                   // references that fields cannot describe
	keys    func(document) []string                    // secondary index
	check   func(c *change) *Error                     // rules across fields and objects
	deleted func(s *Sim, o *object, force bool) *Error // rules of deletion, beyond "not referenced"
	cascade []Kind                                     // referrers that a deletion with force=true takes along
	render  func(s *Sim, o *object, doc document)      // adds to an answer what is not stored
	// populate adds to an answer what populate_references=true asks for.
	populate func(s *Sim, doc document)
	filters  map[string]func(doc document, v string) bool
	subs     []sub
}

// change is a create (old is nil) or an update about to be stored, as the rules
// of a kind see it: well-formed, with defaults and with references that exist.
type change struct {
	*Sim
	id       string
	old      *object
	doc      document
	resource string // resource_type
}

const removedLB = "9.0"

// accessListsSince is the release from which on virtual servers have access lists.
var accessListsSince = release{3, 0}

// manager gives the kinds of the Manager API.
func manager() []*kind {
	return append(networkKinds(), []*kind{
		{
			name: KindLBService, path: "loadbalancer/services", types: []string{"LbService"}, removed: removedLB, traffic: true,
			fields: []field{
				{name: "attachment", shape: objectShape, fields: []field{
					{name: "target_type", shape: stringShape, required: true, oneOf: []string{"LogicalRouter"}},
					{name: "target_id", shape: stringShape, required: true, ref: []Kind{KindLogicalRouter}},
				}},
				{name: "enabled", shape: boolShape, def: "true"},
				{name: "access_log_enabled", shape: boolShape, def: "false"},
				{name: "error_log_level", shape: stringShape, def: `"INFO"`,
					oneOf: []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY"}},
				{name: "size", shape: stringShape, def: `"SMALL"`, oneOf: []string{"SMALL", "MEDIUM", "LARGE", "XLARGE", "DLB"}},
				{name: "virtual_server_ids", shape: listShape, item: &field{shape: stringShape, min: 1}, ref: []Kind{KindVirtualServer}},
			},
			keys:  attachmentKeys,
			check: checkLBService,
			subs:  lbServiceSubs,
		},
		{
			name: KindVirtualServer, path: "loadbalancer/virtual-servers", types: []string{"LbVirtualServer"}, removed: removedLB, traffic: true,
			fields: []field{
				{name: "ip_address", shape: stringShape, required: true, check: checkAddress},
				{name: "ip_protocol", shape: stringShape, def: `"TCP"`, oneOf: []string{"TCP", "UDP"}},
				{name: "port", shape: stringShape, check: checkPortRange},
				{name: "ports", shape: listShape, required: true, min: 1, item: &field{shape: stringShape, check: checkPortRange}},
				{name: "default_pool_member_port", shape: stringShape, check: checkPortRange},
				{name: "default_pool_member_ports", shape: listShape, max: 14, item: &field{shape: stringShape, check: checkPortRange}},
				{name: "application_profile_id", shape: stringShape, required: true, ref: []Kind{KindApplicationProfile}},
				{name: "persistence_profile_id", shape: stringShape, ref: []Kind{KindPersistenceProfile}},
				{name: "pool_id", shape: stringShape, ref: []Kind{KindPool}},
				{name: "sorry_pool_id", shape: stringShape, ref: []Kind{KindPool}},
				{name: "rule_ids", shape: listShape, max: 4000, item: &field{shape: stringShape, min: 1}, ref: []Kind{KindRule}},
				{name: "client_tcp_profile_id", shape: stringShape, ref: []Kind{KindTCPProfile}},
				{name: "server_tcp_profile_id", shape: stringShape, ref: []Kind{KindTCPProfile}},
				{name: "enabled", shape: boolShape, def: "true"},
				{name: "access_log_enabled", shape: boolShape, def: "false"},
				{name: "max_concurrent_connections", shape: intShape, min: 1},
				{name: "max_new_connection_rate", shape: intShape, min: 1},
				{name: "client_ssl_profile_binding", shape: objectShape, fields: clientSSLBindingFields},
				{name: "server_ssl_profile_binding", shape: objectShape, fields: serverSSLBindingFields},
				{name: "access_list_control", shape: objectShape, since: accessListsSince, fields: []field{
					{name: "action", shape: stringShape, required: true, oneOf: []string{"ALLOW", "DROP"}},
					{name: "enabled", shape: boolShape, def: "false"},
					{name: "group_id", shape: stringShape, required: true, ref: []Kind{KindNSGroup}},
				}},
			},
			mirror: mirrorPorts,
			keys:   vipKeys,
			check:  checkVirtualServer,
			subs:   virtualServerSubs,
		},
		{
			name: KindPool, path: "loadbalancer/pools", types: []string{"LbPool"}, removed: removedLB, traffic: true,
			fields: []field{
				{name: "algorithm", shape: stringShape, def: `"ROUND_ROBIN"`,
					oneOf: []string{"ROUND_ROBIN", "WEIGHTED_ROUND_ROBIN", "LEAST_CONNECTION", "WEIGHTED_LEAST_CONNECTION", "IP_HASH"}},
				{name: "active_monitor_ids", shape: listShape, item: &field{shape: stringShape, min: 1}, ref: []Kind{KindMonitor}},
				{name: "passive_monitor_id", shape: stringShape, ref: []Kind{KindMonitor}},
				{name: "min_active_members", shape: intShape, def: "1", min: 1},
				{name: "tcp_multiplexing_enabled", shape: boolShape, def: "false"},
				{name: "tcp_multiplexing_number", shape: intShape, def: "6", min: 0},
				{name: "snat_translation", shape: objectShape, fields: []field{
					{name: "type", shape: stringShape, required: true, oneOf: []string{"LbSnatAutoMap", "LbSnatIpPool"}},
				}},
				{name: "members", shape: listShape, fields: memberFields},
				{name: "member_group", shape: objectShape, fields: []field{
					{name: "grouping_object", shape: objectShape, required: true, fields: []field{
						{name: "target_type", shape: stringShape, def: `"NSGroup"`, oneOf: []string{"NSGroup"}},
						{name: "target_id", shape: stringShape, required: true, ref: []Kind{KindNSGroup}},
					}},
					{name: "ip_revision_filter", shape: stringShape, def: `"IPV4"`, oneOf: []string{"IPV4", "IPV6", "IPV4_IPV6"}},
					{name: "max_ip_list_size", shape: intShape, min: 0, max: 2147483647},
					{name: "port", shape: intShape, min: 1, max: 65535},
					{name: "customized_members", shape: listShape, fields: memberSettingFields},
				}},
			},
			check: checkPool,
			subs:  poolSubs,
		},
		{
			name: KindMonitor, path: "loadbalancer/monitors", removed: removedLB, traffic: true,
			types: []string{"LbHttpMonitor", "LbHttpsMonitor", "LbTcpMonitor", "LbUdpMonitor", "LbIcmpMonitor", "LbPassiveMonitor"},
			fields: []field{
				{name: "interval", types: activeMonitors, shape: intShape, def: "5", min: 1, max: 2147483},
				{name: "fall_count", types: activeMonitors, shape: intShape, def: "3", min: 1, max: 2147483647},
				{name: "rise_count", types: activeMonitors, shape: intShape, def: "3", min: 1, max: 2147483647},
				{name: "timeout", types: activeMonitors, shape: intShape, def: "15", min: 1, max: 2147483},
				{name: "monitor_port", types: activeMonitors, shape: stringShape, check: checkPort},
				{name: "request_method", types: httpMonitors, shape: stringShape, def: `"GET"`, oneOf: []string{"GET", "OPTIONS", "POST", "HEAD", "PUT"}},
				{name: "request_url", types: httpMonitors, shape: stringShape, def: `"/"`},
				{name: "request_version", types: httpMonitors, shape: stringShape, def: `"HTTP_VERSION_1_1"`, oneOf: []string{"HTTP_VERSION_1_0", "HTTP_VERSION_1_1"}},
				{name: "request_headers", types: httpMonitors, shape: listShape, fields: []field{
					{name: "header_name", shape: stringShape, required: true},
					{name: "header_value", shape: stringShape, required: true},
				}},
				{name: "request_body", types: httpMonitors, shape: stringShape},
				{name: "response_status_codes", types: httpMonitors, shape: listShape, def: "[200]", max: 64, item: &field{shape: intShape, min: 100, max: 599}},
				{name: "response_body", types: httpMonitors, shape: stringShape},
				{name: "server_auth", types: httpsMonitor, shape: stringShape, def: `"IGNORE"`, oneOf: []string{"IGNORE", "REQUIRED"}},
				{name: "certificate_chain_depth", types: httpsMonitor, shape: intShape, def: "3", min: 1, max: 2147483647},
				{name: "server_auth_ca_ids", types: httpsMonitor, shape: listShape, item: certificateIDs, ref: certificateRefs},
				{name: "client_certificate_id", types: httpsMonitor, shape: stringShape, ref: certificateRefs},
				{name: "ciphers", types: httpsMonitor, shape: listShape, item: &field{shape: stringShape, min: 1}},
				{name: "protocols", types: httpsMonitor, shape: listShape, item: &tlsProtocols},
				{name: "send", types: []string{"LbUdpMonitor"}, shape: stringShape, required: true},
				{name: "receive", types: []string{"LbUdpMonitor"}, shape: stringShape, required: true},
				{name: "send", types: []string{"LbTcpMonitor"}, shape: stringShape},
				{name: "receive", types: []string{"LbTcpMonitor"}, shape: stringShape},
				{name: "data_length", types: []string{"LbIcmpMonitor"}, shape: intShape, def: "56", min: 0, max: 65507},
				{name: "max_fails", types: []string{"LbPassiveMonitor"}, shape: intShape, def: "5", min: 1, max: 2147483647},
				{name: "timeout", types: []string{"LbPassiveMonitor"}, shape: intShape, def: "5", min: 1, max: 2147483},
			},
			filters: map[string]func(document, string) bool{"type": ofType("Lb", "Monitor")},
		},
		{
			name: KindApplicationProfile, path: "loadbalancer/application-profiles", removed: removedLB, traffic: true,
			types: []string{"LbFastTcpProfile", "LbFastUdpProfile", "LbHttpProfile"},
			fields: []field{
				{name: "idle_timeout", types: []string{"LbFastTcpProfile"}, shape: intShape, def: "1800", min: 1, max: 2147483},
				{name: "close_timeout", types: []string{"LbFastTcpProfile"}, shape: intShape, def: "8", min: 1, max: 60},
				{name: "ha_flow_mirroring_enabled", types: []string{"LbFastTcpProfile"}, shape: boolShape, def: "false"},
				{name: "idle_timeout", types: []string{"LbFastUdpProfile"}, shape: intShape, def: "300", min: 1, max: 2147483},
				{name: "flow_mirroring_enabled", types: []string{"LbFastUdpProfile"}, shape: boolShape, def: "false"},
				{name: "idle_timeout", types: []string{"LbHttpProfile"}, shape: intShape, def: "15", min: 1, max: 5400},
				{name: "http_redirect_to", types: []string{"LbHttpProfile"}, shape: stringShape},
				{name: "request_body_size", types: []string{"LbHttpProfile"}, shape: intShape, min: 1, max: 2147483647},
				{name: "http_redirect_to_https", types: []string{"LbHttpProfile"}, shape: boolShape, def: "false"},
				{name: "ntlm", types: []string{"LbHttpProfile"}, shape: boolShape, def: "false"},
				{name: "request_header_size", types: []string{"LbHttpProfile"}, shape: intShape, def: "1024", min: 1, max: 65536},
				{name: "server_keep_alive", types: []string{"LbHttpProfile"}, shape: boolShape},
				{name: "response_timeout", types: []string{"LbHttpProfile"}, shape: intShape, def: "60", min: 1, max: 2147483},
				{name: "x_forwarded_for", types: []string{"LbHttpProfile"}, shape: stringShape, oneOf: []string{"INSERT", "REPLACE"}},
			},
			filters: map[string]func(document, string) bool{"type": ofType("Lb", "Profile")},
		},
		{
			name: KindPersistenceProfile, path: "loadbalancer/persistence-profiles", removed: removedLB, traffic: true,
			types: []string{"LbSourceIpPersistenceProfile", "LbCookiePersistenceProfile", "LbGenericPersistenceProfile"},
			fields: []field{
				{name: "persistence_shared", shape: boolShape, def: "false"},
				{name: "purge", types: sourceIPPersistence, shape: stringShape, def: `"FULL"`, oneOf: []string{"FULL", "NO_PURGE"}},
				{name: "timeout", types: sourceIPPersistence, shape: intShape, def: "300", min: 1, max: 2147483},
				{name: "ha_persistence_mirroring_enabled", types: sourceIPPersistence, shape: boolShape, def: "false"},
				{name: "timeout", types: genericPersistence, shape: intShape, def: "300", min: 1, max: 2147483},
				{name: "ha_persistence_mirroring_enabled", types: genericPersistence, shape: boolShape, def: "false"},
				{name: "cookie_name", types: cookiePersistence, shape: stringShape, required: true},
				{name: "cookie_domain", types: cookiePersistence, shape: stringShape},
				{name: "cookie_path", types: cookiePersistence, shape: stringShape},
				{name: "cookie_time", types: cookiePersistence, shape: objectShape, fields: []field{
					{name: "type", shape: stringShape, required: true, oneOf: []string{"LbSessionCookieTime", "LbPersistenceCookieTime"}},
					{name: "cookie_max_idle", shape: intShape, min: 1, max: 2147483647},
					{name: "cookie_max_life", shape: intShape, min: 1, max: 2147483647},
				}},
				{name: "cookie_mode", types: cookiePersistence, shape: stringShape, def: `"INSERT"`, oneOf: []string{"INSERT", "PREFIX", "REWRITE"}},
				{name: "cookie_fallback", types: cookiePersistence, shape: boolShape, def: "true"},
				{name: "cookie_garble", types: cookiePersistence, shape: boolShape, def: "true"},
				{name: "cookie_httponly", types: cookiePersistence, shape: boolShape},
				{name: "cookie_secure", types: cookiePersistence, shape: boolShape},
			},
			filters: map[string]func(document, string) bool{"type": ofType("Lb", "PersistenceProfile")},
		},
		{name: KindRule, path: "loadbalancer/rules", types: []string{"LbRule"}, removed: removedLB, traffic: true, fields: ruleFields, check: checkRule},
		{name: KindClientSSLProfile, path: "loadbalancer/client-ssl-profiles", types: []string{"LbClientSslProfile"}, removed: removedLB, traffic: true,
			fields: clientSSLFields, check: checkSSLProfile},
		{name: KindServerSSLProfile, path: "loadbalancer/server-ssl-profiles", types: []string{"LbServerSslProfile"}, removed: removedLB, traffic: true,
			fields: sslFields, check: checkSSLProfile},
		{name: KindTCPProfile, path: "loadbalancer/tcp-profiles", types: []string{"LbTcpProfile"}, removed: removedLB, fields: tcpProfileFields},
		{
			name: KindCertificate, path: "trust-management/certificates", types: []string{"certificate_signed", "certificate_self_signed", "certificate_ca"},
			fields: []field{
				{name: "pem_encoded", shape: stringShape, required: true, check: checkCertificates},
				{name: "private_key", shape: stringShape},
				{name: "passphrase", shape: stringShape},
				{name: "details", readOnly: true},
				{name: "used_by", readOnly: true},
			},
			mirror:  certificateType,
			check:   checkCertificate,
			imports: true,
		},
		{
			name: KindNSGroup, path: "ns-groups", types: []string{"NSGroup"}, removed: removedLB, traffic: true,
			fields: []field{
				{name: "members", shape: listShape, max: 500, fields: groupMemberFields},
				{name: "membership_criteria", shape: listShape, max: 5, fields: criterionFields},
				{name: "member_count", readOnly: true},
			},
			refs:     groupMemberRefs,
			check:    checkNSGroup,
			render:   renderMemberCount,
			populate: populateReferences,
			subs:     nsGroupSubs,
		},
		{
			name: KindIPSet, path: "ip-sets", types: []string{"IPSet"}, removed: removedLB, traffic: true,
			fields: []field{
				{name: "ip_addresses", shape: listShape, max: 4000, item: &field{shape: stringShape, check: checkAddressRange}},
			},
			keys: tagKeys,
		},
		{
			name: KindIPPool, path: "pools/ip-pools", types: []string{"IpPool"}, removed: removedLB,
			fields: []field{
				{name: "subnets", shape: listShape, max: 5, fields: []field{
					{name: "cidr", shape: stringShape, required: true, check: checkPrefix},
					{name: "allocation_ranges", shape: listShape, required: true, min: 1, fields: []field{
						{name: "start", shape: stringShape, required: true, check: checkAddress},
						{name: "end", shape: stringShape, required: true, check: checkAddress},
					}},
					{name: "gateway_ip", shape: stringShape, check: checkAddress},
					{name: "dns_nameservers", shape: listShape, max: 3, item: &field{shape: stringShape, check: checkAddress}},
				}},
				{name: "ip_release_delay", shape: intShape, min: 0},
				{name: "pool_usage", readOnly: true},
			},
			check:   checkIPPool,
			deleted: deletedIPPool,
			render:  renderPoolUsage,
			subs:    ipPoolSubs,
		},
		{
			name: KindLogicalRouter, path: "logical-routers", types: []string{"LogicalRouter"}, removed: removedLB,
			fields: []field{
				{name: "router_type", shape: stringShape, required: true, oneOf: []string{"TIER0", "TIER1", "VRF"}},
				{name: "edge_cluster_id", shape: stringShape, ref: []Kind{KindEdgeCluster}},
				{name: "high_availability_mode", shape: stringShape, oneOf: []string{"ACTIVE_ACTIVE", "ACTIVE_STANDBY"}},
				{name: "failover_mode", shape: stringShape, oneOf: []string{"PREEMPTIVE", "NON_PREEMPTIVE"}},
			},
			check:   checkLogicalRouter,
			deleted: deletedLogicalRouter,
			cascade: []Kind{KindLogicalRouterPort},
			filters: map[string]func(document, string) bool{"router_type": equals("router_type")},
			subs: slices.Concat(logicalRouterSubs,
				routerParts("routing/static-routes", KindStaticRoute, http.StatusOK), // VMware's own clients take nothing else
				routerParts("nat/rules", KindNatRule, http.StatusCreated)),
		},
		{
			name: KindLogicalRouterPort, path: "logical-router-ports", removed: removedLB,
			types: []string{"LogicalRouterUpLinkPort", "LogicalRouterDownLinkPort", "LogicalRouterLinkPortOnTIER0",
				"LogicalRouterLinkPortOnTIER1", "LogicalRouterLoopbackPort", "LogicalRouterIPTunnelPort", "LogicalRouterCentralizedServicePort"},
			fields: []field{
				{name: "logical_router_id", shape: stringShape, required: true, ref: []Kind{KindLogicalRouter}},
				{name: "linked_logical_router_port_id", types: []string{tier0LinkPort}, readOnly: true},
				{name: "mac_address", types: []string{downlinkPort}, shape: stringShape, def: `"02:50:56:56:44:52"`}, // that of all distributed routers
			},
			refs:   linkedPortRefs,
			check:  checkRouterPort,
			render: renderLinkedPort,
			filters: map[string]func(document, string) bool{
				"logical_router_id": equals("logical_router_id"),
				"resource_type":     equals("resource_type"),
			},
		},
		{
			name: KindEdgeCluster, path: "edge-clusters", types: []string{"EdgeCluster"},
			fields: []field{
				{name: "members", shape: listShape, fields: []field{
					{name: "transport_node_id", shape: stringShape, required: true},
				}},
				{name: "member_node_type", shape: stringShape, def: `"EDGE_NODE"`},
				{name: "deployment_type", shape: stringShape, def: `"VIRTUAL_MACHINE"`},
			},
		},
		{
			name: KindAdvertisement, types: []string{"AdvertisementConfig"}, removed: removedLB, traffic: true,
			fields: []field{
				{name: "enabled", shape: boolShape, def: "false"},
				{name: "advertise_nsx_connected_routes", shape: boolShape, def: "false"},
				{name: "advertise_static_routes", shape: boolShape, def: "false"},
				{name: "advertise_nat_routes", shape: boolShape, def: "false"},
				{name: "advertise_lb_vip", shape: boolShape, def: "false"},
				{name: "advertise_lb_snat_ip", shape: boolShape, def: "false"},
			},
			check: func(c *change) *Error { c.doc.set("logical_router_id", c.id); return nil },
		},
	}...)
}

var (
	activeMonitors      = []string{"LbHttpMonitor", "LbHttpsMonitor", "LbTcpMonitor", "LbUdpMonitor", "LbIcmpMonitor"}
	httpMonitors        = []string{"LbHttpMonitor", "LbHttpsMonitor"}
	sourceIPPersistence = []string{"LbSourceIpPersistenceProfile"}
	cookiePersistence   = []string{"LbCookiePersistenceProfile"}
	genericPersistence  = []string{"LbGenericPersistenceProfile"}
	httpsMonitor        = []string{"LbHttpsMonitor"}

	// A member of a group has settings only where they were given.
	memberSettingFields = []field{
		{name: "ip_address", shape: stringShape, required: true, check: checkAddress},
		{name: "port", shape: stringShape, check: checkPort},
		{name: "admin_state", shape: stringShape, def: `"ENABLED"`, oneOf: []string{"ENABLED", "DISABLED", "GRACEFUL_DISABLED"}},
	}
	memberFields = append([]field{
		{name: "weight", shape: intShape, def: "1", min: 1, max: 256},
		{name: "backup_member", shape: boolShape, def: "false"},
		{name: "max_concurrent_connections", shape: intShape, min: 1},
	}, memberSettingFields...)

	groupMemberFields = []field{
		{name: "resource_type", shape: stringShape, def: `"NSGroupSimpleExpression"`},
		{name: "op", shape: stringShape, required: true, oneOf: []string{"EQUALS", "CONTAINS", "STARTSWITH", "ENDSWITH", "NOTEQUALS"}},
		{name: "target_property", shape: stringShape, required: true},
		{name: "target_type", shape: stringShape, required: true},
		{name: "value", shape: stringShape, required: true},
	}

	// commonFields are those of every kind.
	commonFields = []field{
		{name: "display_name", shape: stringShape, max: 255},
		{name: "description", shape: stringShape, max: 1024},
		{name: "tags", shape: listShape, fields: []field{
			{name: "scope", shape: stringShape, max: 128},
			{name: "tag", shape: stringShape, max: 256},
		}},
		{name: "_revision", shape: intShape, orText: true},
		{name: "_create_time", readOnly: true},
		{name: "_create_user", readOnly: true},
		{name: "_last_modified_time", readOnly: true},
		{name: "_last_modified_user", readOnly: true},
		{name: "_protection", readOnly: true},
		{name: "_system_owned", readOnly: true},
		{name: "_links", readOnly: true},
		{name: "_schema", readOnly: true},
		{name: "_self", readOnly: true},
	}
)

// equals filters a list by the value of a field.
func equals(name string) func(document, string) bool {
	return func(doc document, v string) bool { return doc.str(name) == v }
}

// ofType filters a list by the short type that NSX's type parameter takes:
// FAST_TCP for LbFastTcpProfile, SOURCE_IP for LbSourceIpPersistenceProfile.
func ofType(prefix, suffix string) func(document, string) bool {
	return func(doc document, v string) bool {
		short := strings.TrimSuffix(strings.TrimPrefix(doc.str("resource_type"), prefix), suffix)
		return strings.EqualFold(short, strings.ReplaceAll(v, "_", ""))
	}
}
