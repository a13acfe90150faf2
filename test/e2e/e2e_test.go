//go:build e2e

package e2e

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
)

var (
	proxyMode      = flag.String("proxy-mode", cluster.NFTables, "mode of kube-proxy: nftables or iptables")
	rollingUpdates = flag.Bool("rolling-updates", false, "run the upstream tests of rolling updates too, a quarter of an hour each")
	logDir         = flag.String("logs", "", "where the logs of the cluster go when a test fails; empty: a directory beside the cluster's own")
)

// startWithin bounds the start of the cluster.
const startWithin = 3 * time.Minute

// TestE2E starts a cluster and plays all tests in it, one after the other: most of them take something away that the others
// need.
func TestE2E(t *testing.T) {
	// Ctrl-C ends the tests, and the cluster with them.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := &world{Cluster: start(ctx, t)}
	for _, test := range []struct {
		name string
		play func(*testing.T, *world)
	}{
		{"LoadBalancers", upstream},
		{"Packets", packets},
		{"PolicyFlips", policyFlips},
		{"TwentyServices", twentyServices},
		{"Monitors", monitors},
		{"NodeExcluded", nodeExcluded},
		{"NodeDrained", nodeDrained},
		{"NodePoweredOff", nodePoweredOff},
		{"ControllerKilled", controllerKilled},
		{"ControllerReplaced", controllerReplaced},
		{"NSXDown", nsxDown},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := ctx.Err(); err != nil {
				t.Fatal(context.Cause(ctx))
			}
			test.play(t, w)
		})
	}
}

// world is the cluster, and what all tests share.
type world struct {
	*cluster.Cluster
	ports atomic.Uint32 // of visits so far
}

// port is a port for a client. It is chosen here, so that it is known of connections that fail too; below those that the
// kernel chooses, and not again before the kernel has forgotten about it.
func (w *world) port() uint16 {
	const first, number = 10000, 20000
	return uint16(first + w.ports.Add(1)%number)
}

// start starts the cluster, and sees to its end.
func start(ctx context.Context, t *testing.T) *cluster.Cluster {
	t.Helper()
	began := time.Now()
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	c, err := cluster.Start(starting, cluster.Options{ProxyMode: *proxyMode, Defects: defects(t), LogDir: *logDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cluster %d with kube-proxy in mode %s is up after %.1f s", c.Topology.Number, *proxyMode, time.Since(began).Seconds())
	t.Cleanup(func() {
		ending := context.WithoutCancel(ctx)
		if t.Failed() {
			dir := *logDir
			if dir == "" {
				dir = c.Dir + "-logs"
			}
			if err := c.CollectLogs(ending, dir); err != nil {
				t.Error(err)
			}
			dir, _ = filepath.Abs(dir)
			t.Logf("the logs of the cluster are in %s", dir)
		}
		if err := c.Close(ending); err != nil {
			t.Error(err)
		}
	})
	return c
}
