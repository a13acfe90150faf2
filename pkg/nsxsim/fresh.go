package nsxsim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/uuid"
)

const (
	systemUser           = "system"
	overlayTransportZone = "nsx-overlay-transportzone"
)

// systemObject is made by NSX itself, with its defaults.
type systemObject struct {
	kind           Kind
	name, resource string
	more           Object
}

var systemObjects = []systemObject{
	{KindApplicationProfile, "default-tcp-lb-app-profile", "LbFastTcpProfile", nil},
	{KindApplicationProfile, "default-udp-lb-app-profile", "LbFastUdpProfile", nil},
	{KindApplicationProfile, "default-http-lb-app-profile", "LbHttpProfile", nil},
	{KindPersistenceProfile, "default-source-ip-lb-persistence-profile", "LbSourceIpPersistenceProfile", nil},
	{KindPersistenceProfile, "default-cookie-lb-persistence-profile", "LbCookiePersistenceProfile", Object{"cookie_name": "NSXLB"}},
	{KindMonitor, "default-tcp-lb-monitor", "LbTcpMonitor", nil},
	{KindMonitor, "default-http-lb-monitor", "LbHttpMonitor", nil},
	{KindMonitor, "default-https-lb-monitor", "LbHttpsMonitor", nil},
	{KindMonitor, "default-icmp-lb-monitor", "LbIcmpMonitor", nil},
	{KindMonitor, "default-passive-lb-monitor", "LbPassiveMonitor", nil},
	{KindClientSSLProfile, "default-balanced-client-ssl-profile", "LbClientSslProfile", nil},
	{KindServerSSLProfile, "default-balanced-server-ssl-profile", "LbServerSslProfile", nil},
	{KindTransportZone, overlayTransportZone, "TransportZone", Object{"transport_type": "OVERLAY", "is_default": true, "host_switch_name": "nsxHostSwitch"}},
	{KindTransportZone, "nsx-vlan-transportzone", "TransportZone", Object{"transport_type": "VLAN", "is_default": true, "host_switch_name": "nsxHostSwitch"}},
}

// populate makes what a fresh NSX has.
func (s *Sim) populate(empty bool) error {
	for _, o := range slices.Concat(systemObjects, plainSystemObjects) {
		if err := s.createSystem(o); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	if err := s.adoptSystemObjects(); err != nil {
		return err
	}
	if empty {
		return nil
	}
	cluster, err := s.As(DefaultUsername).Create(KindEdgeCluster, Object{
		"id": freshID("edge-cluster"), "display_name": "edge-cluster",
		"members": []any{
			map[string]any{"transport_node_id": freshID("edge-node-1"), "member_index": 0, "display_name": "edge-node-1"},
			map[string]any{"transport_node_id": freshID("edge-node-2"), "member_index": 1, "display_name": "edge-node-2"},
		},
	})
	if err != nil {
		return fmt.Errorf("the edge cluster: %w", err)
	}
	s.edgeClusterID = cluster.ID()
	if s.gone(s.kinds[KindLogicalRouter]) {
		return s.populateTier0()
	}
	tier0, err := s.As(DefaultUsername).Create(KindLogicalRouter, Object{
		"id": freshID("tier-0"), "display_name": "tier-0", "router_type": "TIER0",
		"high_availability_mode": "ACTIVE_STANDBY", "edge_cluster_id": s.edgeClusterID,
	})
	if err != nil {
		return fmt.Errorf("the tier-0 router: %w", err)
	}
	s.tier0ID = tier0.ID()
	return nil
}

// createSystem makes an object that the system owns: it cannot be deleted.
func (s *Sim) createSystem(o systemObject) error {
	object := Object{"id": freshID(o.name), "display_name": o.name, "resource_type": o.resource}
	maps.Copy(object, o.more)
	_, err := Editor{s, author{user: systemUser, system: true}}.Create(o.kind, object)
	return err
}

// freshID gives what a fresh NSX has the same id in each simulator, so that a
// snapshot of one can be loaded into another.
func freshID(name string) string {
	return uuid.NewSHA1(uuid.NameSpaceDNS, []byte("nsxsim/"+name)).String()
}

// Must gives the object, and panics on an error: for set-up in tests.
func Must(o Object, err error) Object {
	if err != nil {
		panic(err)
	}
	return o
}

// AddTier1 makes a tier-1 router on the edge cluster of the fresh NSX that
// advertises the addresses of virtual servers.
func (s *Sim) AddTier1(name string) (Object, error) {
	admin := s.As(DefaultUsername)
	router, err := admin.Create(KindLogicalRouter, Object{
		"display_name": name, "router_type": "TIER1", "edge_cluster_id": s.edgeClusterID,
	})
	if err != nil {
		return nil, fmt.Errorf("adding tier-1 router %s: %w", name, err)
	}
	_, err = admin.Update(KindAdvertisement, router.ID(), func(o Object) {
		o["enabled"], o["advertise_lb_vip"] = true, true
	})
	if err != nil {
		return nil, fmt.Errorf("advertising on tier-1 router %s: %w", name, err)
	}
	return router, nil
}

// AddLBService makes a load balancer service of the size (SMALL, MEDIUM, LARGE,
// XLARGE) on a tier-1 router; unattached when tier1ID is empty.
func (s *Sim) AddLBService(name, size, tier1ID string) (Object, error) {
	o := Object{"display_name": name, "size": size}
	if tier1ID != "" {
		o["attachment"] = map[string]any{"target_type": "LogicalRouter", "target_id": tier1ID}
	}
	service, err := s.As(DefaultUsername).Create(KindLBService, o)
	if err != nil {
		return nil, fmt.Errorf("adding load balancer service %s: %w", name, err)
	}
	return service, nil
}

// AddIPPool makes an IP pool of one subnet with the ranges
// ("192.168.100.10-192.168.100.50"), or all of the subnet when none is given.
func (s *Sim) AddIPPool(name, cidr string, ranges ...string) (Object, error) {
	fail := func(err error) (Object, error) { return nil, fmt.Errorf("adding IP pool %s: %w", name, err) }
	if len(ranges) == 0 {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return fail(err)
		}
		ranges = []string{prefix.Masked().String()}
	}
	var allocation []any
	for _, text := range ranges {
		r, err := parseAddressRange(text)
		if err != nil {
			return fail(err)
		}
		allocation = append(allocation, map[string]any{"start": r.From().String(), "end": r.To().String()})
	}
	pool, err := s.As(DefaultUsername).Create(KindIPPool, Object{
		"display_name": name,
		"subnets":      []any{map[string]any{"cidr": cidr, "allocation_ranges": allocation}},
	})
	if err != nil {
		return fail(err)
	}
	return pool, nil
}
