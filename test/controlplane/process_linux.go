package controlplane

import "syscall"

// processAttributes keeps signals of the terminal, such as the user's Ctrl-C, from the child, which is ours to end, and lets
// the kernel end it when we do not get to it.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
