package nsxsim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
)

// refusal is a row of the tables below: one rule of the API, one request that
// breaks it, and the answer to that.
type refusal struct {
	rule    string
	options nsxsim.Options
	do      func(b *bench) answer
	status  int
	code    string // "" when no reference settles it
	message string // a part of it
}

func (c refusal) run(t *testing.T) {
	a := c.do(newBench(t, c.options))
	if a.status != c.status || c.code != "" && a.code() != c.code || !strings.Contains(a.message(), c.message) {
		t.Errorf("got %d, error_code %s, %q; want %d, error_code %s, ...%q...", a.status, a.code(), a.message(), c.status, c.code, c.message)
	}
}

// post gives the request that creates the object.
func post(path string, body func(b *bench) any) func(*bench) answer {
	return func(b *bench) answer { return b.do("POST", path, body(b)) }
}

func fixed(body any) func(*bench) any { return func(*bench) any { return body } }

// vs gives a virtual server with changes, on 10.1.0.1.
func vs(ports []string, more doc) func(*bench) any {
	return func(b *bench) any { return b.tcpVS("10.1.0.1", ports, more) }
}

func TestFieldsAreValidated(t *testing.T) {
	port80 := []string{"80"}
	ports := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprint(1000+i))
		}
		return list
	}
	tags := func(n int) (list []doc) {
		for i := range n {
			list = append(list, doc{"scope": fmt.Sprint(i), "tag": "t"})
		}
		return list
	}
	for _, c := range []refusal{
		{rule: "body is no JSON", do: post(pools, fixed("{")), status: 400, message: "JSON"},
		{rule: "body is no object", do: post(pools, fixed("[]")), status: 400, message: "JSON"},
		{rule: "body is null", do: post(pools, fixed("null")), status: 400, message: "JSON"},
		{rule: "body is empty", do: post(pools, fixed("")), status: 400, message: "JSON"},
		{rule: "body goes on after the object", do: post(pools, fixed("{}{}")), status: 400, message: "JSON"},
		{rule: "resource_type of a monitor is required", do: post(monitors, fixed(doc{})), status: 400, code: "255", message: "resource_type is required"},
		{rule: "resource_type is one of the kind's", do: post(monitors, fixed(doc{"resource_type": "LbPool"})), status: 400, code: "255", message: "resource_type must be one of"},
		{rule: "resource_type cannot change", do: func(b *bench) answer {
			id := b.create(monitors, doc{"resource_type": "LbTcpMonitor"})
			return b.do("PUT", monitors+"/"+id, doc{"resource_type": "LbHttpMonitor", "_revision": 0})
		}, status: 400, code: "255", message: "resource_type cannot be changed"},
		{rule: "display_name <= 255", do: post(pools, fixed(doc{"display_name": strings.Repeat("x", 256)})), status: 400, code: "255", message: "display_name"},
		{rule: "description <= 1024", do: post(pools, fixed(doc{"description": strings.Repeat("x", 1025)})), status: 400, code: "255", message: "description"},
		{rule: "tag scope <= 128", do: post(pools, fixed(doc{"tags": []doc{{"scope": strings.Repeat("x", 129)}}})), status: 400, code: "255", message: "tags[0].scope"},
		{rule: "tag <= 256", do: post(pools, fixed(doc{"tags": []doc{{"tag": strings.Repeat("x", 257)}}})), status: 400, code: "255", message: "tags[0].tag"},
		{rule: "30 tags", do: post(pools, fixed(doc{"tags": tags(31)})), status: 400, code: "255", message: "tags must have at most 30"},
		{rule: "15 tags before 3.0", options: nsxsim.Options{Version: "2.5.1"}, do: post(pools, fixed(doc{"tags": tags(16)})), status: 400, code: "255", message: "tags must have at most 15"},

		{rule: "ip_address is required", do: post(servers, vs(port80, doc{"ip_address": nil})), status: 400, code: "255", message: "ip_address is required"},
		{rule: "ip_address is one", do: post(servers, vs(port80, doc{"ip_address": "10.1"})), status: 400, code: "255", message: "ip_address must be an IP address"},
		{rule: "ports are required", do: post(servers, vs(nil, nil)), status: 400, code: "255", message: "ports is required"},
		{rule: "ports are strings", do: post(servers, vs(port80, doc{"ports": []int{80}})), status: 400, code: "255", message: "ports[0] must be a string"},
		{rule: "ports are ports", do: post(servers, vs([]string{"65536"}, nil)), status: 400, code: "255", message: "ports[0]"},
		{rule: "port 0 is none", do: post(servers, vs([]string{"0"}, nil)), status: 400, code: "255", message: "ports[0]"},
		{rule: "ranges do not run backwards", do: post(servers, vs([]string{"90-80"}, nil)), status: 400, code: "255", message: "backwards"},
		{rule: "ports of one server do not overlap", do: post(servers, vs([]string{"80-90", "85"}, nil)), status: 400, code: "255", message: "overlap"},
		{rule: "ip_protocol is TCP or UDP", do: post(servers, vs(port80, doc{"ip_protocol": "SCTP"})), status: 400, code: "255", message: "ip_protocol must be one of"},
		{rule: "application_profile_id is required", do: post(servers, vs(port80, doc{"application_profile_id": nil})), status: 400, code: "255", message: "application_profile_id is required"},
		{rule: "14 default pool member ports", do: post(servers, vs(ports(15), doc{"default_pool_member_ports": ports(15)})), status: 400, code: "255", message: "default_pool_member_ports must have"},
		{rule: "as many member ports as ports", do: post(servers, vs([]string{"80", "443"}, doc{"default_pool_member_ports": []string{"8080"}})), status: 400, code: "255", message: "default_pool_member_ports has 1 items and ports has 2"},
		{rule: "ranges of the same width", do: post(servers, vs([]string{"80-81"}, doc{"default_pool_member_ports": []string{"8080-8082"}})), status: 400, code: "255", message: "does not match the shape"},
		{rule: "access list action", do: post(servers, vs(port80, doc{"access_list_control": doc{"action": "MAYBE"}})), status: 400, code: "255", message: "access_list_control.action"},

		{rule: "algorithm", do: post(pools, fixed(doc{"algorithm": "RANDOM"})), status: 400, code: "255", message: "algorithm must be one of"},
		{rule: "member ip_address", do: post(pools, fixed(doc{"members": []doc{{}}})), status: 400, code: "255", message: "members[0].ip_address is required"},
		{rule: "member port is a string", do: post(pools, fixed(doc{"members": []doc{{"ip_address": "10.0.0.1", "port": 80}}})), status: 400, code: "255", message: "members[0].port must be a string"},
		{rule: "member admin_state", do: post(pools, fixed(doc{"members": []doc{{"ip_address": "10.0.0.1", "admin_state": "OFF"}}})), status: 400, code: "255", message: "admin_state must be one of"},
		{rule: "member weight", do: post(pools, fixed(doc{"members": []doc{{"ip_address": "10.0.0.1", "weight": 0}}})), status: 400, code: "255", message: "members[0].weight"},
		{rule: "members are distinct", do: post(pools, fixed(doc{"members": []doc{{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.1"}}})), status: 400, code: "255", message: "twice"},
		{rule: "group port is an int", do: func(b *bench) answer {
			group := b.create("/ns-groups", doc{})
			return b.do("POST", pools, doc{"member_group": doc{"port": "80", "grouping_object": doc{"target_id": group}}})
		}, status: 400, code: "255", message: "member_group.port must be an integer"},
		{rule: "members XOR member_group", do: func(b *bench) answer {
			group := b.create("/ns-groups", doc{})
			return b.do("POST", pools, doc{"members": []doc{{"ip_address": "10.0.0.1"}}, "member_group": doc{"grouping_object": doc{"target_id": group}}})
		}, status: 400, code: "255", message: "exclude each other"},
		{rule: "one active monitor before 3.0", options: nsxsim.Options{Version: "2.5.0"}, do: func(b *bench) answer {
			return b.do("POST", pools, doc{"active_monitor_ids": []string{
				b.named(nsxsim.KindMonitor, "default-tcp-lb-monitor"), b.named(nsxsim.KindMonitor, "default-http-lb-monitor")}})
		}, status: 400, code: "255", message: "active_monitor_ids"},

		{rule: "UDP monitor needs send and receive", do: post(monitors, fixed(doc{"resource_type": "LbUdpMonitor", "send": "x"})), status: 400, code: "255", message: "receive is required"},
		{rule: "monitor_port is a string", do: post(monitors, fixed(doc{"resource_type": "LbTcpMonitor", "monitor_port": 80})), status: 400, code: "255", message: "monitor_port must be a string"},
		{rule: "service size", do: post(services, fixed(doc{"size": "TINY"})), status: 400, code: "255", message: "size must be one of"},
		{rule: "service ids are distinct", do: func(b *bench) answer {
			id := b.create(servers, b.tcpVS("10.1.0.1", port80, nil))
			return b.do("POST", services, doc{"virtual_server_ids": []string{id, id}})
		}, status: 400, code: "255", message: "twice"},
		{rule: "IP set addresses", do: post("/ip-sets", fixed(doc{"ip_addresses": []string{"here"}})), status: 400, code: "255", message: "ip_addresses[0]"},
		{rule: "5 subnets a pool", do: post(ippools, fixed(doc{"subnets": make([]doc, 6)})), status: 400, code: "255", message: "subnets must have"},
		{rule: "subnets need ranges", do: post(ippools, fixed(doc{"subnets": []doc{{"cidr": "10.0.0.0/24"}}})), status: 400, code: "255", message: "allocation_ranges is required"},
		{rule: "ranges lie in the subnet", do: post(ippools, fixed(doc{"subnets": []doc{{"cidr": "10.0.0.0/24", "allocation_ranges": []doc{{"start": "10.0.1.1", "end": "10.0.1.2"}}}}})), status: 400, code: "255", message: "does not lie in subnet"},
		{rule: "ranges do not overlap", do: post(ippools, fixed(doc{"subnets": []doc{{"cidr": "10.0.0.0/24", "allocation_ranges": []doc{
			{"start": "10.0.0.1", "end": "10.0.0.9"}, {"start": "10.0.0.9", "end": "10.0.0.10"}}}}})), status: 400, code: "255", message: "overlaps"},
		{rule: "page_size <= 1000", do: func(b *bench) answer { return b.do("GET", pools+"?page_size=1001", nil) }, status: 400, code: "255", message: "page_size"},
		{rule: "page_size is a number", do: func(b *bench) answer { return b.do("GET", pools+"?page_size=all", nil) }, status: 400, code: "255", message: "page_size"},
		{rule: "cursor", do: func(b *bench) answer { return b.do("GET", pools+"?cursor=xyz", nil) }, status: 400, code: "255", message: "cursor"},
	} {
		t.Run(c.rule, c.run)
	}
}

func TestRulesAcrossObjects(t *testing.T) {
	port80 := []string{"80"}
	udp := func(b *bench) string { return b.named(nsxsim.KindApplicationProfile, "default-udp-lb-app-profile") }
	http := func(b *bench) string { return b.named(nsxsim.KindApplicationProfile, "default-http-lb-app-profile") }
	small := nsxsim.Options{Capacity: map[string]nsxsim.Capacity{"SMALL": {VirtualServers: 1, Pools: 1, Members: 2}}}
	onePool := func(b *bench, members ...doc) (vsID, poolID string) {
		pool := b.create(pools, doc{"members": members})
		id := b.create(servers, b.tcpVS("10.1.0.1", port80, doc{"pool_id": pool}))
		b.attach(id)
		return id, pool
	}
	put := func(b *bench, path string, change doc) answer {
		o := b.ok("GET", path, nil)
		for k, v := range change {
			o[k] = v
		}
		return b.do("PUT", path, o)
	}
	for _, c := range []refusal{
		{rule: "a referenced profile exists", do: post(servers, vs(port80, doc{"application_profile_id": "nope"})), status: 400, message: "nope referenced by application_profile_id does not exist"},
		{rule: "a referenced pool exists", do: post(servers, vs(port80, doc{"pool_id": "nope"})), status: 400, message: "pool_id does not exist"},
		{rule: "a referenced monitor exists", do: post(pools, fixed(doc{"active_monitor_ids": []string{"nope"}})), status: 400, message: "does not exist"},
		{rule: "a referenced virtual server exists", do: post(services, fixed(doc{"virtual_server_ids": []string{"nope"}})), status: 400, message: "does not exist"},
		{rule: "a referenced router exists", do: post(services, fixed(doc{"attachment": doc{"target_type": "LogicalRouter", "target_id": "nope"}})), status: 400, message: "attachment.target_id does not exist"},
		{rule: "a referenced group exists", do: post(pools, fixed(doc{"member_group": doc{"grouping_object": doc{"target_id": "nope"}}})), status: 400, message: "does not exist"},
		{rule: "a referenced IP set exists", do: post("/ns-groups", fixed(doc{"members": []doc{{"op": "EQUALS", "target_type": "IPSet", "target_property": "id", "value": "nope"}}})), status: 400, message: "does not exist"},
		{rule: "an id of another kind does not count", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", port80, doc{"pool_id": b.lb}))
		}, status: 400, message: "pool_id does not exist"},

		{rule: "a pool in use cannot be deleted", do: func(b *bench) answer {
			_, pool := onePool(b)
			return b.do("DELETE", pools+"/"+pool, nil)
		}, status: 400, message: "is being referenced by LbVirtualServer/"},
		{rule: "an attached virtual server cannot be deleted", do: func(b *bench) answer {
			vs, _ := onePool(b)
			return b.do("DELETE", servers+"/"+vs+"?delete_associated_rules=false", nil)
		}, status: 400, message: "is being referenced by LbService/"},
		{rule: "a monitor in use cannot be deleted", do: func(b *bench) answer {
			m := b.create(monitors, doc{"resource_type": "LbTcpMonitor"})
			b.create(pools, doc{"active_monitor_ids": []string{m}})
			return b.do("DELETE", monitors+"/"+m, nil)
		}, status: 400, message: "is being referenced by LbPool/"},
		{rule: "a persistence profile in use cannot be deleted", do: func(b *bench) answer {
			p := b.create(persists, doc{"resource_type": "LbSourceIpPersistenceProfile"})
			b.create(servers, b.tcpVS("10.1.0.1", port80, doc{"persistence_profile_id": p}))
			return b.do("DELETE", persists+"/"+p, nil)
		}, status: 400, message: "is being referenced"},
		{rule: "a group in use cannot be deleted", do: func(b *bench) answer {
			g := b.create("/ns-groups", doc{})
			b.create(pools, doc{"member_group": doc{"grouping_object": doc{"target_id": g}}})
			return b.do("DELETE", "/ns-groups/"+g, nil)
		}, status: 400, message: "is being referenced"},
		{rule: "a system profile cannot be deleted", do: func(b *bench) answer { return b.do("DELETE", profiles+"/"+udp(b), nil) }, status: 400, message: "owned by the system"},

		{rule: "same IP, protocol and port", do: func(b *bench) answer {
			b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, nil))
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"443", "80"}, nil))
		}, status: 400, message: "already uses IP address 10.1.0.1"},
		{rule: "same IP, protocol and port within a range", do: func(b *bench) answer {
			b.create(servers, b.tcpVS("10.1.0.1", []string{"70-90"}, nil))
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80"}, nil))
		}, status: 400, message: "already uses IP address 10.1.0.1"},
		{rule: "same IPv6 address in another spelling", do: func(b *bench) answer {
			b.create(servers, b.tcpVS("2001:db8::1", port80, nil))
			return b.do("POST", servers, b.tcpVS("2001:DB8:0::1", port80, nil))
		}, status: 400, message: "already uses IP address"},
		{rule: "moving onto the port of another", do: func(b *bench) answer {
			b.create(servers, b.tcpVS("10.1.0.1", port80, nil))
			other := b.create(servers, b.tcpVS("10.1.0.2", port80, nil))
			return put(b, servers+"/"+other, doc{"ip_address": "10.1.0.1"})
		}, status: 400, message: "already uses IP address"},
		{rule: "a TCP profile on UDP", do: post(servers, vs(port80, doc{"ip_protocol": "UDP"})), status: 400, message: "does not fit protocol UDP"},
		{rule: "a UDP profile on TCP", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", port80, doc{"application_profile_id": udp(b)}))
		}, status: 400, message: "does not fit protocol TCP"},
		{rule: "layer 7 takes a single port", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", []string{"80", "81"}, doc{"application_profile_id": http(b)}))
		}, status: 400, message: "single port"},
		{rule: "layer 4 takes no cookie persistence", do: func(b *bench) answer {
			return b.do("POST", servers, b.tcpVS("10.1.0.1", port80, doc{"persistence_profile_id": b.named(nsxsim.KindPersistenceProfile, "default-cookie-lb-persistence-profile")}))
		}, status: 400, message: "does not fit a layer 4"},
		{rule: "a passive monitor is not active", do: func(b *bench) answer {
			return b.do("POST", pools, doc{"active_monitor_ids": []string{b.named(nsxsim.KindMonitor, "default-passive-lb-monitor")}})
		}, status: 400, message: "is passive"},
		{rule: "an active monitor is not passive", do: func(b *bench) answer {
			return b.do("POST", pools, doc{"passive_monitor_id": b.named(nsxsim.KindMonitor, "default-tcp-lb-monitor")})
		}, status: 400, message: "is not passive"},

		{rule: "one service a tier-1", do: func(b *bench) answer {
			return b.do("POST", services, doc{"attachment": doc{"target_type": "LogicalRouter", "target_id": b.tier1}})
		}, status: 400, message: "already attached to logical router"},
		{rule: "the tier-1 needs an edge cluster", do: func(b *bench) answer {
			bare := b.create("/logical-routers", doc{"router_type": "TIER1"})
			return b.do("POST", services, doc{"attachment": doc{"target_type": "LogicalRouter", "target_id": bare}})
		}, status: 400, message: "has no edge cluster"},
		{rule: "the edge cluster stays while a service is attached", do: func(b *bench) answer {
			return put(b, "/logical-routers/"+b.tier1, doc{"edge_cluster_id": nil})
		}, status: 400, message: "needs its edge cluster"},
		{rule: "a virtual server is on one service", do: func(b *bench) answer {
			vs, _ := onePool(b)
			return b.do("POST", services, doc{"virtual_server_ids": []string{vs}})
		}, status: 400, message: "already attached to load balancer service"},
		{rule: "a pool on two services, where that is refused", options: nsxsim.Options{Quirks: nsxsim.Quirks{PoolPerService: true}}, do: func(b *bench) answer {
			_, pool := onePool(b)
			other := b.create(servers, b.tcpVS("10.1.0.2", port80, doc{"pool_id": pool}))
			return b.do("POST", services, doc{"virtual_server_ids": []string{other}})
		}, status: 400, message: "already used by load balancer service"},
		{rule: "capacity: virtual servers", options: small, do: func(b *bench) answer {
			one, two := b.create(servers, b.tcpVS("10.1.0.1", port80, nil)), b.create(servers, b.tcpVS("10.1.0.2", port80, nil))
			return put(b, services+"/"+b.lb, doc{"virtual_server_ids": []string{one, two}})
		}, status: 400, message: "holds at most 1 virtual servers, 2 were requested"},
		{rule: "capacity: members, when a live pool grows", options: small, do: func(b *bench) answer {
			_, pool := onePool(b, doc{"ip_address": "10.0.0.1"})
			return put(b, pools+"/"+pool, doc{"members": []doc{{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2"}, {"ip_address": "10.0.0.3"}}})
		}, status: 400, message: "holds at most 2 pool members, 3 were requested"},
		{rule: "capacity: members, by the size of a group", options: small, do: func(b *bench) answer {
			group := b.create("/ns-groups", doc{})
			pool := b.create(pools, doc{"member_group": doc{"grouping_object": doc{"target_id": group}, "max_ip_list_size": 3}})
			id := b.create(servers, b.tcpVS("10.1.0.1", port80, doc{"pool_id": pool}))
			return put(b, services+"/"+b.lb, doc{"virtual_server_ids": []string{id}})
		}, status: 400, message: "pool members, 3 were requested"},
		{rule: "capacity: pools, when a live virtual server gets another", options: small, do: func(b *bench) answer {
			vs, _ := onePool(b)
			return put(b, servers+"/"+vs, doc{"sorry_pool_id": b.create(pools, doc{})})
		}, status: 400, message: "holds at most 1 pools, 2 were requested"},

		{rule: "a group with members takes no ADD_MEMBERS", do: func(b *bench) answer {
			group := b.create("/ns-groups", doc{})
			pool := b.create(pools, doc{"member_group": doc{"grouping_object": doc{"target_id": group}}})
			return b.do("POST", pools+"/"+pool+"?action=ADD_MEMBERS", doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
		}, status: 400, message: "takes only UPDATE_MEMBERS"},
		{rule: "an unknown member cannot be removed", do: func(b *bench) answer {
			pool := b.create(pools, doc{})
			return b.do("POST", pools+"/"+pool+"?action=REMOVE_MEMBERS", doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
		}, status: 400, message: "has no member 10.0.0.1"},
		{rule: "an unknown action", do: func(b *bench) answer {
			pool := b.create(pools, doc{})
			return b.do("POST", pools+"/"+pool+"?action=EXPLODE", doc{})
		}, status: 400, message: "EXPLODE"},
		{rule: "a group is not in itself", do: func(b *bench) answer {
			inner := b.create("/ns-groups", doc{})
			member := func(id string) []doc {
				return []doc{{"op": "EQUALS", "target_type": "NSGroup", "target_property": "id", "value": id}}
			}
			outer := b.create("/ns-groups", doc{"members": member(inner)})
			return put(b, "/ns-groups/"+inner, doc{"members": member(outer)})
		}, status: 400, message: "member of itself"},
		{rule: "tier-0 link ports are on tier-0", do: func(b *bench) answer {
			return b.do("POST", "/logical-router-ports", doc{"resource_type": "LogicalRouterLinkPortOnTIER0", "logical_router_id": b.tier1})
		}, status: 400, message: "TIER0"},
		{rule: "a tier-0 link port has one tier-1", do: func(b *bench) answer {
			up := b.create("/logical-router-ports", doc{"resource_type": "LogicalRouterLinkPortOnTIER0", "logical_router_id": b.Tier0ID()})
			down := doc{"resource_type": "LogicalRouterLinkPortOnTIER1", "logical_router_id": b.tier1, "linked_logical_router_port_id": doc{"target_id": up}}
			b.create("/logical-router-ports", down)
			return b.do("POST", "/logical-router-ports", down)
		}, status: 400, message: "already linked"},
		{rule: "a router with ports cannot be deleted", do: func(b *bench) answer {
			bare := b.create("/logical-routers", doc{"router_type": "TIER1"})
			b.create("/logical-router-ports", doc{"resource_type": "LogicalRouterLinkPortOnTIER1", "logical_router_id": bare})
			return b.do("DELETE", "/logical-routers/"+bare, nil)
		}, status: 400, message: "is being referenced"},
	} {
		t.Run(c.rule, c.run)
	}
}

func TestRevisionsAndOwners(t *testing.T) {
	body := func(revision any) doc {
		d := doc{"display_name": "x"}
		if revision != nil {
			d["_revision"] = revision
		}
		return d
	}
	putPool := func(revision any) func(*bench) answer {
		return func(b *bench) answer {
			id := b.create(pools, doc{})
			b.ok("PUT", pools+"/"+id, body(0))
			return b.do("PUT", pools+"/"+id, body(revision))
		}
	}
	foreign := func(b *bench) string { return b.as("nsx_policy").create(pools, doc{}) }
	for _, c := range []refusal{
		{rule: "stale revision", do: putPool(0), status: 412, code: "206"},
		{rule: "missing revision", do: putPool(nil), status: 412, code: "206"},
		{rule: "revision ahead", do: putPool(2), status: 412, code: "206"},
		{rule: "stale revision as a conflict", options: nsxsim.Options{Quirks: nsxsim.Quirks{StaleIsConflict: true}}, do: putPool(0), status: 409, code: "206"},
		{rule: "stale wins over invalid", do: func(b *bench) answer {
			id := b.create(pools, doc{})
			return b.do("PUT", pools+"/"+id, doc{"_revision": 7, "algorithm": "RANDOM"})
		}, status: 412, code: "206"},
		{rule: "GET of an unknown id", do: func(b *bench) answer { return b.do("GET", pools+"/Nope", nil) }, status: 404, code: "600",
			message: "The requested object : Nope could not be found. Object identifiers are case sensitive."},
		{rule: "PUT of an unknown id", do: func(b *bench) answer { return b.do("PUT", pools+"/nope", body(0)) }, status: 404, code: "600"},
		{rule: "DELETE of an unknown id", do: func(b *bench) answer { return b.do("DELETE", pools+"/nope", nil) }, status: 404, code: "600"},
		{rule: "an unknown id with the other code", options: nsxsim.Options{Quirks: nsxsim.Quirks{NotFoundCode202: true}},
			do: func(b *bench) answer { return b.do("GET", pools+"/nope", nil) }, status: 404, code: "202"},
		{rule: "sub-resource of an unknown id", do: func(b *bench) answer { return b.do("GET", services+"/nope/status", nil) }, status: 404, code: "600"},
		{rule: "status of a pool that is not on the service", do: func(b *bench) answer {
			return b.do("GET", services+"/"+b.lb+"/pools/"+b.create(pools, doc{})+"/status", nil)
		}, status: 404, code: "600"},
		{rule: "an unknown path", do: func(b *bench) answer { return b.do("GET", "/loadbalancer/frobs", nil) }, status: 404},
		{rule: "an unknown path below an object", do: func(b *bench) answer { return b.do("GET", services+"/"+b.lb+"/frobs", nil) }, status: 404},
		{rule: "a path outside the API", do: func(b *bench) answer { return b.do("GET", "/api/v2/loadbalancer/pools", nil) }, status: 404},
		{rule: "a method that the path has not", do: func(b *bench) answer { return b.do("DELETE", pools, nil) }, status: 405},
		{rule: "the administration is off by default", do: func(b *bench) answer { return b.do("GET", "/_nsxsim/journal", nil) }, status: 404},
		{rule: "PUT on another principal's object", do: func(b *bench) answer { return b.do("PUT", pools+"/"+foreign(b), body(0)) }, status: 400, code: "289", message: "createUser=nsx_policy"},
		{rule: "DELETE of another principal's object", do: func(b *bench) answer { return b.do("DELETE", pools+"/"+foreign(b), nil) }, status: 400, code: "289"},
		{rule: "an action on another principal's object", do: func(b *bench) answer {
			return b.do("POST", pools+"/"+foreign(b)+"?action=ADD_MEMBERS", doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
		}, status: 400, code: "289"},
		{rule: "error_code as a string", options: nsxsim.Options{Quirks: nsxsim.Quirks{ErrorCodeIsString: true}},
			do: func(b *bench) answer {
				a := b.do("GET", pools+"/nope", nil)
				if _, ok := a.body["error_code"].(string); !ok {
					b.t.Errorf("error_code is a %T", a.body["error_code"])
				}
				return a
			}, status: 404, code: "600"},
		{rule: "the LB API is gone from 9.0", options: nsxsim.Options{Version: "9.0.0", Empty: true}, status: 404,
			do: nil},
	} {
		if c.do == nil {
			t.Run(c.rule, func(t *testing.T) {
				r := newRig(t, c.options)
				if a := r.do("GET", pools, nil); a.status != c.status {
					t.Errorf("%d %s", a.status, a.raw)
				}
				if got := r.ok("GET", "/node/version", nil).String("node_version"); got != "9.0.0" {
					t.Errorf("version %q", got)
				}
			})
			continue
		}
		t.Run(c.rule, c.run)
	}
}

func TestErrorBody(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	a := r.do("GET", pools+"/nope", nil)
	want := nsxsim.Object{"httpStatus": "NOT_FOUND", "error_code": 600.0, "module_name": "common-services",
		"error_message": "The requested object : nope could not be found. Object identifiers are case sensitive.",
		"details":       "", "related_errors": []any{}}
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestAllowOverwriteAndProtection(t *testing.T) {
	r := newRig(t, nsxsim.Options{})
	policy := r.as("nsx_policy")
	id := policy.create(pools, doc{})
	path := pools + "/" + id
	if got := policy.ok("GET", path, nil).String("_protection"); got != "NOT_PROTECTED" {
		t.Errorf("to its owner: %s", got)
	}
	if got := r.ok("GET", path, nil).String("_protection"); got != "REQUIRE_OVERRIDE" {
		t.Errorf("to others: %s", got)
	}
	if a := r.do("PUT", path, doc{"_revision": 0}, "X-Allow-Overwrite", "true"); a.status != http.StatusOK {
		t.Errorf("PUT with X-Allow-Overwrite: %d %s", a.status, a.raw)
	}
	policy.ok("PUT", path, doc{"_revision": 1})
	if a := r.do("DELETE", path, nil, "X-Allow-Overwrite", "true"); a.status != http.StatusOK {
		t.Errorf("DELETE with X-Allow-Overwrite: %d %s", a.status, a.raw)
	}
}
