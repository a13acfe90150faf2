package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/hack/ociimage"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/manifests"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// The controller's Deployment, and the lease that its leader holds, in kube-system.
const (
	deployment = controllerProgram
	lease      = "cloud-controller-manager"
)

// imageOf finds the image that the Deployment's manifest names.
var imageOf = regexp.MustCompile(`(?m)^\s*image: (\S+)$`)

// packController makes an image of the program under test, by the name that the Deployment's manifest asks for: so the
// manifest is applied as it is.
func (c *Cluster) packController(file string) error {
	manifest, err := manifests.FS.ReadFile("deployment.yaml")
	if err != nil {
		return err
	}
	found := imageOf.FindSubmatch(manifest)
	if found == nil {
		return errors.New("the controller's manifest names no image")
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	// Container runtimes have a registry in front of names that have none.
	err = ociimage.Pack(out, "docker.io/"+string(found[1]), filepath.Join(c.options.BinDir, controllerProgram))
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("image of the controller: %w", err)
	}
	return nil
}

// install applies what an administrator applies to a new cluster: DNS, and the controller's manifests with a config and
// credentials of its own.
func (c *Cluster) install(ctx context.Context) error {
	dns, err := render("dns.yaml", map[string]any{"ClusterDNS": clusterDNS, "Server": controlPlane})
	if err != nil {
		return err
	}
	user, password := c.VCenter.Credentials()
	config, err := render("cloud-config.yaml", map[string]any{
		"NSX": c.NSX.URL, "NSXUser": nsxsim.DefaultUsername, "NSXPassword": nsxsim.DefaultPassword,
		"VCenter": "https://" + controlPlane.String(), "VCenterUser": user, "VCenterPassword": password,
		"CA": c.authority.pem(), "LAN": lan, "Pool": ipPool, "LBService": lbService,
	})
	if err != nil {
		return err
	}
	all := [][]byte{dns, config}
	for _, name := range []string{"rbac.yaml", "deployment.yaml"} {
		text, err := manifests.FS.ReadFile(name)
		if err != nil {
			return err
		}
		all = append(all, text)
	}
	return c.Apply(ctx, bytes.Join(all, []byte("\n---\n")))
}

// Apply applies objects, in YAML, as an administrator.
func (c *Cluster) Apply(ctx context.Context, yaml []byte) error {
	cmd := c.Kubectl(ctx, "apply", "--server-side", "--filename=-")
	cmd.Stdin = bytes.NewReader(yaml)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl apply: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// AwaitReady waits until all Nodes are Ready and initialized, and all replicas of the controller available.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	var logs []string
	for _, n := range c.Nodes {
		logs = append(logs, n.logFile("kubelet"))
	}
	return await(ctx, "nodes and controller are ready", readyWithin, c.Err, func(ctx context.Context) error {
		return errors.Join(c.checkNodes(ctx), c.checkDeployment(ctx))
	}, logs...)
}

func (c *Cluster) checkDeployment(ctx context.Context) error {
	d, err := c.Client.AppsV1().Deployments(metav1.NamespaceSystem).Get(ctx, deployment, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if !rolledOut(d) {
		return fmt.Errorf("the controller: %d of %d replicas are available", d.Status.AvailableReplicas, *d.Spec.Replicas)
	}
	return nil
}

func rolledOut(d *appsv1.Deployment) bool {
	return d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas == *d.Spec.Replicas && d.Status.AvailableReplicas == *d.Spec.Replicas
}

func (c *Cluster) checkNodes(ctx context.Context) error {
	list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range c.Nodes {
		i := slices.IndexFunc(list.Items, func(node corev1.Node) bool { return node.Name == n.Name })
		switch {
		case n.IsOff():
		case i < 0:
			errs = append(errs, fmt.Errorf("%s has not registered", n.Name))
		default:
			errs = append(errs, checkNode(&list.Items[i]))
		}
	}
	return errors.Join(errs...)
}

func checkNode(n *corev1.Node) error {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	tainted := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == cloudproviderapi.TaintExternalCloudProvider || t.Key == corev1.TaintNodeNotReady
	})
	switch {
	case !ready:
		return fmt.Errorf("%s is not Ready", n.Name)
	case tainted || n.Spec.ProviderID == "" || n.Labels[corev1.LabelTopologyZone] == "":
		return fmt.Errorf("%s is not initialized: taints %v, provider id %q, addresses %v, zone %q",
			n.Name, n.Spec.Taints, n.Spec.ProviderID, n.Status.Addresses, n.Labels[corev1.LabelTopologyZone])
	}
	return nil
}

// LeaderIdentity is who holds the controller's lease: each start of a replica is somebody else.
func (c *Cluster) LeaderIdentity(ctx context.Context) (string, error) {
	held, err := c.Client.CoordinationV1().Leases(metav1.NamespaceSystem).Get(ctx, lease, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if held.Spec.HolderIdentity == nil || *held.Spec.HolderIdentity == "" {
		return "", errors.New("the controller has no leader")
	}
	return *held.Spec.HolderIdentity, nil
}

// Leader is the Pod of the controller that holds the lease.
func (c *Cluster) Leader(ctx context.Context) (*corev1.Pod, error) {
	identity, err := c.LeaderIdentity(ctx)
	if err != nil {
		return nil, err
	}
	// Pods of the host's network have its name.
	node, _, _ := strings.Cut(identity, "_")
	list, err := c.Client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=" + deployment, FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil {
		return nil, err
	}
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			return &pod, nil
		}
	}
	return nil, fmt.Errorf("the leader on %s has no Pod", node)
}

// KillLeader kills the leading controller's process, as a crash does, and returns its Pod, which the kubelet starts
// again. One of the replicas leads when the lease has run out, with another identity.
func (c *Cluster) KillLeader(ctx context.Context) (*corev1.Pod, error) {
	pod, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	pids, err := processesOf(string(pod.UID), controllerProgram)
	if err != nil {
		return nil, err
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("no process of pod %s runs", pod.Name)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return nil, fmt.Errorf("killing pod %s: %w", pod.Name, err)
		}
	}
	return pod, nil
}

// processesOf finds the processes of a Pod that run a program.
func processesOf(uid, program string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue // not a process
		}
		groups, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup")) // gone: none
		exe, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if bytes.Contains(groups, []byte("pod"+uid)) && filepath.Base(exe) == program {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
