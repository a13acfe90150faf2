package nsxsim_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Of clients that write the same object, exactly one wins each revision.
func TestPolicyConcurrentWriters(t *testing.T) {
	const clients, rounds = 32, 10
	r := newPolicyRig(t, nsxsim.Options{RealizationDelay: time.Millisecond})
	r.balancer("LARGE")
	r.must("PUT", "/infra/lb-pools/shared", "{}")
	for revision := range rounds {
		var won atomic.Int64
		var all sync.WaitGroup
		for i := range clients {
			all.Go(func() {
				switch a := r.call("PUT", "/infra/lb-pools/shared", doc{"_revision": revision, "description": fmt.Sprint(i)}); a.status {
				case http.StatusOK:
					won.Add(1)
				case http.StatusPreconditionFailed:
				default:
					t.Errorf("client %d: %d %s", i, a.status, a.raw)
				}
				path := fmt.Sprintf("/infra/lb-virtual-servers/v%d", i)
				if a := r.call("PATCH", path, virtualServer(fmt.Sprintf("10.1.%d.%d", revision, i), "80", doc{"lb_service_path": "/infra/lb-services/lb"})); a.status != http.StatusOK {
					t.Errorf("client %d: %d %s", i, a.status, a.raw)
				}
				r.call("GET", "/infra/lb-services/lb/detailed-status", nil)
				r.do("GET", servers, nil)
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%d clients won revision %d", won.Load(), revision)
		}
	}
}

// What it takes to write an intent does not grow with the number of others.
func TestPolicyScales(t *testing.T) {
	crowd := func(n int) policyRig {
		r := newPolicyRig(t, nsxsim.Options{})
		for i := range n {
			id := fmt.Sprintf("v%d", i)
			r.must("PATCH", "/infra/lb-pools/"+id, doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
			r.must("PATCH", "/infra/lb-virtual-servers/"+id, virtualServer(fmt.Sprintf("10.1.%d.%d", i/250, i%250), "80", doc{"pool_path": "/infra/lb-pools/" + id}))
		}
		return r
	}
	few, many := crowd(20), crowd(500)
	for _, op := range []struct {
		name string
		do   func(r policyRig)
	}{
		{"create and delete", func(r policyRig) {
			r.must("PATCH", "/infra/lb-pools/new", "{}")
			r.must("PATCH", "/infra/lb-virtual-servers/new", virtualServer("10.2.0.1", "80", doc{"pool_path": "/infra/lb-pools/new"}))
			r.must("DELETE", "/infra/lb-virtual-servers/new", nil)
			r.must("DELETE", "/infra/lb-pools/new", nil)
		}},
		{"change", func(r policyRig) { r.must("PATCH", "/infra/lb-virtual-servers/v7", doc{"description": "again"}) }},
		{"read", func(r policyRig) { r.must("GET", "/infra/lb-virtual-servers/v7", nil) }},
		{"realised state", func(r policyRig) { r.entities("/infra/lb-virtual-servers/v7") }},
	} {
		a, b := bytesPerRun(func() { op.do(few) }), bytesPerRun(func() { op.do(many) })
		if b > 2*a+4000 {
			t.Errorf("%s: %.0f bytes among 20 virtual servers, %.0f among 500", op.name, a, b)
		}
	}
}
