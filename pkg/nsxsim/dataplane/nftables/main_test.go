//go:build linux

package nftables_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// The tests send real packets through network namespaces of their own: this binary runs itself in a new one, the edge,
// and from there once more for each host around it (host_test.go). Without root, that is in a new user namespace.

const (
	roleEnv      = "NSXSIM_NFTABLES_TEST_ROLE"
	roleEdge     = "edge"
	roleHost     = "host"
	roleStranger = "stranger"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case roleHost:
		serveHost()
		return
	case roleStranger:
		tryToStart()
		return
	case roleEdge:
		os.Exit(runEdge(m))
	}
	code, err := inNamespace()
	if err != nil {
		unavailable = err
		os.Exit(m.Run())
	}
	os.Exit(code)
}

// runEdge runs the tests, and ends the hosts after them.
func runEdge(m *testing.M) int {
	code := m.Run()
	if err := stopWorld(); err != nil {
		fmt.Fprintln(os.Stderr, "ending the hosts:", err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// unavailable is why there are no namespaces.
var unavailable error

// inNamespace runs this binary as the edge, and gives what it exits with.
func inNamespace() (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	edge := exec.Command(self, os.Args[1:]...)
	edge.Env = append(os.Environ(), roleEnv+"="+roleEdge)
	edge.Stdin, edge.Stdout, edge.Stderr = os.Stdin, os.Stdout, os.Stderr
	edge.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 || os.Getenv("NSXSIM_NFTABLES_TEST_USERNS") != "" {
		edge.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		edge.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		edge.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // the edge is killed when the thread ends that started it
	defer runtime.UnlockOSThread()
	if err := edge.Start(); err != nil {
		return 0, fmt.Errorf("no network namespace of our own: %w", err)
	}
	err = edge.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return edge.ProcessState.ExitCode(), nil
}
