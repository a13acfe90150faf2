package nsxsim_test

import (
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestJournalTellsEachRequest(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRig(t, nsxsim.Options{Clock: clocktesting.NewFakeClock(now)})
	r.fault(nsxsim.Rule{Name: "broken", Method: "DELETE", Status: 500})
	r.do("GET", pools+"?page_size=5", nil)
	r.as("").do("GET", pools, nil)
	r.do("DELETE", pools+"/x", nil)
	want := []nsxsim.Entry{
		{Seq: 1, Time: now, User: "admin", Method: "GET", Path: "/api/v1/loadbalancer/pools", Query: "page_size=5", Op: "GET /loadbalancer/pools", Status: 200, Outcome: 200},
		{Seq: 2, Time: now, Method: "GET", Path: "/api/v1/loadbalancer/pools", Op: "GET /loadbalancer/pools", Status: 401},
		{Seq: 3, Time: now, User: "admin", Method: "DELETE", Path: "/api/v1/loadbalancer/pools/x", Op: "DELETE /loadbalancer/pools/{id}", Status: 500, Fault: "broken"},
	}
	if diff := cmp.Diff(want, r.Journal().Entries()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJournalCountsByOperation(t *testing.T) {
	r := newIPRig(t, nsxsim.Options{})
	for _, c := range [][2]string{
		{"GET", pools}, {"GET", pools + "?cursor=x"}, {"POST", pools}, {"GET", pools + "/1"}, {"PUT", pools + "/2"},
		{"POST", pools + "/3?action=ADD_MEMBERS"}, {"GET", services + "/1/pools/2/status"}, {"GET", "/logical-routers/1/routing/advertisement"},
		{"GET", "/node/version"}, {"GET", "/what/ever"}, {"PATCH", pools + "/1"},
	} {
		r.do(c[0], c[1], nil)
	}
	r.allocate("")
	want := map[string]int{
		"GET /loadbalancer/pools":                           2,
		"POST /loadbalancer/pools":                          1,
		"GET /loadbalancer/pools/{id}":                      1,
		"PUT /loadbalancer/pools/{id}":                      1,
		"PATCH /loadbalancer/pools/{id}":                    1,
		"POST /loadbalancer/pools/{id}?action=ADD_MEMBERS":  1,
		"GET /loadbalancer/services/{id}/pools/{id}/status": 1,
		"GET /logical-routers/{id}/routing/advertisement":   1,
		"POST /pools/ip-pools/{id}?action=ALLOCATE":         1,
		"GET /node/version":                                 1,
		"GET (unknown)":                                     1,
	}
	j := r.Journal()
	if diff := cmp.Diff(want, j.Counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := j.Count("GET /loadbalancer/pools", "PUT /loadbalancer/pools/{id}"); got != 3 {
		t.Errorf("of two operations: %d, want 3", got)
	}
	if got := j.Count(); got != 12 {
		t.Errorf("of all: %d, want 12", got)
	}
	if got := len(j.Writes()); got != 5 {
		t.Errorf("%d operations that write, want 5: %v", got, j.Writes())
	}
	j.Reset()
	if j.Count() != 0 || len(j.Entries()) != 0 {
		t.Error("something is left after a reset")
	}
	r.do("GET", pools, nil)
	if got := j.Entries()[0].Seq; got != 13 {
		t.Errorf("first after the reset is number %d, want 13", got)
	}
}

func TestJournalIsBounded(t *testing.T) {
	r := newRig(t, nsxsim.Options{JournalSize: 3})
	for range 8 {
		r.do("GET", pools, nil)
	}
	var seqs []uint64
	for _, e := range r.Journal().Entries() {
		seqs = append(seqs, e.Seq)
	}
	if diff := cmp.Diff([]uint64{6, 7, 8}, seqs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := r.Journal().Count(); got != 8 {
		t.Errorf("%d counted, want 8", got)
	}
}

// TestJournalTellsWhatFaultsHide: a client that got no answer cannot tell what became of its request; the journal can.
func TestJournalTellsWhatFaultsHide(t *testing.T) {
	for _, c := range []struct {
		rule    nsxsim.Rule
		outcome int
	}{
		{nsxsim.Rule{Status: 500}, 0},
		{nsxsim.Rule{Status: 500, When: nsxsim.AfterCommit}, 201},
	} {
		r := newRig(t, nsxsim.Options{})
		if _, err := r.Faults().Add(c.rule); err != nil {
			t.Fatal(err)
		}
		r.do("POST", pools, doc{"display_name": "p"})
		if e := r.Journal().Entries()[0]; e.Status != 500 || e.Outcome != c.outcome {
			t.Errorf("%+v: answered %d and came to %d, want 500 and %d", c.rule, e.Status, e.Outcome, c.outcome)
		}
	}
}
