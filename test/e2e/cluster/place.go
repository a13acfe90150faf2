package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespaceDir is where `ip netns` keeps the network namespaces.
const namespaceDir = "/run/netns"

// path is the file that is the network namespace.
func (p Place) path() string { return filepath.Join(namespaceDir, string(p)) }

// Do calls f in the place's network: sockets that f itself opens stay there. Goroutines that f starts are not in it, and
// f must not start processes that outlive it.
func (p Place) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has entered a namespace is of no use to others, and ends with the goroutine.
		runtime.LockOSThread()
		err := p.enter()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// enter moves the calling thread into the place's network.
func (p Place) enter() error {
	if err := setns(p.path(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("network of %s: %w", p, err)
	}
	return nil
}

// Listen opens a port of the place.
func (p Place) Listen(address string) (l net.Listener, err error) {
	err = p.Do(func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// DialContext connects from the place, as from its network's first address. The address is host:port with an IP address:
// names are not looked up in there.
func (p Place) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return p.DialFrom(ctx, net.Dialer{}, network, address)
}

// DialFrom connects from the place as a dialer says, which may name the local address.
func (p Place) DialFrom(ctx context.Context, d net.Dialer, network, address string) (conn net.Conn, err error) {
	err = p.Do(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Command is a command that runs in the place's network, and in nothing else of it.
func (p Place) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	command := append(p.wrapper(), name)
	return exec.CommandContext(ctx, command[0], append(command[1:], args...)...)
}

// wrapper is a command that becomes, in the place's network, the command that is added to it.
func (p Place) wrapper() []string { return []string{"nsenter", "--net=" + p.path(), "--"} }

// setns moves the calling thread into the namespace that a file stands for.
func setns(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Setns(int(f.Fd()), kind); err != nil {
		return fmt.Errorf("entering %s: %w", path, err)
	}
	return nil
}
