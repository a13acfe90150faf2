package dataplane

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func chooseSourcePortLate(_, _ string, raw syscall.RawConn) error {
	// Without it connections work too, only fewer at once: an old kernel's refusal is no error.
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
