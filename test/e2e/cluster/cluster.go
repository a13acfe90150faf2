package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/controlplane"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

// Cluster is a running cluster.
type Cluster struct {
	// Topology has the names and addresses of its machines.
	Topology Topology
	// Dir has its files, the logs among them; it is removed by Close.
	Dir string
	// Nodes are its nodes, node-1 first.
	Nodes []*Node
	// Client is an administrator's client of the API server, without a rate limit, and Config what made it.
	Client kubernetes.Interface
	Config *rest.Config
	// NSX is the simulated NSX manager.
	NSX *NSX
	// VCenter is the simulated vCenter.
	VCenter *vcsim.Server

	options         Options
	claim           *claim
	authority       *authority
	plane           *controlplane.ControlPlane
	endControlPlane context.CancelFunc
	nsx, dns        *programs.Process
	closeVCenter    func() error

	closing   sync.Once
	closed    error // how Close went
	reporting sync.Mutex
	parts     []Part
}

// Start starts a cluster and waits until its Nodes are Ready and initialized by the controller, whose Deployment is
// available. The context bounds the start; the cluster runs until Close. When the start fails, nothing of it is left but its
// logs, and the error names their place; when it is cancelled, not even these.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := check(ctx, o.BinDir); err != nil {
		return nil, err
	}
	if err := Clean(ctx); err != nil {
		return nil, fmt.Errorf("cluster: what another one left: %w", err)
	}
	c := &Cluster{options: o}
	if c.claim, err = takeAny(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c.Dir = c.claim.dir
	c.Topology = Topology{Number: c.claim.number, Nodes: o.Nodes}
	if err := c.start(ctx); err != nil {
		err = fmt.Errorf("cluster: %w", err)
		ending := context.WithoutCancel(ctx) // it may have ended
		if !errors.Is(ctx.Err(), context.Canceled) {
			err = errors.Join(err, c.collectStart(ending))
		}
		return nil, errors.Join(err, c.Close(ending))
	}
	return c, nil
}

// collectStart collects the logs of a start that failed, and returns an error that names the place.
func (c *Cluster) collectStart(ctx context.Context) error {
	dir := c.options.LogDir
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "nsxt-e2e-logs-"+time.Now().Format("20060102-150405"))
	}
	return errors.Join(fmt.Errorf("its logs are in %s", dir), c.CollectLogs(ctx, dir))
}

func (c *Cluster) start(ctx context.Context) error {
	var err error
	if c.authority, err = newAuthority(); err != nil {
		return err
	}
	if err := errors.Join(c.claim.open(c.options.Endable), os.MkdirAll(filepath.Join(c.Dir, "log"), 0o700)); err != nil {
		return err
	}
	if err := c.measure("network", func() error { return c.Topology.connect(ctx) }); err != nil {
		return err
	}
	for i := 1; i <= c.Topology.Nodes; i++ {
		n := c.Topology.newNode(i, c.Dir)
		n.bin, n.authority = filepath.Join(c.options.BinDir, "e2e"), c.authority
		c.Nodes = append(c.Nodes, n)
	}

	if err := c.writeCommands(); err != nil {
		return err
	}

	// What needs nothing but its address.
	var g errgroup.Group
	g.Go(func() error {
		return c.measure("control plane", func() error { return c.startControlPlane(ctx) })
	})
	g.Go(func() error { return c.measure("NSX simulator", func() error { return c.startNSX(ctx) }) })
	g.Go(func() error { return c.measure("vCenter simulator", func() error { return c.startVCenter(ctx) }) })
	g.Go(func() error { return c.measure("container runtimes", func() error { return c.startMachines(ctx) }) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := c.startDNS(); err != nil {
		return err
	}
	if err := forEach(c.Nodes, (*Node).join); err != nil {
		return err
	}
	return c.measure("controller and nodes", func() error {
		if err := c.install(ctx); err != nil {
			return err
		}
		return c.AwaitReady(ctx)
	})
}

// startMachines boots all nodes and gives them the images.
func (c *Cluster) startMachines(ctx context.Context) error {
	controller := filepath.Join(c.Dir, "controller.tar")
	if err := c.packController(controller); err != nil {
		return err
	}
	images := filepath.Join(c.options.BinDir, "e2e", "images")
	return forEach(c.Nodes, func(n *Node) error {
		if err := n.prepare(c.CAFile(), c.options.ProxyMode, c.Topology); err != nil {
			return err
		}
		if err := n.boot(ctx); err != nil {
			return err
		}
		for _, image := range []string{controller, filepath.Join(images, "pause.tar"), filepath.Join(images, "agnhost.tar")} {
			if err := n.load(ctx, image); err != nil {
				return err
			}
		}
		return nil
	})
}

// measure runs the start of a part.
func (c *Cluster) measure(name string, start func() error) error {
	began := time.Now()
	if err := start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	c.reporting.Lock()
	defer c.reporting.Unlock()
	p := Part{Name: name, Took: time.Since(began)}
	c.parts = append(c.parts, p)
	if c.options.Report != nil {
		c.options.Report(p)
	}
	return nil
}

func (c *Cluster) node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (c *Cluster) log(name string) string { return filepath.Join(c.Dir, "log", name+".log") }

// Err says which part has ended that was not told to; nil when all is well.
func (c *Cluster) Err() error {
	select {
	case <-c.plane.Done():
		return c.plane.Err()
	default:
	}
	for _, p := range []*programs.Process{c.nsx, c.dns} {
		if err := p.Err(); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		n.mu.Lock()
		err := n.alive()
		n.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	// closeWithin is how long the parts may take to end by themselves.
	closeWithin = 20 * time.Second
	// cleanWithin bounds the removal of what the kernel keeps.
	cleanWithin = time.Minute
)

// Close ends everything and returns when nothing of the cluster is left, also when the context has ended. Further calls do
// nothing and return the same.
func (c *Cluster) Close(ctx context.Context) error {
	c.closing.Do(func() {
		ctx := context.WithoutCancel(ctx)
		stopping, cancel := context.WithTimeout(ctx, closeWithin)
		defer cancel()
		err := c.stop(stopping)
		// Whatever did not end by itself: the removal has its time.
		cleaning, cancel := context.WithTimeout(ctx, cleanWithin)
		defer cancel()
		if err := errors.Join(err, c.claim.clean(cleaning), c.claim.release()); err != nil {
			c.closed = fmt.Errorf("closing the cluster: %w", err)
		}
	})
	return c.closed
}

// stop ends all processes and servers.
func (c *Cluster) stop(ctx context.Context) error {
	errs := []error{forEach(c.Nodes, func(n *Node) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.die()
	})}
	errs = append(errs, c.dns.Kill(), c.nsx.Stop(ctx))
	if c.closeVCenter != nil {
		errs = append(errs, c.closeVCenter())
	}
	if c.plane != nil {
		errs = append(errs, c.plane.Stop())
	}
	if c.endControlPlane != nil {
		c.endControlPlane()
	}
	return errors.Join(errs...)
}
