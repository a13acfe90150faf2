//go:build unix

package vcsim_test

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

// TestStartIsCheap goes by processor time, which does not depend on how busy the machine is.
func TestStartIsCheap(t *testing.T) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	server, err := vcsim.Start(t.Context(), vcsim.Generate(3, make([][]netip.Addr, 3)), vcsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	took := used() - before
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if took > time.Second {
		t.Errorf("a vCenter with 3 VMs took %v of processor time to start", took)
	}
}
