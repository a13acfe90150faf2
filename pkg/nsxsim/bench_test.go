package nsxsim_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// BenchmarkFullService: requests on an XLARGE service with 2000 virtual servers
// that share a pool of 200 members.
func BenchmarkFullService(b *testing.B) {
	sim, err := nsxsim.New(nsxsim.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer sim.Close()
	lb := nsxsim.Must(sim.AddLBService("lb", "XLARGE", nsxsim.Must(sim.AddTier1("t1")).ID())).ID()
	admin := sim.As("admin")
	var members []doc
	for i := range 200 {
		members = append(members, doc{"ip_address": fmt.Sprintf("10.0.0.%d", i+1)})
	}
	pool := nsxsim.Must(admin.Create(nsxsim.KindPool, nsxsim.Object{"members": members})).ID()
	profile := sim.List(nsxsim.KindApplicationProfile)[0].ID()
	var ids []string
	for i := range 2000 {
		ids = append(ids, nsxsim.Must(admin.Create(nsxsim.KindVirtualServer, nsxsim.Object{
			"ip_address": fmt.Sprintf("10.1.%d.%d", i/200, i%200+1), "ports": []string{"80"}, "pool_id": pool, "application_profile_id": profile})).ID())
	}
	nsxsim.Must(admin.Update(nsxsim.KindLBService, lb, func(o nsxsim.Object) { o["virtual_server_ids"] = ids }))

	get := func(b *testing.B, path string) {
		r := httptest.NewRequest("GET", "/api/v1"+path, strings.NewReader(""))
		r.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
		w := httptest.NewRecorder()
		sim.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	for _, path := range []string{servers, services + "/" + lb, services + "/" + lb + "/usage", services + "/" + lb + "/status"} {
		b.Run("GET "+strings.ReplaceAll(path, lb, "{id}"), func(b *testing.B) {
			for b.Loop() {
				get(b, path)
			}
		})
	}
	for _, target := range []struct {
		kind nsxsim.Kind
		id   string
	}{{nsxsim.KindLBService, lb}, {nsxsim.KindVirtualServer, ids[0]}, {nsxsim.KindPool, pool}} {
		b.Run("PUT "+string(target.kind), func(b *testing.B) {
			for b.Loop() {
				nsxsim.Must(admin.Update(target.kind, target.id, func(nsxsim.Object) {}))
			}
		})
	}
}
