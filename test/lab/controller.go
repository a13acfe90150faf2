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

// ErrControllerEnded says that the controller's process has ended without being told to. StartController starts it anew.
var ErrControllerEnded = errors.New("the controller ended by itself")

// controller is the controller's process, which comes and goes.
type controller struct {
	mu      sync.Mutex
	process *process // nil: told to be off
}

func (c *controller) get() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process
}

// pid is that of the process; 0 when it is off.
func (c *controller) pid() int {
	if p := c.get(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// unexpected says how the process ended that was not told to; nil when all is well.
func (c *controller) unexpected() error {
	p := c.get()
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return fmt.Errorf("%w: %v", ErrControllerEnded, p.cmd.ProcessState)
	default:
		return nil
	}
}

// Flags of the controller for leader election: a killed leader's lease runs out soon, and a busy machine does not lose
// it.
var electionFlags = []string{
	"--leader-elect-lease-duration=8s", "--leader-elect-renew-deadline=6s", "--leader-elect-retry-period=500ms",
}

// StartController starts the controller, and returns before it is the leader.
func (l *Lab) StartController() error {
	l.controller.mu.Lock()
	defer l.controller.mu.Unlock()
	if p := l.controller.process; p != nil {
		select {
		case <-p.done: // ended by itself; this is the restart
		default:
			return errors.New("the controller runs already")
		}
	}
	port, err := freePort(l.Block.Controller())
	if err != nil {
		return fmt.Errorf("port of the controller: %w", err)
	}
	args := []string{
		"--cloud-config=" + l.cloudConfigFile(),
		"--kubeconfig=" + l.controllerKubeconfig(),
		"--authentication-kubeconfig=" + l.controllerKubeconfig(),
		"--authorization-kubeconfig=" + l.controllerKubeconfig(),
		"--bind-address=" + port.Addr().String(),
		fmt.Sprintf("--secure-port=%d", port.Port()),
		"--cert-dir=" + filepath.Join(l.Dir, "controller-certificates"),
		"--v=2",
	}
	args = append(args, electionFlags...)
	p, err := startProcess(l.ControllerLog(), filepath.Join(l.options.BinDir, controllerProgram), append(args, l.options.ControllerArgs...)...)
	if err != nil {
		return fmt.Errorf("the controller: %w", err)
	}
	l.controller.process = p
	return nil
}

// StopController ends the controller as Kubernetes ends a Pod: SIGTERM, and SIGKILL when the context ends.
func (l *Lab) StopController(ctx context.Context) error {
	return l.endController(ctx, syscall.SIGTERM)
}

// KillController ends the controller at once, as a crash does.
func (l *Lab) KillController() error {
	return l.endController(context.Background(), syscall.SIGKILL)
}

func (l *Lab) endController(ctx context.Context, signal syscall.Signal) error {
	l.controller.mu.Lock()
	defer l.controller.mu.Unlock()
	p := l.controller.process
	if p == nil {
		return nil
	}
	l.controller.process = nil
	if err := p.end(signal); err != nil {
		return fmt.Errorf("ending the controller: %w", err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	if err := p.end(syscall.SIGKILL); err != nil {
		return fmt.Errorf("ending the controller: %w", err)
	}
	<-p.done
	return fmt.Errorf("the controller did not end by itself: %w", context.Cause(ctx))
}

// RestartController ends the controller in order and starts it again.
func (l *Lab) RestartController(ctx context.Context) error {
	if err := l.StopController(ctx); err != nil {
		return err
	}
	return l.StartController()
}

// ControllerLog is the path of the controller's log, of all its runs.
func (l *Lab) ControllerLog() string { return filepath.Join(l.Dir, "controller.log") }

// freePort finds a port of an address that nobody but this lab uses.
func freePort(address netip.Addr) (netip.AddrPort, error) {
	listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, 0)))
	if err != nil {
		return netip.AddrPort{}, err
	}
	return listener.Addr().(*net.TCPAddr).AddrPort(), listener.Close()
}
