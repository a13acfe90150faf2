package nsxsim

import (
	"net/netip"
	"strings"
	"time"

	"go4.org/netipx"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// traffic collects what a data plane has to serve. What virtual servers share is
// looked up once.
type traffic struct {
	*Sim
	pools  map[string]*dataplane.Pool
	groups map[string][]netip.Prefix // by the id of an NSGroup
}

// traffic gives what a data plane has to serve: the virtual servers on enabled,
// attached load balancer services, in order of creation of the services.
func (s *Sim) traffic() dataplane.Config {
	var cfg dataplane.Config
	t := traffic{Sim: s, pools: map[string]*dataplane.Pool{}, groups: map[string][]netip.Prefix{}}
	for _, service := range s.store.list(KindLBService) {
		if !serves(service.doc) {
			continue
		}
		reached := s.reached(service.doc)
		for _, id := range service.doc.strs("virtual_server_ids") {
			vs := t.virtualServer(s.store.get(KindVirtualServer, id))
			vs.Disabled = vs.Disabled || !reached
			cfg.VirtualServers = append(cfg.VirtualServers, vs)
		}
	}
	return cfg
}

// reached tells whether clients have a route to the virtual servers of a
// service: a tier-1 must advertise their addresses.
func (s *Sim) reached(service document) bool {
	id := service.object("attachment").str("target_id")
	if s.store.get(KindLogicalRouter, id).doc.str("router_type") != "TIER1" {
		return true
	}
	advertisement := s.store.get(KindAdvertisement, id).doc
	return advertisement.boolean("enabled") && advertisement.boolean("advertise_lb_vip")
}

// serves tells whether a load balancer service carries traffic at all.
func serves(service document) bool {
	return service.boolean("enabled") && service.has("attachment")
}

func (s *traffic) virtualServer(vs *object) dataplane.VirtualServer {
	doc := vs.doc
	return dataplane.VirtualServer{
		ID:                vs.id,
		Address:           parseAddress(doc.str("ip_address")),
		Protocol:          dataplane.Protocol(doc.str("ip_protocol")),
		Ports:             portMaps(parsePorts(doc.strs("ports")), parsePorts(doc.strs("default_pool_member_ports"))),
		Pool:              s.pool(doc.str("pool_id")),
		SorryPool:         s.pool(doc.str("sorry_pool_id")),
		Persistence:       s.persistenceOf(doc.str("persistence_profile_id")),
		Access:            s.accessOf(doc.object("access_list_control")),
		MaxConnections:    count(doc, "max_concurrent_connections"),
		MaxConnectionRate: count(doc, "max_new_connection_rate"),
		IdleTimeout:       seconds(s.store.get(KindApplicationProfile, doc.str("application_profile_id")).doc, "idle_timeout"),
		HTTP:              s.httpOf(vs),
		Disabled:          !doc.boolean("enabled"),
	}
}

// portMaps pairs ports by position, ranges port by port.
func portMaps(listen, members []portRange) []dataplane.PortMap {
	var maps []dataplane.PortMap
	for i, r := range listen {
		for n := range r.width() {
			m := dataplane.PortMap{Listen: r.first + uint16(n)}
			if i < len(members) {
				m.Member = members[i].first + uint16(n)
			}
			maps = append(maps, m)
		}
	}
	return maps
}

// trafficPool gives one pool for all virtual servers that share it.
func (s *traffic) pool(id string) *dataplane.Pool {
	o := s.store.get(KindPool, id)
	if o == nil {
		return nil
	}
	if p := s.pools[id]; p != nil {
		return p
	}
	p := &dataplane.Pool{ID: id, Algorithm: o.doc.str("algorithm"), SNAT: dataplane.AutoMap, MinActiveMembers: count(o.doc, "min_active_members")}
	if !o.doc.has("snat_translation") {
		p.SNAT = dataplane.Transparent
	}
	for _, e := range o.doc.object("snat_translation").objects("ip_addresses") {
		if r, err := parseAddressRange(e.str("ip_address")); err == nil {
			p.SNATAddresses = append(p.SNATAddresses, r.Prefixes()...)
		}
	}
	for _, m := range s.membersOf(o.doc) {
		if m.use == memberServes {
			p.Members = append(p.Members, m.Member)
		}
	}
	for _, id := range o.doc.strs("active_monitor_ids") {
		p.Monitors = append(p.Monitors, s.monitor(s.store.get(KindMonitor, id)))
	}
	if passive := s.store.get(KindMonitor, o.doc.str("passive_monitor_id")); passive != nil {
		p.Passive = &dataplane.Passive{MaxFails: count(passive.doc, "max_fails"), Timeout: seconds(passive.doc, "timeout")}
	}
	s.pools[id] = p
	return p
}

func (s *traffic) monitor(o *object) dataplane.Monitor {
	doc := o.doc
	m := dataplane.Monitor{
		ID:           o.id,
		Type:         strings.ToUpper(strings.TrimSuffix(strings.TrimPrefix(doc.str("resource_type"), "Lb"), "Monitor")),
		Port:         portOf(doc.str("monitor_port")),
		Interval:     seconds(doc, "interval"),
		Timeout:      seconds(doc, "timeout"),
		Fall:         count(doc, "fall_count"),
		Rise:         count(doc, "rise_count"),
		Version:      dataplane.HTTPVersion(doc.str("request_version")),
		Method:       doc.str("request_method"),
		URL:          doc.str("request_url"),
		Body:         doc.str("request_body"),
		ResponseBody: doc.str("response_body"),
		Send:         doc.str("send"),
		Receive:      doc.str("receive"),
		DataLength:   count(doc, "data_length"),
	}
	if m.Type == dataplane.MonitorHTTPS {
		m.TLS = s.serverTLS(doc)
	}
	doc.get("response_status_codes", &m.StatusCodes)
	for _, h := range doc.objects("request_headers") {
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		m.Headers[h.str("header_name")] = h.str("header_value")
	}
	return m
}

func (s *Sim) persistenceOf(id string) *dataplane.Persistence {
	o := s.store.get(KindPersistenceProfile, id)
	if o == nil || o.doc.str("resource_type") != "LbSourceIpPersistenceProfile" {
		return nil
	}
	p := &dataplane.Persistence{Timeout: seconds(o.doc, "timeout"), NoPurge: o.doc.str("purge") == "NO_PURGE"}
	if o.doc.boolean("persistence_shared") {
		p.Shared = o.id
	}
	return p
}

// accessOf gives an access list, of a release that knows them. One that is not
// enabled, as it is by default, lets everybody in.
func (s *traffic) accessOf(list document) *dataplane.Access {
	if !s.release.knows(accessListsSince) || !list.boolean("enabled") {
		return nil
	}
	return &dataplane.Access{Action: dataplane.AccessAction(list.str("action")), Prefixes: s.group(list.str("group_id"))}
}

// group gives the addresses in an NSGroup, and in those nested in it, as the fewest
// prefixes that hold just them: sorted, and none overlaps another.
func (s *traffic) group(id string) []netip.Prefix {
	if known, ok := s.groups[id]; ok {
		return known
	}
	var set netipx.IPSetBuilder
	for _, text := range s.effectiveAddresses(id) {
		if r, err := parseAddressRange(text); err == nil {
			set.AddRange(r)
		}
	}
	addresses, err := set.IPSet()
	if err != nil {
		s.logger.Error(err, "Resolving a group", "group", id) // the store holds valid ranges
		return nil
	}
	s.groups[id] = addresses.Prefixes()
	return s.groups[id]
}

func seconds(doc document, name string) time.Duration {
	return time.Duration(count(doc, name)) * time.Second
}
