//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
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
const startWithin = 5 * time.Minute

// world is the cluster, which the first test starts, and what all tests share.
type world struct {
	*cluster.Cluster
	ends  context.Context // ends with Ctrl-C
	start func() error
	ports atomic.Uint32 // of visits so far
}

// theWorld is set by TestMain.
var theWorld *world

// TestMain sees to the end of the cluster, however the tests end.
func TestMain(m *testing.M) {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := &world{ends: ctx}
	w.start = sync.OnceValue(w.startCluster)
	theWorld = w
	code := m.Run()
	if err := w.end(code != 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// inWorld is the cluster for a test.
func inWorld(t *testing.T) *world {
	t.Helper()
	w := theWorld
	if w.ends.Err() != nil {
		t.Fatal("interrupted")
	}
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// endWithin is what is kept of the time of all tests for their cleanup, the logs and the end of the cluster.
const endWithin = 5 * time.Minute

// context ends with the test, and when all tests are to end: by Ctrl-C, or for want of time.
func (w *world) context(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	unlink := context.AfterFunc(w.ends, cancel)
	t.Cleanup(func() {
		unlink()
		cancel()
	})
	deadline, limited := t.Deadline()
	if !limited {
		return ctx
	}
	ctx, cancelAll := context.WithDeadlineCause(ctx, deadline.Add(-endWithin), errors.New("all tests together take too long"))
	t.Cleanup(cancelAll)
	return ctx
}

func (w *world) startCluster() error {
	wrong, err := defects()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.ends, startWithin)
	defer cancel()
	began := time.Now()
	w.Cluster, err = cluster.Start(ctx, cluster.Options{ProxyMode: *proxyMode, Defects: wrong, LogDir: *logDir})
	if err != nil {
		return err
	}
	fmt.Printf("cluster %d with kube-proxy in mode %s is up after %.1f s\n", w.Topology.Number, *proxyMode, time.Since(began).Seconds())
	if len(wrong) > 0 {
		fmt.Printf("NSX's edge does wrong: %v. Tests shall fail.\n", wrong)
	}
	return nil
}

// end ends the cluster. When tests have failed, its logs are kept.
func (w *world) end(failed bool) error {
	if w.Cluster == nil {
		return nil
	}
	ctx := context.WithoutCancel(w.ends)
	var errs []error
	if failed {
		dir := *logDir
		if dir == "" {
			dir = w.Dir + "-logs"
		}
		errs = append(errs, w.CollectLogs(ctx, dir))
		dir, _ = filepath.Abs(dir)
		fmt.Printf("the logs of the cluster are in %s\n", dir)
	}
	return errors.Join(append(errs, w.Close(ctx))...)
}

// port is a port for a client. It is chosen here, so that it is known of connections that fail too; below those that the
// kernel chooses, and not again before the kernel has forgotten about it.
func (w *world) port() uint16 {
	const first, number = 10000, 20000
	return uint16(first + w.ports.Add(1)%number)
}
