package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/controlplane"
)

// nodeMonitorGrace is how long the control plane waits for a node's lease before the node is NotReady: a busy machine
// shall not lose nodes.
const nodeMonitorGrace = "20s"

func (c *Cluster) controlPlaneDir() string { return filepath.Join(c.Dir, "control-plane") }

// CAFile is the path of the certificate authority of everything in the cluster.
func (c *Cluster) CAFile() string { return filepath.Join(c.controlPlaneDir(), "ca.crt") }

// Kubeconfig is the path of an administrator's kubeconfig. Its server is seen from the cluster's machines alone.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.controlPlaneDir(), "kubeconfig") }

// startControlPlane starts etcd, API server, controller manager and scheduler, and the client of them.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	dir := c.controlPlaneDir()
	kubelets, err := c.authority.issue(identity{name: "kube-apiserver-kubelet-client"})
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(dir, 0o700), c.authority.writeForControlPlane(dir), kubelets.write(dir, "kubelet-client")); err != nil {
		return err
	}
	// The context ends the start, but not what has been started.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	c.endControlPlane = end
	defer context.AfterFunc(ctx, end)()
	place := c.Topology.ControlPlane()
	plane, err := controlplane.Start(life, controlplane.Options{
		Binary:                filepath.Join(c.options.BinDir, "kube"),
		Wrapper:               place.wrapper(),
		Dir:                   dir,
		Listen:                fmt.Sprintf("%s:%d", controlPlane, apiServerPort),
		ServiceClusterIPRange: clusterIPs.String(),
		APIServerArgs: []string{
			"--authorization-mode=Node,RBAC",
			// Pods find the API server by its Service.
			"--endpoint-reconciler-type=lease",
			"--kubelet-certificate-authority=" + c.CAFile(),
			"--kubelet-client-certificate=" + filepath.Join(dir, "kubelet-client.crt"),
			"--kubelet-client-key=" + filepath.Join(dir, "kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			// What front proxies say about users is for extensions, of which there are none: but servers that ask the API server
			// who may use them, as the controller does, look for it.
			"--requestheader-allowed-names=front-proxy-client",
			"--requestheader-client-ca-file=" + c.CAFile(),
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		},
		ControllerManagerArgs: []string{"--node-monitor-grace-period=" + nodeMonitorGrace, "--node-monitor-period=1s"},
	})
	if err != nil {
		return err
	}
	c.plane = plane
	c.Config = plane.RESTConfig()
	c.Config.Dial = place.DialContext
	c.Config.WarningHandler = rest.NoWarnings{}
	c.Client, err = kubernetes.NewForConfig(c.Config)
	return err
}
