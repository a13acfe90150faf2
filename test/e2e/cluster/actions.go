package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Kubectl is a kubectl command of an administrator, who sits at the outside client.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	// What it remembers of an API server goes by its address, which all clusters have.
	args = append([]string{"--kubeconfig=" + c.Kubeconfig(), "--cache-dir=" + c.KubectlCache()}, args...)
	return c.Topology.Client().Command(ctx, filepath.Join(c.options.BinDir, "kubectl"), args...)
}

// KubectlCache is the directory where kubectl keeps what it knows of the cluster.
func (c *Cluster) KubectlCache() string { return filepath.Join(c.Dir, "kubectl-cache") }

// writeCommands writes what people type: kubectl of this cluster, and a prefix for commands on its client.
func (c *Cluster) writeCommands() error {
	client := strings.Join(c.Topology.Client().wrapper(), " ")
	kubectl := strings.Join(c.Kubectl(context.Background()).Args, "' '")
	for name, text := range map[string]string{
		"kubectl": "exec '" + kubectl + "' \"$@\"",
		"client":  "exec " + client + " \"$@\"",
	} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// BinDir is the directory of the programs that the cluster runs.
func (c *Cluster) BinDir() string { return c.options.BinDir }

// Node finds a node by name.
func (c *Cluster) Node(name string) (*Node, error) {
	if n := c.node(name); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("there is no node %q", name)
}

// PodLogDir is where the node keeps the logs of pods: NAMESPACE_NAME_UID/CONTAINER/N.log, those of containers that are gone
// included.
func (n *Node) PodLogDir() string { return filepath.Join(n.dir, "var-log", "pods") }

// IsOff says whether the machine is switched off.
func (n *Node) IsOff() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.machine == nil
}

// PowerOff cuts a node's power: its processes and containers are gone at once, and nothing answers for it any more.
func (c *Cluster) PowerOff(ctx context.Context, n *Node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.machine == nil {
		return nil
	}
	err := errors.Join(
		c.Topology.pull(ctx, n.number, true),
		n.die(),
		removeCgroup(ctx, n.cgroup),
		c.VCenter.SetPower(n.Name, false))
	if err != nil {
		return fmt.Errorf("power off %s: %w", n.Name, err)
	}
	return nil
}

// PowerOn boots a node that was switched off: with its disk as it was, and a kernel that knows nothing of before.
func (c *Cluster) PowerOn(ctx context.Context, n *Node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.machine != nil {
		return nil
	}
	err := c.VCenter.SetPower(n.Name, true)
	if err == nil {
		err = c.Topology.reconnectNode(ctx, n.number)
	}
	if err == nil {
		err = n.boot(ctx)
	}
	if err == nil {
		err = n.join()
	}
	if err != nil { // it is off, and not half of it on
		return fmt.Errorf("power on %s: %w", n.Name, errors.Join(err, n.die()))
	}
	return nil
}

// drainTimeout is kubectl's: the pods of tests end soon.
const drainTimeout = 2 * time.Minute

// Drain evicts the pods of a node and keeps new ones off it, as an administrator does before an upgrade.
func (c *Cluster) Drain(ctx context.Context, n *Node) error {
	return c.kubectl(ctx, "drain", n.Name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout="+drainTimeout.String())
}

// Uncordon takes a drained node into service again.
func (c *Cluster) Uncordon(ctx context.Context, n *Node) error {
	return c.kubectl(ctx, "uncordon", n.Name)
}

func (c *Cluster) kubectl(ctx context.Context, args ...string) error {
	if out, err := c.Kubectl(ctx, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", args[0], err, out)
	}
	return nil
}
