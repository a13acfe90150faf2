package manager_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// TestLostCreateOfASharedObject: the answer was for one Service; another one must not make the object again.
func TestLostCreateOfASharedObject(t *testing.T) {
	for _, path := range []string{"/loadbalancer/monitors", "/loadbalancer/pools"} {
		w := newWorld(t, nsxsim.Options{})
		w.fault(nsxsim.Rule{Method: http.MethodPost, Path: path, When: nsxsim.AfterCommit, Drop: true})
		w.wantErr(w.publish(owner("first"), w.tcp(1)), nsx.ErrAmbiguous)
		err := w.publish(owner("second"), w.tcp(2))
		w.wantErr(err, nsx.ErrAmbiguous)
		var at *nsx.RetryAt
		if !errors.As(err, &at) {
			t.Fatalf("%v does not say when to try again", err)
		}
		w.clock.SetTime(at.At)
		w.must(w.publish(owner("second"), w.tcp(2)))
		w.must(w.Settle(t.Context(), owner("first")))
		w.must(w.publish(owner("first"), w.tcp(1)))
		if n := w.sim.Journal().Count("POST " + path); n != 1 {
			t.Errorf("POST %s: sent %d times, want 1", path, n)
		}
	}
}
