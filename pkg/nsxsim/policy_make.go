package nsxsim

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// How intents of each kind become objects of the Manager. These have the
// intent's unique_id for their id, and its tags with one more: policyPath.

const policyPathScope = "policyPath"

// managerDoc gives what the Manager's object has of an intent as it is: all but what
// only the Policy API knows.
func managerDoc(o *object) document {
	doc := o.doc.clone()
	for _, f := range policyFields {
		delete(doc, f.name)
	}
	for _, name := range []string{"id", "_revision", "_create_user", "_create_time", "_system_owned"} {
		delete(doc, name)
	}
	doc.set("resource_type", strings.Replace(o.doc.str("resource_type"), "LB", "Lb", 1))
	path := []rune(o.id)
	tags := append(o.doc.objects("tags"), document{
		"scope": encode(policyPathScope), "tag": encode(string(path[:min(len(path), 256)])),
	})
	doc.set("tags", tags)
	return doc
}

// uidAt gives the id that the intent of the kind at a path has in the Manager.
func (s *Sim) uidAt(k Kind, path string) string {
	if o := s.store.get(k, path); o != nil {
		return o.doc.str("unique_id")
	}
	return ""
}

// toID replaces the path in one member by the id in another.
func (s *Sim) toID(doc document, from string, k Kind, to string) {
	if path := doc.str(from); path != "" {
		doc.set(to, s.uidAt(k, path))
	}
	delete(doc, from)
}

// realizeAlike is for kinds that the Manager has in the same shape.
func realizeAlike(s *Sim, o *object, rec *realization) *Error {
	if adopted(s, o, rec) {
		return nil
	}
	return s.make(rec, o.id, s.policy.byName[o.kind.name].target, rec.uid, managerDoc(o))
}

// adopted tells of the system's own objects that the Manager has had them all
// along.
func adopted(s *Sim, o *object, rec *realization) bool {
	ref := objectRef{s.policy.byName[o.kind.name].target, rec.uid}
	if !o.doc.boolean("_system_owned") || s.store.get(ref.kind, ref.id) == nil {
		return false
	}
	rec.objects = []objectRef{ref}
	return true
}

func realizeMonitor(s *Sim, o *object, rec *realization) *Error {
	if adopted(s, o, rec) {
		return nil
	}
	doc := managerDoc(o)
	doc.set("resource_type", strings.TrimSuffix(doc.str("resource_type"), "Profile"))
	if doc.has("server_ssl_profile_binding") {
		s.bindMonitor(doc)
	}
	if port, _ := doc.integer("monitor_port"); port > 0 {
		doc.set("monitor_port", strconv.FormatInt(port, 10))
	} else {
		delete(doc, "monitor_port")
	}
	return s.make(rec, o.id, KindMonitor, rec.uid, doc)
}

// bindMonitor puts the members of its SSL binding, and what its profile says, into a
// monitor itself, where the Manager has them.
func (s *Sim) bindMonitor(doc document) {
	binding := doc.object("server_ssl_profile_binding")
	delete(doc, "server_ssl_profile_binding")
	if profile := s.store.get(KindPolicyServerSSLProfile, binding.str("ssl_profile_path")); profile != nil {
		for _, name := range []string{"ciphers", "protocols"} {
			if profile.doc.has(name) {
				doc[name] = profile.doc[name]
			}
		}
	}
	binding = s.bindingOf(binding, KindPolicyServerSSLProfile)
	delete(binding, "ssl_profile_id")
	if binding.str("server_auth") == "AUTO_APPLY" {
		binding.set("server_auth", "IGNORE")
	}
	maps.Copy(doc, binding)
}

func realizePool(s *Sim, o *object, rec *realization) *Error {
	doc := managerDoc(o)
	if paths := doc.strs("active_monitor_paths"); len(paths) > 0 {
		ids := make([]string, len(paths))
		for i, path := range paths {
			ids[i] = s.uidAt(KindPolicyMonitor, path)
		}
		doc.set("active_monitor_ids", ids)
	}
	delete(doc, "active_monitor_paths")
	s.toID(doc, "passive_monitor_path", KindPolicyMonitor, "passive_monitor_id")
	switch snat := doc.object("snat_translation"); snat.str("type") {
	case "":
	case "LBSnatDisabled":
		delete(doc, "snat_translation")
	default:
		snat.set("type", strings.Replace(snat.str("type"), "LB", "Lb", 1))
		doc.set("snat_translation", snat)
	}
	if doc.has("member_group") {
		group := doc.object("member_group")
		group.set("grouping_object", map[string]string{"target_type": "NSGroup", "target_id": s.uidAt(KindPolicyGroup, group.str("group_path"))})
		delete(group, "group_path")
		doc.set("member_group", group)
	}
	return s.make(rec, o.id, KindPool, rec.uid, doc)
}

// realizeVirtualServer makes the virtual server's rules and itself, then puts it on
// its service.
func realizeVirtualServer(s *Sim, o *object, rec *realization) *Error {
	doc := managerDoc(o)
	doc.set("ip_protocol", s.protocolOf(o.doc))
	s.toID(doc, "application_profile_path", KindPolicyAppProfile, "application_profile_id")
	s.toID(doc, "lb_persistence_profile_path", KindPolicyPersistence, "persistence_profile_id")
	s.toID(doc, "pool_path", KindPolicyPool, "pool_id")
	s.toID(doc, "sorry_pool_path", KindPolicyPool, "sorry_pool_id")
	for _, name := range []string{"lb_service_path", "rules", "log_significant_event_only"} {
		delete(doc, name)
	}
	for name, profile := range map[string]Kind{"client_ssl_profile_binding": KindPolicyClientSSLProfile, "server_ssl_profile_binding": KindPolicyServerSSLProfile} {
		if doc.has(name) {
			doc.set(name, s.bindingOf(doc.object(name), profile))
		}
	}
	if doc.has("access_list_control") && s.release.knows(accessListsSince) {
		acl := doc.object("access_list_control")
		s.toID(acl, "group_path", KindPolicyGroup, "group_id")
		doc.set("access_list_control", acl)
	}
	rules, left, err := s.makeRules(o, rec)
	if err != nil {
		return err
	}
	if len(rules) > 0 {
		doc.set("rule_ids", rules)
	}
	if err := s.make(rec, o.id, KindVirtualServer, rec.uid, doc); err != nil {
		return err
	}
	for _, ref := range left {
		if err := s.unmake(rec, ref); err != nil {
			return err
		}
	}
	self := objectRef{KindVirtualServer, rec.uid} // the last, so that it is the first to be removed
	rec.objects = append(slices.DeleteFunc(rec.objects, func(r objectRef) bool { return r == self }), self)
	service := o.doc.str("lb_service_path")
	if service == rec.service {
		return nil
	}
	if rec.service != "" {
		if err := s.leaveService(rec); err != nil {
			return err
		}
	}
	if service == "" {
		return nil
	}
	rec.service = service
	if err := s.relist(service); err != nil {
		rec.service = "" // the others need not suffer
		return err
	}
	return nil
}

// leaveService takes a virtual server off the service it is on.
func (s *Sim) leaveService(rec *realization) *Error {
	service := rec.service
	rec.service = ""
	if err := s.relist(service); err != nil {
		rec.service = service
		return err
	}
	return nil
}

// relist gives the LBService at a path the virtual servers that it has now. All
// else of it stays as it was last realised: a change that cannot be, or that has
// yet to come, does not keep virtual servers from coming and going.
func (s *Sim) relist(path string) *Error {
	o, rec := s.store.get(KindPolicyLBService, path), s.policy.records[path]
	if service := s.store.get(KindLBService, s.realizedIn(path, KindLBService)); service != nil {
		doc := service.doc.clone()
		doc.set("virtual_server_ids", s.serversOf(path))
		return s.make(rec, path, KindLBService, service.id, doc)
	}
	if o == nil || rec == nil {
		return nil // gone, and its virtual servers with it
	}
	return realizeLBService(s, o, rec)
}

func realizeLBService(s *Sim, o *object, rec *realization) *Error {
	doc := managerDoc(o)
	if path := doc.str("connectivity_path"); path != "" {
		doc.set("attachment", map[string]string{"target_type": "LogicalRouter", "target_id": s.uidAt(KindPolicyTier1, path)})
	}
	delete(doc, "connectivity_path")
	doc.set("virtual_server_ids", s.serversOf(o.id))
	return s.make(rec, o.id, KindLBService, rec.uid, doc)
}

// serversOf gives the Manager's virtual servers that are on the service at a path.
func (s *Sim) serversOf(path string) []string {
	ids, seen := []string{}, map[string]bool{}
	service := s.store.get(KindLBService, s.realizedIn(path, KindLBService))
	add := func(id string) {
		rec := s.policy.records[s.policy.made[objectRef{KindVirtualServer, id}]]
		if rec != nil && rec.uid == id && rec.service == path && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	if service != nil {
		for _, id := range service.doc.strs("virtual_server_ids") {
			add(id)
		}
	}
	for _, vs := range s.store.referrersOf(objectRef{KindPolicyLBService, path}, KindPolicyVirtualServer) {
		add(vs.doc.str("unique_id"))
	}
	return ids
}

// realizedIn gives the id of the Manager's object of a kind that was made of the
// intent at a path.
func (s *Sim) realizedIn(path string, k Kind) string {
	if rec := s.policy.records[path]; rec != nil {
		for _, ref := range rec.objects {
			if ref.kind == k {
				return ref.id
			}
		}
	}
	return ""
}

// router gives what routers of both tiers have.
func (s *Sim) router(o *object, tier string, localeServices Kind) document {
	doc := managerDoc(o)
	kept := document{}
	for _, name := range []string{"display_name", "description", "tags", "failover_mode"} {
		if doc.has(name) {
			kept[name] = doc[name]
		}
	}
	kept.set("router_type", tier)
	for _, l := range s.childrenOf(o.id, localeServices) {
		if cluster := s.edgeClusterAt(l.doc.str("edge_cluster_path")); cluster != nil {
			kept.set("edge_cluster_id", cluster.id)
			break
		}
	}
	return kept
}

func realizeTier0(s *Sim, o *object, rec *realization) *Error {
	doc := s.router(o, "TIER0", KindPolicyTier0LocaleService)
	doc["high_availability_mode"] = o.doc["ha_mode"]
	return s.make(rec, o.id, KindLogicalRouter, rec.uid, doc)
}

func realizeTier1(s *Sim, o *object, rec *realization) *Error {
	if err := s.make(rec, o.id, KindLogicalRouter, rec.uid, s.router(o, "TIER1", KindPolicyTier1LocaleService)); err != nil {
		return err
	}
	advertised := o.doc.strs("route_advertisement_types")
	adv := document{}
	adv.set("enabled", len(advertised) > 0)
	for _, a := range [][2]string{
		{"TIER1_CONNECTED", "advertise_nsx_connected_routes"}, {"TIER1_STATIC_ROUTES", "advertise_static_routes"},
		{"TIER1_NAT", "advertise_nat_routes"}, {"TIER1_LB_VIP", "advertise_lb_vip"}, {"TIER1_LB_SNAT", "advertise_lb_snat_ip"},
	} {
		adv.set(a[1], slices.Contains(advertised, a[0]))
	}
	old := s.store.get(KindAdvertisement, rec.uid)
	adv.set("_revision", old.revision)
	_, err := s.update(realizer(), old.kind, old.id, adv)
	return err
}

// realizeStaticRoutes makes the static route of the router that holds it.
func realizeStaticRoutes(s *Sim, o *object, rec *realization) *Error {
	doc := managerDoc(o)
	delete(doc, "enabled_on_secondary")
	doc.set("resource_type", string(KindStaticRoute))
	doc.set("logical_router_id", s.intentAt(parentPath(o.id)).doc.str("unique_id"))
	hops := doc.objects("next_hops")
	for _, hop := range hops {
		hop["administrative_distance"] = hop["admin_distance"]
		delete(hop, "admin_distance")
		delete(hop, "scope")
	}
	doc.set("next_hops", hops)
	return s.make(rec, o.id, KindStaticRoute, rec.uid, doc)
}

// realizePart is for objects that the Manager has as a part of their parent.
func realizePart(s *Sim, o *object, _ *realization) *Error {
	path := parentPath(o.id)
	parent, rec := s.intentAt(path), s.policy.records[path]
	if parent == nil || rec == nil {
		return nil // going away itself
	}
	if err := s.policy.byName[parent.kind.name].realize(s, parent, rec); err != nil {
		return err
	}
	s.wakeReferrers(parent)
	return nil
}

func realizeIPPool(s *Sim, o *object, rec *realization) *Error {
	doc := managerDoc(o)
	delete(doc, "check_overlap_with_existing_pools")
	doc.set("resource_type", "IpPool")
	subnets := []document{}
	for _, c := range s.childrenOf(o.id, KindPolicyIPSubnet) {
		subnet := document{}
		for _, name := range []string{"cidr", "allocation_ranges", "gateway_ip", "dns_nameservers", "dns_suffix"} {
			if c.doc.has(name) {
				subnet[name] = c.doc[name]
			}
		}
		subnets = append(subnets, subnet)
	}
	doc.set("subnets", subnets)
	return s.make(rec, o.id, KindIPPool, rec.uid, doc)
}

func renderPolicyPoolUsage(s *Sim, o *object, doc document) {
	usage := map[string]int{"total_ips": 0, "allocated_ip_allocations": 0, "available_ips": 0, "requested_ip_allocations": len(s.childrenOf(o.id, KindPolicyIPAllocation))}
	if pool := s.store.get(KindIPPool, s.realizedIn(o.id, KindIPPool)); pool != nil {
		total := 0
		for _, r := range allocationRanges(pool.doc) {
			total += rangeSize(r)
		}
		used := len(s.listedAllocations(pool))
		usage["total_ips"], usage["allocated_ip_allocations"], usage["available_ips"] = total, used, total-used
	}
	doc.set("pool_usage", usage)
}

// realizeIPAllocation takes an address from the Manager's pool, the one asked for
// if any.
func realizeIPAllocation(s *Sim, o *object, rec *realization) *Error {
	if rec.address.IsValid() {
		return nil
	}
	path := parentPath(o.id)
	pool := s.store.get(KindIPPool, s.uidAt(KindPolicyIPPool, path)) // not that of a pool that had the path before
	if pool == nil {
		return invalidPath(path)
	}
	p := s.ipPoolState(pool.id)
	want := rec.want
	if text := o.doc.str("allocation_ip"); text != "" {
		want = parseAddress(text)
	}
	if want.IsValid() {
		if err := mayAllocate(pool, p, want); err != nil {
			return err
		}
	} else if want = s.firstFree(pool, p, netip.Addr{}); !want.IsValid() {
		return refuseIDs(codePoolExhausted, "Unable to allocate an IP address: IpPool %s is exhausted.", pool.id)
	}
	p.allocated = append(p.allocated, allocation{want, s.now(), policyUser, true})
	rec.address, rec.pool = want, pool.id
	return nil
}
