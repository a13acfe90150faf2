package cluster

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
)

//go:embed machine.sh
var machineScript []byte

// machineFile is the name of the script in a node's directory.
const machineFile = "machine.sh"

// pauseImage is the sandbox image of this version of Kubernetes.
const pauseImage = "registry.k8s.io/pause:3.10.2"

// AgnhostImage is the image of the upstream tests, which the nodes have: one that answers in many ways.
const AgnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"

// poll is how often a condition is looked at.
const poll = 50 * time.Millisecond

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

	mu      sync.Mutex // held while it is switched on or off
	machine *process   // nil: switched off
	parts   []*process // of the machine, in the order of their start
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
		writeFile(filepath.Join(n.dir, machineFile), machineScript),
		serving.write(n.dir, "kubelet"),
		n.authority.writeKubeconfig(filepath.Join(n.dir, "kubelet.kubeconfig"), identity{name: "system:node:" + n.Name, groups: []string{"system:nodes"}}),
		n.authority.writeKubeconfig(filepath.Join(n.dir, "kube-proxy.kubeconfig"), identity{name: "system:kube-proxy"}),
		os.MkdirAll(filepath.Join(n.dir, "log"), 0o700))
}

// boot switches the machine on, up to its container runtime.
func (n *Node) boot(ctx context.Context) error {
	if err := makeCgroup(n.cgroup); err != nil {
		return err
	}
	machine, err := program{
		name: n.Name, log: n.logFile("machine"), in: n.Place, newMachine: true,
		args: []string{"/bin/sh", filepath.Join(n.dir, machineFile), n.Name, n.dir, n.uuid},
	}.start()
	if err != nil {
		return err
	}
	n.machine = machine
	err = n.await(ctx, func() error {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/machine-is-up", machine.pid()))
		return err
	})
	if err != nil {
		return err
	}
	if err := n.launch("containerd", filepath.Join(n.bin, "containerd"), "--config="+filepath.Join(n.dir, "containerd.toml")); err != nil {
		return err
	}
	return n.await(ctx, func() error { return n.run(ctx, "ctr-version", filepath.Join(n.bin, "ctr"), "version") })
}

// load gives the runtime an image from a file.
func (n *Node) load(ctx context.Context, image string) error {
	return n.run(ctx, "ctr-import", filepath.Join(n.bin, "ctr"), "--namespace=k8s.io", "images", "import", "--all-platforms", image)
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
	p, err := n.program(name, args...).start()
	if err == nil {
		n.parts = append(n.parts, p)
	}
	return err
}

// run runs a program on the machine to its end.
func (n *Node) run(ctx context.Context, name string, args ...string) error {
	p, err := n.program(name, args...).start()
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), p.kill())
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w: %s", p.name, p.err, tail(p.log))
	}
	return nil
}

func (n *Node) program(name string, args ...string) program {
	return program{
		name: n.Name + ": " + name, log: n.logFile(name), in: n.Place, machine: n.machine.pid(), args: args,
		// containerd finds its shim and the shim finds runc by it.
		env: []string{"PATH=" + n.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"},
	}
}

// await waits until a check succeeds, as long as all of the machine is alive.
func (n *Node) await(ctx context.Context, check func() error) error {
	var last error
	err := wait.PollUntilContextCancel(ctx, poll, true, func(context.Context) (bool, error) {
		if err := n.alive(); err != nil {
			return false, err
		}
		last = check()
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, errors.Join(err, last))
	}
	return nil
}

// alive says which part of the machine has ended by itself.
func (n *Node) alive() error {
	if n.machine == nil {
		return nil
	}
	for _, p := range append([]*process{n.machine}, n.parts...) {
		if err := p.alive(); err != nil {
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
	err := n.machine.kill()
	for _, p := range slices.Backward(n.parts) {
		// The kernel kills them with the machine's first process.
		err = errors.Join(err, p.kill())
	}
	n.machine, n.parts = nil, nil
	return err
}

func (n *Node) logFile(part string) string { return filepath.Join(n.dir, "log", part+".log") }

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
