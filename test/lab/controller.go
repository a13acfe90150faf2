package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
)

// ErrControllerEnded says that a controller's process has ended without being told to. Start starts it anew.
var ErrControllerEnded = errors.New("the controller ended by itself")

// Controller is a controller's process, which comes and goes. Several of one lab elect a leader.
type Controller struct {
	lab  *Lab
	name string

	mu      sync.Mutex
	process *process // nil: told to be off
	address netip.AddrPort
}

func (c *Controller) get() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// pid is that of the process; 0 when it is off.
func (c *Controller) pid() int {
	if p := c.get(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Err says how the process ended that was not told to; nil when all is well.
func (c *Controller) Err() error {
	p := c.get()
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return fmt.Errorf("%s: %w: %v", c.name, ErrControllerEnded, p.cmd.ProcessState)
	default:
		return nil
	}
}

// Flags of the controller for leader election: a killed leader's lease runs out soon, and a busy machine does not lose
// it.
var electionFlags = []string{
	"--leader-elect-lease-duration=8s", "--leader-elect-renew-deadline=6s", "--leader-elect-retry-period=500ms",
}

// Start starts the controller, and returns before it is the leader.
func (c *Controller) Start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.process; p != nil {
		select {
		case <-p.done: // ended by itself; this is the restart
		default:
			return fmt.Errorf("%s runs already", c.name)
		}
	}
	l := c.lab
	port, err := freePort(l.Block.Controller())
	if err != nil {
		return fmt.Errorf("port of the %s: %w", c.name, err)
	}
	args := []string{
		"--cloud-config=" + l.cloudConfigFile(),
		"--kubeconfig=" + l.controllerKubeconfig(),
		"--authentication-kubeconfig=" + l.controllerKubeconfig(),
		"--authorization-kubeconfig=" + l.controllerKubeconfig(),
		"--bind-address=" + port.Addr().String(),
		fmt.Sprintf("--secure-port=%d", port.Port()),
		"--cert-dir=" + filepath.Join(l.Dir, c.name+"-certificates"),
		"--v=2",
	}
	args = append(args, electionFlags...)
	p, err := startProcess(c.Log(), filepath.Join(l.options.BinDir, controllerProgram), append(args, l.options.ControllerArgs...)...)
	if err != nil {
		return fmt.Errorf("the %s: %w", c.name, err)
	}
	c.process, c.address = p, port
	return nil
}

// URL is where the controller serves its health, metrics and audits: another one after each start.
func (c *Controller) URL() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return "https://" + c.address.String()
}

// Stop ends the controller as Kubernetes ends a Pod: SIGTERM, and SIGKILL when the context ends.
func (c *Controller) Stop(ctx context.Context) error {
	return c.end(ctx, syscall.SIGTERM)
}

// Kill ends the controller at once, as a crash does.
func (c *Controller) Kill() error {
	return c.end(context.Background(), syscall.SIGKILL)
}

// Pause has the process stand still, as on a machine that stalls; Resume lets it run on.
func (c *Controller) Pause() error { return c.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (c *Controller) Resume() error { return c.signal(syscall.SIGCONT) }

func (c *Controller) signal(s syscall.Signal) error {
	p := c.get()
	if p == nil {
		return fmt.Errorf("the %s is off", c.name)
	}
	return p.end(s)
}

func (c *Controller) end(ctx context.Context, signal syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.process
	if p == nil {
		return nil
	}
	c.process = nil
	if err := p.end(signal); err != nil {
		return fmt.Errorf("ending the %s: %w", c.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	if err := p.end(syscall.SIGKILL); err != nil {
		return fmt.Errorf("ending the %s: %w", c.name, err)
	}
	<-p.done
	return fmt.Errorf("the %s did not end by itself: %w", c.name, context.Cause(ctx))
}

// Restart ends the controller in order and starts it again.
func (c *Controller) Restart(ctx context.Context) error {
	if err := c.Stop(ctx); err != nil {
		return err
	}
	return c.Start()
}

// Log is the path of the controller's log, of all its runs.
func (c *Controller) Log() string { return filepath.Join(c.lab.Dir, c.name+".log") }

// AddController makes one more controller, which is off until it is started. The lab's Close ends it.
func (l *Lab) AddController() *Controller {
	c := &Controller{lab: l, name: fmt.Sprintf("controller-%d", len(l.more)+2)}
	l.more = append(l.more, c)
	return c
}

// freePort finds a port of an address that nobody but this lab uses.
func freePort(address netip.Addr) (netip.AddrPort, error) {
	listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, 0)))
	if err != nil {
		return netip.AddrPort{}, err
	}
	return listener.Addr().(*net.TCPAddr).AddrPort(), listener.Close()
}
