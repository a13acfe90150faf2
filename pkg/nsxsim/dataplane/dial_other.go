//go:build !linux

package dataplane

import "syscall"

func chooseSourcePortLate(_, _ string, _ syscall.RawConn) error { return nil }
