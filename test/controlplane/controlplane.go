// Package controlplane starts a real Kubernetes control plane, etcd, API server, controller manager and scheduler, as a child
// process on loopback, for the lab and for tests.
//
// It owns that process and never leaves it behind: it ends with Stop, with the context given to Start, and, on Linux, with
// this process, however that ends. The binary, bin/kube, is built from the module in test/kube. There are no kubelets: a Node
// is whatever object one creates, and a Pod that the scheduler binds stays Pending until one writes its status.
package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// readyTimeout is far more than the two or three seconds it takes on an idle machine.
	readyTimeout = 5 * time.Minute
	// stopTimeout is how long the process may take to end after SIGTERM; on an idle machine it takes one second.
	stopTimeout = 30 * time.Second
	// whole is the name under which the process reports that all its parts act.
	whole = "control-plane"
)

// Options says what to start. Binary and Dir are required.
type Options struct {
	// Binary is the path of kube; FindBinary knows where the build puts it.
	Binary string
	// Wrapper, if any, is a command that becomes the binary when the binary's command line is added to it: nsenter with its
	// arguments, to run the control plane in another network. The client then needs a dialer of its own.
	Wrapper []string
	// Dir is the state directory, made when missing. One that was used before is continued, with the same credentials.
	Dir string
	// Listen is the IP address and port of the API server; empty for a free port on 127.0.0.1.
	Listen string
	// ServiceClusterIPRange is where cluster IPs come from: one range, or two of different families with a comma between
	// them; empty for 10.96.0.0/16.
	ServiceClusterIPRange string
	// Controllers are the values of kube-controller-manager's --controllers; none means all that run by default.
	Controllers []string
	// APIServerArgs, ControllerManagerArgs and SchedulerArgs are flags of the components, "--name=value" each.
	APIServerArgs, ControllerManagerArgs, SchedulerArgs []string
}

// Readiness says when a part of the control plane began to act.
type Readiness struct {
	// Name is etcd, apiserver, controllers or scheduler; the last one is control-plane, for all of them.
	Name string
	// After is the time since the process started.
	After time.Duration
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	kubeconfig string
	log        string
	config     *rest.Config
	client     kubernetes.Interface
	readiness  []Readiness
	pid        int

	stop context.CancelFunc
	done chan struct{} // closed when the process is gone
	err  error         // why it went, set before done is closed
}

// Start starts a control plane and waits until all of it acts. The control plane ends when ctx does. An error carries the end
// of the log, if the process wrote one.
func Start(ctx context.Context, o Options) (*ControlPlane, error) {
	if o.Binary == "" || o.Dir == "" {
		return nil, errors.New("control plane: Binary and Dir are required")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	life, stop := context.WithCancel(ctx)
	c := &ControlPlane{
		kubeconfig: filepath.Join(dir, "kubeconfig"),
		log:        filepath.Join(dir, "control-plane.log"),
		stop:       stop,
		done:       make(chan struct{}),
	}
	ready := make(chan struct{})
	go c.run(life, slices.Concat(o.Wrapper, []string{o.Binary}, o.args(dir)), ready)

	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case <-ready:
		err = c.connect()
	case <-c.done:
		return nil, c.err
	case <-timeout.C:
		err = c.withLog(fmt.Errorf("not ready after %v", readyTimeout))
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = c.Stop() // what is wrong is known
		return nil, fmt.Errorf("control plane: %w", err)
	}
	return c, nil
}

// args is the command line after the name of the binary.
func (o Options) args(dir string) []string {
	args := []string{"control-plane", "--dir=" + dir}
	if o.Listen != "" {
		args = append(args, "--listen="+o.Listen)
	}
	if o.ServiceClusterIPRange != "" {
		args = append(args, "--service-cluster-ip-range="+o.ServiceClusterIPRange)
	}
	if len(o.Controllers) > 0 {
		args = append(args, "--controllers="+strings.Join(o.Controllers, ","))
	}
	for _, arg := range o.APIServerArgs {
		args = append(args, "--apiserver-arg="+arg)
	}
	for _, arg := range o.ControllerManagerArgs {
		args = append(args, "--controller-manager-arg="+arg)
	}
	for _, arg := range o.SchedulerArgs {
		args = append(args, "--scheduler-arg="+arg)
	}
	return args
}

// run runs the process from its start to its end, and closes ready when all of it acts.
func (c *ControlPlane) run(ctx context.Context, command []string, ready chan<- struct{}) {
	defer close(c.done)
	defer c.stop()
	// A child that dies with its parent dies with the thread that started it: keep that thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	// The process writes its log to this file as well; what comes this way is its last words.
	log, err := os.OpenFile(c.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		c.err = fmt.Errorf("control plane: %w", err)
		return
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = log
	cmd.SysProcAttr = processAttributes()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		c.err = fmt.Errorf("control plane: %w", err)
		return
	}
	if err := cmd.Start(); err != nil {
		c.err = fmt.Errorf("control plane: %w", err)
		return
	}
	c.pid = cmd.Process.Pid
	readErr := c.readReadiness(stdout, ready)
	err = cmd.Wait()
	if ctx.Err() != nil && cmd.ProcessState.Success() {
		return // as it was told to
	}
	if err == nil {
		err = errors.New("ended without being told to")
	}
	c.err = c.withLog(fmt.Errorf("control plane: process %d: %w", c.pid, errors.Join(err, readErr)))
}

// readReadiness reads lines such as "ready apiserver 1.93s" until the process closes its output, and closes ready at the line
// for the whole.
func (c *ControlPlane) readReadiness(r io.Reader, ready chan<- struct{}) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var name, after string
		if _, err := fmt.Sscanf(lines.Text(), "ready %s %s", &name, &after); err != nil {
			continue // not such a line
		}
		d, err := time.ParseDuration(after)
		if err != nil {
			continue
		}
		c.readiness = append(c.readiness, Readiness{Name: name, After: d})
		if name == whole {
			close(ready)
			_, err := io.Copy(io.Discard, r) // the readiness is the caller's from here on
			return err
		}
	}
	return lines.Err()
}

// connect makes the client.
func (c *ControlPlane) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // no limit: the API server is nobody else's
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	c.config, c.client = config, client
	return nil
}

// withLog adds the end of the log to err.
func (c *ControlPlane) withLog(err error) error {
	if tail := c.LogTail(); tail != "" {
		return fmt.Errorf("%w; the end of %s:\n%s", err, c.log, tail)
	}
	return err
}

// LogTail returns the last lines of the log, some 4 KiB of them.
func (c *ControlPlane) LogTail() string {
	const size = 4 << 10
	f, err := os.Open(c.log)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(-size, io.SeekEnd); err != nil {
		_, _ = f.Seek(0, io.SeekStart) // it is shorter
	}
	tail, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	if len(tail) == size {
		_, tail, _ = bytes.Cut(tail, []byte("\n")) // the first line is not whole
	}
	return string(tail)
}

// Kubeconfig is the path of an administrator's kubeconfig, readable by this user alone.
func (c *ControlPlane) Kubeconfig() string { return c.kubeconfig }

// RESTConfig returns a copy of an administrator's client configuration, without a limit of requests.
func (c *ControlPlane) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// Client is an administrator's client.
func (c *ControlPlane) Client() kubernetes.Interface { return c.client }

// Readiness says when each part began to act, in that order.
func (c *ControlPlane) Readiness() []Readiness { return c.readiness }

// PID is the process id, for looking at what the process uses.
func (c *ControlPlane) PID() int { return c.pid }

// Log is the path of the log.
func (c *ControlPlane) Log() string { return c.log }

// Done is closed when the process is gone, told to or not.
func (c *ControlPlane) Done() <-chan struct{} { return c.done }

// Err returns, after Done, why the process went: nil when Stop or the end of the context made it go.
func (c *ControlPlane) Err() error {
	<-c.done
	return c.err
}

// Stop ends the process and waits until it is gone. It returns an error when the process had ended before, or had to be
// killed. The state directory stays.
func (c *ControlPlane) Stop() error {
	c.stop()
	return c.Err()
}
