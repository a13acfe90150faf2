package nsxsim

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// filled is a simulator with an inventory.
func filled(t *testing.T, text string) *Sim {
	t.Helper()
	sim, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	inventory, err := ParseInventory([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Load(inventory); err != nil {
		t.Fatal(err)
	}
	return sim
}

// What the documents of a whole load balancer mean for the data plane.
func TestTrafficOfTheDocuments(t *testing.T) {
	sim := filled(t, `
objects:
- {kind: LogicalRouter, id: t1, router_type: TIER1, edge_cluster_id: edge-cluster}
- {kind: AdvertisementConfig, id: t1, enabled: true, advertise_lb_vip: true}
- kind: LbService
  attachment: {target_type: LogicalRouter, target_id: t1}
  virtual_server_ids: [tcp, udp, idle]
- {kind: LbService, virtual_server_ids: [detached]}
- kind: LbVirtualServer
  id: tcp
  ip_address: 10.1.0.1
  ports: ["80", "100-102"]
  default_pool_member_ports: ["30080", "30100-30102"]
  application_profile_id: default-tcp-lb-app-profile
  persistence_profile_id: shared
  pool_id: nodes
  max_concurrent_connections: 7
  max_new_connection_rate: 8
  sorry_pool_id: group
  access_list_control: {action: DROP, enabled: true, group_id: bad}
- kind: LbVirtualServer
  id: udp
  ip_address: 2001:db8::1
  ip_protocol: UDP
  ports: ["53"]
  application_profile_id: default-udp-lb-app-profile
  pool_id: group
- {kind: LbVirtualServer, id: idle, ip_address: 10.1.0.2, ports: ["80"], application_profile_id: default-tcp-lb-app-profile, pool_id: nodes, enabled: false}
- {kind: LbVirtualServer, id: detached, ip_address: 10.1.0.3, ports: ["80"], application_profile_id: default-tcp-lb-app-profile}
- {kind: LbPersistenceProfile, id: shared, resource_type: LbSourceIpPersistenceProfile, persistence_shared: true, purge: NO_PURGE}
- {kind: IPSet, id: bad-set, ip_addresses: [172.16.0.0-172.31.255.254, 172.31.255.255, 192.0.2.1, 192.0.2.1/32]}
- {kind: NSGroup, id: bad, members: [{op: EQUALS, target_type: IPSet, target_property: id, value: bad-set}]}
- kind: LbPool
  id: nodes
  algorithm: WEIGHTED_ROUND_ROBIN
  min_active_members: 2
  snat_translation: {type: LbSnatIpPool, ip_addresses: [{ip_address: 10.2.0.4-10.2.0.5}, {ip_address: 10.2.0.9, prefix_length: 24}]}
  active_monitor_ids: [http, udp-monitor]
  members:
  - {ip_address: 10.0.0.1, weight: 3, max_concurrent_connections: 9}
  - {ip_address: 10.0.0.2, port: "8080", admin_state: GRACEFUL_DISABLED}
  - {ip_address: 10.0.0.3, backup_member: true}
- kind: LbPool
  id: group
  member_group: {grouping_object: {target_id: nodes-group}, max_ip_list_size: 2, port: 5353}
- {kind: IPSet, id: nodes-set, ip_addresses: [10.0.0.7-10.0.0.9]}
- {kind: NSGroup, id: nodes-group, members: [{op: EQUALS, target_type: IPSet, target_property: id, value: nodes-set}]}
- kind: LbMonitor
  id: http
  resource_type: LbHttpMonitor
  monitor_port: "10256"
  request_url: /healthz
  request_headers: [{header_name: Host, header_value: example.org}]
  response_status_codes: [200, 204]
  interval: 2
- {kind: LbMonitor, id: udp-monitor, resource_type: LbUdpMonitor, send: ping, receive: pong}
`)
	addr := netip.MustParseAddr
	nodes := &dataplane.Pool{
		ID: "nodes", Algorithm: dataplane.WeightedRoundRobin, SNAT: dataplane.AutoMap, MinActiveMembers: 2,
		SNATAddresses: []netip.Prefix{netip.MustParsePrefix("10.2.0.4/31"), netip.MustParsePrefix("10.2.0.9/32")},
		Members: []dataplane.Member{
			{Address: addr("10.0.0.1"), Weight: 3, AdminState: dataplane.Enabled, MaxConnections: 9},
			{Address: addr("10.0.0.2"), Port: 8080, Weight: 1, AdminState: dataplane.GracefulDisabled},
			{Address: addr("10.0.0.3"), Weight: 1, AdminState: dataplane.Enabled, Backup: true},
		},
		Monitors: []dataplane.Monitor{
			{ID: "http", Type: dataplane.MonitorHTTP, Port: 10256, Interval: 2 * time.Second, Timeout: 15 * time.Second, Fall: 3, Rise: 3,
				Version: dataplane.HTTP11, Method: "GET", URL: "/healthz", Headers: map[string]string{"Host": "example.org"}, StatusCodes: []int{200, 204}},
			{ID: "udp-monitor", Type: dataplane.MonitorUDP, Interval: 5 * time.Second, Timeout: 15 * time.Second, Fall: 3, Rise: 3, Send: "ping", Receive: "pong"},
		},
	}
	group := &dataplane.Pool{ID: "group", Algorithm: dataplane.RoundRobin, SNAT: dataplane.Transparent, MinActiveMembers: 1,
		Members: []dataplane.Member{
			{Address: addr("10.0.0.7"), Port: 5353, Weight: 1, AdminState: dataplane.Enabled},
			{Address: addr("10.0.0.8"), Port: 5353, Weight: 1, AdminState: dataplane.Enabled},
		}}
	want := dataplane.Config{VirtualServers: []dataplane.VirtualServer{
		{ID: "tcp", Address: addr("10.1.0.1"), Protocol: dataplane.TCP, Pool: nodes, SorryPool: group,
			Ports:          []dataplane.PortMap{{Listen: 80, Member: 30080}, {Listen: 100, Member: 30100}, {Listen: 101, Member: 30101}, {Listen: 102, Member: 30102}},
			Persistence:    &dataplane.Persistence{Timeout: 300 * time.Second, Shared: "shared", NoPurge: true},
			Access:         &dataplane.Access{Action: dataplane.Drop, Prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.0.2.1/32")}},
			MaxConnections: 7, MaxConnectionRate: 8, IdleTimeout: 1800 * time.Second},
		{ID: "udp", Address: addr("2001:db8::1"), Protocol: dataplane.UDP, Ports: []dataplane.PortMap{{Listen: 53}}, IdleTimeout: 300 * time.Second,
			Pool: group},
		{ID: "idle", Address: addr("10.1.0.2"), Protocol: dataplane.TCP, Ports: []dataplane.PortMap{{Listen: 80}}, Pool: nodes, IdleTimeout: 1800 * time.Second, Disabled: true},
	}}
	got := sim.traffic()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.VirtualServers[0].Pool != got.VirtualServers[2].Pool {
		t.Error("virtual servers that share a pool do not share it in the data plane")
	}
}

// Layer 7 profiles and passive monitors reach the data plane.
func TestTrafficOfLayer7AndPassiveMonitors(t *testing.T) {
	sim := filled(t, `
objects:
- {kind: LogicalRouter, id: t1, router_type: TIER1, edge_cluster_id: edge-cluster}
- {kind: AdvertisementConfig, id: t1, enabled: true, advertise_lb_vip: true}
- kind: LbService
  attachment: {target_type: LogicalRouter, target_id: t1}
  virtual_server_ids: [web, redirect]
- {kind: LbAppProfile, id: insert, resource_type: LbHttpProfile, x_forwarded_for: INSERT}
- {kind: LbAppProfile, id: secure, resource_type: LbHttpProfile, http_redirect_to_https: true}
- {kind: LbMonitor, id: passive, resource_type: LbPassiveMonitor, max_fails: 2, timeout: 7}
- {kind: LbPool, id: pool, passive_monitor_id: passive}
- {kind: LbVirtualServer, id: web, ip_address: 10.1.0.1, ports: ["80"], pool_id: pool, application_profile_id: insert}
- {kind: LbVirtualServer, id: redirect, ip_address: 10.1.0.2, ports: ["80"], application_profile_id: secure}
`)
	servers := sim.traffic().VirtualServers
	if len(servers) != 2 {
		t.Fatalf("%d virtual servers, want 2", len(servers))
	}
	if diff := cmp.Diff(&dataplane.HTTP{XForwardedFor: dataplane.ForwardedForInsert, RequestHeaderSize: 1024, ResponseTimeout: time.Minute}, servers[0].HTTP); diff != "" {
		t.Errorf("web (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&dataplane.HTTP{RedirectToHTTPS: true, RequestHeaderSize: 1024, ResponseTimeout: time.Minute}, servers[1].HTTP); diff != "" {
		t.Errorf("redirect (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&dataplane.Passive{MaxFails: 2, Timeout: 7 * time.Second}, servers[0].Pool.Passive); diff != "" {
		t.Errorf("passive monitor (-want +got):\n%s", diff)
	}
}
