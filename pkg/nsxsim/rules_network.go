package nsxsim

import "net/netip"

// The rules of logical routers and groups that go across fields and objects.

const (
	tier0LinkPort = "LogicalRouterLinkPortOnTIER0"
	tier1LinkPort = "LogicalRouterLinkPortOnTIER1"
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

// renderLinkedPort shows on the tier-0's end of a link the port on the tier-1.
func renderLinkedPort(s *Sim, o *object, doc document) {
	if doc.str("resource_type") != tier0LinkPort {
		return
	}
	for _, port := range s.store.referrersOf(objectRef{KindLogicalRouterPort, o.id}, KindLogicalRouterPort) {
		doc.set("linked_logical_router_port_id", port.id)
	}
}

// groupMemberRefs: members of a group that are named by id must exist.
func groupMemberRefs(doc document) []idField {
	var ids []idField
	for _, m := range doc.objects("members") {
		if m.str("target_property") != "id" || m.str("op") != "EQUALS" {
			continue
		}
		switch m.str("target_type") {
		case "IPSet":
			ids = append(ids, idField{"members.value", []Kind{KindIPSet}, m.str("value")})
		case "NSGroup":
			ids = append(ids, idField{"members.value", []Kind{KindNSGroup}, m.str("value")})
		}
	}
	return ids
}

// checkNSGroup refuses a group that would, through others, contain itself.
func checkNSGroup(c *change) *Error {
	seen := map[string]bool{}
	var reaches func(doc document) bool
	reaches = func(doc document) bool {
		for _, ref := range groupMemberRefs(doc) {
			if ref.kinds[0] != KindNSGroup || seen[ref.id] {
				continue
			}
			if ref.id == c.id {
				return true
			}
			seen[ref.id] = true
			if o := c.store.get(KindNSGroup, ref.id); o != nil && reaches(o.doc) {
				return true
			}
		}
		return false
	}
	if reaches(c.doc) {
		return refuse(codeValidation, "NSGroup %s would be a member of itself.", c.id)
	}
	return nil
}

func renderMemberCount(_ *Sim, _ *object, doc document) {
	doc.set("member_count", len(doc.objects("members")))
}

// effectiveAddresses gives what the IP sets of a group, and of the groups in
// it, hold: addresses, ranges and CIDRs as they were written, each once.
func (s *Sim) effectiveAddresses(groupID string) []string {
	var addresses []string
	seenGroup, seen := map[string]bool{}, map[string]bool{}
	var walk func(id string)
	walk = func(id string) {
		group := s.store.get(KindNSGroup, id)
		if group == nil || seenGroup[id] {
			return
		}
		seenGroup[id] = true
		for _, ref := range groupMemberRefs(group.doc) {
			if ref.kinds[0] == KindNSGroup {
				walk(ref.id)
				continue
			}
			set := s.store.get(KindIPSet, ref.id)
			for _, a := range set.doc.strs("ip_addresses") {
				if !seen[a] {
					seen[a] = true
					addresses = append(addresses, a)
				}
			}
		}
	}
	walk(groupID)
	return addresses
}

// canonicalAddress gives one spelling for an address: IPv6 has several.
func canonicalAddress(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().String()
	}
	return s
}
