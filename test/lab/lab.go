// Package lab is a whole cluster on loopback: a real Kubernetes control plane, a simulated vCenter and NSX, the
// controller as a process of its own, and nodes whose node ports really answer. It needs Linux, and neither root nor a
// container runtime. Any number of labs run side by side, in one process or in several.
//
// A Lab owns all of that: its block of addresses, its directory, its children and servers. Children never outlive the
// process, and a directory left by a killed lab is removed by the next one. What is tried in a lab is not its business:
// see package scenarios.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/controlplane"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/nodeagent"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

// abandonWithin is how long the controller may take to end when the start has failed.
const abandonWithin = 15 * time.Second

// Lab is a running cluster.
type Lab struct {
	// Block has the lab's addresses.
	Block *block.Block
	// Dir has the lab's files: kubeconfigs, the cloud config and the logs.
	Dir string
	// NSX is the simulated NSX manager: its objects, its journal and its faults.
	NSX *nsxsim.Server
	// VCenter is the simulated vCenter.
	VCenter *vcsim.Server
	// Agent plays the nodes.
	Agent *nodeagent.Agent
	// Controller is the first, and mostly the only one.
	Controller *Controller
	// Client is an administrator's client of the API server, without a rate limit, and Config what made it.
	Client kubernetes.Interface
	Config *rest.Config
	// CloudConfig is what the controller was given.
	CloudConfig *config.CloudConfig

	options         Options
	controlPlane    *controlplane.ControlPlane
	endControlPlane context.CancelFunc
	more            []*Controller
	closing         sync.Once
	closed          error // how Close went

	reporting sync.Mutex
	parts     []Part
}

// Start starts a lab and waits until all its Nodes are Ready and initialized by the controller. The context bounds the
// start; the lab runs until Close.
func Start(ctx context.Context, o Options) (*Lab, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if _, err := Clean(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l := &Lab{options: o}
	l.Controller = &Controller{lab: l, name: "controller"}
	if err := l.start(ctx); err != nil {
		err = fmt.Errorf("lab: %w", err)
		if text := programs.Tail(l.Controller.Log()); text != "" && !errors.Is(err, ErrControllerEnded) { // which has it
			err = fmt.Errorf("%w\nthe end of the controller's log:\n%s", err, text)
		}
		// Also when the context has ended.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonWithin)
		defer cancel()
		return nil, errors.Join(err, l.Close(closing))
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) error {
	var err error
	if l.Block, err = block.Take(); err != nil {
		return err
	}
	if l.Dir, err = makeDir(l.Block); err != nil {
		return err
	}
	// Three parts that need nothing but their addresses.
	var g errgroup.Group
	g.Go(func() error {
		return l.measure("control plane", func() (int, error) { return l.startControlPlane(ctx) })
	})
	g.Go(func() error { return l.measure("NSX simulator", func() (int, error) { return 0, l.startNSX() }) })
	g.Go(func() error {
		return l.measure("vCenter simulator", func() (int, error) { return 0, l.startVCenter(ctx) })
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if err := l.measure("nodes", func() (int, error) { return 0, l.startNodes(ctx) }); err != nil {
		return err
	}
	if err := l.install(ctx); err != nil {
		return err
	}
	if l.options.WithoutController {
		return nil
	}
	return l.measure("controller", func() (int, error) {
		if err := l.Controller.Start(); err != nil {
			return 0, err
		}
		return l.Controller.pid(), l.AwaitNodes(ctx)
	})
}

// measure runs the start of a part, which returns the id of its process, if it has one.
func (l *Lab) measure(name string, start func() (pid int, err error)) error {
	began := time.Now()
	pid, err := start()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p := Part{Name: name, Took: time.Since(began)}
	if pid != 0 {
		p.Memory = residentMemory(pid)
	}
	l.reporting.Lock()
	defer l.reporting.Unlock()
	l.parts = append(l.parts, p)
	if l.options.Report != nil {
		l.options.Report(p)
	}
	return nil
}

// Parts are the parts of the lab in the order in which they were up.
func (l *Lab) Parts() []Part {
	l.reporting.Lock()
	defer l.reporting.Unlock()
	return slices.Clone(l.parts)
}

// Memory is how many bytes of memory all of the lab holds now: this process and its children.
func (l *Lab) Memory() int64 {
	return residentMemory(os.Getpid()) + residentMemory(l.controlPlane.PID()) + residentMemory(l.Controller.pid())
}

func (l *Lab) startControlPlane(ctx context.Context) (pid int, err error) {
	// The context ends the start, but not what has been started.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	l.endControlPlane = end
	defer context.AfterFunc(ctx, end)()
	l.controlPlane, err = controlplane.Start(life, controlplane.Options{
		Binary:                filepath.Join(l.options.BinDir, kubeProgram),
		Dir:                   filepath.Join(l.Dir, "control-plane"),
		ServiceClusterIPRange: l.Block.ClusterIPs().String(),
		ControllerManagerArgs: []string{
			fmt.Sprintf("--node-monitor-grace-period=%v", leaseDuration+2*time.Second), "--node-monitor-period=1s",
		},
	})
	if err != nil {
		return 0, err
	}
	l.Config, l.Client = l.controlPlane.RESTConfig(), l.controlPlane.Client()
	l.Config.WarningHandler = rest.NoWarnings{}
	return l.controlPlane.PID(), nil
}

// Kubeconfig is the path of an administrator's kubeconfig.
func (l *Lab) Kubeconfig() string { return l.controlPlane.Kubeconfig() }

// ControlPlanePID is the id of the control plane's process.
func (l *Lab) ControlPlanePID() int { return l.controlPlane.PID() }

// Err says which child has ended that was not told to; nil when all is well.
func (l *Lab) Err() error {
	select {
	case <-l.controlPlane.Done():
		return l.controlPlane.Err()
	default:
		return l.Controller.Err()
	}
}

// KeepFiles has Close leave the lab's directory, with the logs, in place. The next lab removes it.
func (l *Lab) KeepFiles() { l.options.KeepFiles = true }

// Close ends everything, in order, and returns when nothing of the lab is left. The context bounds how long the
// controller may take to end by itself. Further calls do nothing and return the same.
func (l *Lab) Close(ctx context.Context) error {
	l.closing.Do(func() { l.closed = l.close(ctx) })
	return l.closed
}

func (l *Lab) close(ctx context.Context) error {
	var errs []error
	for _, c := range append(l.more, l.Controller) {
		errs = append(errs, c.Stop(ctx))
	}
	if l.Agent != nil {
		l.Agent.Close()
	}
	if l.controlPlane != nil {
		errs = append(errs, l.controlPlane.Stop())
	}
	if l.endControlPlane != nil {
		l.endControlPlane()
	}
	if l.NSX != nil {
		errs = append(errs, l.NSX.Close())
	}
	if l.VCenter != nil {
		errs = append(errs, l.VCenter.Close())
	}
	if l.Dir != "" && !l.options.KeepFiles {
		errs = append(errs, os.RemoveAll(l.Dir))
	}
	if l.Block != nil {
		errs = append(errs, l.Block.Release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the lab: %w", err)
	}
	return nil
}
