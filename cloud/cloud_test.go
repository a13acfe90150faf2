package cloud

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	restclient "k8s.io/client-go/rest"
	"k8s.io/cloud-provider/api"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/testutil"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func TestClassIsAdopted(t *testing.T) {
	str := func(s string) *string { return &s }
	service := func(class *string, annotation string) *corev1.Service {
		svc := &corev1.Service{Spec: corev1.ServiceSpec{LoadBalancerClass: class}}
		if annotation != "" {
			svc.Annotations = map[string]string{names.AnnotationClass: annotation}
		}
		return svc
	}
	for _, c := range []struct {
		name      string
		got, want *corev1.Service
	}{
		{"none", service(nil, ""), service(nil, "")},
		{"ours moves to the annotation", service(str("nsxt.io/gold"), ""), service(nil, "gold")},
		{"ours yields to the annotation", service(str("nsxt.io/gold"), "silver"), service(nil, "silver")},
		{"another controller's stays", service(str("example.com/x"), ""), service(str("example.com/x"), "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := adoptClass(c.got)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("TEST_USER", "env-user")
	t.Setenv("TEST_PASSWORD", "env-password")
	client := kubernetes.Interface(fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "nsxt"},
		Data:       map[string][]byte{"username": []byte("secret-user"), "password": []byte("secret-password")},
	}))
	c := &Cloud{}
	c.client.Store(&client)
	for _, tc := range []struct {
		name      string
		from      config.Credentials
		user, err string
	}{
		{"file", config.Credentials{File: write("good", "username: file-user\npassword: x\n")}, "file-user", ""},
		{"file without password", config.Credentials{File: write("half", "username: u\n")}, "", "no user name or no password"},
		{"file that is no YAML is not quoted", config.Credentials{File: write("bad", "hunter2: [")}, "", "not YAML with the keys username and password alone"},
		{"no file", config.Credentials{File: filepath.Join(dir, "none")}, "", "no such file"},
		{"environment", config.Credentials{Env: &config.EnvCredentials{Username: "TEST_USER", Password: "TEST_PASSWORD"}}, "env-user", ""},
		{"Secret", config.Credentials{Secret: &config.SecretReference{Namespace: "kube-system", Name: "nsxt"}}, "secret-user", ""},
		{"no Secret", config.Credentials{Secret: &config.SecretReference{Namespace: "kube-system", Name: "none"}}, "", "not found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			user, _, err := c.credentials(t.Context(), tc.from)
			switch {
			case tc.err == "" && (err != nil || user != tc.user):
				t.Errorf("got %q, %v; want %q", user, err, tc.user)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("got %v, want an error with %q", err, tc.err)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("the error quotes the file: %v", err)
			}
		})
	}
}

func TestRetryTellsTheFrameworkWhen(t *testing.T) {
	before := time.Now()
	err := retry(&nsx.RetryAt{Err: nsx.ErrExhausted, At: before.Add(20 * time.Second)})
	passed := time.Since(before)
	var again *api.RetryError
	if !errors.As(err, &again) || again.RetryAfter() < 20*time.Second-passed || again.RetryAfter() > 20*time.Second {
		t.Fatalf("got %v (%T)", err, err)
	}
	if retry(nil) != nil || retry(nsx.ErrInvalid) != nsx.ErrInvalid {
		t.Fatal("other errors must pass as they are")
	}
}

// builder gives the framework's clients.
type builder struct{ client kubernetes.Interface }

func (b builder) Config(string) (*restclient.Config, error)   { return nil, errors.New("no config") }
func (b builder) ConfigOrDie(string) *restclient.Config       { panic("no config") }
func (b builder) Client(string) (kubernetes.Interface, error) { return b.client, nil }
func (b builder) ClientOrDie(string) kubernetes.Interface     { return b.client }

// TestServiceLife runs the provider as the framework does, against the simulator: not loaded, loaded, ensured, deleted,
// ended in order.
func TestServiceLife(t *testing.T) {
	sim := nsxsim.StartPlain(t, nsxsim.Options{})
	pool := nsxsim.Must(sim.AddIPPool("floating", "10.0.0.0/24", "10.0.0.1-10.0.0.9"))
	lbService := nsxsim.Must(sim.AddLBService("lb", "SMALL", nsxsim.Must(sim.AddTier1("t1")).ID()))
	t.Setenv("TEST_USER", nsxsim.DefaultUsername)
	t.Setenv("TEST_PASSWORD", nsxsim.DefaultPassword)
	cfg, err := config.Parse("test", []byte(strings.ReplaceAll(`
apiVersion: nsxt.io/v1alpha1
kind: CloudConfig
cluster: {name: test}
nsx:
  managers: [URL]
  credentials: {env: {username: TEST_USER, password: TEST_PASSWORD}}
loadBalancer:
  ipPools: [{name: floating}]
  classes: [{name: default, ipPools: [floating], loadBalancerServices: [lb]}]
`, "URL", sim.URL)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "the-cluster"}},
		&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
			Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.0.1"}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		})
	balancer, _ := c.LoadBalancer()
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "uid-web"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP}},
		},
	}
	if _, _, err := balancer.GetLoadBalancer(t.Context(), "", svc); !errors.Is(err, lb.ErrNotLoaded) {
		t.Fatalf("before the inventory is known Get says %v, want ErrNotLoaded", err)
	}

	if err := client.Tracker().Add(svc); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	factory := informers.NewSharedInformerFactory(client, 0)
	c.Initialize(builder{client}, stop)
	c.SetInformers(factory)
	factory.Start(stop)
	t.Cleanup(func() { close(stop); factory.Shutdown() })

	// The first call is early, and waits for the start.
	status, err := balancer.EnsureLoadBalancer(t.Context(), "", svc, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := status.Ingress[0]; got.IP == "" || got.IPMode == nil || *got.IPMode != corev1.LoadBalancerIPModeVIP {
		t.Fatalf("status is %v", status)
	}
	for _, p := range sim.List(nsxsim.KindPool) {
		if members, _ := p["members"].([]any); len(members) != 1 || p.Tags()[nsx.TagClusterUID] != "the-cluster" {
			t.Errorf("node pool is %v", p)
		}
	}
	scrape := metrics.NewKubeRegistry()
	scrape.CustomMustRegister(c.Collector())
	if err := testutil.GatherAndCompare(scrape, strings.NewReader(strings.ReplaceAll(wantMetrics, "LB", lbService.ID())), metricNames()...); err != nil {
		t.Error(err)
	}
	// A Service that was deleted and created anew with the same name does not get the status of the one before.
	gone := svc.DeepCopy()
	gone.UID = "uid-of-the-one-before"
	if status, err := balancer.EnsureLoadBalancer(t.Context(), "", gone, nil); !errors.Is(err, errGone) {
		t.Errorf("a Service that is gone got %v, %v", status, err)
	}
	for _, svc := range []*corev1.Service{svc, gone} {
		if err := balancer.EnsureLoadBalancerDeleted(t.Context(), "", svc); err != nil {
			t.Fatal(err)
		}
	}
	if _, exists, err := balancer.GetLoadBalancer(t.Context(), "", svc); exists || err != nil {
		t.Fatalf("after its deletion: exists %t, %v", exists, err)
	}
	if got := sim.Allocations(pool.ID()); len(got) != 0 {
		t.Fatalf("%v is left allocated", got)
	}

	if err := c.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	sim.Journal().Reset()
	if _, err := balancer.EnsureLoadBalancer(t.Context(), "", svc, nil); err == nil || len(sim.Journal().Writes()) > 0 {
		t.Fatalf("after Shutdown a write got %v, and NSX %v", err, sim.Journal().Writes())
	}
}

// metricNames are the metrics in wantMetrics: all but those that are times.
func metricNames() (names []string) {
	for line := range strings.Lines(wantMetrics) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	return names
}

const wantMetrics = `
# HELP nsxt_ip_pool_addresses [ALPHA] Addresses in the allocation ranges of an IP pool of the cloud config.
# TYPE nsxt_ip_pool_addresses gauge
nsxt_ip_pool_addresses{pool="floating"} 9
# HELP nsxt_ip_pool_allocated_addresses [ALPHA] Addresses of an IP pool that are allocated, by whomever.
# TYPE nsxt_ip_pool_allocated_addresses gauge
nsxt_ip_pool_allocated_addresses{pool="floating"} 1
# HELP nsxt_ip_pool_unrecorded_addresses [ALPHA] Allocated addresses of an IP pool that no virtual server carries: somebody else's, or leaked.
# TYPE nsxt_ip_pool_unrecorded_addresses gauge
nsxt_ip_pool_unrecorded_addresses{pool="floating"} 0
# HELP nsxt_lb_service_capacity_virtual_servers [ALPHA] Virtual servers that a load-balancer service takes; absent when NSX does not tell.
# TYPE nsxt_lb_service_capacity_virtual_servers gauge
nsxt_lb_service_capacity_virtual_servers{lb_service="LB"} 20
# HELP nsxt_lb_service_virtual_servers [ALPHA] Virtual servers attached to a load-balancer service, anybody's.
# TYPE nsxt_lb_service_virtual_servers gauge
nsxt_lb_service_virtual_servers{lb_service="LB"} 1
# HELP nsxt_services [ALPHA] Services that have anything in NSX.
# TYPE nsxt_services gauge
nsxt_services 1
# HELP nsxt_pools_all_members_down [ALPHA] Pools whose members all fail their health check although there are Ready nodes: shared ones, of policy Cluster, and those of one Service, of policy Local.
# TYPE nsxt_pools_all_members_down gauge
nsxt_pools_all_members_down{policy="Cluster"} 0
nsxt_pools_all_members_down{policy="Local"} 0
# HELP nsxt_ready [ALPHA] 1 if a check of readiness passes, else 0.
# TYPE nsxt_ready gauge
nsxt_ready{check="inventory"} 1
nsxt_ready{check="nodes"} 1
nsxt_ready{check="nsx"} 1
nsxt_ready{check="writes"} 1
`

func TestSizeOfRanges(t *testing.T) {
	for text, want := range map[string]int{
		"10.0.0.1-10.0.0.1": 1, "10.0.0.250-10.0.1.5": 12, "10.0.0.0-10.255.255.255": 1 << 24, "2001:db8::-2001:db8::ffff": 1 << 16,
		"2001:db8::-2001:db8::ffff:ffff:ffff:ffff": nsx.Unlimited,
	} {
		if got := size([]netipx.IPRange{netipx.MustParseIPRange(text)}); got != want {
			t.Errorf("%s has %d addresses, want %d", text, got, want)
		}
	}
}

func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
