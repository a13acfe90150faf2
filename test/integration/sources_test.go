package integration

import (
	"errors"
	"maps"
	"net/http"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/bench"
)

// TestSourceRangesNeedAccessLists: NSX before 3.0 lets everybody in whatever a virtual server says, so that a Service with
// source ranges is not published there, and one that is open already stays as it is.
func TestSourceRangesNeedAccessLists(t *testing.T) {
	w := newWorld(t, nsxsim.Options{Version: "2.5"})
	w.start()
	before := w.sim.Journal().Writes()
	closed := restricted()
	if _, err := w.engine.Ensure(t.Context(), closed); !errors.Is(err, lb.ErrBadService) {
		t.Fatalf("got %v, want that it cannot be served", err)
	}
	if after := w.sim.Journal().Writes(); !maps.Equal(before, after) {
		t.Errorf("wrote %v, and %v before", after, before)
	}
	if !w.event(lb.ReasonBadService) {
		t.Error("no event says so")
	}
	w.check()

	open := bench.Service("open", cluster, "80")
	w.ensure(open)
	open.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
	open.Spec.Ports[0].Port = 81
	if _, err := w.engine.Ensure(t.Context(), open); !errors.Is(err, lb.ErrBadService) {
		t.Fatalf("got %v, want that it cannot be served", err)
	}
	open.Spec.LoadBalancerSourceRanges, open.Spec.Ports[0].Port = nil, 80
	w.check(open)
	open.Spec.LoadBalancerSourceRanges = []string{"0.0.0.0/0"}
	w.ensure(open) // which keeps nobody out
	open.Spec.LoadBalancerSourceRanges = nil
	w.check(open)
}

// TestNothingIsLeftOfAServiceThatWasNeverServed: what was made for its clients goes when the Service is deleted, without an
// audit or a restart.
func TestNothingIsLeftOfAServiceThatWasNeverServed(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.start()
	_, err := w.sim.Faults().Add(nsxsim.Rule{Method: http.MethodPost, Path: "/loadbalancer/virtual-servers", Status: http.StatusBadRequest})
	w.must(err)
	svc := restricted()
	if _, err := w.engine.Ensure(t.Context(), svc); !errors.Is(err, nsx.ErrInvalid) {
		t.Fatalf("got %v, want that NSX refuses it", err)
	}
	sets := func() (n int) {
		for _, o := range w.sim.List(nsxsim.KindIPSet) {
			if o.Tags()[nsx.TagClusterUID] == clusterUID {
				n++
			}
		}
		return n
	}
	if sets() != 1 {
		t.Fatalf("%d IP sets, want one: the test proves nothing", sets())
	}
	w.remove(svc)
	w.check()
	if last := w.engine.AuditState().Last; !last.IsZero() {
		t.Error("there was an audit")
	}
}
