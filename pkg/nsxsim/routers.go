package nsxsim

import "net/http"

// The rules of logical routers and their ports that go across fields and objects.

const (
	tier0LinkPort = "LogicalRouterLinkPortOnTIER0"
	tier1LinkPort = "LogicalRouterLinkPortOnTIER1"
	downlinkPort  = "LogicalRouterDownLinkPort"
)

func checkLogicalRouter(c *change) *Error {
	if c.old != nil && c.old.doc.str("router_type") != c.doc.str("router_type") {
		return invalid("router_type cannot be changed")
	}
	if !c.doc.has("high_availability_mode") {
		mode := "ACTIVE_STANDBY"
		if c.doc.str("router_type") == "TIER0" {
			mode = "ACTIVE_ACTIVE"
		}
		c.doc.set("high_availability_mode", mode)
	}
	if c.doc.str("edge_cluster_id") == "" {
		if lbs := c.store.withKey("lb-attachment/" + c.id); len(lbs) > 0 {
			return refuseLB(codeLBConflict, "Logical router %s needs its edge cluster: load balancer service %s is attached to it.", c.id, lbs[0].id)
		}
	}
	return nil
}

// deletedLogicalRouter takes the router's advertisement configuration along.
func deletedLogicalRouter(s *Sim, o *object, _ bool) *Error {
	if adv := s.store.get(KindAdvertisement, o.id); adv != nil {
		s.store.remove(adv)
		s.committed(adv)
	}
	return nil
}

func linkedPortRefs(doc document) []idField {
	if doc.str("resource_type") != tier1LinkPort {
		return nil
	}
	if id := doc.object("linked_logical_router_port_id").str("target_id"); id != "" {
		return []idField{{"linked_logical_router_port_id", []Kind{KindLogicalRouterPort}, id}}
	}
	return nil
}

func checkRouterPort(c *change) *Error {
	router := c.store.get(KindLogicalRouter, c.doc.str("logical_router_id"))
	tier := router.doc.str("router_type")
	switch c.resource {
	case tier0LinkPort, "LogicalRouterUpLinkPort":
		if tier != "TIER0" {
			return refuse(codeValidation, "Port type %s is allowed only on a TIER0 logical router.", c.resource)
		}
	case tier1LinkPort:
		if tier != "TIER1" {
			return refuse(codeValidation, "Port type %s is allowed only on a TIER1 logical router.", c.resource)
		}
	}
	for _, ref := range linkedPortRefs(c.doc) {
		target := objectRef{KindLogicalRouterPort, ref.id}
		if c.store.get(target.kind, target.id).doc.str("resource_type") != tier0LinkPort {
			return refuse(codeValidation, "Port %s is not of type %s.", ref.id, tier0LinkPort)
		}
		for _, other := range c.store.referrersOf(target, KindLogicalRouterPort) {
			if other.id != c.id {
				return refuse(codeInUse, "Port %s is already linked to port %s.", ref.id, other.id)
			}
		}
	}
	return nil
}

// renderLinkedPort shows on the tier-0's end of a link the port on the tier-1, and what
// the services are that are bound to a port.
func renderLinkedPort(s *Sim, o *object, doc document) {
	if bindings := doc.objects("service_bindings"); len(bindings) > 0 {
		for _, b := range bindings {
			service := b.object("service_id")
			if relay := s.store.get(KindDhcpRelay, service.str("target_id")); relay != nil {
				service["target_display_name"] = relay.doc["display_name"]
				service.set("is_valid", true)
				b.set("service_id", service)
			}
		}
		doc.set("service_bindings", bindings)
	}
	if doc.str("resource_type") != tier0LinkPort {
		return
	}
	for _, port := range s.store.referrersOf(objectRef{KindLogicalRouterPort, o.id}, KindLogicalRouterPort) {
		doc.set("linked_logical_router_port_id", port.id)
	}
}

// logicalRouterSubs serve a router's route advertisement, a document of its own
// that comes and goes with the router.
var logicalRouterSubs = []sub{
	{method: http.MethodGet, path: "routing/advertisement", serve: func(r *request, router *object) (*response, *Error) {
		return r.found(r.sim.store.get(KindAdvertisement, router.id)), nil
	}},
	{method: http.MethodPut, path: "routing/advertisement", write: true, serve: func(r *request, router *object) (*response, *Error) {
		return r.put(r.sim.kinds[KindAdvertisement], router.id)
	}},
}
