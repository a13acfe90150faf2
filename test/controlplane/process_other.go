//go:build unix && !linux

package controlplane

import "syscall"

// processAttributes keeps signals of the terminal, such as the user's Ctrl-C, from the child, which is ours to end.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
