package nsxsim

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// The rules of load balancing that go across fields and objects.

// mirrorPorts keeps the deprecated single port and its list the same: the list
// wins when both are given, and responses carry both.
func mirrorPorts(doc document) {
	for _, pair := range [][2]string{{"port", "ports"}, {"default_pool_member_port", "default_pool_member_ports"}} {
		single, list := pair[0], pair[1]
		if ports := doc.strs(list); len(ports) > 0 {
			doc.set(single, ports[0])
		} else if port := doc.str(single); port != "" {
			doc.set(list, []string{port})
		}
	}
}

func vipKey(doc document) string {
	return "vip/" + canonicalAddress(doc.str("ip_address")) + "/" + doc.str("ip_protocol")
}

func vipKeys(doc document) []string { return []string{vipKey(doc)} }

func checkVirtualServer(c *change) *Error {
	ports := parsePorts(c.doc.strs("ports"))
	if wrong := checkPortShapes(ports, parsePorts(c.doc.strs("default_pool_member_ports"))); wrong != "" {
		return invalid(wrong)
	}
	if err := checkProfiles(c, ports); err != nil {
		return err
	}
	for i, a := range ports {
		for _, b := range ports[:i] {
			if a.overlaps(b) {
				return invalid(fmt.Sprintf("ports %s and %s overlap", b, a))
			}
		}
	}
	for _, other := range c.store.withKey(vipKey(c.doc)) {
		if other.id == c.id {
			continue
		}
		for _, theirs := range parsePorts(other.doc.strs("ports")) {
			for _, ours := range ports {
				if ours.overlaps(theirs) {
					return refuseLB(codeLBConflict, "Virtual server %s already uses IP address %s, protocol %s and port %s.",
						other.id, c.doc.str("ip_address"), c.doc.str("ip_protocol"), theirs)
				}
			}
		}
	}
	if c.old != nil && slices.Equal(poolsOf(c.old.doc), poolsOf(c.doc)) {
		return nil // its services hold what they held
	}
	return c.checkServicesOf(&object{id: c.id, kind: c.kinds[KindVirtualServer], doc: c.doc})
}

// checkPortShapes: default_pool_member_ports are paired with ports by position,
// and ranges with ranges of the same width.
func checkPortShapes(ports, members []portRange) string {
	if len(members) == 0 {
		return ""
	}
	if len(members) != len(ports) {
		return fmt.Sprintf("default_pool_member_ports has %d items and ports has %d", len(members), len(ports))
	}
	for i := range ports {
		if ports[i].width() != members[i].width() {
			return fmt.Sprintf("default_pool_member_ports %s does not match the shape of ports %s", members[i], ports[i])
		}
	}
	return ""
}

func checkProfiles(c *change, ports []portRange) *Error {
	profile := c.store.get(KindApplicationProfile, c.doc.str("application_profile_id"))
	profileType := profile.doc.str("resource_type")
	protocol := c.doc.str("ip_protocol")
	if wants := map[string]string{"LbFastTcpProfile": "TCP", "LbFastUdpProfile": "UDP", "LbHttpProfile": "TCP"}[profileType]; wants != protocol {
		return refuseLB(codeLBConflict, "Application profile %s of type %s does not fit protocol %s.", profile.id, profileType, protocol)
	}
	if err := checkLayer7(c, profile); err != nil {
		return err
	}
	layer7 := profileType == "LbHttpProfile"
	if layer7 && (len(ports) != 1 || ports[0].width() != 1) {
		return refuseLB(codeLBConflict, "A virtual server with an LbHttpProfile takes a single port.")
	}
	if id := c.doc.str("persistence_profile_id"); id != "" && !layer7 {
		if t := c.store.get(KindPersistenceProfile, id).doc.str("resource_type"); t != "LbSourceIpPersistenceProfile" {
			return refuseLB(codeLBConflict, "Persistence profile %s of type %s does not fit a layer 4 virtual server.", id, t)
		}
	}
	return nil
}

func attachmentKeys(doc document) []string {
	if router := doc.object("attachment").str("target_id"); router != "" {
		return []string{"lb-attachment/" + router}
	}
	return nil
}

// checkSize: load balancer services have become larger with NSX 3.0.
func (c *change) checkSize() *Error {
	if c.doc.str("size") == "XLARGE" && c.release.before(3, 0) {
		return invalid(`size must be one of SMALL, MEDIUM, LARGE, got "XLARGE"`)
	}
	return nil
}

func checkLBService(c *change) *Error {
	if err := c.checkSize(); err != nil {
		return err
	}
	ids := c.doc.strs("virtual_server_ids")
	if dup := firstDuplicate(ids); dup != "" {
		return invalid("virtual_server_ids holds " + dup + " twice")
	}
	for _, key := range attachmentKeys(c.doc) {
		for _, other := range c.store.withKey(key) {
			if other.id != c.id {
				return refuseLB(codeLBConflict, "Load balancer service %s is already attached to logical router %s.",
					other.id, c.doc.object("attachment").str("target_id"))
			}
		}
		router := c.store.get(KindLogicalRouter, c.doc.object("attachment").str("target_id"))
		if router.doc.str("edge_cluster_id") == "" {
			return refuseLB(codeLBConflict, "Logical router %s has no edge cluster: a load balancer service cannot be attached to it.", router.id)
		}
	}
	self := objectRef{KindLBService, c.id}
	for _, id := range ids {
		for _, other := range c.store.referrersOf(objectRef{KindVirtualServer, id}, KindLBService) {
			if other.id != self.id {
				return refuseLB(codeLBConflict, "Virtual server %s is already attached to load balancer service %s.", id, other.id)
			}
		}
	}
	return c.checkCapacity(&object{id: c.id, kind: c.kinds[KindLBService], doc: c.doc})
}

func checkPool(c *change) *Error {
	members := c.doc.objects("members")
	if len(members) > 0 && c.doc.has("member_group") {
		return invalid("members and member_group exclude each other")
	}
	seen := map[string]bool{}
	for _, m := range members {
		key := canonicalAddress(m.str("ip_address")) + " " + m.str("port")
		if seen[key] {
			return invalid(fmt.Sprintf("members holds %s twice", strings.TrimSpace(key)))
		}
		seen[key] = true
	}
	ids := c.doc.strs("active_monitor_ids")
	if dup := firstDuplicate(ids); dup != "" {
		return invalid("active_monitor_ids holds " + dup + " twice")
	}
	if len(ids) > 1 && c.release.before(3, 0) {
		return invalid("active_monitor_ids must have at most 1 item")
	}
	for _, id := range ids {
		if c.store.get(KindMonitor, id).doc.str("resource_type") == "LbPassiveMonitor" {
			return refuseLB(codeLBConflict, "Monitor %s is passive: it cannot be an active monitor of a pool.", id)
		}
	}
	if id := c.doc.str("passive_monitor_id"); id != "" {
		if c.store.get(KindMonitor, id).doc.str("resource_type") != "LbPassiveMonitor" {
			return refuseLB(codeLBConflict, "Monitor %s is not passive: it cannot be the passive monitor of a pool.", id)
		}
	}
	if c.old != nil && budgetedMembers(c.old.doc) == budgetedMembers(c.doc) {
		return nil // its services hold what they held
	}
	return c.checkServicesOf(&object{id: c.id, kind: c.kinds[KindPool], doc: c.doc})
}

func firstDuplicate(ids []string) string {
	sorted := slices.Sorted(slices.Values(ids))
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return sorted[i]
		}
	}
	return ""
}

// virtualServerSubs serve a deletion that takes the virtual server's rules along.
var virtualServerSubs = []sub{
	{method: http.MethodDelete, serve: func(r *request, vs *object) (*response, *Error) {
		if err := r.sim.remove(r.author, vs.kind, vs.id, false); err != nil {
			return nil, err
		}
		if r.query.Get("delete_associated_rules") == "true" {
			for _, id := range vs.doc.strs("rule_ids") {
				rule := objectRef{KindRule, id}
				if len(r.sim.store.referrersOf(rule)) > 0 {
					continue // another virtual server has it, too
				}
				if err := r.sim.remove(r.author, r.sim.kinds[KindRule], id, false); err != nil {
					return nil, err
				}
			}
		}
		return &response{status: http.StatusOK}, nil
	}},
}
