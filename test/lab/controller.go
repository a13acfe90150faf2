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

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
)

// ErrControllerEnded says that a controller's process has ended without being told to. Start starts it anew.
var ErrControllerEnded = errors.New("the controller ended by itself")

// Controller is a controller's process, which comes and goes. Several of one lab elect a leader.
type Controller struct {
	lab  *Lab
	name string

	mu      sync.Mutex
	process *programs.Process // nil: told to be off
	address netip.AddrPort
}

func (c *Controller) get() *programs.Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// pid is that of the process; 0 when it is off.
func (c *Controller) pid() int {
	if p := c.get(); p != nil {
		return p.PID()
	}
	return 0
}

// Err says how the process ended that was not told to; nil when all is well.
func (c *Controller) Err() error {
	p := c.get()
	if p == nil {
		return nil
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrControllerEnded, err)
	}
	return nil
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
	if p := c.process; p != nil && p.Err() == nil { // else this is the restart
		return fmt.Errorf("%s runs already", c.name)
	}
	l := c.lab
	port, err := freePort(l.Block.Controller())
	if err != nil {
		return fmt.Errorf("port of the %s: %w", c.name, err)
	}
	args := []string{
		filepath.Join(l.options.BinDir, controllerProgram),
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
	p, err := programs.Command{Name: c.name, Args: append(args, l.options.ControllerArgs...), Log: c.Log()}.Start()
	if err != nil {
		return err
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
	return c.end(func(p *programs.Process) error { return p.Stop(ctx) })
}

// Kill ends the controller at once, as a crash does.
func (c *Controller) Kill() error {
	return c.end((*programs.Process).Kill)
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
	return p.Signal(s)
}

// end ends the process, which is nil if the controller is off already.
func (c *Controller) end(how func(*programs.Process) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.process
	c.process = nil
	return how(p)
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
