package nsxsdk

import (
	"testing"

	"github.com/vmware/vsphere-automation-sdk-go/runtime/log"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	log.SetLogger(quiet{}) // the SDK tells of each request
	goleak.VerifyTestMain(m)
}

// quiet is the SDK's logger that says nothing.
type quiet struct{}

func (quiet) Error(...any)          {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Info(...any)           {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Debug(...any)          {}
func (quiet) Debugf(string, ...any) {}
