package vcenter

import "errors"

var (
	// ErrNotFound means that every vCenter answered and none has such a VM.
	ErrNotFound = errors.New("no such VM")
	// ErrAmbiguous means that several VMs match, as after a VM was copied with its BIOS UUID, and not exactly one
	// of them is switched on.
	ErrAmbiguous = errors.New("several VMs match")
	// ErrNotVisible means that the account sees no inventory, or not a datacenter that it is told to search, so
	// that nothing can be said about a VM.
	ErrNotVisible = errors.New("inventory not visible")
	// ErrLoginRefused means that vCenter does not accept the user and password.
	ErrLoginRefused = errors.New("log-in refused")
	// ErrClosed means that the client is closed.
	ErrClosed = errors.New("vCenter client is closed")
)
