package chaos

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestMain lets the heap grow further than usual: a play is over before most of its garbage is worth collecting.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}
