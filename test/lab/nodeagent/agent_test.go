package nodeagent_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"k8s.io/utils/ptr"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/controlplane"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/echo"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/nodeagent"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/nodeproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a real control plane with two nodes, which the test initializes in place of a cloud-controller-manager.
type cluster struct {
	*testing.T
	block  *block.Block
	client kubernetes.Interface
	agent  *nodeagent.Agent
}

// TestNodesOfARealCluster shares one control plane among its parts, which build on one another.
func TestNodesOfARealCluster(t *testing.T) {
	cp := controlplane.ForTest(t, controlplane.Options{ControllerManagerArgs: []string{
		"--node-monitor-grace-period=4s", "--node-monitor-period=1s",
	}})
	b, err := block.Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Release() })
	c := &cluster{T: t, block: b, client: cp.Client()}
	agent, err := nodeagent.Start(t.Context(), cp.Client(), []nodeagent.Node{c.node(1), c.node(2)}, nodeagent.Options{LeaseDuration: 4 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Close)
	c.agent = agent

	for _, part := range []struct {
		name string
		test func(*cluster)
	}{
		{"nodes register as with an external cloud provider", testRegistration},
		{"pods run and node ports answer", testNodePorts},
		{"policy Local", testLocal},
		{"HTTPS and UDP", testProtocols},
		{"a terminating pod serves until its grace ends", testGrace},
		{"readiness follows the annotation", testReadiness},
		{"a machine that is switched off and on", testPower},
		{"a node that is marked for deletion, then deleted", testDeletion},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			sub := *c
			sub.T = t
			part.test(&sub)
		}) {
			t.FailNow()
		}
	}
	if err := agent.Problem(); err != nil {
		t.Error(err)
	}
}

func (c *cluster) node(i int) nodeagent.Node {
	return nodeagent.Node{
		Name: fmt.Sprintf("node-%d", i), Address: c.block.Node(i), Pods: c.block.Pods(i),
		SystemUUID: fmt.Sprintf("4237a0c4-1f5e-4b7e-9a53-00000000000%d", i),
		Labels:     map[string]string{"lab": "yes"},
	}
}

func testRegistration(c *cluster) {
	for i := 1; i <= 2; i++ {
		want := c.node(i)
		node, err := c.client.CoreV1().Nodes().Get(c.Context(), want.Name, metav1.GetOptions{})
		if err != nil {
			c.Fatal(err)
		}
		if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == cloudproviderapi.TaintExternalCloudProvider }) {
			c.Errorf("%s has taints %v", node.Name, node.Spec.Taints)
		}
		if got := node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr]; got != want.Address.String() {
			c.Errorf("%s was given the address %q", node.Name, got)
		}
		if len(node.Status.Addresses) != 0 || node.Spec.ProviderID != "" {
			c.Errorf("%s has addresses %v, provider id %q: they are the cloud's to say", node.Name, node.Status.Addresses, node.Spec.ProviderID)
		}
		if node.Status.NodeInfo.SystemUUID != want.SystemUUID || node.Labels["lab"] != "yes" {
			c.Errorf("%s has UUID %s, labels %v", node.Name, node.Status.NodeInfo.SystemUUID, node.Labels)
		}
		// What a cloud-controller-manager does.
		patch := []byte(`{"spec":{"taints":null}}`)
		if _, err := c.client.CoreV1().Nodes().Patch(c.Context(), node.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			c.Fatal(err)
		}
		c.eventually("ready", func() error { return c.nodeReady(want.Name, true) })
	}
}

func testNodePorts(c *cluster) {
	svc := c.service("web", nil)
	c.pod("web-1", "node-1", "web", nil)
	c.pod("web-2", "node-2", "web", nil)
	for i := 1; i <= 2; i++ {
		c.eventually("answers from both pods", func() error {
			pods := map[string]bool{}
			for range 4 {
				a, err := c.ask(i, "tcp4", svc.Spec.Ports[0].NodePort)
				if err != nil {
					return err
				}
				if got := a.Client.Addr(); got != c.block.Node(i) {
					return fmt.Errorf("the pod sees %s, want the node %s", got, c.block.Node(i))
				}
				pods[a.Pod] = true
			}
			if len(pods) != 2 {
				return fmt.Errorf("answers from %v", pods)
			}
			return nil
		})
	}
	pod, err := c.client.CoreV1().Pods("default").Get(c.Context(), "web-1", metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	if ip, err := netip.ParseAddr(pod.Status.PodIP); err != nil || !c.block.Pods(1).Contains(ip) || pod.Status.HostIP != c.block.Node(1).String() {
		c.Errorf("pod address %q on host %q", pod.Status.PodIP, pod.Status.HostIP)
	}
}

func testLocal(c *cluster) {
	svc := c.service("local", func(s *corev1.ServiceSpec) {
		s.Type = corev1.ServiceTypeLoadBalancer
		s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	})
	c.pod("local-1", "node-1", "local", nil)
	port, check := svc.Spec.Ports[0].NodePort, svc.Spec.HealthCheckNodePort
	c.eventually("node 1 answers", func() error {
		a, err := c.ask(1, "tcp4", port)
		if err == nil && a.Client.Addr() != c.block.Client(1) {
			err = fmt.Errorf("the pod sees %s, want the client's own %s", a.Client, c.block.Client(1))
		}
		return err
	})
	if _, err := c.ask(2, "tcp4", port); !errors.Is(err, syscall.ECONNREFUSED) {
		c.Errorf("node 2, without an endpoint: %v, want connection refused", err)
	}
	c.wantStatus(1, check, http.StatusOK)
	c.wantStatus(2, check, http.StatusServiceUnavailable)
}

func testProtocols(c *cluster) {
	svc := c.service("multi", func(s *corev1.ServiceSpec) {
		s.Ports = []corev1.ServicePort{
			{Name: "https", Port: 443, TargetPort: intstr.FromString("https")},
			{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
		}
	})
	c.pod("multi-1", "node-1", "multi", func(s *corev1.PodSpec) {
		s.Containers[0].Ports = []corev1.ContainerPort{
			{Name: "https", ContainerPort: 8443}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
		}
	})
	for i, network := range []string{"tls", "udp4"} {
		c.eventually(network, func() error {
			a, err := c.ask(2, network, svc.Spec.Ports[i].NodePort)
			if err == nil && a.Pod != "default/multi-1" {
				err = fmt.Errorf("answered by %s", a.Pod)
			}
			return err
		})
	}
}

func testGrace(c *cluster) {
	svc := c.service("grace", nil)
	port := svc.Spec.Ports[0].NodePort
	c.pod("grace-1", "node-1", "grace", func(s *corev1.PodSpec) { s.TerminationGracePeriodSeconds = ptr.To[int64](600) })
	c.eventually("answers", func() error { _, err := c.ask(1, "tcp4", port); return err })
	terminate := func(o metav1.DeleteOptions) {
		c.Helper()
		if err := c.client.CoreV1().Pods("default").Delete(c.Context(), "grace-1", o); err != nil {
			c.Fatal(err)
		}
	}
	terminate(metav1.DeleteOptions{})
	c.eventually("terminating, and serving", func() error {
		pod, err := c.client.CoreV1().Pods("default").Get(c.Context(), "grace-1", metav1.GetOptions{})
		if err != nil || pod.DeletionTimestamp == nil {
			c.Fatalf("the pod is not terminating: %v", err)
		}
		_, err = c.ask(2, "tcp4", port)
		return err
	})
	terminate(metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](1)}) // enough of it
	c.eventually("gone", func() error {
		if _, err := c.ask(2, "tcp4", port); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("%w, want connection refused", err)
		}
		return nil
	})
}

func testReadiness(c *cluster) {
	svc := c.service("ready", nil)
	port := svc.Spec.Ports[0].NodePort
	c.pod("ready-1", "node-1", "ready", nil)
	for _, ready := range []bool{true, false, true} {
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%t"}}}`, nodeagent.ReadyAnnotation, ready)
		if _, err := c.client.CoreV1().Pods("default").Patch(c.Context(), "ready-1", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			c.Fatal(err)
		}
		c.eventually(fmt.Sprintf("ready %t", ready), func() error {
			_, err := c.ask(1, "tcp4", port)
			if !ready && errors.Is(err, syscall.ECONNREFUSED) {
				return nil
			}
			if !ready {
				return fmt.Errorf("%w, want connection refused", err)
			}
			return err
		})
	}
}

func testPower(c *cluster) {
	web, err := c.client.CoreV1().Services("default").Get(c.Context(), "web", metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	port := web.Spec.Ports[0].NodePort
	if err := c.agent.StopNode("node-2"); err != nil {
		c.Fatal(err)
	}
	for _, p := range []int32{port, nodeproxy.HealthzPort} {
		if _, err := c.ask(2, "tcp4", p); !errors.Is(err, syscall.ECONNREFUSED) {
			c.Errorf("port %d of a machine that is off: %v", p, err)
		}
	}
	c.eventually("NotReady", func() error { return c.nodeReady("node-2", false) })
	c.eventually("the other node answers alone", func() error {
		for range 4 {
			if _, err := c.ask(1, "tcp4", port); err != nil {
				return err
			}
		}
		return nil
	})
	if err := c.agent.StartNode(c.Context(), "node-2"); err != nil {
		c.Fatal(err)
	}
	c.eventually("Ready again", func() error { return c.nodeReady("node-2", true) })
	c.eventually("its pod answers again, restarted", func() error {
		pod, err := c.client.CoreV1().Pods("default").Get(c.Context(), "web-2", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if n := pod.Status.ContainerStatuses[0].RestartCount; n != 1 {
			return fmt.Errorf("%d restarts", n)
		}
		for range 8 {
			if a, err := c.ask(1, "tcp4", port); err != nil || a.Pod == "default/web-2" {
				return err
			}
		}
		return errors.New("no answer from web-2")
	})
}

func testDeletion(c *cluster) {
	c.wantStatus(2, nodeproxy.HealthzPort, http.StatusOK)
	taint := func(taints string) {
		c.Helper()
		if _, err := c.client.CoreV1().Nodes().Patch(c.Context(), "node-2", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"taints":%s}}`, taints), metav1.PatchOptions{}); err != nil {
			c.Fatal(err)
		}
	}
	taint(`[{"key":"ToBeDeletedByClusterAutoscaler","effect":"NoSchedule"}]`)
	c.wantStatus(2, nodeproxy.HealthzPort, http.StatusServiceUnavailable)
	taint(`null`)
	c.wantStatus(2, nodeproxy.HealthzPort, http.StatusOK)
	if err := c.client.CoreV1().Nodes().Delete(c.Context(), "node-2", metav1.DeleteOptions{}); err != nil {
		c.Fatal(err)
	}
	c.wantStatus(2, nodeproxy.HealthzPort, http.StatusServiceUnavailable)

	if err := c.agent.RemoveNode("node-2"); err != nil {
		c.Fatal(err)
	}
	if err := c.agent.StartNode(c.Context(), "node-2"); !errors.Is(err, nodeagent.ErrNoSuchNode) {
		c.Errorf("starting a machine that was removed: %v", err)
	}
	if err := c.agent.AddNode(c.Context(), c.node(2)); err != nil {
		c.Fatal(err)
	}
	c.eventually("registered anew", func() error { return c.nodeReady("node-2", true) })
}

// eventually waits until f returns nil.
func (c *cluster) eventually(what string, f func() error) {
	c.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond) // until the next try
	}
}

func (c *cluster) nodeReady(name string, want bool) error {
	node, err := c.client.CoreV1().Nodes().Get(c.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, cond := range node.Status.Conditions {
		if cond.Type == corev1.NodeReady && (cond.Status == corev1.ConditionTrue) == want {
			return nil
		}
	}
	return fmt.Errorf("conditions are %v", node.Status.Conditions)
}

// service makes a Service of type NodePort for the Pods with a label app.
func (c *cluster) service(app string, edit func(*corev1.ServiceSpec)) *corev1.Service {
	c.Helper()
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: app},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"app": app},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
		},
	}
	if edit != nil {
		edit(&svc.Spec)
	}
	svc, err := c.client.CoreV1().Services("default").Create(c.Context(), svc, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return svc
}

func (c *cluster) pod(name, node, app string, edit func(*corev1.PodSpec)) {
	c.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{
			NodeName:   node,
			Containers: []corev1.Container{{Name: "c", Image: "nginx"}},
		},
	}
	if edit != nil {
		edit(&pod.Spec)
	}
	if _, err := c.client.CoreV1().Pods("default").Create(c.Context(), pod, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
}

// ask sends one request to a node from the first client; network is tcp4, tls or udp4.
func (c *cluster) ask(node int, network string, port int32) (echo.Answer, error) {
	to := netip.AddrPortFrom(c.block.Node(node), uint16(port)).String()
	from := netip.AddrPortFrom(c.block.Client(1), 0)
	d := net.Dialer{Timeout: time.Minute, LocalAddr: net.TCPAddrFromAddrPort(from)}
	var conn net.Conn
	var err error
	switch network {
	case "tls":
		conn, err = tls.DialWithDialer(&d, "tcp4", to, &tls.Config{InsecureSkipVerify: true})
	case "udp4":
		d.LocalAddr = net.UDPAddrFromAddrPort(from)
		conn, err = d.Dial("udp4", to)
	default:
		conn, err = d.Dial("tcp4", to)
	}
	if err != nil {
		return echo.Answer{}, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return echo.Answer{}, err
	}
	var body []byte
	if network == "udp4" {
		body = make([]byte, 1500)
		var n int
		n, err = conn.Read(body)
		body = body[:n]
	} else {
		body, err = io.ReadAll(conn)
	}
	if err != nil {
		return echo.Answer{}, err
	}
	return echo.Parse(string(body))
}

// wantStatus waits until a health check of a node answers with a status code.
func (c *cluster) wantStatus(node int, port int32, want int) {
	c.Helper()
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	c.eventually(fmt.Sprintf("health check %d of node %d", port, node), func() error {
		req, err := http.NewRequestWithContext(context.WithoutCancel(c.Context()), http.MethodGet,
			fmt.Sprintf("http://%s/healthz", netip.AddrPortFrom(c.block.Node(node), uint16(port))), nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			return fmt.Errorf("status %d, want %d", resp.StatusCode, want)
		}
		return nil
	})
}
