//lint:file-ignore SA1019 NSX has deprecated its load balancer as a whole

package nsxsdk

import (
	"errors"
	"net/http"
	"testing"
	"time"

	vapierrors "github.com/vmware/vsphere-automation-sdk-go/lib/vapi/std/errors"
	"github.com/vmware/vsphere-automation-sdk-go/runtime/bindings"
	"github.com/vmware/vsphere-automation-sdk-go/runtime/data"
	"github.com/vmware/vsphere-automation-sdk-go/runtime/protocol/client"
	"github.com/vmware/vsphere-automation-sdk-go/runtime/security"
	nsx_policy "github.com/vmware/vsphere-automation-sdk-go/services/nsxt"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/domains"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/ip_pools"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/lb_services"
	lb_pools "github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/lb_services/lb_pools"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/realized_state"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/infra/tier_1s"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/model"
	"github.com/vmware/vsphere-automation-sdk-go/services/nsxt/search"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// connect gives the SDK's connector on a simulator that listens.
func connect(t *testing.T, o nsxsim.Options) (*nsxsim.Server, client.Connector) {
	t.Helper()
	srv := nsxsim.Start(t, o)
	hc := srv.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	t.Cleanup(hc.CloseIdleConnections)
	return srv, client.NewConnector(srv.URL, client.UsingRest(nil), client.WithHttpClient(&http.Client{Transport: hc.Transport}),
		client.WithSecurityContext(security.NewUserPasswordSecurityContext(nsxsim.DefaultUsername, nsxsim.DefaultPassword)))
}

// structOf gives an object of a type that the SDK takes as one of several.
func structOf(t *testing.T, v any, binding bindings.BindingType) *data.StructValue {
	t.Helper()
	value, errs := bindings.NewTypeConverter().ConvertToVapi(v, binding)
	if errs != nil {
		t.Fatal(errs)
	}
	return value.(*data.StructValue)
}

// from is the way back.
func from[T any](t *testing.T, v *data.StructValue, binding bindings.BindingType) T {
	t.Helper()
	value, errs := bindings.NewTypeConverter().ConvertToGolang(v, binding)
	if errs != nil {
		t.Fatal(errs)
	}
	return value.(T)
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func ptr[T any](v T) *T { return &v }

// realized waits until an intent is realised and gives the entities.
func realized(t *testing.T, c client.Connector, path string) []model.GenericPolicyRealizedResource {
	t.Helper()
	entities := realized_state.NewRealizedEntitiesClient(c)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-tick.C {
		list, err := entities.List(path, nil)
		ok(t, "realised entities of "+path, err)
		if len(list.Results) > 0 && *list.Results[0].State == model.GenericPolicyRealizedResource_STATE_REALIZED {
			return list.Results
		}
	}
	t.Fatalf("%s is not realised", path)
	return nil
}

func TestLifeOfALoadBalancer(t *testing.T) {
	srv, c := connect(t, nsxsim.Options{RealizationDelay: 50 * time.Millisecond})

	cluster := "/infra/sites/default/enforcement-points/default/edge-clusters/" + srv.EdgeClusterID()
	tier1s, locales := infra.NewTier1sClient(c), tier_1s.NewLocaleServicesClient(c)
	ok(t, "tier-1", tier1s.Patch("t1", model.Tier1{RouteAdvertisementTypes: []string{model.Tier1_ROUTE_ADVERTISEMENT_TYPES_LB_VIP}}))
	ok(t, "locale services", locales.Patch("t1", "default", model.LocaleServices{EdgeClusterPath: &cluster}))
	routes := tier_1s.NewStaticRoutesClient(c)
	ok(t, "static route", routes.Patch("t1", "r", model.StaticRoutes{Network: ptr("10.0.0.0/24"), NextHops: []model.RouterNexthop{{IpAddress: ptr("10.0.0.1")}}}))
	services := infra.NewLbServicesClient(c)
	service, err := services.Update("lb", model.LBService{ConnectivityPath: ptr("/infra/tier-1s/t1"), Size: ptr(model.LBService_SIZE_SMALL)})
	ok(t, "LB service", err)

	pools, subnets, allocations := infra.NewIpPoolsClient(c), ip_pools.NewIpSubnetsClient(c), ip_pools.NewIpAllocationsClient(c)
	ok(t, "IP pool", pools.Patch("vips", model.IpAddressPool{}))
	ok(t, "IP subnet", subnets.Patch("vips", "s", structOf(t, model.IpAddressPoolStaticSubnet{
		ResourceType: model.IpAddressPoolSubnet_RESOURCE_TYPE_IPADDRESSPOOLSTATICSUBNET, Cidr: ptr("10.9.0.0/24"),
		AllocationRanges: []model.IpPoolRange{{Start: ptr("10.9.0.10"), End: ptr("10.9.0.20")}},
	}, model.IpAddressPoolStaticSubnetBindingType())))
	ok(t, "IP allocation", allocations.Patch("vips", "web", model.IpAddressAllocation{Tags: []model.Tag{{Scope: ptr("service"), Tag: ptr("web")}}}))
	attributes := realized(t, c, "/infra/ip-pools/vips/ip-allocations/web")[0].ExtendedAttributes
	if len(attributes) != 1 || *attributes[0].Key != "allocation_ip" || attributes[0].Values[0] != "10.9.0.10" {
		t.Fatalf("attributes of the allocation: %+v", attributes)
	}

	groups := domains.NewGroupsClient(c)
	ok(t, "group", groups.Patch("default", "nodes", model.Group{Expression: []*data.StructValue{structOf(t, model.IPAddressExpression{
		ResourceType: model.Expression_RESOURCE_TYPE_IPADDRESSEXPRESSION, IpAddresses: []string{"10.0.0.1", "10.0.0.2"},
	}, model.IPAddressExpressionBindingType())}}))
	monitors := infra.NewLbMonitorProfilesClient(c)
	monitor, err := monitors.Update("healthz", structOf(t, model.LBHttpMonitorProfile{
		ResourceType: model.LBMonitorProfile_RESOURCE_TYPE_LBHTTPMONITORPROFILE, MonitorPort: ptr(int64(10256)), RequestUrl: ptr("/healthz"),
	}, model.LBHttpMonitorProfileBindingType()))
	ok(t, "monitor", err)
	if m := from[model.LBHttpMonitorProfile](t, monitor, model.LBHttpMonitorProfileBindingType()); *m.Interval != 5 || m.ResponseStatusCodes[0] != 200 {
		t.Errorf("defaults of the monitor: %+v", m)
	}
	lbPools := infra.NewLbPoolsClient(c)
	pool, err := lbPools.Update("web", model.LBPool{ActiveMonitorPaths: []string{"/infra/lb-monitor-profiles/healthz"},
		MemberGroup: &model.LBPoolMemberGroup{GroupPath: ptr("/infra/domains/default/groups/nodes"), MaxIpListSize: ptr(int64(10))}})
	ok(t, "pool", err)
	ok(t, "persistence profile", infra.NewLbPersistenceProfilesClient(c).Patch("sticky", structOf(t, model.LBSourceIpPersistenceProfile{
		ResourceType: model.LBPersistenceProfile_RESOURCE_TYPE_LBSOURCEIPPERSISTENCEPROFILE, Timeout: ptr(int64(10800)),
	}, model.LBSourceIpPersistenceProfileBindingType())))
	ok(t, "application profile", infra.NewLbAppProfilesClient(c).Patch("tcp", structOf(t, model.LBFastTcpProfile{
		ResourceType: model.LBAppProfile_RESOURCE_TYPE_LBFASTTCPPROFILE,
	}, model.LBFastTcpProfileBindingType())))
	servers := infra.NewLbVirtualServersClient(c)
	ok(t, "virtual server", servers.Patch("web", model.LBVirtualServer{
		IpAddress: ptr("10.9.0.10"), Ports: []string{"80", "443"}, DefaultPoolMemberPorts: []string{"30080", "30443"}, PoolPath: pool.Path,
		ApplicationProfilePath: ptr("/infra/lb-app-profiles/tcp"), LbPersistenceProfilePath: ptr("/infra/lb-persistence-profiles/sticky"),
		LbServicePath: service.Path, Tags: []model.Tag{{Scope: ptr("owner"), Tag: ptr("me")}}}))
	entity := realized(t, c, "/infra/lb-virtual-servers/web")[0]
	if vs := srv.Get(nsxsim.KindVirtualServer, *entity.RealizationSpecificIdentifier); vs == nil || vs.String("_create_user") != "nsx_policy" {
		t.Errorf("the Manager's virtual server: %v", vs)
	}

	list, err := servers.List(nil, nil, nil, nil, nil, nil)
	ok(t, "list", err)
	if *list.ResultCount != 1 || *list.Results[0].Path != "/infra/lb-virtual-servers/web" || *list.Results[0].Tags[0].Tag != "me" {
		t.Errorf("list: %+v", list)
	}
	found, err := search.NewQueryClient(c).List("resource_type:LBVirtualServer AND tags.tag:me", nil, nil, nil, nil, nil)
	ok(t, "search", err)
	if *found.ResultCount != 1 {
		t.Errorf("search: %+v", found)
	}
	status, err := lb_services.NewDetailedStatusClient(c).Get("lb", nil, nil, nil, nil)
	ok(t, "status of the service", err)
	s := from[model.LBServiceStatus](t, status.Results[0], model.LBServiceStatusBindingType())
	if *s.ServiceStatus != model.LBServiceStatus_SERVICE_STATUS_UP || len(s.VirtualServers) != 1 || len(s.Pools) != 1 || *s.Pools[0].PoolPath != "/infra/lb-pools/web" {
		t.Errorf("status: %+v", s)
	}
	poolStatus, err := lb_pools.NewDetailedStatusClient(c).Get("lb", "web", nil, nil)
	ok(t, "status of the pool", err)
	if p := from[model.LBPoolStatus](t, poolStatus.Results[0], model.LBPoolStatusBindingType()); len(p.Members) != 2 || *p.Members[0].IpAddress != "10.0.0.1" {
		t.Errorf("status of the pool: %+v", p)
	}
	statistics, err := lb_services.NewStatisticsClient(c).Get("lb", nil, nil)
	ok(t, "statistics", err)
	if s := from[model.LBServiceStatistics](t, statistics.Results[0], model.LBServiceStatisticsBindingType()); len(s.Pools) != 1 || len(s.VirtualServers) != 1 {
		t.Errorf("statistics: %+v", s)
	}
	usage, err := lb_services.NewServiceUsageClient(c).Get("lb", nil, nil)
	ok(t, "usage", err)
	if u := from[model.LBServiceUsage](t, usage.Results[0], model.LBServiceUsageBindingType()); *u.CurrentVirtualServerCount != 1 || *u.PoolMemberCapacity == 0 {
		t.Errorf("usage: %+v", u)
	}

	for _, step := range []struct {
		what   string
		remove func() error
	}{
		{"virtual server", func() error { return servers.Delete("web", nil) }},
		{"pool", func() error { return lbPools.Delete("web", nil) }},
		{"monitor", func() error { return monitors.Delete("healthz", nil) }},
		{"group", func() error { return groups.Delete("default", "nodes", nil, nil) }},
		{"IP allocation", func() error { return allocations.Delete("vips", "web") }},
		{"IP subnet", func() error { return subnets.Delete("vips", "s", nil) }},
		{"IP pool", func() error { return pools.Delete("vips") }},
		{"LB service", func() error { return services.Delete("lb", nil) }},
		{"static route", func() error { return routes.Delete("t1", "r") }},
		{"locale services", func() error { return locales.Delete("t1", "default") }},
		{"tier-1", func() error { return tier1s.Delete("t1") }},
	} {
		ok(t, "deleting the "+step.what, step.remove())
	}
}

func TestTheErrors(t *testing.T) {
	_, c := connect(t, nsxsim.Options{})
	pools := infra.NewLbPoolsClient(c)
	first, err := pools.Update("p", model.LBPool{})
	ok(t, "pool", err)
	if _, err := pools.Update("p", first); err != nil {
		t.Errorf("an update with the revision: %v", err)
	}
	_, err = pools.Update("p", first)
	if stale := new(vapierrors.InvalidRequest); !errors.As(err, stale) {
		t.Errorf("a stale update: %T %v", err, err)
	}
	_, err = pools.Get("none")
	if missing := new(vapierrors.NotFound); !errors.As(err, missing) {
		t.Errorf("an unknown pool: %T %v", err, err)
	}
	err = pools.Patch("p", model.LBPool{ActiveMonitorPaths: []string{"/infra/lb-monitor-profiles/none"}})
	invalid := new(vapierrors.InvalidRequest)
	if !errors.As(err, invalid) {
		t.Fatalf("an unknown path: %T %v", err, err)
	}
	if api := from[model.ApiError](t, invalid.Data, model.ApiErrorBindingType()); *api.ErrorCode != 500012 || *api.ErrorMessage != "The path=[/infra/lb-monitor-profiles/none] is invalid" {
		t.Errorf("error: %+v", api)
	}
}

func TestATree(t *testing.T) {
	_, c := connect(t, nsxsim.Options{})
	trees := nsx_policy.NewInfraClient(c)
	child := func(id string, gone bool) *data.StructValue {
		return structOf(t, model.ChildLBPool{ResourceType: "ChildLBPool", MarkedForDelete: &gone,
			LbPool: &model.LBPool{Id: &id, ResourceType: ptr("LBPool")}}, model.ChildLBPoolBindingType())
	}
	ok(t, "creating", trees.Patch(model.Infra{ResourceType: ptr("Infra"), Children: []*data.StructValue{child("a", false), child("b", false)}}, nil))
	ok(t, "replacing", trees.Patch(model.Infra{ResourceType: ptr("Infra"), Children: []*data.StructValue{child("a", true), child("c", false)}}, nil))
	list, err := infra.NewLbPoolsClient(c).List(nil, nil, nil, nil, nil, nil)
	ok(t, "list", err)
	if *list.ResultCount != 2 || *list.Results[0].Id != "b" || *list.Results[1].Id != "c" {
		t.Errorf("pools: %+v", list.Results)
	}
}
