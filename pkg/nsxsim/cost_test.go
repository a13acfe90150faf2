package nsxsim_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
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
