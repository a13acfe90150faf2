// Package controlplane runs a real Kubernetes control plane, etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler, in this one process, for tests and for the lab.
//
// It owns the state directory: keys, certificates, kubeconfigs and the etcd data. A directory used before is continued,
// with the same credentials. Nothing is synced to disk: the state survives a killed process, not a lost machine. There
// are no nodes, no kubelets and no kube-proxy. One process can hold one control plane: the components share package
// globals such as feature gates and metrics.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Options says where the control plane lives and how it differs from the defaults.
type Options struct {
	// Dir is the state directory; it is made when missing, and becomes the working directory of the process.
	Dir string
	// Listen is host:port of the API server: one IP address, port 0 for a free one.
	Listen string
	// ServiceClusterIPRange is kube-apiserver's --service-cluster-ip-range.
	ServiceClusterIPRange string
	// Controllers is kube-controller-manager's --controllers.
	Controllers []string
	// APIServerArgs, ControllerManagerArgs and SchedulerArgs are flags of the components, each "--name=value". A flag
	// given here replaces what this package would pass. Feature gates hold for the whole process, whichever component
	// they are given to.
	APIServerArgs, ControllerManagerArgs, SchedulerArgs []string
	// Log is the file to which etcd, which opens its own, shall log.
	Log string
	// Ready is called, from several goroutines, with the name of each component once it acts: etcd, apiserver, controllers,
	// scheduler, and at last control-plane, for all of them.
	Ready func(name string)
}

// shutdownGrace is how long the components may take to end by themselves. The API server waits for requests in flight,
// and its HTTP/2 connections for two seconds of GOAWAY, neither of which is worth waiting for when all its clients end
// in the same moment.
const shutdownGrace = time.Second

// Run runs the control plane until ctx ends, which is not an error, or until a part of it fails. When Run returns, the
// etcd data is complete, but goroutines of the components may be left: the process is expected to exit.
func Run(ctx context.Context, o Options) error {
	listener, err := listen(o.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // closed by the API server already, unless that never ran
	lock, err := enter(o.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	f, err := prepareFiles(listener.Addr().(*net.TCPAddr), o.ServiceClusterIPRange)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(f.restConfig(adminUser))
	if err != nil {
		return fmt.Errorf("API client: %w", err)
	}

	// Every flag is parsed before anything starts: a wrong one is found at once, and the feature gates, which the
	// components share, are all set before the first of them is asked for.
	apiserver, err := newAPIServer(o, listener, client)
	if err != nil {
		return err
	}
	controllers, err := newControllerManager(o, client)
	if err != nil {
		return err
	}
	scheduler, err := newScheduler(o)
	if err != nil {
		return err
	}
	if err := compatibility.DefaultComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("feature gates: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // as the components' own commands do

	etcd, err := startEtcd(ctx, o.Log)
	if err != nil {
		return err
	}
	o.Ready("etcd")

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watchEtcd(gctx, etcd) })
	apiserver.start(gctx, g)
	g.Go(func() error {
		if err := apiserver.awaitReady(gctx, o.Ready); err != nil {
			return err
		}
		if err := f.writeKubeconfig(kubeconfigFile, adminUser); err != nil {
			return err
		}
		controllers.start(gctx, g)
		scheduler.start(gctx, g)
		var both errgroup.Group
		both.Go(func() error { return controllers.awaitReady(gctx, o.Ready) })
		both.Go(func() error { return scheduler.awaitReady(gctx, o.Ready) })
		if err := both.Wait(); err != nil {
			return err
		}
		o.Ready("control-plane")
		return nil
	})

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Wait() // its error is the cause of gctx
	}()
	<-gctx.Done()
	select {
	case <-ended:
	case <-time.After(shutdownGrace):
	}
	etcd.Server.Stop()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(gctx)
}

// component is one part of the control plane that runs as goroutines of this process.
type component struct {
	name string
	// run returns when ctx ends, or with the reason why the component cannot go on.
	run func(ctx context.Context) error
	// ready returns nil as soon as the component acts.
	ready func(ctx context.Context) error
}

// start runs the component as a member of g.
func (c component) start(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return fmt.Errorf("%s ended: %w", c.name, c.run(ctx)) })
}

// awaitReady waits until the component acts and reports it.
func (c component) awaitReady(ctx context.Context, report func(name string)) error {
	if err := c.ready(ctx); err != nil {
		return fmt.Errorf("waiting for %s: %w", c.name, err)
	}
	report(c.name)
	return nil
}

// errEnded stands for the reason that a component did not give for ending.
var errEnded = errors.New("without an error")

// listen opens the API server's port. The address must be a single one, since clients and certificates name it.
func listen(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		return nil, fmt.Errorf("listen address %q: want the IP address of one interface", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("API server port: %w", err)
	}
	return l, nil
}

// enter makes dir, for this user alone, changes into it, and takes a lock that keeps others out. Etcd's sockets need the change:
// they are named relative to the working directory, because the path of a Unix socket is limited to some hundred bytes.
func enter(dir string) (lock io.Closer, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := os.Chdir(dir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err = fileutil.TryLockFile("lock", os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory %s, which another control plane may use: %w", dir, err)
	}
	return lock, nil
}

// untilReady calls check until it succeeds or ctx ends, and then returns the last error of check.
func untilReady(ctx context.Context, check func(ctx context.Context) error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
