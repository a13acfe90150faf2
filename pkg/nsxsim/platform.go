package nsxsim

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// What a manager tells of itself, of the cluster of managers that it is in, and of
// the edge nodes: what clients ask before they begin, and monitoring at all times.
// There is one manager, which is up as long as it answers, and edge nodes are those
// that edge clusters name.

const (
	hostname  = "nsxsim"
	stable    = "STABLE"
	isUp      = "UP"
	oneNIC    = "eth0"
	loopback  = "127.0.0.1"
	isRunning = "running"

	fabricMachines = "fabric/virtual-machines"
)

var (
	managerID = freshID("manager")
	clusterID = freshID("cluster")
)

// managerServices are the services of a manager's node.
var managerServices = []string{"applianceproxy", "async_replicator", "auth", "cluster_manager", "cm-inventory", "controller", "http",
	"install-upgrade", "liagent", "manager", "mgmt-plane-bus", "migration-coordinator", "node-mgmt", "node-stats", "nsx-message-bus",
	"nsx-platform-client", "nsx-upgrade-agent", "ntp", "policy", "search", "snmp", "ssh", "syslog", "ui-service"}

// licensedFeatures are what the license of a simulator is for: no firewalls.
var licensedFeatures = []string{"CONTAINER", "CONTAINER_NETWORKING", "LOAD_BALANCER", "NAT", "NSX_NETWORKING"}

// about is a document below /api/v1 that can only be read.
type about struct {
	path  string // a * stands for one segment
	serve func(r *request) (*response, *Error)
}

// aboutOne serves a document that is always there.
func aboutOne(path string, describe func(s *Sim) any) about {
	return about{path, func(r *request) (*response, *Error) {
		return &response{status: http.StatusOK, body: encode(describe(r.sim))}, nil
	}}
}

// aboutList serves a list.
func aboutList(path string, list func(s *Sim) []any) about {
	return about{path, func(r *request) (*response, *Error) { return r.page(list(r.sim)) }}
}

// aboutEdgeNode serves a document of each edge node, by its id.
func aboutEdgeNode(path string, describe func(s *Sim, n edgeNode) any) about {
	return about{path, func(r *request) (*response, *Error) {
		nodes := r.sim.edgeNodes()
		i := slices.IndexFunc(nodes, func(n edgeNode) bool { return n.id == r.route.params[0] })
		if i < 0 {
			return nil, r.sim.notFound(r.route.params[0])
		}
		return &response{status: http.StatusOK, body: encode(describe(r.sim, nodes[i]))}, nil
	}}
}

// aboutManager serves a document of each node of the cluster of managers, by its id.
func aboutManager(path string, describe func(r *request) any) about {
	return about{path, func(r *request) (*response, *Error) {
		if id := r.route.params[0]; id != managerID && id != "self" {
			return nil, r.sim.notFound(id)
		}
		doc := describe(r)
		if doc == nil {
			return nil, r.sim.notFound(r.route.params[1])
		}
		return &response{status: http.StatusOK, body: encode(doc)}, nil
	}}
}

// platform gives them all.
func platform() []about {
	return []about{
		aboutOne("node", func(s *Sim) any {
			return map[string]any{"node_version": s.version, "product_version": s.version, "hostname": hostname, "node_uuid": managerID,
				"fully_qualified_domain_name": hostname, "external_id": managerID, "node_type": "NSX Manager", "system_time": s.now(), "timezone": "Etc/UTC"}
		}),
		aboutOne("node/version", func(s *Sim) any {
			return map[string]any{"node_version": s.version, "product_version": s.version}
		}),
		aboutOne("node/status", func(s *Sim) any { return s.nodeStatus() }),
		aboutList("node/services", func(*Sim) []any {
			var list []any
			for _, name := range managerServices {
				list = append(list, map[string]any{"service_name": name})
			}
			return list
		}),
		aboutService("node/services/*", func(name string) any { return map[string]any{"service_name": name} }),
		aboutService("node/services/*/status", func(string) any {
			return map[string]any{"runtime_state": isRunning, "monitor_runtime_state": isRunning, "pids": []int{1}, "monitor_pid": 1}
		}),
		// Load balancers before managers look for the very text of the first member.
		{"reverse-proxy/node/health", func(*request) (*response, *Error) {
			return &response{status: http.StatusOK, body: []byte(`{` + "\n" + `  "healthy" : true,` + "\n" +
				`  "components_health" : "POLICY:UP, SEARCH:UP, MANAGER:UP, NODE_MGMT:UP, UI:UP"` + "\n" + `}`)}, nil
		}},
		aboutOne("cluster", func(*Sim) any {
			return map[string]any{"cluster_id": clusterID, "nodes": []any{map[string]any{"node_uuid": managerID, "fqdn": hostname, "status": "JOINED",
				"entities": []any{map[string]any{"entity_type": "HTTPS", "ip_address": loopback, "port": 443}}}}}
		}),
		aboutOne("cluster/status", func(*Sim) any {
			member := map[string]any{"uuid": managerID, "mgmt_cluster_listen_ip_address": loopback}
			return map[string]any{
				"cluster_id":              clusterID,
				"control_cluster_status":  map[string]any{"status": stable, "control_nodes_status": []any{map[string]any{"uuid": managerID, "status": isUp}}},
				"mgmt_cluster_status":     map[string]any{"status": stable, "online_nodes": []any{member}, "offline_nodes": []any{}},
				"detailed_cluster_status": clusterGroups(),
			}
		}),
		aboutOne("cluster-manager/status", func(*Sim) any { return clusterGroups() }),
		aboutOne("cluster/api-virtual-ip", func(*Sim) any { return map[string]any{"ip_address": "0.0.0.0", "ip6_address": "::"} }),
		aboutList("cluster/nodes", func(*Sim) []any { return []any{managerNode()} }),
		aboutOne("cluster/nodes/status", func(s *Sim) any {
			return map[string]any{
				"controller_cluster": []any{map[string]any{"node_status": s.managerStatus(), "role_config": map[string]any{"type": "ControllerClusterRoleConfig"}}},
				"management_cluster": []any{map[string]any{"node_status": s.managerStatus(), "role_config": map[string]any{"type": "ManagementClusterRoleConfig"}}},
			}
		}),
		aboutManager("cluster/nodes/*", func(*request) any { return managerNode() }),
		aboutManager("cluster/nodes/*/status", func(r *request) any { return r.sim.managerStatus() }),
		aboutManager("cluster/nodes/*/network/interfaces", func(*request) any { return listDocument([]any{managerNIC()}) }),
		aboutManager("cluster/nodes/*/network/interfaces/*", func(r *request) any {
			if r.route.params[1] != oneNIC {
				return nil
			}
			return managerNIC()
		}),
		aboutManager("cluster/nodes/*/network/interfaces/*/stats", func(r *request) any {
			if r.route.params[1] != oneNIC {
				return nil
			}
			return map[string]any{"interface_id": oneNIC, "source": "cached", "rx_bytes": 0, "rx_packets": 0, "rx_errors": 0, "rx_dropped": 0,
				"tx_bytes": 0, "tx_packets": 0, "tx_errors": 0, "tx_dropped": 0}
		}),
		aboutList("alarms", func(*Sim) []any { return nil }), // nothing raises one
		aboutList("licenses", func(*Sim) []any {
			return []any{map[string]any{"license_key": "00000-00000-00000-00000-00000", "description": "nsxsim", "is_eval": false, "is_expired": false,
				"is_mh": false, "expiry": 0, "quantity": 0, "capacity_type": "CPU", "features": strings.Join(licensedFeatures, ",")}}
		}),
		aboutList("licenses/licensed-features", func(*Sim) []any {
			var list []any
			for _, name := range licensedFeatures {
				list = append(list, map[string]any{"feature_name": name, "is_licensed": true})
			}
			return list
		}),
		{"aaa/user-info", func(r *request) (*response, *Error) {
			role := "enterprise_admin"
			if r.sim.auth.user(r.author.user).ReadOnly {
				role = "auditor"
			}
			return &response{status: http.StatusOK, body: encode(map[string]any{
				"user_name": r.author.user, "roles": []any{map[string]any{"role": role, "permissions": []string{}}}})}, nil
		}},
		aboutOne("spec/vmware/types/Tag", func(s *Sim) any {
			properties := map[string]any{}
			for _, f := range tagFields() {
				properties[f.name] = map[string]any{"type": "string", "maxLength": f.max}
			}
			return map[string]any{"id": "Tag", "type": "object", "properties": properties}
		}),
		aboutOne("spec/vmware/types/ManagedResource", func(s *Sim) any {
			return map[string]any{"id": "ManagedResource", "type": "object", "properties": map[string]any{
				"tags": map[string]any{"type": "array", "items": map[string]any{"$ref": "Tag"}, "maxItems": s.maxTags()}}}
		}),
		aboutOne("spec/openapi/nsx_api.json", func(s *Sim) any { return s.openAPI(managerBase) }),

		{fabricMachines, listMachines(machine)},
		{"fabric/vifs", listNICs},
		aboutList("transport-nodes", func(s *Sim) []any { return transportNodes(s.edgeNodes()) }),
		aboutEdgeNode("transport-nodes/*", func(_ *Sim, n edgeNode) any { return transportNode(n) }),
		aboutEdgeNode("transport-nodes/*/state", func(_ *Sim, n edgeNode) any {
			return map[string]any{"transport_node_id": n.id, "state": "success", "node_deployment_state": map[string]any{"state": "NODE_READY", "details": []any{}}, "details": []any{}}
		}),
		aboutEdgeNode("transport-nodes/*/status", func(s *Sim, n edgeNode) any {
			return map[string]any{
				"node_uuid": n.id, "node_display_name": n.name, "status": isUp, "mgmt_connection_status": isUp,
				"control_connection_status": upCount(1), "pnic_status": upCount(1), "tunnel_status": upCount(0),
				"node_status": map[string]any{
					"lcp_connectivity_status": isUp, "mpa_connectivity_status": isUp, "host_node_deployment_status": "INSTALL_SUCCESSFUL",
					"software_version": s.version, "maintenance_mode": "OFF", "last_heartbeat_timestamp": s.now(), "system_status": s.nodeStatus(),
				},
			}
		}),
	}
}

func aboutService(path string, describe func(name string) any) about {
	return about{path, func(r *request) (*response, *Error) {
		name := r.route.params[0]
		if !slices.Contains(managerServices, name) {
			return nil, r.sim.notFound(name)
		}
		return &response{status: http.StatusOK, body: encode(describe(name))}, nil
	}}
}

// platformRoute finds the route of a document of this file.
func platformRoute(r *request, segments []string) (route, bool) {
	for _, p := range r.sim.platform {
		params, ok := matchSegments(p.path, segments)
		if !ok {
			continue
		}
		op, below := sub{path: p.path}.op(r.Method+" "), "/"+strings.Join(segments, "/")
		if p.path == fabricMachines {
			if rt, ok := tagRoute(r, op, "external_id"); ok {
				rt.below = below
				return rt, true
			}
		}
		return readOnly(r, route{op: op, below: below, params: params, serve: p.serve}), true
	}
	return route{}, false
}

// clusterGroups are the groups of services that the cluster of managers consists of.
func clusterGroups() map[string]any {
	var groups []any
	for _, kind := range []string{"DATASTORE", "CLUSTER_BOOT_MANAGER", "CONTROLLER", "MANAGER", "HTTPS", "POLICY", "SITE_MANAGER"} {
		groups = append(groups, map[string]any{
			"group_id": freshID("group/" + kind), "group_type": kind, "group_status": stable, "leaders": []any{},
			"members": []any{map[string]any{"member_uuid": managerID, "member_fqdn": hostname, "member_ip": loopback, "member_status": isUp}},
		})
	}
	return map[string]any{"cluster_id": clusterID, "overall_status": stable, "groups": groups}
}

func managerNode() map[string]any {
	return map[string]any{
		"resource_type": "ClusterNodeConfig", "id": managerID, "display_name": hostname, "external_id": managerID, "_revision": 0, "_system_owned": true,
		"appliance_mgmt_listen_addr": loopback, "manager_role": map[string]any{
			"type": "ManagementClusterRoleConfig", "api_listen_addr": map[string]any{"ip_address": loopback, "port": 443}},
	}
}

func managerNIC() map[string]any {
	return map[string]any{"interface_id": oneNIC, "admin_status": isUp, "link_status": isUp, "mtu": 1500,
		"interface_alias": []any{map[string]any{"ip_address": loopback, "netmask": "255.0.0.0", "ip_configuration": "STATIC"}}}
}

func (s *Sim) managerStatus() map[string]any {
	return map[string]any{
		"version": s.version, "control_cluster_status": map[string]any{"control_cluster_status": "CONNECTED", "mgmt_connection_status": map[string]any{"connectivity_status": "CONNECTED"}},
		"mgmt_cluster_status": map[string]any{"mgmt_cluster_status": "CONNECTED"}, "system_status": s.nodeStatus(),
	}
}

// nodeStatus is that of a machine, which is no machine here: it is idle.
func (s *Sim) nodeStatus() map[string]any {
	return map[string]any{"hostname": hostname, "cpu_cores": 1, "load_average": []float64{0, 0, 0}, "mem_total": 0, "mem_used": 0, "mem_cache": 0,
		"swap_total": 0, "swap_used": 0, "file_systems": []any{},
		"source": "cached", "system_time": s.now(), "uptime": s.now() - s.started.UnixMilli()}
}

// edgeNode is a member of an edge cluster.
type edgeNode struct {
	id, name, cluster string
}

// edgeNodes gives each member of the edge clusters once.
func (s *Sim) edgeNodes() []edgeNode {
	var nodes []edgeNode
	seen := map[string]bool{}
	for _, cluster := range s.store.list(KindEdgeCluster) {
		for _, m := range cluster.doc.objects("members") {
			id := m.str("transport_node_id")
			if !seen[id] {
				seen[id] = true
				nodes = append(nodes, edgeNode{id, cmp.Or(m.str("display_name"), id), cluster.id})
			}
		}
	}
	return nodes
}

func transportNode(n edgeNode) any {
	return map[string]any{
		"resource_type": "TransportNode", "id": n.id, "node_id": n.id, "display_name": n.name, "maintenance_mode": "DISABLED", "is_overridden": false,
		"transport_zone_endpoints": []any{}, "_revision": 0, "_system_owned": false, "_protection": "NOT_PROTECTED",
		"node_deployment_info": map[string]any{"resource_type": "EdgeNode", "id": n.id, "external_id": n.id, "display_name": n.name,
			"deployment_type": "VIRTUAL_MACHINE", "ip_addresses": []string{loopback}, "_revision": 0},
	}
}

func upCount(n int) map[string]any {
	return map[string]any{"status": isUp, "up_count": n, "down_count": 0, "degraded_count": 0}
}

func transportNodes(nodes []edgeNode) []any {
	var list []any
	for _, n := range nodes {
		list = append(list, transportNode(n))
	}
	return list
}

// tagFields are those of a tag.
func tagFields() []field {
	i := slices.IndexFunc(commonFields, func(f field) bool { return f.name == "tags" })
	return commonFields[i].fields
}

// openAPI describes in Swagger 2.0 what can be asked below a base.
func (s *Sim) openAPI(base string) any {
	paths := map[string]any{}
	for _, e := range s.Endpoints() {
		path, ok := strings.CutPrefix(e.Path, base)
		if !ok {
			continue
		}
		operations := map[string]any{}
		for _, does := range e.Does {
			method, action, _ := strings.Cut(does, " ")
			method = strings.ToLower(method)
			if _, ok := operations[method]; ok || action != "" && slices.Contains(e.Does, strings.ToUpper(method)) {
				continue // one operation of a method stands for its actions
			}
			operations[method] = map[string]any{"responses": map[string]any{"200": map[string]any{"description": http.StatusText(http.StatusOK)}}}
		}
		paths[path] = operations
	}
	return map[string]any{"swagger": "2.0", "info": map[string]any{"title": "NSX-T Data Center REST API, as nsxsim has it", "version": s.version},
		"basePath": base, "paths": paths}
}
