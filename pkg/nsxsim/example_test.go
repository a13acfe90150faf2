package nsxsim_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// A simulator is an http.Handler; tests usually get one that listens from
// nsxsim.Start.
func Example() {
	sim, err := nsxsim.New(nsxsim.Options{NewID: nsxsim.SequentialIDs()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sim.Close()
	pool := nsxsim.Must(sim.AddIPPool("vips", "192.168.100.0/24", "192.168.100.10-192.168.100.20"))

	// The second allocation is done, but its answer is lost.
	_, err = sim.Faults().Add(nsxsim.Rule{Action: "ALLOCATE", Nth: 2, When: nsxsim.AfterCommit, Status: http.StatusGatewayTimeout})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/pools/ip-pools/"+pool.ID()+"?action=ALLOCATE", strings.NewReader(`{"allocation_id":null}`))
		r.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
		w := httptest.NewRecorder()
		sim.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	fmt.Println(sim.Allocations(pool.ID()))
	fmt.Println(sim.Journal().Count("POST /pools/ip-pools/{id}?action=ALLOCATE"))
	// Output:
	// 200
	// 504
	// [192.168.100.10 192.168.100.11]
	// 2
}
