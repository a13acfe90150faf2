package nsxsim

import "net/http"

// The networks that groups and routers refer to: transport zones, logical switches
// and their ports, the static routes and NAT rules of a router. They are documents
// with references, and nothing more: no packet goes through them.

// networkKinds gives the kinds of the Manager API that networks are made of, and those
// beside them.
func networkKinds() []*kind {
	return append(plainKinds(), []*kind{
		machineKind(),
		principalKind(),
		{
			name: KindTransportZone, path: "transport-zones", types: []string{"TransportZone"},
			fields: []field{
				{name: "transport_type", shape: stringShape, required: true, oneOf: []string{"OVERLAY", "VLAN"}},
				{name: "host_switch_name", shape: stringShape},
				{name: "host_switch_mode", shape: stringShape, def: `"STANDARD"`, oneOf: []string{"STANDARD", "ENS", "ENS_INTERRUPT"}},
				{name: "is_default", shape: boolShape, def: "false"},
				{name: "nested_nsx", shape: boolShape, def: "false"},
			},
			filters: map[string]func(document, string) bool{"transport_type": equals("transport_type")},
		},
		{
			name: KindLogicalSwitch, path: "logical-switches", types: []string{"LogicalSwitch"}, removed: removedLB, traffic: true,
			fields: []field{
				{name: "transport_zone_id", shape: stringShape, required: true, ref: []Kind{KindTransportZone}},
				{name: "admin_state", shape: stringShape, required: true, oneOf: []string{"UP", "DOWN"}},
				{name: "replication_mode", shape: stringShape, oneOf: []string{"", "MTEP", "SOURCE"}},
				{name: "vlan", shape: intShape, min: 0, max: 4094},
			},
			check:   checkLogicalSwitch,
			subs:    logicalSwitchSubs,
			cascade: []Kind{KindLogicalPort},
			filters: map[string]func(document, string) bool{"transport_zone_id": equals("transport_zone_id")},
		},
		{
			name: KindLogicalPort, path: "logical-ports", types: []string{"LogicalPort"}, removed: removedLB, traffic: true,
			fields: []field{
				{name: "logical_switch_id", shape: stringShape, required: true, ref: []Kind{KindLogicalSwitch}},
				{name: "admin_state", shape: stringShape, required: true, oneOf: []string{"UP", "DOWN"}},
				{name: "attachment", shape: objectShape, fields: []field{
					{name: "id", shape: stringShape, required: true},
					{name: "attachment_type", shape: stringShape, def: `"VIF"`},
				}},
			},
			filters: map[string]func(document, string) bool{"logical_switch_id": equals("logical_switch_id")},
		},
		{
			name: KindStaticRoute, types: []string{"StaticRoute"}, removed: removedLB,
			fields: []field{
				{name: "logical_router_id", shape: stringShape, required: true, ref: []Kind{KindLogicalRouter}},
				{name: "network", shape: stringShape, required: true, check: checkPrefix},
				{name: "next_hops", shape: listShape, required: true, min: 1, fields: []field{
					{name: "administrative_distance", shape: intShape, def: "1", min: 1, max: 255},
					{name: "ip_address", shape: stringShape, check: checkAddress},
					{name: "blackhole_action", shape: stringShape, oneOf: []string{"DISCARD"}},
					{name: "logical_router_port_id", shape: objectShape, fields: []field{
						{name: "target_id", shape: stringShape, ref: []Kind{KindLogicalRouterPort}},
					}},
				}},
			},
		},
		{
			name: KindNatRule, types: []string{"NatRule"}, removed: removedLB,
			fields: []field{
				{name: "logical_router_id", shape: stringShape, required: true, ref: []Kind{KindLogicalRouter}},
				{name: "action", shape: stringShape, required: true, oneOf: []string{"SNAT", "DNAT", "NO_SNAT", "NO_DNAT", "REFLEXIVE", "NO_NAT"}},
				{name: "match_source_network", shape: stringShape, check: checkAddressRange},
				{name: "match_destination_network", shape: stringShape, check: checkAddressRange},
				{name: "translated_network", shape: stringShape, check: checkAddressRange},
				{name: "translated_ports", shape: stringShape, check: checkPortRange},
				{name: "rule_priority", shape: intShape, def: "1024", min: 0, max: 2147483647},
				{name: "enabled", shape: boolShape, def: "true"},
				{name: "logging", shape: boolShape, def: "false"},
				{name: "nat_pass", shape: boolShape, def: "true"},
			},
		},
	}...)
}

// checkLogicalSwitch: in a VLAN, nothing is replicated by NSX.
func checkLogicalSwitch(c *change) *Error {
	zone := c.store.get(KindTransportZone, c.doc.str("transport_zone_id"))
	if zone.doc.str("transport_type") != "VLAN" {
		return nil
	}
	if !c.doc.has("vlan") {
		return invalid("vlan is required in a transport zone of type VLAN")
	}
	delete(c.doc, "replication_mode")
	return nil
}

// logicalSwitchSubs tell how far a switch is realised, which takes no time here.
var logicalSwitchSubs = []sub{
	{method: http.MethodGet, path: "state", serve: func(_ *request, o *object) (*response, *Error) {
		return &response{status: http.StatusOK, body: encode(map[string]any{"logical_switch_id": o.id, "state": "success", "details": []any{}})}, nil
	}},
}

// routerParts serve the objects of a kind that belong to a router, below its path.
// created is the status that a POST is answered with.
func routerParts(path string, k Kind, created int) []sub {
	// part finds the one that the request names.
	part := func(r *request, router *object) (*object, *Error) {
		o := r.sim.store.get(k, r.route.params[0])
		if o == nil || o.doc.str("logical_router_id") != router.id {
			return nil, r.sim.notFound(r.route.params[0])
		}
		return o, nil
	}
	// body is the request's, which need not name the router.
	body := func(r *request, router *object) (document, *Error) {
		doc, err := r.document()
		if err == nil {
			doc.set("logical_router_id", router.id)
		}
		return doc, err
	}
	return []sub{
		{method: http.MethodGet, path: path, serve: func(r *request, router *object) (*response, *Error) {
			return r.listOf(r.sim.store.referrersOf(objectRef{KindLogicalRouter, router.id}, k))
		}},
		{method: http.MethodPost, path: path, serve: func(r *request, router *object) (*response, *Error) {
			doc, err := body(r, router)
			if err != nil {
				return nil, err
			}
			o, err := r.sim.create(r.author, r.sim.kinds[k], doc, "")
			if err != nil {
				return nil, err
			}
			return &response{status: created, body: r.sim.answer(r.author.user, o)}, nil
		}},
		{method: http.MethodGet, path: path + "/*", serve: func(r *request, router *object) (*response, *Error) {
			o, err := part(r, router)
			if err != nil {
				return nil, err
			}
			return r.found(o), nil
		}},
		{method: http.MethodPut, path: path + "/*", serve: func(r *request, router *object) (*response, *Error) {
			o, err := part(r, router)
			if err != nil {
				return nil, err
			}
			doc, err := body(r, router)
			if err != nil {
				return nil, err
			}
			return r.store(o, doc)
		}},
		{method: http.MethodDelete, path: path + "/*", serve: func(r *request, router *object) (*response, *Error) {
			o, err := part(r, router)
			if err != nil {
				return nil, err
			}
			if err := r.sim.remove(r.author, o.kind, o.id, false); err != nil {
				return nil, err
			}
			return &response{status: http.StatusOK}, nil
		}},
	}
}
