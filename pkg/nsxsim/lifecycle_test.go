package nsxsim_test

import (
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// The order of calls that a controller makes for one service, up and down again.
func TestLifeCycleOfALoadBalancer(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	tier1 := nsxsim.Must(r.AddTier1("t1"))
	lb := nsxsim.Must(r.AddLBService("lb", "SMALL", tier1.ID()))
	vips := nsxsim.Must(r.AddIPPool("vips", "192.168.100.0/24", "192.168.100.10-192.168.100.20"))

	monitor := r.create(monitors, doc{"resource_type": "LbHttpMonitor", "monitor_port": "10256", "request_url": "/healthz"})
	pool := r.create(pools, doc{"active_monitor_ids": []string{monitor}, "members": []doc{{"ip_address": "10.0.0.1"}}})
	ip := r.ok("POST", ippools+"/"+vips.ID()+"?action=ALLOCATE", `{"allocation_id":null}`).String("allocation_id")
	vs := r.create(servers, r.tcpVS(ip, []string{"80"}, doc{"pool_id": pool, "default_pool_member_ports": []string{"30080"}}))
	service := r.ok("GET", services+"/"+lb.ID(), nil)
	service["virtual_server_ids"] = []string{vs}
	service = r.ok("PUT", services+"/"+lb.ID(), service)

	for _, path := range []string{servers + "/" + vs, pools + "/" + pool, monitors + "/" + monitor, "/logical-routers/" + tier1.ID()} {
		if a := r.do("DELETE", path, nil); a.status != 400 {
			t.Errorf("DELETE %s while in use: %d, want 400: %s", path, a.status, a.raw)
		}
	}

	service["virtual_server_ids"] = []string{}
	r.ok("PUT", services+"/"+lb.ID(), service)
	if a := r.do("POST", ippools+"/"+vips.ID()+"?action=RELEASE", doc{"allocation_id": ip}); a.status != 200 || a.raw != "" {
		t.Errorf("RELEASE: %d %q, want 200 and no body", a.status, a.raw)
	}
	for _, path := range []string{servers + "/" + vs, pools + "/" + pool, monitors + "/" + monitor} {
		if a := r.do("DELETE", path, nil); a.status != 200 || a.raw != "" {
			t.Errorf("DELETE %s: %d %q, want 200 and no body", path, a.status, a.raw)
		}
	}
	if left := append(r.List(nsxsim.KindVirtualServer), r.List(nsxsim.KindPool)...); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if left := r.Allocations(vips.ID()); len(left) > 0 {
		t.Errorf("allocations left over: %v", left)
	}
}
