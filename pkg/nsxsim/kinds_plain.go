package nsxsim

// What stands beside load balancers in the same clients: services of firewalls, profiles
// of switches, DHCP, blocks of addresses. They are documents, with checks and
// references, and nothing comes of them.

// The plain kinds of the Manager API.
const (
	KindNSService        Kind = "NSService"
	KindNSServiceGroup   Kind = "NSServiceGroup"
	KindSwitchingProfile Kind = "SwitchingProfile"
	KindDhcpRelayProfile Kind = "DhcpRelayProfile"
	KindDhcpRelay        Kind = "DhcpRelayService"
	KindDhcpProfile      Kind = "DhcpProfile"
	KindDhcpServer       Kind = "LogicalDhcpServer"
	KindIPBlock          Kind = "IpBlock"
	KindMACPool          Kind = "MacPool"
)

func plainKinds() []*kind {
	address := &field{shape: stringShape, check: checkAddress}
	dhcpServer := []field{
		{name: "dhcp_server_ip", shape: stringShape, required: true, check: checkPrefix},
		{name: "dns_nameservers", shape: listShape, max: 2, item: address},
		{name: "domain_name", shape: stringShape},
		{name: "gateway_ip", shape: stringShape, check: checkAddress},
	}
	kinds := []*kind{
		{
			name: KindNSService, path: "ns-services", types: []string{"NSService"},
			fields: []field{
				{name: "nsservice_element", shape: objectShape, required: true, fields: []field{
					{name: "resource_type", shape: stringShape, required: true, oneOf: []string{"EtherTypeNSService", "IPProtocolNSService",
						"IGMPTypeNSService", "ICMPTypeNSService", "ALGTypeNSService", "L4PortSetNSService"}},
				}},
				{name: "default_service", readOnly: true},
			},
			// Clients write the type of the element there, too.
			mirror: func(doc document) { doc.set("resource_type", KindNSService) },
		},
		{
			name: KindNSServiceGroup, path: "ns-service-groups", types: []string{"NSServiceGroup"},
			fields: []field{
				{name: "members", shape: listShape, required: true, max: 50, fields: []field{
					{name: "target_id", shape: stringShape, required: true, ref: []Kind{KindNSService, KindNSServiceGroup}},
					{name: "target_type", shape: stringShape},
				}},
				{name: "default_service", readOnly: true},
			},
		},
		{
			name: KindSwitchingProfile, path: "switching-profiles",
			types: []string{"IpDiscoverySwitchingProfile", "MacManagementSwitchingProfile", "PortMirroringSwitchingProfile",
				"QosSwitchingProfile", "SpoofGuardSwitchingProfile", "SwitchSecuritySwitchingProfile"},
			filters: map[string]func(document, string) bool{"switching_profile_type": equals("resource_type")},
		},
		{
			name: KindDhcpRelayProfile, path: "dhcp/relay-profiles", types: []string{"DhcpRelayProfile"},
			fields: []field{{name: "server_addresses", shape: listShape, required: true, min: 1, item: address}},
		},
		{
			name: KindDhcpRelay, path: "dhcp/relays", types: []string{"DhcpRelayService"},
			fields: []field{{name: "dhcp_relay_profile_id", shape: stringShape, required: true, ref: []Kind{KindDhcpRelayProfile}}},
		},
		{
			name: KindDhcpProfile, path: "dhcp/server-profiles", types: []string{"DhcpProfile"},
			fields: []field{
				{name: "edge_cluster_id", shape: stringShape, required: true, ref: []Kind{KindEdgeCluster}},
				{name: "edge_cluster_member_indexes", shape: listShape, item: &field{shape: intShape}},
			},
		},
		{
			name: KindDhcpServer, path: "dhcp/servers", types: []string{"LogicalDhcpServer"},
			fields: []field{
				{name: "dhcp_profile_id", shape: stringShape, required: true, ref: []Kind{KindDhcpProfile}},
				{name: "ipv4_dhcp_server", shape: objectShape, fields: dhcpServer},
				{name: "attached_logical_port_id", readOnly: true},
			},
		},
		{
			name: KindIPBlock, path: "pools/ip-blocks", types: []string{"IpBlock"},
			fields: []field{{name: "cidr", shape: stringShape, required: true, check: checkPrefix}},
		},
		{
			name: KindMACPool, path: "pools/mac-pools", types: []string{"MacPool"},
			fields: []field{{name: "ranges", shape: listShape, fields: []field{
				{name: "start", shape: stringShape, required: true},
				{name: "end", shape: stringShape, required: true},
			}}},
		},
	}
	for _, k := range kinds {
		k.removed = removedLB
	}
	return kinds
}

// plainSystemObjects are there from the start.
var plainSystemObjects = []systemObject{
	{KindSwitchingProfile, "nsx-default-ip-discovery-overlay-profile", "IpDiscoverySwitchingProfile", Object{"dhcp_snooping_enabled": true, "arp_snooping_enabled": true}},
	{KindSwitchingProfile, "nsx-default-mac-profile", "MacManagementSwitchingProfile", Object{"mac_change_allowed": false}},
	{KindSwitchingProfile, "nsx-default-qos-switching-profile", "QosSwitchingProfile", Object{"class_of_service": 0}},
	{KindSwitchingProfile, "nsx-default-spoof-guard-vif-profile", "SpoofGuardSwitchingProfile", Object{"white_list_providers": []string{}}},
	{KindSwitchingProfile, "nsx-default-switch-security-vif-profile", "SwitchSecuritySwitchingProfile", Object{"block_non_ip_traffic": false}},
	{KindNSService, "DNS", "NSService", service("DNS", "UDP", "53")},
	{KindNSService, "HTTP", "NSService", service("HTTP", "TCP", "80")},
	{KindNSService, "HTTPS", "NSService", service("HTTPS", "TCP", "443")},
	{KindNSService, "SSH", "NSService", service("SSH", "TCP", "22")},
	{KindNSService, "WINS", "NSService", service("WINS", "TCP", "1512")},
	{KindMACPool, "DefaultMacPool", "MacPool", Object{"ranges": []any{map[string]any{"start": "04:50:56:00:00:00", "end": "04:50:56:00:A7:F7"}}}},
}

func service(name, protocol, port string) Object {
	return Object{"description": name, "nsservice_element": map[string]any{"resource_type": "L4PortSetNSService", "l4_protocol": protocol,
		"source_ports": []string{}, "destination_ports": []string{port}}}
}
