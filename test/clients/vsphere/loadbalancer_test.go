package vsphere

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/vsphere-automation-sdk-go/runtime/log"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider-vsphere/pkg/cloudprovider/vsphere/loadbalancer"
	"k8s.io/cloud-provider-vsphere/pkg/cloudprovider/vsphere/loadbalancer/config"
	"k8s.io/cloud-provider-vsphere/pkg/cloudprovider/vsphere/route"
	routeconfig "k8s.io/cloud-provider-vsphere/pkg/cloudprovider/vsphere/route/config"
	"k8s.io/cloud-provider-vsphere/pkg/nsxt"
	nsxtconfig "k8s.io/cloud-provider-vsphere/pkg/nsxt/config"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func TestMain(m *testing.M) {
	log.SetLogger(quiet{}) // the SDK tells of each request
	loadbalancer.AppName = "clients"
	// Its HTTP client keeps connections, and has no way to close them.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

type quiet struct{}

func (quiet) Error(...any)          {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Info(...any)           {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Debug(...any)          {}
func (quiet) Debugf(string, ...any) {}

const cluster = "prod"

// It logs in by password, as a user of an identity manager, and by a client
// certificate.
func TestCredentials(t *testing.T) {
	certificate, _, err := nsxsim.NewCertificate("client")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
	sim := nsxsim.Start(t, nsxsim.Options{Users: []nsxsim.User{{Name: "admin", Password: "secret"}, {Name: "jane@corp", Password: "secret", Remote: true},
		{Name: "ccm", Principal: true, Certificate: text}}})
	files := map[string][]byte{"ca.crt": sim.CA, "client.crt": text, "client.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target, err := url.Parse(sim.URL)
	if err != nil {
		t.Fatal(err)
	}
	for user, cfg := range map[string]nsxtconfig.Config{
		"admin":     {User: "admin", Password: "secret"},
		"jane@corp": {User: "jane@corp", Password: "secret", RemoteAuth: true},
		"ccm":       {ClientAuthCertFile: filepath.Join(dir, "client.crt"), ClientAuthKeyFile: filepath.Join(dir, "client.key")},
	} {
		cfg.Host, cfg.CAFile = target.Host, filepath.Join(dir, "ca.crt")
		manager, err := nsxt.NewConnectorManager(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := loadbalancer.NewNsxtBroker(manager.GetConnector()); err != nil { // lists monitors
			t.Errorf("%s: %v", user, err)
		}
		entries := sim.Journal().Entries()
		if got := entries[len(entries)-1].User; got != user {
			t.Errorf("the request was %s's, want %s", got, user)
		}
	}
}

// start gives a simulated NSX with a tier-1, an IP pool of three addresses, and
// the client's connection to it.
func start(t *testing.T) (*nsxsim.Server, *nsxt.ConnectorManager) {
	t.Helper()
	sim := nsxsim.Start(t, nsxsim.Options{RealizationDelay: 50 * time.Millisecond})
	edgeCluster := "/infra/sites/default/enforcement-points/default/edge-clusters/" + sim.EdgeClusterID()
	for _, o := range []struct {
		path string
		body nsxsim.Object
	}{
		{"/infra/tier-1s/t1", nsxsim.Object{"route_advertisement_types": []any{"TIER1_LB_VIP"}}},
		{"/infra/tier-1s/t1/locale-services/default", nsxsim.Object{"edge_cluster_path": edgeCluster}},
		{"/infra/ip-pools/vips", nsxsim.Object{"display_name": "virtual IPs"}},
		{"/infra/ip-pools/vips/ip-subnets/s", nsxsim.Object{"resource_type": "IpAddressPoolStaticSubnet", "cidr": "10.9.0.0/24",
			"allocation_ranges": []any{map[string]any{"start": "10.9.0.1", "end": "10.9.0.3"}}}},
	} {
		if _, err := sim.As("admin").PutIntent(o.path, o.body); err != nil {
			t.Fatal(err)
		}
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, sim.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(sim.URL)
	if err != nil {
		t.Fatal(err)
	}
	manager, err := nsxt.NewConnectorManager(&nsxtconfig.Config{
		Host: target.Host, User: nsxsim.DefaultUsername, Password: nsxsim.DefaultPassword, CAFile: ca,
	})
	if err != nil {
		t.Fatal(err)
	}
	return sim, manager
}

func provider(t *testing.T, manager *nsxt.ConnectorManager) loadbalancer.LBProvider {
	t.Helper()
	cfg := &config.LBConfig{}
	cfg.LoadBalancer.IPPoolName = "virtual IPs"
	cfg.LoadBalancer.Size = "SMALL"
	cfg.LoadBalancer.Tier1GatewayPath = "/infra/tier-1s/t1"
	cfg.LoadBalancer.TCPAppProfileName = "default-tcp-lb-app-profile"
	cfg.LoadBalancer.UDPAppProfileName = "default-udp-lb-app-profile"
	lb, err := loadbalancer.NewLBProvider(cfg, manager.GetConnector())
	if err != nil {
		t.Fatal(err)
	}
	return lb
}

func service(name string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: ports}}
}

func port(protocol corev1.Protocol, port, nodePort int32) corev1.ServicePort {
	return corev1.ServicePort{Name: strings.ToLower(string(protocol)), Protocol: protocol, Port: port, TargetPort: intstr.FromInt32(port), NodePort: nodePort}
}

func node(name, address string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}}}
}

func TestLifeOfServices(t *testing.T) {
	sim, manager := start(t)
	lb, ctx := provider(t, manager), context.Background()
	nodes := []*corev1.Node{node("n1", "10.0.0.1"), node("n2", "10.0.0.2")}
	ensure := func(s *corev1.Service, nodes []*corev1.Node) string {
		t.Helper()
		status, err := lb.EnsureLoadBalancer(ctx, cluster, s, nodes)
		if err != nil {
			t.Fatalf("ensuring %s: %v", s.Name, err)
		}
		if status == nil || len(status.Ingress) != 1 {
			t.Fatalf("status of %s: %v", s.Name, status)
		}
		return status.Ingress[0].IP
	}
	web := service("web", port("TCP", 80, 30080), port("UDP", 53, 30053))
	address := ensure(web, nodes)
	if again := ensure(web, nodes); again != address {
		t.Errorf("the address changes from %s to %s", address, again)
	}
	if other := ensure(service("other", port("TCP", 80, 30081)), nodes); other == address {
		t.Errorf("two services have the address %s", other)
	}
	// What it made is live in the Manager, too.
	live := map[string]bool{}
	for _, s := range sim.List(nsxsim.KindLBService) {
		for _, id := range s.Strings("virtual_server_ids") {
			live[id] = true
		}
	}
	got := map[string]string{}
	for _, vs := range sim.List(nsxsim.KindVirtualServer) {
		if vs.String("ip_address") == address && live[vs.ID()] {
			got[vs.String("ip_protocol")] = vs.Strings("ports")[0] + "->" + vs.Strings("default_pool_member_ports")[0]
		}
	}
	if diff := cmp.Diff(map[string]string{"TCP": "80->30080", "UDP": "53->30053"}, got); diff != "" {
		t.Errorf("live virtual servers (-want +got):\n%s", diff)
	}

	nodes = append(nodes[1:], node("n3", "10.0.0.3"))
	if err := lb.UpdateLoadBalancer(ctx, cluster, web, nodes); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.0.0.2", "10.0.0.3"}, members(sim, "web")); diff != "" {
		t.Errorf("members after a change of nodes (-want +got):\n%s", diff)
	}
	web.Spec.Ports = []corev1.ServicePort{port("TCP", 80, 31080), port("TCP", 443, 30443)}
	if again := ensure(web, nodes); again != address {
		t.Errorf("with other ports the address is %s, was %s", again, address)
	}
	restarted := provider(t, manager)
	status, exists, err := restarted.GetLoadBalancer(ctx, cluster, web)
	if err != nil || !exists || status.Ingress[0].IP != address {
		t.Errorf("after a restart: %v %t %v", status, exists, err)
	}
	for _, s := range []*corev1.Service{web, service("other")} {
		if err := restarted.EnsureLoadBalancerDeleted(ctx, cluster, s); err != nil {
			t.Fatalf("deleting %s: %v", s.Name, err)
		}
	}
	for _, kind := range []nsxsim.Kind{nsxsim.KindPolicyVirtualServer, nsxsim.KindPolicyPool, nsxsim.KindPolicyLBService, nsxsim.KindPolicyIPAllocation} {
		for _, o := range sim.List(kind) {
			t.Errorf("left behind: %s", o.String("path"))
		}
	}
}

// members gives the addresses in the first pool of a service.
func members(sim *nsxsim.Server, name string) []string {
	var addresses []string
	for _, pool := range sim.List(nsxsim.KindPolicyPool) {
		if strings.Contains(pool.String("display_name"), name) {
			for _, m := range pool["members"].([]any) {
				addresses = append(addresses, m.(map[string]any)["ip_address"].(string))
			}
			return addresses
		}
	}
	return nil
}

// It cleans up what services left that are gone.
func TestCleanup(t *testing.T) {
	sim, manager := start(t)
	lb := provider(t, manager)
	if _, err := lb.EnsureLoadBalancer(context.Background(), cluster, service("gone", port("TCP", 80, 30080)), nil); err != nil {
		t.Fatal(err)
	}
	if err := lb.CleanupServices(cluster, nil, false); err != nil {
		t.Fatal(err)
	}
	if left := sim.List(nsxsim.KindPolicyVirtualServer); len(left) > 0 {
		t.Errorf("virtual servers: %v", left)
	}
}

// Its routes are static routes of the tier-1 that it finds again by a search.
func TestRoutes(t *testing.T) {
	_, manager := start(t)
	cfg := &routeconfig.Config{}
	cfg.Route.RouterPath = "/infra/tier-1s/t1"
	routes, err := route.NewRouteProvider(cfg, manager.GetConnector())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	routes.AddNode(node("n1", "10.0.0.1"))
	if err := routes.CreateRoute(ctx, cluster, "hint", &cloudprovider.Route{TargetNode: "n1", DestinationCIDR: "10.244.1.0/24"}); err != nil {
		t.Fatal(err)
	}
	list, err := routes.ListRoutes(ctx, cluster)
	if err != nil || len(list) != 1 || list[0].DestinationCIDR != "10.244.1.0/24" || list[0].TargetNode != "n1" {
		t.Fatalf("routes: %v %v", list, err)
	}
	if err := routes.DeleteRoute(ctx, cluster, list[0]); err != nil {
		t.Fatal(err)
	}
	if list, err := routes.ListRoutes(ctx, cluster); err != nil || len(list) != 0 {
		t.Errorf("routes after the deletion: %v %v", list, err)
	}
}
