package controlplane

import (
	"context"
	"testing"
)

// ForTest starts a control plane that lives as long as the test; o needs neither Binary nor Dir. The test is skipped with
// -short, and fails when bin/kube is not built. When the test fails, it shows the end of the log.
func ForTest(tb testing.TB, o Options) *ControlPlane {
	tb.Helper()
	if testing.Short() {
		tb.Skip("starts a Kubernetes control plane")
	}
	if o.Binary == "" {
		binary, err := FindBinary()
		if err != nil {
			tb.Fatal(err)
		}
		o.Binary = binary
	}
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	// Not the test's context, which ends before its cleanup functions run: some may need the API.
	c, err := Start(context.WithoutCancel(tb.Context()), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the end of the control plane's log:\n%s", c.LogTail())
		}
		if err := c.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return c
}
