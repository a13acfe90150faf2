package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// program is a child to start.
type program struct {
	name string // for messages
	args []string
	env  []string // in place of this process' own, if not nil
	log  string   // the file that its output is added to
	// in is the network to start it in.
	in Place
	// machine is the process whose mounts, process ids and host name it shares; 0: this process' own.
	machine int
	// newMachine gives it mounts, process ids and a host name of its own.
	newMachine bool
}

// process is a child that never outlives this process.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it is gone
	err  error         // how it went, set before done is closed
}

// start starts the program.
func (s program) start() (*process, error) {
	p, err := s.run()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	return p, nil
}

func (s program) run() (*process, error) {
	out, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{name: s.name, log: s.log, cmd: exec.Command(s.args[0], s.args[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = out, out, s.env
	// The terminal's Ctrl-C is for this process, which ends its children in order. The kernel ends them when this process is
	// killed: those on a machine with its first process, because a child that does not see its parent takes it for dead.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.machine == 0 {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if s.newMachine {
		p.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS
	}
	started := make(chan error)
	go func() {
		defer close(p.done)
		defer func() { _ = out.Close() }()
		// A child begins in the namespaces of the thread that starts it, and the kernel's signal is tied to that thread: it
		// is kept, never unlocked, and ends with the goroutine.
		runtime.LockOSThread()
		err := s.enter()
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	return p, nil
}

// enter moves the calling thread to where the program shall run.
func (s program) enter() error {
	if s.in != "" {
		if err := s.in.enter(); err != nil {
			return err
		}
	}
	if s.machine == 0 {
		return nil
	}
	// Opened before the first of them is entered: then /proc is another one. Threads that share a working directory may not
	// enter a mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("entering the machine: %w", err)
	}
	kinds := []struct {
		name string
		flag int
	}{{"pid", unix.CLONE_NEWPID}, {"uts", unix.CLONE_NEWUTS}, {"mnt", unix.CLONE_NEWNS}} // mounts last
	for _, k := range kinds {
		if err := setns(fmt.Sprintf("/proc/%d/ns/%s", s.machine, k.name), k.flag); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends a signal, unless the process is gone.
func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

// stop ends the process in order: SIGTERM, and SIGKILL when the context ends. A process that is gone already is stopped.
func (p *process) stop(ctx context.Context) error {
	if p == nil {
		return nil
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	return errors.Join(fmt.Errorf("%s did not end by itself: %w", p.name, context.Cause(ctx)), p.kill())
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() error {
	if p == nil {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// alive returns an error with the end of the log when the process is gone.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended (%v); the end of %s:\n%s", p.name, p.cmd.ProcessState, p.log, tail(p.log))
	default:
		return nil
	}
}

// tail is the end of a log, for messages.
func tail(log string) string {
	const most = 4000
	f, err := os.Open(log)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-most), io.SeekStart)
	}
	text, _ := io.ReadAll(f)
	return strings.TrimSpace(string(text))
}
