package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// launcherDir makes the test binary a launcher that starts a control plane in the directory it names; see TestDiesWithItsParent.
const launcherDir = "CONTROLPLANE_TEST_LAUNCHER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(launcherDir); dir != "" {
		launch(dir)
	}
	goleak.VerifyTestMain(m)
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v: %v", what, err, last)
	}
}

// needBinary returns the path of the binary, and skips or fails the test as ForTest does.
func needBinary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a Kubernetes control plane")
	}
	return must[string](t)(FindBinary())
}

// gone says whether the process is no more than an entry that nobody has collected.
func gone(pid int) bool {
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err != nil || len(command) == 0
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestClusterActs(t *testing.T) {
	c := ForTest(t, Options{})
	client, ctx := c.Client(), t.Context()

	t.Run("every part reports when it began to act", func(t *testing.T) {
		var names []string
		for _, r := range c.Readiness() {
			names = append(names, r.Name)
			if r.After <= 0 {
				t.Errorf("%s began to act after %v", r.Name, r.After)
			}
		}
		inAnyOrder := cmpopts.SortSlices(func(a, b string) bool { return a < b })
		if diff := cmp.Diff([]string{"etcd", "apiserver", "controllers", "scheduler", "control-plane"}, names, inAnyOrder); diff != "" {
			t.Error(diff)
		}
		if last := names[len(names)-1]; last != whole {
			t.Errorf("the last part is %s, want %s", last, whole)
		}
	})

	t.Run("the version is that of Kubernetes", func(t *testing.T) {
		version, err := client.Discovery().ServerVersion()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(version.GitVersion, "v1.36.") {
			t.Errorf("version %q", version.GitVersion)
		}
	})

	t.Run("credentials are this user's alone", func(t *testing.T) {
		err := filepath.WalkDir(filepath.Dir(c.Kubeconfig()), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // etcd has renamed it meanwhile
			}
			if err != nil || entry.Name() == "001" || filepath.Ext(path) == ".crt" {
				return err // the test's own directory, or public
			}
			info, err := entry.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			forbidden := fs.FileMode(0o077)
			if entry.Type() == fs.ModeSocket {
				forbidden = 0o022 // who may not write may not connect
			}
			if err == nil && info.Mode().Perm()&forbidden != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		anonymous := rest.AnonymousClientConfig(c.RESTConfig())
		_, err = must[*kubernetes.Clientset](t)(kubernetes.NewForConfig(anonymous)).CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if !apierrors.IsForbidden(err) {
			t.Errorf("an anonymous list of nodes: %v, want forbidden", err)
		}
	})

	t.Run("kubectl works on the kubeconfig", func(t *testing.T) {
		binary := must[string](t)(FindBinary())
		out, err := exec.CommandContext(ctx, binary, "kubectl", "--kubeconfig", c.Kubeconfig(), "auth", "whoami", "-o=jsonpath={.status.userInfo.username}").CombinedOutput()
		if err != nil || string(out) != "kubernetes-admin" {
			t.Errorf("kubectl auth whoami: %s, %v", out, err)
		}
	})

	t.Run("a Deployment becomes Pods on a Node and EndpointSlices", func(t *testing.T) { testWorkload(t, client) })
	t.Run("a ServiceAccount may do what RBAC grants and no more", func(t *testing.T) { testServiceAccount(t, c) })
}

// testWorkload plays the kubelet's part for one Pod, and expects every controller on the way to play its own.
func testWorkload(t *testing.T, client kubernetes.Interface) {
	ctx := t.Context()
	core := client.CoreV1()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.11"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Capacity: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("10"),
			},
		},
	}
	must[*corev1.Node](t)(core.Nodes().Create(ctx, node, metav1.CreateOptions{}))
	must[*corev1.ConfigMap](t)(core.ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "page"}}, metav1.CreateOptions{}))
	labels := map[string]string{"app": "web"}
	must[*appsv1.Deployment](t)(client.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
			},
		},
	}, metav1.CreateOptions{}))
	service := must[*corev1.Service](t)(core.Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{}))
	if port := service.Spec.Ports[0].NodePort; port < 30000 || port > 32767 {
		t.Errorf("node port %d is not in the default range", port)
	}
	if ip := service.Spec.ClusterIP; !strings.HasPrefix(ip, "10.96.") {
		t.Errorf("cluster IP %s is not in the default range", ip)
	}

	var pod *corev1.Pod
	eventually(t, "the scheduler binds the Deployment's Pod", func(ctx context.Context) error {
		pods, err := core.Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		if len(pods.Items) != 1 || pods.Items[0].Spec.NodeName != node.Name {
			return fmt.Errorf("%d Pods, or not bound yet", len(pods.Items))
		}
		pod = &pods.Items[0]
		return nil
	})

	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP = "10.244.0.7"
	pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
	must[*corev1.Pod](t)(core.Pods("default").UpdateStatus(ctx, pod, metav1.UpdateOptions{}))
	eventually(t, "the Pod is the Service's ready endpoint", func(ctx context.Context) error {
		slices, err := client.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
		if err != nil {
			return err
		}
		for _, s := range slices.Items {
			for _, e := range s.Endpoints {
				if e.Addresses[0] == pod.Status.PodIP && *e.Conditions.Ready && *e.NodeName == node.Name {
					return nil
				}
			}
		}
		return fmt.Errorf("not among %d slices", len(slices.Items))
	})
	eventually(t, "the Deployment is available", func(ctx context.Context) error {
		d, err := client.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		if err == nil && d.Status.AvailableReplicas != 1 {
			err = fmt.Errorf("status %+v", d.Status)
		}
		return err
	})

	if err := core.Pods("default").Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ReplicaSet replaces a deleted Pod", func(ctx context.Context) error {
		pods, err := core.Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err == nil && (len(pods.Items) != 1 || pods.Items[0].UID == pod.UID) {
			err = fmt.Errorf("%d Pods", len(pods.Items))
		}
		return err
	})
}

// testServiceAccount acts under a token of a ServiceAccount, as the cloud-controller-manager does.
func testServiceAccount(t *testing.T, c *ControlPlane) {
	ctx := t.Context()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "ccm"}}
	must[*corev1.ServiceAccount](t)(c.Client().CoreV1().ServiceAccounts("kube-system").Create(ctx, account, metav1.CreateOptions{}))
	token := must[*authenticationv1.TokenRequest](t)(c.Client().CoreV1().ServiceAccounts("kube-system").CreateToken(ctx, "ccm", &authenticationv1.TokenRequest{}, metav1.CreateOptions{}))

	config := rest.AnonymousClientConfig(c.RESTConfig())
	config.BearerToken = token.Status.Token
	ccm := must[*kubernetes.Clientset](t)(kubernetes.NewForConfig(config))
	if _, err := ccm.CoreV1().Services("").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list of Services without a role: %v, want forbidden", err)
	}

	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "ccm"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list"}}},
	}
	must[*rbacv1.ClusterRole](t)(c.Client().RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}))
	must[*rbacv1.ClusterRoleBinding](t)(c.Client().RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "ccm"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "ccm"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: "ccm"}},
	}, metav1.CreateOptions{}))
	eventually(t, "the role counts", func(ctx context.Context) error {
		_, err := ccm.CoreV1().Services("").List(ctx, metav1.ListOptions{})
		return err
	})
	if _, err := ccm.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list of Nodes: %v, want forbidden", err)
	}
}

func TestTwoSideBySide(t *testing.T) {
	binary := needBinary(t)
	var planes [2]*ControlPlane
	var starts errgroup.Group
	for i := range planes {
		dir := t.TempDir()
		starts.Go(func() (err error) {
			planes[i], err = Start(t.Context(), Options{Binary: binary, Dir: dir})
			return err
		})
	}
	if err := starts.Wait(); err != nil {
		t.Fatal(err)
	}
	a, b := planes[0], planes[1]
	if a.RESTConfig().Host == b.RESTConfig().Host {
		t.Fatalf("both at %s", a.RESTConfig().Host)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "only-here"}}
	must[*corev1.Namespace](t)(a.Client().CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}))
	if _, err := b.Client().CoreV1().Namespaces().Get(t.Context(), namespace.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the other has the namespace: %v", err)
	}

	// A third one in the directory of the first must not harm it.
	if _, err := Start(t.Context(), Options{Binary: binary, Dir: filepath.Dir(a.Kubeconfig())}); err == nil || !strings.Contains(err.Error(), "another control plane") {
		t.Errorf("in a directory in use: %v", err)
	}
	if _, err := os.Stat(a.Kubeconfig()); err != nil {
		t.Error(err)
	}

	for _, c := range planes {
		start := time.Now()
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > stopTimeout/2 { // it takes a second, on a busy machine a few
			t.Errorf("stopping took %v", took)
		}
		if err := syscall.Kill(c.PID(), 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("after Stop, process %d: %v", c.PID(), err)
		}
		if conn, err := net.Dial("tcp", strings.TrimPrefix(c.RESTConfig().Host, "https://")); err == nil {
			t.Errorf("after Stop, %s answers", conn.RemoteAddr())
		}
		if err := c.Stop(); err != nil {
			t.Errorf("stopped again: %v", err)
		}
	}
}

func TestContinuesFromItsDirectory(t *testing.T) {
	binary, dir := needBinary(t), t.TempDir()
	// On an address from which no connection is made, so that the port is free again for the second one.
	first := must[*ControlPlane](t)(Start(t.Context(), Options{Binary: binary, Dir: dir, Listen: "127.15.0.1:0"}))
	config := first.RESTConfig()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}
	must[*corev1.Namespace](t)(first.Client().CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}))
	if err := syscall.Kill(first.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := first.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("after SIGKILL: %v", err)
	}

	second := ForTest(t, Options{Dir: dir, Listen: strings.TrimPrefix(config.Host, "https://")})
	client := must[*kubernetes.Clientset](t)(kubernetes.NewForConfig(config)) // the old credentials and address
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), namespace.Name, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(config, second.RESTConfig()); diff != "" {
		t.Errorf("client configuration (-before +after):\n%s", diff)
	}
}

func TestOptionsReachTheComponents(t *testing.T) {
	c := ForTest(t, Options{
		ServiceClusterIPRange: "10.97.0.0/16,fd00:97::/112",
		Controllers:           []string{"*", "-endpointslice-controller"},
		APIServerArgs:         []string{"--service-node-port-range=20000-20001", "--authorization-mode=Node,RBAC"},
	})
	dual := corev1.IPFamilyPolicyRequireDualStack
	service := must[*corev1.Service](t)(c.Client().CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, IPFamilyPolicy: &dual,
			Ports: []corev1.ServicePort{{Port: 80}},
		},
	}, metav1.CreateOptions{}))
	if port := service.Spec.Ports[0].NodePort; port != 20000 && port != 20001 {
		t.Errorf("node port %d", port)
	}
	if ips := service.Spec.ClusterIPs; len(ips) != 2 || !strings.HasPrefix(ips[0], "10.97.") || !strings.HasPrefix(ips[1], "fd00:97::") {
		t.Errorf("cluster IPs %v", ips)
	}
	log := string(must[[]byte](t)(os.ReadFile(c.Log())))
	if !strings.Contains(log, `controller is disabled" controller="endpointslice-controller"`) {
		t.Error("the log does not say that the EndpointSlice controller is disabled")
	}
}

func TestStartFails(t *testing.T) {
	for name, tc := range map[string]struct {
		options func(o *Options)
		want    string
	}{
		"without a directory": {func(o *Options) { o.Dir = "" }, "required"},
		"without the binary":  {func(o *Options) { o.Binary += "-gone" }, "no such file"},
		"with a wrong flag of the API server": {
			func(o *Options) { o.APIServerArgs = []string{"--no-such-flag=1"} }, "flags of kube-apiserver: unknown flag: --no-such-flag",
		},
		"with a wrong flag of the controller manager": {
			func(o *Options) { o.ControllerManagerArgs = []string{"--no-such-flag=1"} }, "flags of kube-controller-manager: unknown flag: --no-such-flag",
		},
		"with a wrong flag of the scheduler": {
			func(o *Options) { o.SchedulerArgs = []string{"--no-such-flag=1"} }, "flags of kube-scheduler: unknown flag: --no-such-flag",
		},
		"with something that is not a flag": {func(o *Options) { o.SchedulerArgs = []string{"profiling"} }, `"profiling" is not a flag`},
		"with a wrong value":                {func(o *Options) { o.APIServerArgs = []string{"--service-node-port-range=2-1"} }, "--service-node-port-range"},
		"on all interfaces":                 {func(o *Options) { o.Listen = "0.0.0.0:0" }, "want the IP address of one interface"},
		"with a controller nobody knows":    {func(o *Options) { o.Controllers = []string{"no-such-controller"} }, "no-such-controller"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Binary: needBinary(t), Dir: t.TempDir()}
			tc.options(&o)
			if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestEndsWithTheContext(t *testing.T) {
	binary := needBinary(t)
	t.Run("while it starts", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := Start(ctx, Options{Binary: binary, Dir: t.TempDir()}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("when it runs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := must[*ControlPlane](t)(Start(ctx, Options{Binary: binary, Dir: t.TempDir()}))
		cancel()
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	})
}

// TestDiesWithItsParent kills a process that started a control plane, so that it cannot stop it.
func TestDiesWithItsParent(t *testing.T) {
	needBinary(t)
	launcher := exec.Command(must[string](t)(os.Executable()))
	launcher.Env = append(os.Environ(), launcherDir+"="+t.TempDir())
	launcher.Stderr = os.Stderr
	stdin := must[io.WriteCloser](t)(launcher.StdinPipe()) // which it watches, lest it outlive this test
	defer func() { _ = stdin.Close() }()
	stdout := must[io.ReadCloser](t)(launcher.StdoutPipe())
	if err := launcher.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(stdout, &pid); err != nil || gone(pid) {
		t.Errorf("process %d of the control plane: %v", pid, err)
	}
	if err := launcher.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = launcher.Wait() // killed
	eventually(t, "the control plane ends", func(context.Context) error {
		if !gone(pid) {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	})
}

// launch is the process that TestDiesWithItsParent kills: it starts a control plane and prints its process id.
func launch(dir string) {
	binary, err := FindBinary()
	if err == nil {
		var c *ControlPlane
		if c, err = Start(context.Background(), Options{Binary: binary, Dir: dir}); err == nil {
			fmt.Println(c.PID())
			_, err = io.Copy(io.Discard, os.Stdin)
		}
	}
	fmt.Fprintln(os.Stderr, "launcher:", err)
	os.Exit(1)
}

func TestFindBinary(t *testing.T) {
	checkout := t.TempDir()
	deep := filepath.Join(checkout, "pkg", "lb")
	for _, dir := range []string{deep, filepath.Join(checkout, "test", "kube")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(deep)
	if _, err := FindBinary(); err == nil || !strings.Contains(err.Error(), "not in a checkout") {
		t.Errorf("outside a checkout: %v", err)
	}
	touch := func(path ...string) string {
		name := filepath.Join(append([]string{checkout}, path...)...)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	touch("test", "kube", "go.mod")
	if _, err := FindBinary(); err == nil || !strings.Contains(err.Error(), "make bin/kube") {
		t.Errorf("not built: %v", err)
	}
	want := touch("bin", "kube")
	if got, err := FindBinary(); err != nil || got != want {
		t.Errorf("FindBinary() = %q, %v, want %q", got, err, want)
	}
}
