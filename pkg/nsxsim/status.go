package nsxsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// What the load balancer reports of itself. With a data plane the states are
// those of real traffic and checks; without one, a member is as healthy as
// SetMemberHealth says.

// stateUnused is that of a member over its group's max_ip_list_size.
const stateUnused dataplane.State = "UNUSED"

// report is what is known of the traffic at one moment. Pools are looked at
// once, however many virtual servers share them.
type report struct {
	servers map[string]dataplane.VirtualServerStatus
	pools   map[string]dataplane.PoolStatus
	seen    map[string]poolReport
}

// poolReport is what became of a pool: all its members, and its own state.
type poolReport struct {
	state   dataplane.State
	members []dataplane.MemberStatus
}

func (s *Sim) report() *report {
	r := &report{servers: map[string]dataplane.VirtualServerStatus{}, pools: map[string]dataplane.PoolStatus{}, seen: map[string]poolReport{}}
	if s.plane == nil {
		return r
	}
	status := s.plane.plane.Status()
	for _, vs := range status.VirtualServers {
		r.servers[vs.ID] = vs
	}
	for _, p := range status.Pools {
		r.pools[p.ID] = p
	}
	return r
}

func (s *Sim) poolReport(pool *object, rep *report) poolReport {
	p, ok := rep.seen[pool.id]
	if !ok {
		live := s.isLive(pool)
		p.members = s.memberStatuses(pool, rep, live)
		p.state = s.poolState(pool, p.members, live)
		rep.seen[pool.id] = p
	}
	return p
}

// SetMemberHealth makes the checks of active monitors succeed or fail for the
// members with an address, in a simulator without a data plane.
func (s *Sim) SetMemberHealth(addr netip.Addr, up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health[addr.Unmap()] = up
}

func serviceState(service document, nodes []string) string {
	switch {
	case !service.boolean("enabled"):
		return "DISABLED"
	case !service.has("attachment"):
		return "DETACHED"
	case len(nodes) == 0:
		return "DOWN"
	case len(nodes) == 1:
		return "NO_STANDBY"
	}
	return "UP"
}

// transportNodes are the edge nodes that a service runs on.
func (s *Sim) transportNodes(service document) []string {
	router := s.store.get(KindLogicalRouter, service.object("attachment").str("target_id"))
	if router == nil {
		return nil
	}
	var nodes []string
	for _, m := range s.store.get(KindEdgeCluster, router.doc.str("edge_cluster_id")).doc.objects("members") {
		nodes = append(nodes, m.str("transport_node_id"))
	}
	return nodes
}

// memberStatuses gives the states of all members of a pool, those that serve
// first asked of the data plane. Of a pool that is on no enabled virtual server
// NSX does not know whether they are UP.
func (s *Sim) memberStatuses(pool *object, rep *report, live bool) []dataplane.MemberStatus {
	told := map[netip.AddrPort]dataplane.MemberStatus{}
	for _, m := range rep.pools[pool.id].Members {
		told[netip.AddrPortFrom(m.Address, m.Port)] = m
	}
	monitored := len(pool.doc.strs("active_monitor_ids")) > 0
	var statuses []dataplane.MemberStatus
	for _, m := range s.membersOf(pool.doc) {
		st, known := told[netip.AddrPortFrom(m.Address, m.Port)]
		if !known {
			st = dataplane.MemberStatus{Address: m.Address, Port: m.Port, Backup: m.Backup}
			s.judge(&st, m, monitored)
		}
		switch m.use {
		case memberSurplus:
			st.State = dataplane.StateDisabled
		case memberOverSize:
			st.State = stateUnused
		}
		if unused := st.State == dataplane.StateUp || st.State == dataplane.StateDown; unused && !live {
			st.State = dataplane.StateUnknown
		}
		statuses = append(statuses, st)
	}
	return statuses
}

// judge gives the state of a member that no data plane knows of.
func (s *Sim) judge(st *dataplane.MemberStatus, m member, monitored bool) {
	switch m.AdminState {
	case dataplane.Disabled:
		st.State = dataplane.StateDisabled
		return
	case dataplane.GracefulDisabled:
		st.State = dataplane.StateGracefulDisabled
		return
	}
	up, checked := s.health[m.Address]
	if !checked {
		up = !s.quirks.UncheckedMembersDown
	}
	st.State = dataplane.StateUp
	if monitored && !up {
		st.State = dataplane.StateDown
		st.FailureCause = "Connect to Peer Failure"
	}
}

// poolState sums members up, as a pool of NSX does: UNKNOWN on no enabled
// virtual server that is live.
func (s *Sim) poolState(pool *object, members []dataplane.MemberStatus, live bool) dataplane.State {
	if !live {
		return dataplane.StateUnknown
	}
	var primary, primaryUp, backupUp int
	for _, m := range members {
		switch up := m.State == dataplane.StateUp; {
		case m.State == stateUnused:
		case m.Backup && up:
			backupUp++
		case !m.Backup:
			primary++
			if up {
				primaryUp++
			}
		}
	}
	atLeast, _ := pool.doc.integer("min_active_members")
	switch {
	case backupUp > 0 && primaryUp < int(atLeast):
		return dataplane.StatePrimaryDown
	case primaryUp == 0:
		return dataplane.StateDown
	case primaryUp < primary:
		return dataplane.StatePartiallyUp
	}
	return dataplane.StateUp
}

// isLive tells whether a pool is on an enabled virtual server of a service that
// carries traffic.
func (s *Sim) isLive(pool *object) bool {
	for _, vs := range s.usersOf(pool) {
		if !vs.doc.boolean("enabled") {
			continue
		}
		for _, service := range s.store.referrersOf(objectRef{KindVirtualServer, vs.id}, KindLBService) {
			if serves(service.doc) {
				return true
			}
		}
	}
	return false
}

// usersOf gives the virtual servers that may send traffic to a pool: by its id, or
// by a rule.
func (s *Sim) usersOf(pool *object) []*object {
	ref := objectRef{KindPool, pool.id}
	users := s.store.referrersOf(ref, KindVirtualServer)
	for _, rule := range s.store.referrersOf(ref, KindRule) {
		users = append(users, s.store.referrersOf(objectRef{KindRule, rule.id}, KindVirtualServer)...)
	}
	return users
}

func (s *Sim) virtualServerState(vs *object, service document, rep *report) dataplane.State {
	switch {
	case !vs.doc.boolean("enabled"):
		return dataplane.StateDisabled
	case !service.has("attachment"):
		return dataplane.StateDetached
	case !service.boolean("enabled"):
		return dataplane.StateUnknown
	}
	live, known := rep.servers[vs.id]
	pool := s.store.get(KindPool, vs.doc.str("pool_id"))
	switch {
	case s.plane != nil && !known:
		return dataplane.StateUnknown // the data plane has yet to hear of it
	case live.State == dataplane.StateDown:
		return dataplane.StateDown // its pool is, or it cannot be served
	case pool != nil:
		return s.poolReport(pool, rep).state
	case s.isLayer7(vs):
		return dataplane.StateUp // as rules may name pools
	}
	return dataplane.StateDown
}

func (s *Sim) isLayer7(vs *object) bool {
	return s.store.get(KindApplicationProfile, vs.doc.str("application_profile_id")).doc.str("resource_type") == "LbHttpProfile"
}

// The documents of the status endpoints.

func (s *Sim) virtualServerStatus(vs *object, service document, rep *report) map[string]any {
	return map[string]any{
		"virtual_server_id":     vs.id,
		"status":                s.virtualServerState(vs, service, rep),
		"last_update_timestamp": s.now(),
	}
}

func (s *Sim) poolStatus(pool *object, rep *report) map[string]any {
	p := s.poolReport(pool, rep)
	documents := []map[string]any{}
	for _, m := range p.members {
		d := memberAddress(m)
		d["status"] = m.State
		if m.State == dataplane.StateDown && m.FailureCause != "" {
			d["failure_cause"] = m.FailureCause
		}
		setTime(d, "last_check_time", m.LastCheck)
		setTime(d, "last_state_change_time", m.LastChange)
		documents = append(documents, d)
	}
	return map[string]any{
		"pool_id":               pool.id,
		"status":                p.state,
		"members":               documents,
		"last_update_timestamp": s.now(),
	}
}

func memberAddress(m dataplane.MemberStatus) map[string]any {
	d := map[string]any{"ip_address": m.Address.String()}
	if m.Port != 0 {
		d["port"] = strconv.Itoa(int(m.Port))
	}
	return d
}

func setTime(d map[string]any, name string, t time.Time) {
	if !t.IsZero() {
		d[name] = t.UnixMilli()
	}
}

func (s *Sim) virtualServerStatistics(vs *object, rep *report) map[string]any {
	live := rep.servers[vs.id]
	d := statistics(live.Counters)
	d["dropped_packets_by_access_list"], d["dropped_sessions_by_lbrule_action"] = live.Counters.DroppedByAccess, live.Counters.DroppedByRules
	d["source_ip_persistence_entry_size"] = live.Persistent
	return map[string]any{"virtual_server_id": vs.id, "statistics": d, "last_update_timestamp": s.now()}
}

func (s *Sim) poolStatistics(pool *object, rep *report) map[string]any {
	members := []map[string]any{}
	for _, m := range s.poolReport(pool, rep).members {
		d := memberAddress(m)
		d["statistics"] = statistics(m.Counters)
		members = append(members, d)
	}
	return map[string]any{
		"pool_id": pool.id, "statistics": statistics(rep.pools[pool.id].Counters), "members": members, "last_update_timestamp": s.now(),
	}
}

// statistics are a data plane's counters as the API shows them, but for
// dropped_connections, which is the simulator's own: connections refused by a limit or
// for want of a member, and by a member.
func statistics(c dataplane.Counters) map[string]any {
	return map[string]any{
		"bytes_in": c.BytesIn, "bytes_in_rate": c.Rates.BytesIn, "bytes_out": c.BytesOut, "bytes_out_rate": c.Rates.BytesOut,
		"packets_in": c.PacketsIn, "packets_in_rate": c.Rates.PacketsIn, "packets_out": c.PacketsOut, "packets_out_rate": c.Rates.PacketsOut,
		"current_sessions": c.CurrentConnections, "current_session_rate": c.Rates.Connections,
		"max_sessions": c.MaxConnections, "total_sessions": c.TotalConnections, "dropped_connections": c.RefusedConnections,
		"http_requests": c.HTTPRequests, "http_request_rate": c.Rates.Requests,
	}
}

// serviceStatistics sum up those of a service's virtual servers, by layer.
func (s *Sim) serviceStatistics(service *object, rep *report) map[string]any {
	sums := map[string]*dataplane.Counters{"l4": {}, "l7": {}}
	for _, vs := range s.virtualServersOn(service) {
		c, sum := rep.servers[vs.id].Counters, sums["l4"]
		if s.isLayer7(vs) {
			sum = sums["l7"]
		}
		sum.CurrentConnections += c.CurrentConnections
		sum.MaxConnections += c.MaxConnections
		sum.TotalConnections += c.TotalConnections
		sum.Rates.Connections += c.Rates.Connections
	}
	d := map[string]any{}
	for layer, sum := range sums {
		d[layer+"_current_sessions"], d[layer+"_max_sessions"] = sum.CurrentConnections, sum.MaxConnections
		d[layer+"_total_sessions"], d[layer+"_current_session_rate"] = sum.TotalConnections, sum.Rates.Connections
	}
	return d
}

// virtualServersOn and poolsOn give what is live on a service.

func (s *Sim) virtualServersOn(service *object) []*object {
	var servers []*object
	for _, id := range service.doc.strs("virtual_server_ids") {
		servers = append(servers, s.store.get(KindVirtualServer, id))
	}
	return servers
}

func (s *Sim) poolsOn(service *object) []*object {
	var pools []*object
	seen := map[string]bool{}
	for _, vs := range s.virtualServersOn(service) {
		for _, id := range s.poolsUsedBy(vs) {
			if !seen[id] {
				seen[id] = true
				pools = append(pools, s.store.get(KindPool, id))
			}
		}
	}
	return pools
}

// poolsUsedBy gives the pools that a virtual server may send traffic to: its own and
// those that its rules select.
func (s *Sim) poolsUsedBy(vs *object) []string {
	pools := poolsOf(vs.doc)
	for _, id := range vs.doc.strs("rule_ids") {
		for _, a := range s.store.get(KindRule, id).doc.objects("actions") {
			if id := a.str("pool_id"); id != "" {
				pools = append(pools, id)
			}
		}
	}
	return pools
}

func each(objects []*object, describe func(*object) map[string]any) []any {
	documents := []any{}
	for _, o := range objects {
		documents = append(documents, describe(o))
	}
	return documents
}

// statusSub serves a status or statistics document of a service.
func statusSub(path string, describe func(r *request, service *object, rep *report) (any, *Error)) sub {
	return sub{method: http.MethodGet, path: path, serve: func(r *request, service *object) (*response, *Error) {
		if source := r.query.Get("source"); source != "" && source != "realtime" && source != "cached" {
			return nil, invalid(fmt.Sprintf("source must be one of realtime, cached, got %q", source))
		}
		d, err := describe(r, service, r.sim.report())
		if err != nil {
			return nil, err
		}
		return &response{status: http.StatusOK, body: encode(d)}, nil
	}}
}

// oneOf finds the object that the path names among those live on the service.
func oneOf(r *request, live []*object) (*object, *Error) {
	i := slices.IndexFunc(live, func(o *object) bool { return o.id == r.route.params[0] })
	if i < 0 {
		return nil, r.sim.notFound(r.route.params[0])
	}
	return live[i], nil
}

func listDocument(results []any) map[string]any {
	return map[string]any{"results": results, "result_count": len(results)}
}

var lbServiceSubs = []sub{
	statusSub("status", func(r *request, service *object, rep *report) (any, *Error) {
		s, nodes := r.sim, r.sim.transportNodes(service.doc)
		d := map[string]any{
			"service_id":            service.id,
			"service_status":        serviceState(service.doc, nodes),
			"virtual_servers":       each(s.virtualServersOn(service), func(o *object) map[string]any { return s.virtualServerStatus(o, service.doc, rep) }),
			"pools":                 each(s.poolsOn(service), func(o *object) map[string]any { return s.poolStatus(o, rep) }),
			"cpu_usage":             0,
			"memory_usage":          0,
			"last_update_timestamp": s.now(),
		}
		if len(nodes) > 0 {
			d["active_transport_nodes"] = nodes[:1]
			d["standby_transport_nodes"] = nodes[1:min(2, len(nodes))]
		}
		return d, nil
	}),
	statusSub("usage", func(r *request, service *object, _ *report) (any, *Error) { return r.sim.usageDocument(service), nil }),
	statusSub("virtual-servers/status", func(r *request, service *object, rep *report) (any, *Error) {
		return listDocument(each(r.sim.virtualServersOn(service), func(o *object) map[string]any { return r.sim.virtualServerStatus(o, service.doc, rep) })), nil
	}),
	statusSub("pools/status", func(r *request, service *object, rep *report) (any, *Error) {
		return listDocument(each(r.sim.poolsOn(service), func(o *object) map[string]any { return r.sim.poolStatus(o, rep) })), nil
	}),
	statusSub("virtual-servers/*/status", func(r *request, service *object, rep *report) (any, *Error) {
		vs, err := oneOf(r, r.sim.virtualServersOn(service))
		if err != nil {
			return nil, err
		}
		return r.sim.virtualServerStatus(vs, service.doc, rep), nil
	}),
	statusSub("pools/*/status", func(r *request, service *object, rep *report) (any, *Error) {
		pool, err := oneOf(r, r.sim.poolsOn(service))
		if err != nil {
			return nil, err
		}
		return r.sim.poolStatus(pool, rep), nil
	}),
	statusSub("statistics", func(r *request, service *object, rep *report) (any, *Error) {
		s := r.sim
		return map[string]any{
			"service_id":            service.id,
			"statistics":            s.serviceStatistics(service, rep),
			"virtual_servers":       each(s.virtualServersOn(service), func(o *object) map[string]any { return s.virtualServerStatistics(o, rep) }),
			"pools":                 each(s.poolsOn(service), func(o *object) map[string]any { return s.poolStatistics(o, rep) }),
			"last_update_timestamp": s.now(),
		}, nil
	}),
	statusSub("virtual-servers/*/statistics", func(r *request, service *object, rep *report) (any, *Error) {
		vs, err := oneOf(r, r.sim.virtualServersOn(service))
		if err != nil {
			return nil, err
		}
		return r.sim.virtualServerStatistics(vs, rep), nil
	}),
	statusSub("pools/*/statistics", func(r *request, service *object, rep *report) (any, *Error) {
		pool, err := oneOf(r, r.sim.poolsOn(service))
		if err != nil {
			return nil, err
		}
		return r.sim.poolStatistics(pool, rep), nil
	}),
	statusSub("debug-info", func(r *request, service *object, _ *report) (any, *Error) {
		return r.sim.debugInfo(r.author.user, service), nil
	}),
}

// debugInfo gives the service with all that it refers to, down to monitors.
func (s *Sim) debugInfo(user string, service *object) map[string]any {
	names := map[Kind]string{
		KindVirtualServer: "virtual_servers", KindPool: "pools", KindMonitor: "monitors",
		KindApplicationProfile: "application_profiles", KindPersistenceProfile: "persistence_profiles",
		KindRule: "rules", KindClientSSLProfile: "client_ssl_profiles", KindServerSSLProfile: "server_ssl_profiles",
		KindTCPProfile: "tcp_profiles",
	}
	info := map[string]any{"service": s.answer(user, service)}
	lists := map[Kind][]json.RawMessage{}
	seen := map[objectRef]bool{}
	for queue := slices.Clone(service.refs); len(queue) > 0; queue = queue[1:] {
		ref := queue[0]
		if names[ref.kind] == "" || seen[ref] {
			continue
		}
		seen[ref] = true
		o := s.store.get(ref.kind, ref.id)
		lists[ref.kind] = append(lists[ref.kind], s.answer(user, o))
		queue = append(queue, o.refs...)
	}
	for k, list := range lists {
		info[names[k]] = list
	}
	return info
}
