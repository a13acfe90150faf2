package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Command is a program to start. Args and Log are required.
type Command struct {
	// Name is for messages.
	Name string
	// Args are the program's path and its arguments.
	Args []string
	// Env is its environment; nil: this process' own.
	Env []string
	// Log is the file that all its output is added to, made when missing.
	Log string
	// Prepare, if not nil, is called on the thread that starts the child right afterwards, and that is used for nothing else
	// any more: it may move that thread to the namespaces in which the child shall begin, and change the child's attributes.
	Prepare func(*syscall.SysProcAttr) error
}

// Process is a child. Of a nil one there is nothing to end.
type Process struct {
	name, log string
	cmd       *exec.Cmd
	done      chan struct{} // closed when it is gone
	err       error         // how it went, set before done is closed
}

// Start starts the program.
func (c Command) Start() (*Process, error) {
	p, err := c.start()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return p, nil
}

func (c Command) start() (*Process, error) {
	out, err := os.OpenFile(c.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &Process{name: c.Name, log: c.Log, cmd: exec.Command(c.Args[0], c.Args[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = out, out, c.Env
	// The terminal's Ctrl-C is for this process, which ends its children in order; the kernel ends them when it is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		defer close(p.done)
		defer func() { _ = out.Close() }()
		// The kernel's signal is tied to the thread that starts the child, and the child begins in that thread's namespaces: it is
		// kept, never unlocked, and ends with the goroutine.
		runtime.LockOSThread()
		var err error
		if c.Prepare != nil {
			err = c.Prepare(p.cmd.SysProcAttr)
		}
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

// Run runs the program to its end, or to that of the context, which kills it. The error has the end of the log.
func (c Command) Run(ctx context.Context) error {
	p, err := c.Start()
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s: %w; the end of %s:\n%s", c.Name, context.Cause(ctx), c.Log, Tail(c.Log)), p.Kill())
	}
	if p.err != nil {
		return p.Err()
	}
	return nil
}

// PID is the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is nil as long as the process runs, and then says how it ended, with the end of its log.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended (%v); the end of %s:\n%s", p.name, p.cmd.ProcessState, p.log, Tail(p.log))
	default:
		return nil
	}
}

// Signal sends a signal, unless the process is gone.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}

// Stop ends the process in order, by SIGTERM, and by SIGKILL when the context ends, which is an error. It returns when the
// process is gone; one that was gone before is stopped.
func (p *Process) Stop(ctx context.Context) error {
	if p == nil {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	return errors.Join(fmt.Errorf("%s did not end by itself: %w", p.name, context.Cause(ctx)), p.Kill())
}

// Kill ends the process at once and returns when it is gone.
func (p *Process) Kill() error {
	if p == nil {
		return nil
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Tail is the end of a log for messages, some 4 KB of whole lines; empty when there is none.
func Tail(log string) string {
	const most = 4 << 10
	f, err := os.Open(log)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	cut := false
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		cut = size > most
		_, _ = f.Seek(max(0, size-most), io.SeekStart)
	}
	text, _ := io.ReadAll(f)
	if cut {
		_, text, _ = bytes.Cut(text, []byte("\n")) // the first line is not whole
	}
	return string(bytes.TrimSpace(text))
}
