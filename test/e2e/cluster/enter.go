package cluster

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
)

// inPlace has a child begin in the network of a place.
func inPlace(p Place) func(*syscall.SysProcAttr) error {
	return func(*syscall.SysProcAttr) error { return p.enter() }
}

// asMachine has a child be the first process of a new machine in a place: with mounts, process ids and a host name of its own.
func asMachine(p Place) func(*syscall.SysProcAttr) error {
	return func(attributes *syscall.SysProcAttr) error {
		attributes.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS
		return p.enter()
	}
}

// onMachine has a child begin in the network of a place, and on the machine whose first process is given.
func onMachine(p Place, machine *programs.Process) func(*syscall.SysProcAttr) error {
	return func(attributes *syscall.SysProcAttr) error {
		// The kernel kills it with the machine's first process. Its own signal would come at once: to a child that does not see
		// its parent, the parent is dead.
		attributes.Pdeathsig = 0
		if err := p.enter(); err != nil {
			return err
		}
		return enterMachine(machine.PID())
	}
}

// enterMachine moves the calling thread to the mounts, process ids and host name of a process.
func enterMachine(pid int) error {
	// Threads that share a working directory may not enter a mount namespace. Mounts come last: then /proc is another one.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("entering the machine: %w", err)
	}
	kinds := []struct {
		name string
		flag int
	}{{"pid", unix.CLONE_NEWPID}, {"uts", unix.CLONE_NEWUTS}, {"mnt", unix.CLONE_NEWNS}}
	for _, k := range kinds {
		if err := setns(fmt.Sprintf("/proc/%d/ns/%s", pid, k.name), k.flag); err != nil {
			return err
		}
	}
	return nil
}
