package cluster

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
)

//go:embed machine.sh
var machineScript []byte

// Files in a node's directory: the script, and what it makes when the machine is up.
const (
	machineFile = "machine.sh"
	machineUp   = "machine-is-up"
)

// pauseImage is the sandbox image of this version of Kubernetes.
const pauseImage = "registry.k8s.io/pause:3.10.2"

// AgnhostImage is the image of the upstream tests, which the nodes have: one that answers in many ways.
const AgnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"

// A Node is a machine of the cluster with containerd, a kubelet and kube-proxy of its own.
type Node struct {
	// Name of the Node and of its VM.
	Name string
	// Address is its InternalIP.
	Address netip.Addr
	// Place is its network.
	Place Place

	number    int
	uuid      string
	dir       string
	cgroup    string
	bin       string // BinDir/e2e
	authority *authority

	mu      sync.Mutex          // held while it is switched on or off
	machine *programs.Process   // nil: switched off
	parts   []*programs.Process // of the machine, in the order of their start
}

// newNode is the i-th node, switched off, with its files below a directory.
func (t Topology) newNode(i int, dir string) *Node {
	name := t.NodeName(i)
	return &Node{
		Name: name, Address: t.NodeAddress(i), Place: t.Node(i),
		number: i, uuid: t.NodeUUID(i), dir: filepath.Join(dir, name), cgroup: string(t.Node(i)),
	}
}

// prepare makes the node's directory: its credentials and the settings of its parts, which stay when it is switched off.
func (n *Node) prepare(caFile, proxyMode string, t Topology) error {
	err := nodeValues{
		Name: n.Name, Dir: n.dir, CAFile: caFile, Cgroup: n.cgroup,
		Pods: t.NodePods(n.number), AllPods: pods, ClusterDNS: clusterDNS, ProxyMode: proxyMode,
		PauseImage: pauseImage, CNIBinDir: filepath.Join(n.bin, "cni"), Runc: filepath.Join(n.bin, "runc"),
	}.write()
	if err != nil {
		return err
	}
	serving, err := n.authority.issue(identity{name: n.Name, addresses: []netip.Addr{n.Address}, hosts: []string{n.Name}})
	if err != nil {
		return err
	}
	return errors.Join(
		serving.write(n.dir, "kubelet"),
		n.authority.writeKubeconfig(filepath.Join(n.dir, "kubelet.kubeconfig"), identity{name: "system:node:" + n.Name, groups: []string{"system:nodes"}}),
		n.authority.writeKubeconfig(filepath.Join(n.dir, "kube-proxy.kubeconfig"), identity{name: "system:kube-proxy"}),
		os.MkdirAll(n.logDir(), 0o700))
}

// boot switches the machine on, up to its container runtime.
func (n *Node) boot(ctx context.Context) error {
	if err := makeCgroup(n.cgroup); err != nil {
		return err
	}
	if err := n.powerUp(ctx); err != nil {
		return err
	}
	if err := n.launch("containerd", filepath.Join(n.bin, "containerd"), "--config="+filepath.Join(n.dir, "containerd.toml")); err != nil {
		return err
	}
	return await(ctx, "containerd answers on "+n.Name, partWithin, n.alive, func(ctx context.Context) error {
		return n.program("ctr-version", filepath.Join(n.bin, "ctr"), "version").Run(ctx)
	}, n.logFile("containerd"))
}

// powerUp makes the machine, and starts nothing on it.
func (n *Node) powerUp(ctx context.Context) error {
	up := filepath.Join(n.dir, machineUp)
	if err := os.Remove(up); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an earlier boot
		return err
	}
	err := writeFile(filepath.Join(n.dir, machineFile), machineScript)
	if err != nil {
		return err
	}
	n.machine, err = programs.Command{
		Name: n.Name, Log: n.logFile("machine"), Prepare: asMachine(n.Place),
		Args: []string{"/bin/sh", filepath.Join(n.dir, machineFile), n.Name, n.dir, n.uuid},
	}.Start()
	if err != nil {
		return err
	}
	return await(ctx, n.Name+" is up", partWithin, n.alive, func(context.Context) error {
		_, err := os.Stat(up)
		return err
	}, n.logFile("machine"))
}

// load gives the runtime an image from a file.
func (n *Node) load(ctx context.Context, image string) error {
	return n.program("ctr-import", filepath.Join(n.bin, "ctr"), "--namespace=k8s.io", "images", "import", "--all-platforms", image).Run(ctx)
}

// join starts what makes the machine a node of the cluster.
func (n *Node) join() error {
	if err := n.launch("kubelet", filepath.Join(n.bin, "kube-node"), "kubelet",
		"--config="+filepath.Join(n.dir, "kubelet.yaml"), "--kubeconfig="+filepath.Join(n.dir, "kubelet.kubeconfig"),
		"--hostname-override="+n.Name, "--node-ip="+n.Address.String(), "--cloud-provider=external"); err != nil {
		return err
	}
	return n.launch("kube-proxy", filepath.Join(n.bin, "kube-node"), "kube-proxy", "--config="+filepath.Join(n.dir, "kube-proxy.yaml"))
}

// launch starts a part of the machine.
func (n *Node) launch(name string, args ...string) error {
	p, err := n.program(name, args...).Start()
	if err == nil {
		n.parts = append(n.parts, p)
	}
	return err
}

// program is a program of the machine, which is up.
func (n *Node) program(name string, args ...string) programs.Command {
	return programs.Command{
		Name: n.Name + ": " + name, Log: n.logFile(name), Prepare: onMachine(n.Place, n.machine), Args: args,
		// containerd finds its shim and the shim finds runc by it.
		Env: []string{"PATH=" + n.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"},
	}
}

// alive says which part of the machine has ended by itself.
func (n *Node) alive() error {
	if n.machine == nil {
		return nil
	}
	for _, p := range append([]*programs.Process{n.machine}, n.parts...) {
		if err := p.Err(); err != nil {
			return err
		}
	}
	return nil
}

// die ends the machine as a power cut does, and everything on it.
func (n *Node) die() error {
	if n.machine == nil {
		return nil
	}
	err := n.machine.Kill()
	for _, p := range slices.Backward(n.parts) {
		// The kernel kills them with the machine's first process.
		err = errors.Join(err, p.Kill())
	}
	n.machine, n.parts = nil, nil
	return err
}

func (n *Node) logDir() string { return filepath.Join(n.dir, "log") }

func (n *Node) logFile(part string) string { return filepath.Join(n.logDir(), part+".log") }

// forEach calls f for all nodes at the same time.
func forEach(nodes []*Node, f func(*Node) error) error {
	var g errgroup.Group
	for _, n := range nodes {
		g.Go(func() error {
			if err := f(n); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}
