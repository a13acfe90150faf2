package nsxsim_test

import (
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func TestNetworks(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	overlay, vlan := r.named(nsxsim.KindTransportZone, "nsx-overlay-transportzone"), r.named(nsxsim.KindTransportZone, "nsx-vlan-transportzone")
	if a := r.do("POST", "/logical-switches", doc{"transport_zone_id": vlan, "admin_state": "UP"}); a.status != 400 || !strings.Contains(a.message(), "vlan") {
		t.Errorf("a VLAN switch without a VLAN: %d %s", a.status, a.raw)
	}
	if a := r.do("POST", "/logical-switches", doc{"transport_zone_id": vlan, "admin_state": "UP", "vlan": 7, "replication_mode": "MTEP"}); a.status != 201 || a.body["replication_mode"] != nil {
		t.Errorf("in a VLAN nothing is replicated: %d %s", a.status, a.raw)
	}
	network := r.create("/logical-switches", doc{"transport_zone_id": overlay, "admin_state": "UP", "replication_mode": "MTEP"})
	if got := r.ok("GET", "/logical-switches/"+network+"/state", nil); got["state"] != "success" {
		t.Errorf("state: %v", got)
	}
	port := r.create("/logical-ports", doc{"logical_switch_id": network, "admin_state": "UP"})
	group := r.create("/ns-groups", doc{"members": []doc{{"op": "EQUALS", "target_type": "LogicalPort", "target_property": "id", "value": port}}})
	if got := r.ok("GET", "/ns-groups/"+group+"/effective-ip-address-members", nil); got["result_count"] != 0.0 {
		t.Errorf("a port has no addresses of ours: %v", got)
	}
	if a := r.do("DELETE", "/logical-ports/"+port, nil); a.status != 400 {
		t.Errorf("a port that a group refers to is deleted: %d", a.status)
	}
	r.ok("DELETE", "/ns-groups/"+group, nil)
	r.ok("DELETE", "/logical-switches/"+network+"?force=true", nil)
	if a := r.do("GET", "/logical-ports/"+port, nil); a.status != 404 {
		t.Errorf("the switch is gone, its port answers %d", a.status)
	}
}

func TestPartsOfRouters(t *testing.T) {
	for _, tc := range []struct {
		path    string
		body    doc
		created int
	}{
		{"/routing/static-routes", doc{"network": "10.0.0.0/8", "next_hops": []doc{{"ip_address": "192.0.2.1"}}}, 200},
		{"/nat/rules", doc{"action": "SNAT", "match_source_network": "10.0.0.0/8", "translated_network": "192.0.2.1"}, 201},
	} {
		t.Run(tc.path, func(t *testing.T) {
			r := newRig(t, nsxsim.Options{})
			router, other := r.create("/logical-routers", doc{"router_type": "TIER1"}), r.create("/logical-routers", doc{"router_type": "TIER1"})
			base := "/logical-routers/" + router + tc.path
			made := r.do("POST", base, tc.body)
			if made.status != tc.created || made.body["logical_router_id"] != router {
				t.Fatalf("POST: %d %s", made.status, made.raw)
			}
			one := base + "/" + made.body.ID()
			if got := r.ok("GET", base, nil); got["result_count"] != 1.0 {
				t.Errorf("list: %v", got)
			}
			if a := r.do("GET", "/logical-routers/"+other+tc.path, nil); a.body["result_count"] != 0.0 {
				t.Errorf("list of the other router: %s", a.raw)
			}
			if a := r.do("GET", "/logical-routers/"+other+tc.path+"/"+made.body.ID(), nil); a.status != 404 {
				t.Errorf("found on the other router: %d", a.status)
			}
			if a := r.do("POST", base, doc{}); a.status != 400 || a.code() != "255" {
				t.Errorf("without what is required: %d %s", a.status, a.raw)
			}
			changed := r.ok("GET", one, nil)
			changed["description"] = "changed"
			if a := r.do("PUT", one, changed); a.status != 200 || a.body["description"] != "changed" {
				t.Errorf("PUT: %d %s", a.status, a.raw)
			}
			if a := r.do("PUT", one, changed); a.status != 412 {
				t.Errorf("a stale PUT: %d", a.status)
			}
			if a := r.do("DELETE", "/logical-routers/"+router, nil); a.status != 400 {
				t.Errorf("a router with parts is deleted: %d", a.status)
			}
			again := newRig(t, nsxsim.Options{})
			if err := again.Load(r.Snapshot()); err != nil {
				t.Errorf("its snapshot does not load: %v", err)
			}
			if a := again.do("GET", one, nil); a.status != 200 {
				t.Errorf("in a snapshot: %d", a.status)
			}
			if a := r.do("DELETE", one, nil); a.status != 200 || a.raw != "" {
				t.Errorf("DELETE: %d %s", a.status, a.raw)
			}
			r.ok("DELETE", "/logical-routers/"+router, nil)
		})
	}
}

// An SSL profile is secure when all its protocols and ciphers are.
func TestSecureSSLProfiles(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	for body, want := range map[string]bool{
		`{"protocols":["TLS_V1_2"],"ciphers":["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]}`: true,
		`{"protocols":["TLS_V1_2"],"ciphers":["TLS_RSA_WITH_3DES_EDE_CBC_SHA"]}`:           false,
		`{"protocols":["TLS_V1"]}`: false,
	} {
		for _, path := range []string{clientSSL, serverSSL} {
			if a := r.do("POST", path, body); a.body["is_secure"] != want {
				t.Errorf("%s of %s: is_secure is %v", path, body, a.body["is_secure"])
			}
		}
	}
}
