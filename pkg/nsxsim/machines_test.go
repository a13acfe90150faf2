package nsxsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// withMachines has three web servers, of which one is of a test, and a database.
func withMachines(t *testing.T) policyRig {
	t.Helper()
	r := newRig(t, nsxsim.Options{})
	err := r.Load(nsxsim.Inventory{Objects: []nsxsim.Object{
		{"kind": "VirtualMachine", "id": "web-1", "display_name": "web-1", "ip_addresses": []string{"10.0.0.1"}, "tags": []doc{{"scope": "tier", "tag": "web"}, {"scope": "env", "tag": "prod"}}},
		{"kind": "VirtualMachine", "id": "web-2", "display_name": "web-2", "ip_addresses": []string{"10.0.0.2", "fd00::2"}, "tags": []doc{{"scope": "tier", "tag": "web"}, {"scope": "env", "tag": "prod"}}},
		{"kind": "VirtualMachine", "id": "web-3", "display_name": "web-3", "ip_addresses": []string{"10.0.0.3"}, "tags": []doc{{"scope": "tier", "tag": "web"}, {"scope": "env", "tag": "test"}},
			"guest_info": doc{"os_name": "Ubuntu Linux (64-bit)", "computer_name": "guest-3"}},
		{"kind": "VirtualMachine", "id": "db-1", "display_name": "db-1", "ip_addresses": []string{"10.0.0.9"}, "tags": []doc{{"scope": "tier", "tag": "db"}}},
		{"kind": "IPSet", "id": "set", "display_name": "set", "ip_addresses": []string{"10.5.0.0/24"}, "tags": []doc{{"scope": "tier", "tag": "web"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return policyRig{r}
}

func TestGroupsFindMachines(t *testing.T) {
	r := withMachines(t)
	is := func(key, operator, value string) doc {
		return doc{"resource_type": "Condition", "member_type": "VirtualMachine", "key": key, "operator": operator, "value": value}
	}
	and, or := doc{"resource_type": "ConjunctionOperator", "conjunction_operator": "AND"}, doc{"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"}
	nested := func(expressions ...doc) doc {
		return doc{"resource_type": "NestedExpression", "expressions": expressions}
	}
	with := func(d doc, name, value string) doc { d[name] = value; return d }
	r.must("PATCH", "/infra/domains/default/groups/webs", doc{"expression": []doc{is("Tag", "EQUALS", "tier|web")}, "tags": []doc{{"scope": "of", "tag": "webs"}}})
	for _, c := range []struct {
		name       string
		expression []doc
		want       string
	}{
		{"a tag", []doc{is("Tag", "EQUALS", "tier|web")}, "10.0.0.1 10.0.0.2 fd00::2 10.0.0.3"},
		{"a tag of any scope", []doc{is("Tag", "EQUALS", "db")}, "10.0.0.9"},
		{"any tag of a scope", []doc{is("Tag", "EQUALS", "env|")}, "10.0.0.1 10.0.0.2 fd00::2 10.0.0.3"},
		{"a part of a tag", []doc{is("Tag", "CONTAINS", "tier|e")}, "10.0.0.1 10.0.0.2 fd00::2 10.0.0.3"},
		{"a beginning of a tag", []doc{is("Tag", "STARTSWITH", "env|te")}, "10.0.0.3"},
		{"another tag of the scope", []doc{is("Tag", "NOTEQUALS", "tier|web")}, "10.0.0.9"},
		{"the tag in another scope", []doc{with(is("Tag", "EQUALS", "tier|prod"), "scope_operator", "NOTEQUALS")}, "10.0.0.1 10.0.0.2 fd00::2"},
		{"a name", []doc{is("Name", "EQUALS", "web-1")}, "10.0.0.1"},
		{"an end of a name", []doc{is("Name", "ENDSWITH", "-1")}, "10.0.0.1 10.0.0.9"},
		{"an operating system", []doc{is("OSName", "CONTAINS", "Ubuntu")}, "10.0.0.3"},
		{"the guest's name", []doc{is("ComputerName", "EQUALS", "guest-3")}, "10.0.0.3"},
		{"both", []doc{is("Tag", "EQUALS", "tier|web"), and, is("Tag", "EQUALS", "env|prod")}, "10.0.0.1 10.0.0.2 fd00::2"},
		{"either", []doc{is("Name", "EQUALS", "web-3"), or, is("Tag", "EQUALS", "tier|db")}, "10.0.0.3 10.0.0.9"},
		{"AND binds tighter than OR", []doc{is("Name", "EQUALS", "db-1"), or, is("Tag", "EQUALS", "tier|web"), and, is("Tag", "EQUALS", "env|test")}, "10.0.0.9 10.0.0.3"},
		{"nested", []doc{nested(is("Tag", "EQUALS", "tier|web"), and, is("Tag", "EQUALS", "env|test"))}, "10.0.0.3"},
		{"nested, and another", []doc{nested(is("Name", "EQUALS", "web-1"), or, is("Name", "EQUALS", "web-3")), and, is("Tag", "EQUALS", "env|test")}, "10.0.0.3"},
		{"with addresses beside it", []doc{is("Name", "EQUALS", "web-1"), or, {"resource_type": "IPAddressExpression", "ip_addresses": []string{"10.7.0.1"}}}, "10.7.0.1 10.0.0.1"},
		{"IP sets", []doc{with(is("Tag", "EQUALS", "tier|web"), "member_type", "IPSet")}, "10.5.0.0/24"},
		{"groups", []doc{with(is("Tag", "EQUALS", "of|webs"), "member_type", "Group")}, "10.0.0.1 10.0.0.2 fd00::2 10.0.0.3"},
		{"a group by its path", []doc{{"resource_type": "PathExpression", "paths": []string{"/infra/domains/default/groups/webs"}}, or, is("Name", "EQUALS", "db-1")}, "10.0.0.1 10.0.0.2 fd00::2 10.0.0.3 10.0.0.9"},
		{"by id", []doc{{"resource_type": "ExternalIDExpression", "member_type": "VirtualMachine", "external_ids": []string{"db-1", "none"}}}, "10.0.0.9"},
		{"pods, which are not here", []doc{with(is("Tag", "EQUALS", "tier|web"), "member_type", "Pod")}, ""},
		{"what nothing fits", []doc{is("Name", "EQUALS", "none")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.must("PATCH", "/infra/domains/default/groups/g", doc{"expression": c.expression})
			a := r.call("GET", "/infra/domains/default/groups/g/members/ip-addresses", nil)
			var got []string
			for _, v := range a.body["results"].([]any) {
				got = append(got, v.(string))
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConditionsAreChecked(t *testing.T) {
	r := withMachines(t)
	is := doc{"resource_type": "Condition", "member_type": "VirtualMachine", "key": "Tag", "operator": "EQUALS", "value": "tier|web"}
	without := func(name string) doc {
		c := doc{}
		for k, v := range is {
			if k != name {
				c[k] = v
			}
		}
		return c
	}
	for _, name := range []string{"member_type", "key", "operator", "value"} {
		r.refused(400, "255", "PATCH", "/infra/domains/default/groups/g", doc{"expression": []doc{without(name)}})
	}
	r.refused(400, "500100", "PATCH", "/infra/domains/default/groups/g", doc{"expression": []doc{is, is}})
	deep := is
	for range 9 {
		deep = doc{"resource_type": "NestedExpression", "expressions": []doc{deep}}
	}
	r.refused(400, "500100", "PATCH", "/infra/domains/default/groups/g", doc{"expression": []doc{deep}})
}

// What is in a group changes with the tags of machines, and so do the members of a pool.
func TestTagsChangeGroups(t *testing.T) {
	r := withMachines(t)
	r.balancer("SMALL")
	r.must("PATCH", "/infra/domains/default/groups/g", doc{"expression": []doc{{"resource_type": "Condition", "member_type": "VirtualMachine", "key": "Tag", "operator": "EQUALS", "value": "lb|yes"}}})
	r.must("PATCH", "/infra/lb-pools/p", doc{"member_group": doc{"group_path": "/infra/domains/default/groups/g", "max_ip_list_size": 9, "port": 80}})
	r.must("PATCH", "/infra/lb-virtual-servers/v", virtualServer("10.1.0.1", "80", doc{"pool_path": "/infra/lb-pools/p", "lb_service_path": "/infra/lb-services/lb"}))
	members := func() (got []string) {
		t.Helper()
		a := r.call("GET", "/infra/lb-services/lb/lb-pools/p/detailed-status", nil)
		for _, m := range a.results()[0]["members"].([]any) {
			got = append(got, fmt.Sprint(m.(doc)["ip_address"]))
		}
		return got
	}
	steps := []struct {
		path string
		body doc
		want []string
	}{
		{"/fabric/virtual-machines?action=add_tags", doc{"external_id": "web-1", "tags": []doc{{"scope": "lb", "tag": "yes"}}}, []string{"10.0.0.1"}},
		{"/infra/realized-state/enforcement-points/default/virtual-machines?action=update_tags",
			doc{"virtual_machine_id": "db-1", "tags": []doc{{"scope": "lb", "tag": "yes"}}}, []string{"10.0.0.1", "10.0.0.9"}},
		{"/fabric/virtual-machines?action=remove_tags", doc{"external_id": "web-1", "tags": []doc{{"scope": "lb", "tag": "yes"}}}, []string{"10.0.0.9"}},
		{"/fabric/virtual-machines?action=update_tags", doc{"external_id": "db-1", "tags": []doc{}}, nil},
	}
	for _, s := range steps {
		ask := r.do
		if strings.HasPrefix(s.path, "/infra/") {
			ask = func(method, path string, body any, _ ...string) answer { return r.call(method, path, body) }
		}
		if a := ask("POST", s.path, s.body); a.status != http.StatusNoContent {
			t.Fatalf("POST %s: %d %s", s.path, a.status, a.raw)
		}
		if diff := cmp.Diff(s.want, members()); diff != "" {
			t.Errorf("after %s, members (-want +got):\n%s", s.path, diff)
		}
	}
	if tags := r.Get(nsxsim.KindVirtualMachine, "web-1").Tags(); len(tags) != 2 {
		t.Errorf("the tags left are %v", tags)
	}
	for path, body := range map[string]doc{
		"?action=add_tags":  {"external_id": "none", "tags": []doc{}},
		"?action=unheard":   {"external_id": "web-1"},
		"":                  {"external_id": "web-9"},
		"?action=copy_tags": {},
	} {
		if a := r.do("POST", "/fabric/virtual-machines"+path, body); a.status/100 != 4 {
			t.Errorf("POST %s: %d", path, a.status)
		}
	}
	if a := r.as("auditor").do("POST", "/fabric/virtual-machines?action=update_tags", doc{"external_id": "web-1", "tags": []doc{}}); a.status != 403 {
		t.Errorf("tagged by one who may only read: %d", a.status)
	}
}

func TestMachinesAreShown(t *testing.T) {
	r := withMachines(t)
	for _, c := range []struct {
		do   func() answer
		want string
	}{
		{func() answer { return r.do("GET", "/fabric/virtual-machines?external_id=web-3", nil) },
			`{"result_count":1,"results":[{"external_id":"web-3","display_name":"web-3","power_state":"VM_RUNNING","type":"REGULAR","id":null,"ip_addresses":null,"_revision":null,"guest_info":{"computer_name":"guest-3"}}]}`},
		{func() answer {
			return r.do("GET", "/fabric/virtual-machines?display_name=db-1&included_fields=display_name", nil)
		}, `{"results":[{"display_name":"db-1","external_id":null}]}`},
		{func() answer { return r.do("GET", "/fabric/virtual-machines", nil) }, `{"result_count":4}`},
		{func() answer { return r.do("GET", "/fabric/vifs?owner_vm_id=web-2", nil) },
			`{"result_count":1,"results":[{"owner_vm_id":"web-2","ip_address_info":[{"source":"VM_TOOLS","ip_addresses":["10.0.0.2","fd00::2"]}]}]}`},
		{func() answer {
			return r.do("GET", "/search/query?query=resource_type:VirtualMachine%20AND%20display_name:web*", nil)
		}, `{"result_count":3}`},
		{func() answer {
			return r.call("GET", "/search/query?query=resource_type:VirtualMachine%20AND%20tags.tag:db", nil)
		}, `{"result_count":1,"results":[{"external_id":"db-1"}]}`},
		{func() answer { return r.call("GET", "/infra/realized-state/virtual-machines", nil) }, `{"result_count":4}`},
		{func() answer {
			return r.call("GET", "/infra/realized-state/enforcement-points/default/virtual-machines?external_id=db-1", nil)
		}, `{"results":[{"resource_type":"RealizedVirtualMachine","id":"db-1","path":"/infra/realized-state/enforcement-points/default/virtual-machines/db-1"}]}`},
	} {
		a := c.do()
		if a.status != 200 || !holds(map[string]any(a.body), parsed(t, c.want)) {
			t.Errorf("%d %s, want it to hold %s", a.status, a.raw, c.want)
		}
	}
	again := newRig(t, nsxsim.Options{})
	if err := again.Load(r.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.List(nsxsim.KindVirtualMachine), again.List(nsxsim.KindVirtualMachine), cmp.FilterPath(func(p cmp.Path) bool {
		return strings.Contains(p.String(), "time")
	}, cmp.Ignore()), cmp.Comparer(func(a, b float64) bool { return a == b || a > 1e9 && b > 1e9 })); diff != "" {
		t.Errorf("from a snapshot (-was +is):\n%s", diff)
	}
}

// Groups of the Manager find machines by criteria, too, and name them by id.
func TestManagerGroupsFindMachines(t *testing.T) {
	r := withMachines(t)
	id := r.create(groups, doc{
		"members": []doc{{"resource_type": "NSGroupSimpleExpression", "op": "EQUALS", "target_type": "VirtualMachine", "target_property": "id", "value": "db-1"}},
		"membership_criteria": []doc{{"resource_type": "NSGroupComplexExpression", "expressions": []doc{
			{"resource_type": "NSGroupTagExpression", "target_type": "VirtualMachine", "scope": "tier", "tag": "web"},
			{"resource_type": "NSGroupSimpleExpression", "target_type": "VirtualMachine", "target_property": "name", "op": "ENDSWITH", "value": "1"}}}},
	})
	a := r.do("GET", groups+"/"+id+"/effective-virtual-machine-members", nil)
	if !holds(map[string]any(a.body), parsed(t, `{"result_count":2,"results":[{"target_id":"db-1","target_type":"VirtualMachine","target_display_name":"db-1"},{"target_id":"web-1"}]}`)) {
		t.Errorf("machines: %s", a.raw)
	}
	a = r.do("GET", groups+"/"+id+"/effective-ip-address-members", nil)
	if !holds(map[string]any(a.body), parsed(t, `{"results":["10.0.0.9","10.0.0.1"]}`)) {
		t.Errorf("addresses: %s", a.raw)
	}
}

// What is attached to a port is in a group with the port, or with its switch.
func TestMachinesBehindPorts(t *testing.T) {
	r := withMachines(t)
	r.must("PATCH", "/infra/segments/s", doc{"tags": []doc{{"scope": "net", "tag": "front"}}})
	net := r.must("GET", "/infra/segments/s", nil).String("unique_id")
	vif := r.do("GET", "/fabric/vifs?owner_vm_id=web-2", nil).results()[0].String("lport_attachment_id")
	r.create("/logical-ports", doc{"logical_switch_id": net, "admin_state": "UP", "tags": []doc{{"scope": "of", "tag": "web-2"}}, "attachment": doc{"id": vif, "attachment_type": "VIF"}})
	for name, expression := range map[string]doc{
		"by-segment": {"resource_type": "PathExpression", "paths": []string{"/infra/segments/s"}},
		"by-tag":     {"resource_type": "Condition", "member_type": "Segment", "key": "Tag", "operator": "EQUALS", "value": "net|front"},
		"by-port":    {"resource_type": "Condition", "member_type": "SegmentPort", "key": "Tag", "operator": "EQUALS", "value": "of|web-2"},
	} {
		r.must("PATCH", "/infra/domains/default/groups/"+name, doc{"expression": []doc{expression}})
		if a := r.call("GET", "/infra/domains/default/groups/"+name+"/members/ip-addresses", nil); !holds(map[string]any(a.body), parsed(t, `{"results":["10.0.0.2","fd00::2"]}`)) {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
}

// A group tells what is in it by path, and a segment in it cannot be deleted.
func TestSegmentsInGroups(t *testing.T) {
	r := withMachines(t)
	r.must("PATCH", "/infra/segments/s", "{}")
	r.must("PATCH", "/infra/domains/default/groups/g", doc{"expression": []doc{{"resource_type": "PathExpression", "paths": []string{"/infra/segments/s"}}}})
	if a := r.call("GET", "/infra/domains/default/groups/g/members/segments", nil); !holds(map[string]any(a.body), parsed(t, `{"results":[{"path":"/infra/segments/s","display_name":"s"}]}`)) {
		t.Errorf("segments: %s", a.raw)
	}
	if a := r.call("GET", "/infra/domains/default/groups/g/member-types", nil); !holds(map[string]any(a.body), parsed(t, `{"results":["Segment"]}`)) {
		t.Errorf("member types: %s", a.raw)
	}
	r.refused(400, "500030", "DELETE", "/infra/segments/s", nil)
	r.refused(400, "500012", "PATCH", "/infra/domains/default/groups/h", doc{"expression": []doc{{"resource_type": "PathExpression", "paths": []string{"/infra/segments/none"}}}})
}
