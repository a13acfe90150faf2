package nsxsim_test

import (
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Plain kinds are made, read, replaced and deleted, and keep what they refer to.
func TestPlainKinds(t *testing.T) {
	for _, c := range []struct {
		path  string
		body  func(r *rig) doc
		wrong doc
		holds func(o nsxsim.Object) string // the path of what it keeps, if anything
	}{
		{path: "/ns-services", body: func(*rig) doc {
			return doc{"nsservice_element": doc{"resource_type": "L4PortSetNSService", "l4_protocol": "TCP", "destination_ports": []string{"80"}}}
		}, wrong: doc{"nsservice_element": doc{"resource_type": "Other"}}},
		{path: "/ns-service-groups", body: func(r *rig) doc {
			id := r.create("/ns-services", doc{"nsservice_element": doc{"resource_type": "EtherTypeNSService", "ether_type": 1500}})
			return doc{"members": []doc{{"target_id": id, "target_type": "NSService"}}}
		}, wrong: doc{"members": []doc{{"target_id": "none"}}}, holds: func(o nsxsim.Object) string {
			return "/ns-services/" + o["members"].([]any)[0].(doc)["target_id"].(string)
		}},
		{path: "/switching-profiles", body: func(*rig) doc { return doc{"resource_type": "QosSwitchingProfile"} }, wrong: doc{"resource_type": "Other"}},
		{path: "/dhcp/relay-profiles", body: func(*rig) doc { return doc{"server_addresses": []string{"10.0.0.1"}} }, wrong: doc{"server_addresses": []string{"x"}}},
		{path: "/dhcp/relays", body: func(r *rig) doc {
			return doc{"dhcp_relay_profile_id": r.create("/dhcp/relay-profiles", doc{"server_addresses": []string{"10.0.0.1"}})}
		}, wrong: doc{"dhcp_relay_profile_id": "none"}, holds: func(o nsxsim.Object) string { return "/dhcp/relay-profiles/" + o.String("dhcp_relay_profile_id") }},
		{path: "/dhcp/server-profiles", body: func(r *rig) doc { return doc{"edge_cluster_id": r.EdgeClusterID()} }, wrong: doc{"edge_cluster_id": "none"},
			holds: func(o nsxsim.Object) string { return "/edge-clusters/" + o.String("edge_cluster_id") }},
		{path: "/dhcp/servers", body: func(r *rig) doc {
			return doc{"dhcp_profile_id": r.create("/dhcp/server-profiles", doc{"edge_cluster_id": r.EdgeClusterID()}), "ipv4_dhcp_server": doc{"dhcp_server_ip": "10.0.0.2/24"}}
		}, wrong: doc{}, holds: func(o nsxsim.Object) string { return "/dhcp/server-profiles/" + o.String("dhcp_profile_id") }},
		{path: "/pools/ip-blocks", body: func(*rig) doc { return doc{"cidr": "10.0.0.0/16"} }, wrong: doc{"cidr": "10.0.0.0"}},
		{path: "/pools/mac-pools", body: func(*rig) doc {
			return doc{"ranges": []doc{{"start": "02:00:00:00:00:00", "end": "02:00:00:00:00:ff"}}}
		}, wrong: doc{"ranges": []doc{{"start": "02:00:00:00:00:00"}}}},
	} {
		t.Run(c.path, func(t *testing.T) {
			r := newRig(t, nsxsim.Options{})
			before := r.ok("GET", c.path, nil)["result_count"].(float64)
			id := r.create(c.path, c.body(r))
			one := c.path + "/" + id
			if a := r.do("POST", c.path, c.wrong); a.status != 400 {
				t.Errorf("%v: %d", c.wrong, a.status)
			}
			o := r.ok("GET", one, nil)
			o["tags"] = []doc{{"scope": "s", "tag": "t"}}
			if a := r.do("PUT", one, o); a.status != 200 || a.body.Revision() != 1 || a.body.Tags()["s"] != "t" {
				t.Errorf("PUT: %d %s", a.status, a.raw)
			}
			if a := r.do("PUT", one, o); a.status != 412 {
				t.Errorf("a stale PUT: %d", a.status)
			}
			if n := r.ok("GET", c.path, nil)["result_count"].(float64); n != before+1 {
				t.Errorf("%v are listed, were %v", n, before)
			}
			if c.holds != nil {
				if a := r.do("DELETE", c.holds(o), nil); a.status != 400 {
					t.Errorf("DELETE %s: %d", c.holds(o), a.status)
				}
			}
			r.ok("DELETE", one, nil)
			if a := newRig(t, nsxsim.Options{Version: "9.0"}).do("GET", c.path, nil); a.status != 404 {
				t.Errorf("in 9.0: %d", a.status)
			}
		})
	}
	r := newRig(t, nsxsim.Options{})
	if a := r.do("GET", "/switching-profiles?switching_profile_type=SpoofGuardSwitchingProfile", nil); a.body["result_count"] != 1.0 {
		t.Errorf("profiles of one type: %s", a.raw)
	}
	if a := r.do("DELETE", "/switching-profiles/"+r.named(nsxsim.KindSwitchingProfile, "nsx-default-mac-profile"), nil); a.status != 400 {
		t.Errorf("a profile of the system is deleted: %d", a.status)
	}
}
