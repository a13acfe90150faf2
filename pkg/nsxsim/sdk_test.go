package nsxsim_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	nsxt "github.com/vmware/go-vmware-nsxt"
	"github.com/vmware/go-vmware-nsxt/common"
	"github.com/vmware/go-vmware-nsxt/loadbalancer"
	"github.com/vmware/go-vmware-nsxt/manager"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// sdk is a client of VMware's SDK on a simulator that listens, logged in by
// session, as the SDK does by default.
func sdk(t *testing.T, o nsxsim.Options) (*nsxsim.Server, *nsxt.APIClient, context.Context) {
	t.Helper()
	srv := nsxsim.Start(t, o)
	cfg := &nsxt.Configuration{
		BasePath: "/api/v1", Host: strings.TrimPrefix(srv.URL, "https://"), Scheme: "https",
		UserName: nsxsim.DefaultUsername, Password: nsxsim.DefaultPassword, CAString: string(srv.CA),
	}
	client, err := nsxt.NewAPIClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cfg.HTTPClient.CloseIdleConnections)
	if cfg.DefaultHeader["X-XSRF-TOKEN"] == "" || cfg.DefaultHeader["Cookie"] == "" {
		t.Fatalf("the SDK did not get a session: %v", cfg.DefaultHeader)
	}
	return srv, client, client.Context
}

// must fails the test on an error of the SDK, which comes third.
func must[T any](v T, _ any, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestSDKBuildsALoadBalancer(t *testing.T) {
	srv, c, ctx := sdk(t, nsxsim.Options{})
	vips := nsxsim.Must(srv.AddIPPool("vips", "192.168.100.0/24")).ID()

	router := must(c.LogicalRoutingAndServicesApi.CreateLogicalRouter(ctx, manager.LogicalRouter{
		DisplayName: "t1", RouterType: "TIER1", EdgeClusterId: srv.EdgeClusterID(), HighAvailabilityMode: "ACTIVE_STANDBY"}))(t)
	adv := must(c.LogicalRoutingAndServicesApi.ReadAdvertisementConfig(ctx, router.Id))(t)
	adv.Enabled, adv.AdvertiseLbVip = true, true
	if got := must(c.LogicalRoutingAndServicesApi.UpdateAdvertisementConfig(ctx, router.Id, adv))(t); !got.AdvertiseLbVip || got.Revision != 1 {
		t.Errorf("advertisement: %+v", got)
	}
	up := must(c.LogicalRoutingAndServicesApi.CreateLogicalRouterLinkPortOnTier0(ctx, manager.LogicalRouterLinkPortOnTier0{
		ResourceType: "LogicalRouterLinkPortOnTIER0", LogicalRouterId: srv.Tier0ID()}))(t)
	must(c.LogicalRoutingAndServicesApi.CreateLogicalRouterLinkPortOnTier1(ctx, manager.LogicalRouterLinkPortOnTier1{
		ResourceType: "LogicalRouterLinkPortOnTIER1", LogicalRouterId: router.Id,
		LinkedLogicalRouterPortId: &common.ResourceReference{TargetId: up.Id, TargetType: "LogicalRouterLinkPortOnTIER0"}}))(t)

	set := must(c.GroupingObjectsApi.CreateIPSet(ctx, manager.IpSet{IpAddresses: []string{"10.0.0.1", "10.0.0.2"}}))(t)
	group := must(c.GroupingObjectsApi.CreateNSGroup(ctx, manager.NsGroup{Members: []manager.NsGroupSimpleExpression{{
		ResourceType: "NSGroupSimpleExpression", Op: "EQUALS", TargetType: "IPSet", TargetProperty: "id", Value: set.Id}}}))(t)
	monitor := must(c.ServicesApi.CreateLoadBalancerHttpMonitor(ctx, loadbalancer.LbHttpMonitor{
		ResourceType: "LbHttpMonitor", MonitorPort: "10256", RequestUrl: "/healthz"}))(t)
	size := int64(128)
	pool := must(c.ServicesApi.CreateLoadBalancerPool(ctx, loadbalancer.LbPool{
		Algorithm: "ROUND_ROBIN", ActiveMonitorIds: []string{monitor.Id}, SnatTranslation: &loadbalancer.LbSnatTranslation{Type_: "LbSnatAutoMap"},
		MemberGroup: &loadbalancer.PoolMemberGroup{GroupingObject: &common.ResourceReference{TargetType: "NSGroup", TargetId: group.Id}, MaxIpListSize: &size}}))(t)
	persistence := must(c.ServicesApi.CreateLoadBalancerSourceIpPersistenceProfile(ctx, loadbalancer.LbSourceIpPersistenceProfile{
		ResourceType: "LbSourceIpPersistenceProfile", Purge: "FULL", Timeout: 10800}))(t)
	profile := must(c.ServicesApi.CreateLoadBalancerFastTcpProfile(ctx, loadbalancer.LbFastTcpProfile{ResourceType: "LbFastTcpProfile"}))(t)
	if profile.IdleTimeout != 1800 || monitor.Interval != 5 || monitor.ResponseStatusCodes[0] != 200 {
		t.Errorf("defaults are missing: %+v %+v", profile, monitor)
	}
	ip := must(c.PoolManagementApi.AllocateOrReleaseFromIpPool(ctx, vips, manager.AllocationIpAddress{}, "ALLOCATE"))(t)
	vs := must(c.ServicesApi.CreateLoadBalancerVirtualServer(ctx, loadbalancer.LbVirtualServer{
		IpAddress: ip.AllocationId, IpProtocol: "TCP", Ports: []string{"80", "443"}, DefaultPoolMemberPorts: []string{"30080", "30443"},
		ApplicationProfileId: profile.Id, PersistenceProfileId: persistence.Id, PoolId: pool.Id, Enabled: true,
		Tags: []common.Tag{{Scope: "owner", Tag: "me"}}}))(t)
	if vs.Port != "80" || vs.DefaultPoolMemberPort != "30080" {
		t.Errorf("the mirrored ports are %q and %q", vs.Port, vs.DefaultPoolMemberPort)
	}
	lb := must(c.ServicesApi.CreateLoadBalancerService(ctx, loadbalancer.LbService{
		Attachment: &common.ResourceReference{TargetType: "LogicalRouter", TargetId: router.Id}, Enabled: true, Size: "SMALL", VirtualServerIds: []string{vs.Id}}))(t)

	if got := must(c.ServicesApi.ListLoadBalancerVirtualServers(ctx, nil))(t); got.ResultCount != 1 || got.Results[0].Tags[0].Tag != "me" {
		t.Errorf("list: %+v", got)
	}
	status := must(c.ServicesApi.ReadLoadBalancerServiceStatus(ctx, lb.Id, nil))(t)
	if status.ServiceStatus != "UP" || len(status.Pools) != 1 || len(status.Pools[0].Members) != 2 || status.VirtualServers[0].Status != "UP" {
		t.Errorf("status: %+v", status)
	}
	if info := must(c.ServicesApi.ReadLoadBalancerServiceDebugInfo(ctx, lb.Id))(t); len(info.Monitors) != 1 || len(info.PersistenceProfiles) != 1 || info.Service.Id != lb.Id {
		t.Errorf("debug info: %+v", info)
	}
	must(c.ServicesApi.ReadLoadBalancerServiceStatistics(ctx, lb.Id, nil))(t)
	if got := must(c.NsxComponentAdministrationApi.ReadNodeProperties(ctx))(t); got.NodeVersion != nsxsim.DefaultVersion {
		t.Errorf("version %q", got.NodeVersion)
	}

	lb.VirtualServerIds = nil
	lb = must(c.ServicesApi.UpdateLoadBalancerService(ctx, lb.Id, lb))(t)
	if len(lb.VirtualServerIds) != 0 {
		t.Errorf("a PUT without virtual servers leaves %v", lb.VirtualServerIds)
	}
	// The SDK takes the empty answer of RELEASE for an error.
	if _, _, err := c.PoolManagementApi.AllocateOrReleaseFromIpPool(ctx, vips, manager.AllocationIpAddress{AllocationId: ip.AllocationId}, "RELEASE"); !errors.Is(err, io.EOF) {
		t.Errorf("RELEASE: %v, want EOF", err)
	}
	if got := must(c.PoolManagementApi.ListIpPoolAllocations(ctx, vips))(t); len(got.Results) != 0 {
		t.Errorf("allocations left over: %v", got.Results)
	}
	type deletion func() (any, error)
	for i, remove := range []deletion{
		func() (any, error) { return c.ServicesApi.DeleteLoadBalancerService(ctx, lb.Id) },
		func() (any, error) { return c.ServicesApi.DeleteLoadBalancerVirtualServer(ctx, vs.Id, nil) },
		func() (any, error) { return c.ServicesApi.DeleteLoadBalancerPool(ctx, pool.Id) },
		func() (any, error) { return c.ServicesApi.DeleteLoadBalancerMonitor(ctx, monitor.Id) },
		func() (any, error) { return c.ServicesApi.DeleteLoadBalancerPersistenceProfile(ctx, persistence.Id) },
		func() (any, error) { return c.ServicesApi.DeleteLoadBalancerApplicationProfile(ctx, profile.Id) },
		func() (any, error) { return c.GroupingObjectsApi.DeleteNSGroup(ctx, group.Id, nil) },
		func() (any, error) { return c.GroupingObjectsApi.DeleteIPSet(ctx, set.Id, nil) },
		func() (any, error) {
			return c.LogicalRoutingAndServicesApi.DeleteLogicalRouter(ctx, router.Id, map[string]any{"force": true})
		},
		func() (any, error) { return c.PoolManagementApi.DeleteIpPool(ctx, vips, nil) },
	} {
		if _, err := remove(); err != nil {
			t.Errorf("deletion %d: %v", i, err)
		}
	}
}

func TestSDKSeesTheErrors(t *testing.T) {
	srv, c, ctx := sdk(t, nsxsim.Options{})
	pool := must(c.ServicesApi.CreateLoadBalancerPool(ctx, loadbalancer.LbPool{}))(t)
	stale := pool
	pool.DisplayName = "new"
	must(c.ServicesApi.UpdateLoadBalancerPool(ctx, pool.Id, pool))(t)
	if _, resp, _ := c.ServicesApi.UpdateLoadBalancerPool(ctx, pool.Id, stale); resp.StatusCode != 412 {
		t.Errorf("a stale PUT: %s", resp.Status)
	}
	if _, resp, _ := c.ServicesApi.ReadLoadBalancerPool(ctx, "nope"); resp.StatusCode != 404 {
		t.Errorf("an unknown id: %s", resp.Status)
	}
	// The SDK sends a POST again when the connection ends: the simulator shows
	// what comes of that.
	if _, err := srv.Faults().Add(nsxsim.Rule{Method: "POST", When: nsxsim.AfterCommit, Drop: true, Nth: 1}); err != nil {
		t.Fatal(err)
	}
	must(c.ServicesApi.CreateLoadBalancerPool(ctx, loadbalancer.LbPool{DisplayName: "twice"}))(t)
	if got := len(srv.List(nsxsim.KindPool)); got != 3 {
		t.Errorf("%d pools, want 3: the one before and two of the repeated POST", got)
	}
}
