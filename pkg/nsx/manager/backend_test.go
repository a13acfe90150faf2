package manager_test

import (
	"net/netip"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

const (
	createVS  = "POST /loadbalancer/virtual-servers"
	writeVS   = "PUT /loadbalancer/virtual-servers/{id}"
	deleteVS  = "DELETE /loadbalancer/virtual-servers/{id}"
	allocate  = "POST /pools/ip-pools/{id}?action=ALLOCATE"
	release   = "POST /pools/ip-pools/{id}?action=RELEASE"
	writeLB   = "PUT /loadbalancer/services/{id}"
	newPool   = "POST /loadbalancer/pools"
	writePool = "PUT /loadbalancer/pools/{id}"
	delPool   = "DELETE /loadbalancer/pools/{id}"
	newMon    = "POST /loadbalancer/monitors"
	delMon    = "DELETE /loadbalancer/monitors/{id}"
)

func TestLifeCycle(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.must(w.publish(owner("first"), w.tcp(1)))
	w.sim.Journal().Reset()

	w.must(w.publish(owner("web"), w.tcp(2), w.udp(2)))
	w.wantWrites(map[string]int{createVS: 2, allocate: 1, writeLB: 1})
	w.wantAllocated("10.0.0.1", "10.0.0.2")

	w.must(w.withdraw(owner("web")))
	w.wantWrites(map[string]int{writeLB: 1, deleteVS: 2, release: 1})
	w.wantAllocated("10.0.0.1")

	w.must(w.withdraw(owner("first")))
	w.wantWrites(map[string]int{writeLB: 1, deleteVS: 1, release: 1})
	w.must(w.Tidy(t.Context()))
	w.wantWrites(map[string]int{delPool: 1, delMon: 1})
	w.wantNothing()
}

func TestLocalPolicy(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	v := w.tcp(1)
	v.Pool = localPool(31000)
	w.must(w.publish(owner("first"), v))
	w.sim.Journal().Reset()

	v = w.tcp(2)
	v.Pool = localPool(31001)
	o := owner("web")
	w.must(w.publish(o, v))
	w.wantWrites(map[string]int{newMon: 1, newPool: 1, createVS: 1, allocate: 1, writeLB: 1})

	have := w.Inventory().Observe(o)
	if got := have.VirtualServers[0]; !got.Pool.Equal(v.Pool) || got.Claim != nsx.Claimed || !got.Attached() {
		t.Fatalf("observed %+v", got)
	}
	w.restart()
	w.wantWrites(map[string]int{})
	if again := w.Inventory().Observe(o); !again.VirtualServers[0].Pool.Equal(v.Pool) || len(again.Pools) != 1 || len(again.Monitors) != 1 {
		t.Fatalf("after a restart observed %+v", again)
	}
	for _, o := range []nsx.Owner{o, owner("first")} {
		have := w.Inventory().Observe(o)
		w.must(w.withdraw(o))
		w.must(w.Apply(t.Context(), nsx.Collect{Owner: o, Pools: []string{have.Pools[0].ID}, Monitors: have.Monitors}))
	}
	w.must(w.Tidy(t.Context()))
	w.wantNothing()
}

func TestNodeChangeIsOneWriteASharedObject(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	local := w.tcp(2)
	local.Pool = localPool(31000)
	w.must(w.publish(owner("a"), w.tcp(1)))
	w.must(w.publish(owner("b"), local))
	w.sim.Journal().Reset()
	w.must(w.SetNodes(t.Context(), nodes("a", "b", "c")))
	w.wantWrites(map[string]int{writePool: 1, "PUT /ip-sets/{id}": 1})
	w.must(w.SetNodes(t.Context(), nodes("a", "b", "c")))
	w.wantWrites(map[string]int{})

	w.must(w.SetNodes(t.Context(), nil))
	w.wantWrites(map[string]int{}) // a pool is never emptied
}

func TestForeignObjectsAndFieldsSurvive(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	foreign := nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindVirtualServer, nsxsim.Object{
		"ip_address": "10.0.0.3", "ip_protocol": "TCP", "ports": []string{"80"}, "application_profile_id": w.tcp(1).ApplicationProfile,
	}))
	_, err := w.sim.As("somebody").Update(nsxsim.KindLBService, w.lb, func(o nsxsim.Object) {
		o["virtual_server_ids"] = []string{foreign.ID()}
		o["relax_scale_validation"] = true
	})
	w.must(err)
	// Our revision of the document is stale by now.
	w.must(w.publish(owner("web"), w.tcp(1)))
	lb := w.sim.Get(nsxsim.KindLBService, w.lb)
	if ids := lb.Strings("virtual_server_ids"); len(ids) != 2 || ids[0] != foreign.ID() || lb["relax_scale_validation"] != true {
		t.Fatalf("load-balancer service is %v", lb)
	}
	w.must(w.withdraw(owner("web")))
	lb = w.sim.Get(nsxsim.KindLBService, w.lb)
	if ids := lb.Strings("virtual_server_ids"); len(ids) != 1 || lb["relax_scale_validation"] != true {
		t.Fatalf("load-balancer service is %v", lb)
	}
}

func TestPortsAndAffinityUpdate(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	o := owner("web")
	w.must(w.publish(o, w.tcp(1)))
	w.sim.Journal().Reset()
	v := w.tcp(1)
	v.ID = w.Inventory().Observe(o).VirtualServers[0].ID
	v.Ports = []nsx.PortMap{{Port: 443, NodePort: 30443}, {Port: 8080, NodePort: 30081}}
	w.must(w.Apply(t.Context(), nsx.Update{Owner: o, VirtualServers: []nsx.VirtualServer{v}, Changes: []string{"ports"}}))
	w.wantWrites(map[string]int{writeVS: 1})
	doc := w.sim.Get(nsxsim.KindVirtualServer, v.ID)
	if doc.String("port") != "443" || doc.Strings("default_pool_member_ports")[1] != "30081" {
		t.Fatalf("virtual server is %v", doc)
	}
	if got := w.Inventory().Observe(o).VirtualServers[0].VirtualServer; got.Address != netip.MustParseAddr("10.0.0.1") || len(got.Ports) != 2 {
		t.Fatalf("observed %v", got)
	}
}
