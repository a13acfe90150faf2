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

// TestPolicyScales: many objects, each written a few times, in a time that grows
// with their number alone.
func TestPolicyScales(t *testing.T) {
	const n = 1000
	r := newPolicyRig(t, nsxsim.Options{})
	start := time.Now()
	for i := range n {
		id := fmt.Sprintf("v%d", i)
		r.must("PATCH", "/infra/lb-pools/"+id, doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
		r.must("PATCH", "/infra/lb-virtual-servers/"+id, virtualServer(fmt.Sprintf("10.1.%d.%d", i/250, i%250), "80", doc{"pool_path": "/infra/lb-pools/" + id}))
	}
	for i := range n {
		r.must("PATCH", fmt.Sprintf("/infra/lb-virtual-servers/v%d", i), doc{"description": "again"})
	}
	for i := range n {
		r.must("DELETE", fmt.Sprintf("/infra/lb-virtual-servers/v%d", i), nil)
		r.must("DELETE", fmt.Sprintf("/infra/lb-pools/v%d", i), nil)
	}
	if took := time.Since(start); took > n*20*time.Millisecond {
		t.Errorf("%d virtual servers took %v", n, took)
	}
	if left := len(r.List(nsxsim.KindVirtualServer)); left != 0 {
		t.Errorf("%d virtual servers are left", left)
	}
}
