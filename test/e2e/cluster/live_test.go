//go:build e2e

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, within time.Duration, check func(ctx context.Context) error) {
	t.Helper()
	began := time.Now()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), poll, within, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v: %v", what, err, last)
	}
	t.Logf("%s: after %.1f s", what, time.Since(began).Seconds())
}

// TestLive: what a cluster says it can do, it does, and leaves nothing behind. It takes a minute and wants root.
func TestLive(t *testing.T) {
	c := must(Start(t.Context(), Options{Report: func(p Part) { t.Logf("%s: %.1f s", p.Name, p.Took.Seconds()) }}))(t)
	t.Run("nodes are the VMs that vCenter has", func(t *testing.T) {
		for _, n := range c.Nodes {
			node := must(c.Client.CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{}))(t)
			if got := node.Status.NodeInfo.SystemUUID; got != n.uuid || node.Spec.ProviderID != "nsxt://"+n.uuid {
				t.Errorf("%s has UUID %s and provider id %s, want %s", n.Name, got, node.Spec.ProviderID, n.uuid)
			}
		}
	})
	t.Run("pods of all nodes reach each other, Services and DNS", func(t *testing.T) { testPods(t, c) })
	t.Run("a killed leader is followed", func(t *testing.T) {
		before := must(c.LeaderIdentity(t.Context()))(t)
		if _, err := c.KillLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another leader", 2*time.Minute, func(ctx context.Context) error {
			now, err := c.LeaderIdentity(ctx)
			if err == nil && now == before {
				err = fmt.Errorf("%s holds the lease", now)
			}
			return err
		})
		eventually(t, "the killed one is back", 2*time.Minute, c.checkDeployment)
	})
	t.Run("a node without power is gone, and comes back", func(t *testing.T) {
		n := c.Nodes[1]
		if err := c.PowerOff(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if conn, err := c.Topology.ControlPlane().DialContext(withTimeout(t, time.Second), "tcp", n.Address.String()+":10250"); err == nil {
			t.Errorf("%s answers", conn.RemoteAddr())
		}
		eventually(t, "not Ready", 2*time.Minute, func(ctx context.Context) error {
			node, err := c.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
			if err == nil && checkNode(node) == nil {
				err = errors.New("Ready")
			}
			return err
		})
		if err := c.Err(); err != nil {
			t.Errorf("that it is off is taken for a failure: %v", err)
		}
		if err := c.PowerOn(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		eventually(t, "Ready", 3*time.Minute, c.checkNodes)
	})
	t.Run("drained", func(t *testing.T) {
		n := c.Nodes[0]
		if err := c.Drain(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		node := must(c.Client.CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{}))(t)
		if !node.Spec.Unschedulable {
			t.Error("pods can still come")
		}
		if err := c.Uncordon(t.Context(), n); err != nil {
			t.Error(err)
		}
	})
	t.Run("NSX down and up", func(t *testing.T) {
		if err := c.NSX.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		var pools map[string]any
		if err := c.NSX.Get(t.Context(), "/api/v1/pools/ip-pools", &pools); err == nil {
			t.Error("it answers while it is down")
		}
		if err := c.NSX.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.NSX.Get(t.Context(), "/api/v1/pools/ip-pools", &pools); err != nil {
			t.Error(err)
		}
	})
	t.Run("logs", func(t *testing.T) {
		dir := t.TempDir()
		if err := c.CollectLogs(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"node-1/log/kubelet.log", "control-plane/control-plane.log", "nsx-objects.json", "edge-nft.txt", "objects.yaml"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 && !strings.Contains(name, "nft") {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
		if found := must(filepath.Glob(filepath.Join(dir, "node-*/var-log/pods/kube-system_nsxt-*/*/*.log")))(t); len(found) == 0 {
			t.Error("no log of the controller")
		}
	})
	t.Run("nothing is left", func(t *testing.T) {
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if left := namespaces(c.Topology.prefix()); len(left) > 0 {
			t.Errorf("namespaces %s", left)
		}
		if left := cgroups(c.Topology.prefix()); len(left) > 0 {
			t.Errorf("control groups %s", left)
		}
		if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", c.Dir, err)
		}
		mounts := must(os.ReadFile("/proc/self/mounts"))(t)
		if strings.Contains(string(mounts), c.Dir+"/") {
			t.Errorf("mounts:\n%s", mounts)
		}
	})
}

// TestRehearsal: what a cluster asks of the machine can be tried, and leaves nothing behind.
func TestRehearsal(t *testing.T) {
	c := must(takeAny())(t)
	began := time.Now()
	if err := rehearseAs(t.Context(), c); err != nil {
		t.Error(err)
	}
	t.Logf("took %.1f s", time.Since(began).Seconds())
	if c.exists() {
		t.Error("something is left")
	}
	if err := c.release(); err != nil {
		t.Error(err)
	}
}

func withTimeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// testPods runs a pod on each node and has the first one ask the others.
func testPods(t *testing.T, c *Cluster) {
	var text strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&text, `
apiVersion: v1
kind: Pod
metadata: {name: web-%[1]s, namespace: default, labels: {app: web}}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: %[2]s, args: [netexec, --http-port=8080]}]
---
`, n.Name, AgnhostImage)
	}
	text.WriteString(`
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`)
	if err := c.Apply(t.Context(), []byte(text.String())); err != nil {
		t.Fatal(err)
	}
	pods := c.Client.CoreV1().Pods("default")
	urls := []string{"http://web.default.svc.cluster.local"}
	for _, n := range c.Nodes {
		eventually(t, "pod of "+n.Name, 3*time.Minute, func(ctx context.Context) error {
			pod, err := pods.Get(ctx, "web-"+n.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				return fmt.Errorf("phase %s", pod.Status.Phase)
			}
			urls = append(urls, "http://"+pod.Status.PodIP+":8080")
			return nil
		})
	}
	for _, url := range urls {
		eventually(t, url, time.Minute, func(ctx context.Context) error {
			out, err := c.Kubectl(ctx, "exec", "web-node-1", "--", "curl", "-sSf", "-m3", url+"/hostname").CombinedOutput()
			if err == nil && !strings.HasPrefix(string(out), "web-node-") {
				err = errors.New("not a pod's answer")
			}
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			return err
		})
	}
	for _, args := range [][]string{{"delete", "service", "web"}, {"delete", "pods", "--selector=app=web"}} {
		if err := c.kubectl(t.Context(), args...); err != nil {
			t.Error(err)
		}
	}
}
