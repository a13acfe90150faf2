package nsxsim_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

// search gives the ids of what a query finds, in order.
func (r *rig) search(query string, params ...string) answer {
	r.t.Helper()
	values := url.Values{"query": {query}}
	for i := 0; i+1 < len(params); i += 2 {
		values.Set(params[i], params[i+1])
	}
	return r.do("GET", "/search/query?"+values.Encode(), nil)
}

func (a answer) ids() string {
	var ids []string
	for _, o := range a.results() {
		ids = append(ids, o.ID())
	}
	return strings.Join(ids, " ")
}

func TestSearch(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	tags := func(pairs ...string) (tags []doc) {
		for i := 0; i < len(pairs); i += 2 {
			tags = append(tags, doc{"scope": pairs[i], "tag": pairs[i+1]})
		}
		return tags
	}
	r.createAs(pools, "p1", doc{"display_name": "Blue Pool", "tags": tags("nsxt.io/cluster", "a", "env", "test"), "members": []doc{{"ip_address": "10.0.0.1"}, {"ip_address": "2001:db8::1"}}})
	r.createAs(pools, "p2", doc{"display_name": "red-pool", "tags": tags("nsxt.io/cluster", "b", "env", "a")})
	r.createAs(pools, "p3", doc{"display_name": "plain"})
	r.createAs(monitors, "m1", doc{"resource_type": "LbTcpMonitor", "display_name": "red-monitor", "tags": tags("nsxt.io/cluster", "a"), "interval": 7})
	for _, c := range []struct{ query, want string }{
		{"resource_type:LbPool", "p1 p2 p3"},
		{"resource_type:lbpool", "p1 p2 p3"},
		{"resource_type:LbPool AND tags.scope:nsxt.io/cluster AND tags.tag:test", "p1"},
		{`tags.scope:nsxt.io\/cluster`, "p1 p2 m1"},
		{"resource_type:LbPool AND tags.scope:nsxt.io/cluster AND tags.tag:a", "p1 p2"}, // each term by itself: p2 has env=a
		{"resource_type:LbPool tags.tag:b", "p2"},
		{"resource_type:(LbPool OR LbTcpMonitor) AND display_name:red*", "p2 m1"},
		{`display_name:"Blue Pool"`, "p1"},
		{`display_name:"blue pool"`, "p1"},
		{`display_name:Blue\ Pool`, "p1"},
		{"display_name:*-p?ol", "p2"},
		{`display_name:"*"`, ""},
		{"id:p3", "p3"},
		{"id:p3 OR id:m1", "p3 m1"},
		{"id:p?", "p1 p2 p3"},
		{"resource_type:LbPool AND NOT tags.tag:a", "p3"},
		{"resource_type:LbPool AND (display_name:plain OR tags.tag:b)", "p2 p3"},
		{"NOT (id:p* OR NOT id:m1)", "m1"},
		{"members.ip_address:10.0.0.1", "p1"},
		{"members.ip_address:2001:db8::1", "p1"},
		{"interval:7", "m1"},
		{"_create_user:admin AND resource_type:LbPool", "p1 p2 p3"},
		{"red-monitor", "m1"},
		{"resource_type:LbPool AND nothing:x", ""},
	} {
		for _, path := range []string{"/search/query?", "/search?"} {
			a := r.do("GET", path+url.Values{"query": {c.query}}.Encode(), nil)
			if a.status != 200 || a.ids() != c.want {
				t.Errorf("%s%s: %d %q, want %q", path, c.query, a.status, a.ids(), c.want)
			}
		}
	}
	for _, query := range []string{"", "resource_type:", "(id:a", "id:a)", "AND", "id:a AND", "NOT", "id:(", ":", "a:b:(", strings.Repeat("(", 200), strings.Repeat("NOT ", 200)} {
		if a := r.search(query); a.status != 400 || a.code() != "255" {
			t.Errorf("query %q: %d %s, want 400 and 255", query, a.status, a.raw)
		}
	}
	if a := r.do("POST", "/search/query?query=id:a", doc{}); a.status != 405 {
		t.Errorf("POST: %d, want 405", a.status)
	}
}

func TestSearchesArePagedAndSorted(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	for _, id := range []string{"c", "a", "b"} {
		r.createAs(pools, id, doc{})
	}
	const query = "resource_type:LbPool"
	if got := r.search(query, "sort_by", "id").ids(); got != "a b c" {
		t.Errorf("sorted: %s", got)
	}
	if got := r.search(query, "sort_by", "id", "sort_ascending", "false").ids(); got != "c b a" {
		t.Errorf("sorted backwards: %s", got)
	}
	var pages []string
	cursor := ""
	for {
		a := r.search(query, "page_size", "2", "cursor", cursor)
		pages = append(pages, a.ids())
		if a.body["result_count"] != 3.0 {
			t.Errorf("result_count %v, want 3", a.body["result_count"])
		}
		if cursor = a.body.String("cursor"); cursor == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"c a", "b", ""}, pages); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

func TestSearchFollowsChanges(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	id := r.create(pools, doc{"display_name": "old"})
	r.ok("PUT", pools+"/"+id, doc{"display_name": "new", "_revision": 0})
	if old, now := r.search("display_name:old").ids(), r.search("display_name:new").ids(); old != "" || now != id {
		t.Errorf("after an update the old name finds %q and the new %q", old, now)
	}
	r.ok("DELETE", pools+"/"+id, nil)
	if got := r.search("display_name:new").ids(); got != "" {
		t.Errorf("after the deletion it finds %q", got)
	}
	router := r.create("/logical-routers", doc{"router_type": "TIER1"})
	r.ok("DELETE", "/logical-routers/"+router, nil)
	if got := r.search("id:" + router).ids(); got != "" {
		t.Errorf("after the deletion of a router it finds %q", got)
	}
}

func TestSearchIsEventuallyConsistent(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		clock := clocktesting.NewFakeClock(time.Unix(0, 0))
		r := newRig(t, nsxsim.Options{Clock: clock, SearchDelay: time.Second, Quirks: nsxsim.Quirks{SearchRefusesWhileIndexing: refuses}})
		clock.Step(time.Second)
		id := r.create(pools, doc{})
		if got := r.do("GET", pools, nil).ids(); got != id {
			t.Errorf("the list has %q, want %s at once", got, id)
		}
		before := r.search("resource_type:LbPool")
		if refuses && (before.status != 400 || before.code() != "60508") {
			t.Errorf("while it is indexed: %d %s, want 400 and 60508", before.status, before.raw)
		}
		if !refuses && (before.status != 200 || before.ids() != "") {
			t.Errorf("before it is indexed: %d %s, want nothing", before.status, before.raw)
		}
		clock.Step(time.Second)
		if got := r.search("resource_type:LbPool").ids(); got != id {
			t.Errorf("after the delay: %q", got)
		}
		r.ok("DELETE", pools+"/"+id, nil)
		if !refuses {
			if got := r.search("resource_type:LbPool").ids(); got != id {
				t.Errorf("a deleted object is gone at once: %q", got)
			}
		}
		clock.Step(time.Second)
		if got := r.search("resource_type:LbPool").ids(); got != "" {
			t.Errorf("a deleted object is found after the delay: %q", got)
		}
	}
}
