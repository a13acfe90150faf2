package nsxsim_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// crowd is a simulator with many virtual servers, each with a pool of its own
// and a tag that tells it from the others.
type crowd struct {
	tb  testing.TB
	sim *nsxsim.Sim
	ids []string
}

func newCrowd(tb testing.TB, n int) *crowd {
	tb.Helper()
	sim, err := nsxsim.New(nsxsim.Options{NewID: nsxsim.SequentialIDs()})
	if err != nil {
		tb.Fatal(err)
	}
	c := &crowd{tb: tb, sim: sim}
	c.create(n)
	return c
}

// send is a request over the handler; it gives the body of a 2xx.
func (c *crowd) send(method, path string, body any) []byte {
	c.tb.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			c.tb.Fatal(err)
		}
	}
	r := httptest.NewRequest(method, "/api/v1"+path, strings.NewReader(string(text)))
	r.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	w := httptest.NewRecorder()
	c.sim.ServeHTTP(w, r)
	if w.Code/100 != 2 {
		c.tb.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

func (c *crowd) decode(raw []byte) nsxsim.Object {
	c.tb.Helper()
	var o nsxsim.Object
	if err := json.Unmarshal(raw, &o); err != nil {
		c.tb.Fatal(err)
	}
	return o
}

func (c *crowd) body(i int, profile string) doc {
	return doc{"ip_address": fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "ports": []string{"80"}, "application_profile_id": profile,
		"tags": []doc{{"scope": "owner", "tag": fmt.Sprintf("service-%d", i)}, {"scope": "cluster", "tag": "c"}}}
}

func (c *crowd) create(n int) {
	profile := c.sim.List(nsxsim.KindApplicationProfile)[0].ID()
	for range n {
		c.ids = append(c.ids, c.decode(c.send("POST", servers, c.body(len(c.ids), profile))).ID())
	}
}

// list reads all pages and gives the number of objects on them.
func (c *crowd) list() int {
	n, cursor := 0, ""
	for {
		page := c.decode(c.send("GET", servers+"?page_size=1000&cursor="+cursor, nil))
		n += len(page["results"].([]any))
		if cursor = page.String("cursor"); cursor == "" {
			return n
		}
	}
}

func (c *crowd) search(i int) int {
	query := fmt.Sprintf("resource_type:LbVirtualServer AND tags.scope:owner AND tags.tag:service-%d", i)
	return len(c.decode(c.send("GET", "/search/query?query="+url.QueryEscape(query), nil))["results"].([]any))
}

func (c *crowd) update(i int) {
	o := c.decode(c.send("GET", servers+"/"+c.ids[i], nil))
	o["description"] = "changed"
	c.send("PUT", servers+"/"+c.ids[i], o)
}

func (c *crowd) delete(i int) { c.send("DELETE", servers+"/"+c.ids[i], nil) }

// What a request costs does not depend on how many objects there are: looking at
// one takes memory to decode it, so that a scan shows in the allocations.
func TestNoRequestScansAllObjects(t *testing.T) {
	few, many := newCrowd(t, 20), newCrowd(t, 800)
	defer few.sim.Close()
	defer many.sim.Close()
	next := map[*crowd]int{}
	for _, op := range []struct {
		name string
		do   func(c *crowd)
	}{
		{"create", func(c *crowd) { c.create(1) }},
		{"get", func(c *crowd) { c.send("GET", servers+"/"+c.ids[3], nil) }},
		{"page of a list", func(c *crowd) { c.send("GET", servers+"?page_size=5", nil) }},
		{"search", func(c *crowd) {
			if n := c.search(7); n != 1 {
				t.Errorf("the search finds %d", n)
			}
		}},
		{"update", func(c *crowd) { c.update(5) }},
		{"create a pool", func(c *crowd) { c.send("POST", pools, doc{"members": []doc{{"ip_address": "10.0.0.1"}}}) }},
		{"delete", func(c *crowd) { next[c]++; c.delete(next[c] + 9) }},
	} {
		a := testing.AllocsPerRun(8, func() { op.do(few) })
		b := testing.AllocsPerRun(8, func() { op.do(many) })
		if b > 1.3*a+20 {
			t.Errorf("%s: %.0f allocations among 20 virtual servers, %.0f among 800", op.name, a, b)
		}
	}
}

// attached is a simulator with load balancer services of ten virtual servers each,
// made by either API, all of which share one pool.
func attached(tb testing.TB, services int) *crowd {
	tb.Helper()
	sim, err := nsxsim.New(nsxsim.Options{NewID: nsxsim.SequentialIDs()})
	if err != nil {
		tb.Fatal(err)
	}
	c, admin := &crowd{tb: tb, sim: sim}, sim.As("admin")
	profile := sim.List(nsxsim.KindApplicationProfile)[0].ID()
	pool := nsxsim.Must(admin.Create(nsxsim.KindPool, nsxsim.Object{"id": "shared", "members": []doc{{"ip_address": "10.0.0.1"}}})).ID()
	nsxsim.Must(admin.PutIntent("/infra/lb-pools/shared", nsxsim.Object{"members": []doc{{"ip_address": "10.0.0.1"}}}))
	for s := range services {
		tier1 := nsxsim.Must(sim.AddTier1(fmt.Sprint("t", s))).ID()
		var ids []string
		for i := range 10 {
			ids = append(ids, nsxsim.Must(admin.Create(nsxsim.KindVirtualServer, nsxsim.Object{"id": fmt.Sprintf("v-%d-%d", s, i), "pool_id": pool,
				"ip_address": fmt.Sprintf("10.%d.%d.%d", 16+s>>8, s&255, i), "ports": []string{"80"}, "application_profile_id": profile})).ID())
		}
		nsxsim.Must(admin.Create(nsxsim.KindLBService, nsxsim.Object{"id": fmt.Sprint("lb-", s), "virtual_server_ids": ids,
			"attachment": doc{"target_type": "LogicalRouter", "target_id": tier1}}))
		service := fmt.Sprint("/infra/lb-services/p-", s)
		nsxsim.Must(admin.PutIntent(service, nsxsim.Object{}))
		for i := range 10 {
			nsxsim.Must(admin.PutIntent(fmt.Sprintf("/infra/lb-virtual-servers/v-%d-%d", s, i), nsxsim.Object{"ip_address": fmt.Sprintf("10.%d.%d.%d", 32+s>>8, s&255, i),
				"ports": []string{"80"}, "application_profile_path": tcpProfile, "pool_path": "/infra/lb-pools/shared", "lb_service_path": service}))
		}
	}
	return c
}

// What a load balancer service costs grows with what is on it, and not with what is
// on others.
func TestServicesDoNotPayForOthers(t *testing.T) {
	few, many := attached(t, 3), attached(t, 60)
	defer few.sim.Close()
	defer many.sim.Close()
	admin := func(c *crowd) nsxsim.Editor { return c.sim.As("admin") }
	for _, op := range []struct {
		name string
		do   func(c *crowd)
	}{
		{"attach", func(c *crowd) {
			nsxsim.Must(admin(c).Update(nsxsim.KindLBService, "lb-1", func(o nsxsim.Object) { o["virtual_server_ids"] = o.Strings("virtual_server_ids") }))
		}},
		{"usage", func(c *crowd) { c.send("GET", services+"/lb-1/usage", nil) }},
		{"status", func(c *crowd) { c.send("GET", services+"/lb-1/status", nil) }},
		{"status of its virtual servers", func(c *crowd) { c.send("GET", services+"/lb-1/virtual-servers/status", nil) }},
		{"status of its pools", func(c *crowd) { c.send("GET", services+"/lb-1/pools/status", nil) }},
		{"statistics", func(c *crowd) { c.send("GET", services+"/lb-1/statistics", nil) }},
		{"change of a virtual server", func(c *crowd) {
			nsxsim.Must(admin(c).Update(nsxsim.KindVirtualServer, "v-1-1", func(o nsxsim.Object) { o["description"] = "d" }))
		}},
		{"change of the shared pool", func(c *crowd) {
			nsxsim.Must(admin(c).Update(nsxsim.KindPool, "shared", func(o nsxsim.Object) { o["description"] = "d" }))
		}},
		{"Policy: create on a service, and delete", func(c *crowd) {
			nsxsim.Must(admin(c).PutIntent("/infra/lb-virtual-servers/new", nsxsim.Object{"ip_address": "10.3.0.1",
				"ports": []string{"80"}, "application_profile_path": tcpProfile, "lb_service_path": "/infra/lb-services/p-1"}))
			if err := admin(c).DeleteIntent("/infra/lb-virtual-servers/new"); err != nil {
				t.Fatal(err)
			}
		}},
		{"Policy: change", func(c *crowd) {
			nsxsim.Must(admin(c).PutIntent("/infra/lb-virtual-servers/v-1-1", nsxsim.Object{"description": "d"}))
		}},
		{"Policy: change of the shared pool", func(c *crowd) {
			nsxsim.Must(admin(c).PutIntent("/infra/lb-pools/shared", nsxsim.Object{"description": "d"}))
		}},
	} {
		a, b := bytesPerRun(func() { op.do(few) }), bytesPerRun(func() { op.do(many) })
		if b > 2*a+4000 {
			t.Errorf("%s: %.0f bytes among 3 services, %.0f among 60", op.name, a, b)
		}
	}
}

// bytesPerRun gives the least memory of some runs: a list of all objects shows in it,
// though it is one allocation.
func bytesPerRun(do func()) float64 {
	least := math.Inf(1)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		least = min(least, float64(after.TotalAlloc-before.TotalAlloc))
	}
	return least
}

// BenchmarkVirtualServers: each operation on all of 1,000 and of 10,000 virtual
// servers. The time of one, ns/object, is the same for both when the total is
// linear.
func BenchmarkVirtualServers(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		for _, op := range []struct {
			name string
			do   func(c *crowd, n int)
			own  bool // needs a crowd of its own each time
		}{
			{"create", func(c *crowd, n int) { c.create(n) }, true},
			{"list", func(c *crowd, n int) {
				if got := c.list(); got != n {
					b.Fatalf("%d are listed, want %d", got, n)
				}
			}, false},
			{"search", func(c *crowd, n int) {
				for i := range n {
					if got := c.search(i); got != 1 {
						b.Fatalf("the search finds %d", got)
					}
				}
			}, false},
			{"update", func(c *crowd, n int) {
				for i := range n {
					c.update(i)
				}
			}, false},
			{"delete", func(c *crowd, n int) {
				for i := range n {
					c.delete(i)
				}
			}, true},
		} {
			b.Run(fmt.Sprintf("%s/%d", op.name, n), func(b *testing.B) {
				fresh := func() *crowd {
					size := n
					if op.name == "create" {
						size = 0
					}
					c := newCrowd(b, size)
					b.Cleanup(c.sim.Close)
					return c
				}
				c := fresh()
				first := true
				for b.Loop() {
					if op.own && !first {
						b.StopTimer()
						c = fresh()
						b.StartTimer()
					}
					first = false
					op.do(c, n)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/object")
			})
		}
	}
}

// BenchmarkAttachedVirtualServers: load balancer services filled by either API, with
// 1,000 and with 10,000 virtual servers of each.
func BenchmarkAttachedVirtualServers(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("fill/%d", n), func(b *testing.B) {
			for b.Loop() {
				attached(b, n/10).sim.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*2), "ns/object")
		})
	}
}
