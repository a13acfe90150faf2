package nsxsim

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// The parts of the tree below /infra that hold no intents: domains, sites, the
// enforcement point, and what it shows of the Manager.

const enforcementPoint = "/infra/sites/default/enforcement-points/default"

// edgeClusters and transportZones are where the Policy API shows those of the
// Manager.
const (
	edgeClusters   = enforcementPoint + "/edge-clusters"
	transportZones = enforcementPoint + "/transport-zones"
)

// fixed is an object that each NSX has and nobody changes.
func fixed(resource, path string) map[string]any {
	id := path[strings.LastIndexByte(path, '/')+1:]
	return map[string]any{
		"resource_type": resource, "id": id, "display_name": id, "path": path, "relative_path": id, "marked_for_delete": false,
		"_create_user": systemUser, "_system_owned": true, "_protection": "NOT_PROTECTED", "_revision": 0,
	}
}

var fixedObjects = map[string]map[string]any{
	"infra/domains/default":                          fixed("Domain", "/infra/domains/default"),
	"infra/sites/default":                            fixed("Site", "/infra/sites/default"),
	"infra/sites/default/enforcement-points/default": fixed("EnforcementPoint", enforcementPoint),
}

// reflection is a collection below the enforcement point that shows objects of the
// Manager.
type reflection struct {
	kind     Kind
	path     string // of the collection
	resource string
	more     func(o *object) map[string]any // members beside those of all
}

var reflections = []reflection{
	{KindEdgeCluster, edgeClusters, "PolicyEdgeCluster", func(o *object) map[string]any {
		return map[string]any{"member_node_type": o.doc["member_node_type"]}
	}},
	{KindTransportZone, transportZones, "PolicyTransportZone", func(o *object) map[string]any {
		tz := "OVERLAY_STANDARD"
		if o.doc.str("transport_type") == "VLAN" {
			tz = "VLAN_BACKED"
		}
		return map[string]any{"tz_type": tz, "is_default": o.doc["is_default"], "nested_nsx": o.doc["nested_nsx"]}
	}},
}

func (f reflection) show(o *object) map[string]any {
	doc := fixed(f.resource, f.path+"/"+o.id)
	doc["display_name"], doc["nsx_id"], doc["unique_id"], doc["parent_path"] = o.doc["display_name"], o.id, o.id, enforcementPoint
	doc["_system_owned"], doc["_create_user"], doc["_create_time"] = o.doc["_system_owned"], o.doc["_create_user"], o.doc["_create_time"]
	if tags, ok := o.doc["tags"]; ok {
		doc["tags"] = tags
	}
	maps.Copy(doc, f.more(o))
	return doc
}

// indexReflection has searches of the Policy API find what is shown of a Manager's
// object, or no longer find it.
func (s *Sim) indexReflection(o *object) {
	if o.kind.name == KindVirtualMachine && s.policy != nil {
		s.policy.index.learn(s.clock.Now(), objectRef{o.kind.name, o.id}, s.store.get(o.kind.name, o.id))
		return
	}
	i := slices.IndexFunc(reflections, func(f reflection) bool { return f.kind == o.kind.name })
	if i < 0 || s.policy == nil {
		return
	}
	var shown *object
	if s.store.get(o.kind.name, o.id) != nil {
		raw := encode(reflections[i].show(o))
		doc, _ := parseDocument(raw) // one of ours: it parses
		shown = &object{id: o.id, seq: o.seq, doc: doc, raw: raw}
	}
	s.policy.index.learn(s.clock.Now(), objectRef{Kind(reflections[i].resource), o.id}, shown)
	if o.kind.name == KindEdgeCluster {
		s.indexEdgeNodes(o, shown != nil)
	}
}

// indexEdgeNodes has searches find the members of an edge cluster as they are now.
func (s *Sim) indexEdgeNodes(cluster *object, there bool) {
	var nodes []any
	if there {
		nodes = edgeNodes(cluster)
	}
	known := s.policy.edgeNodes[cluster.id]
	for i := range max(len(nodes), known) {
		var shown *object
		if i < len(nodes) {
			raw := encode(nodes[i])
			doc, _ := parseDocument(raw) // one of ours: it parses
			shown = &object{id: doc.str("id"), seq: cluster.seq, doc: doc, raw: raw}
		}
		s.policy.index.learn(s.clock.Now(), objectRef{"PolicyEdgeNode", cluster.id + "/" + strconv.Itoa(i)}, shown)
	}
	s.policy.edgeNodes[cluster.id] = len(nodes)
}

// reflected gives the Manager's object that is shown at a path.
func (s *Sim) reflected(path string) *object {
	for _, f := range reflections {
		if id, ok := strings.CutPrefix(path, f.path+"/"); ok {
			return s.store.get(f.kind, id)
		}
	}
	return nil
}

// edgeClusterAt gives the Manager's edge cluster by its policy path.
func (s *Sim) edgeClusterAt(path string) *object {
	if !strings.HasPrefix(path, edgeClusters+"/") {
		return nil
	}
	return s.reflected(path)
}

// edgeNodes shows the members of an edge cluster.
func edgeNodes(cluster *object) []any {
	nodes := []any{}
	for i, m := range cluster.doc.objects("members") {
		node := fixed("PolicyEdgeNode", edgeClusters+"/"+cluster.id+"/edge-nodes/"+strconv.Itoa(i))
		if name := m.str("display_name"); name != "" {
			node["display_name"] = name
		}
		node["nsx_id"], node["member_index"], node["parent_path"] = m.str("transport_node_id"), i, edgeClusters+"/"+cluster.id
		nodes = append(nodes, node)
	}
	return nodes
}

// fixedRoute serves the parts of the tree that do not hold intents, and the realised
// state.
func (s *Sim) fixedRoute(r *request, path string) (route, bool) {
	rt := route{op: r.Method + " " + policyBase + "/" + path}
	one := func(doc map[string]any) *response { return &response{status: http.StatusOK, body: encode(doc)} }
	switch {
	case fixedObjects[path] != nil:
		rt.serve = func(*request) (*response, *Error) { return one(fixedObjects[path]), nil }
	case path == "infra/domains", path == "infra/sites", path == "infra/sites/default/enforcement-points":
		rt.serve = func(r *request) (*response, *Error) {
			return r.page([]any{fixedObjects[path+"/default"]})
		}
	case path == "infra/realized-state/realized-entities":
		rt.serve = realizedEntities
	case path == "infra/realized-state/alarms":
		rt.serve = realizedAlarms
	case path == "infra/realized-state/status":
		rt.serve = realizedStatus
	case "/"+path == machines, path == "infra/realized-state/virtual-machines":
		if "/"+path == machines && r.query.Get("action") == "update_tags" {
			if tagging, ok := tagRoute(r, rt.op, "virtual_machine_id"); ok {
				return tagging, true
			}
		}
		rt.serve = listMachines(realizedMachine)
	default:
		return s.reflectionRoute(r, rt, "/"+path)
	}
	return readOnly(r, rt), true
}

func (s *Sim) reflectionRoute(r *request, rt route, path string) (route, bool) {
	for _, f := range reflections {
		if path == f.path {
			rt.serve = func(r *request) (*response, *Error) {
				list := []any{}
				for _, o := range r.sim.store.list(f.kind) {
					list = append(list, f.show(o))
				}
				return r.page(list)
			}
			return readOnly(r, rt), true
		}
		rest, ok := strings.CutPrefix(path, f.path+"/")
		if !ok {
			continue
		}
		id, below, _ := strings.Cut(rest, "/")
		rt.op = r.Method + " " + policyBase + f.path + "/{id}"
		switch {
		case below == "":
			rt.serve = func(r *request) (*response, *Error) {
				o := r.sim.store.get(f.kind, id)
				if o == nil {
					return nil, r.sim.notFound(path)
				}
				return &response{status: http.StatusOK, body: encode(f.show(o))}, nil
			}
		case below == "edge-nodes" && f.kind == KindEdgeCluster:
			rt.op += "/edge-nodes"
			rt.serve = func(r *request) (*response, *Error) {
				o := r.sim.store.get(f.kind, id)
				if o == nil {
					return nil, r.sim.notFound(path)
				}
				return r.page(edgeNodes(o))
			}
		case strings.HasPrefix(below, "edge-nodes/") && f.kind == KindEdgeCluster:
			rt.op += "/edge-nodes/{id}"
			rt.serve = func(r *request) (*response, *Error) {
				if o := r.sim.store.get(f.kind, id); o != nil {
					nodes := edgeNodes(o)
					if i, err := strconv.Atoi(strings.TrimPrefix(below, "edge-nodes/")); err == nil && i >= 0 && i < len(nodes) {
						return &response{status: http.StatusOK, body: encode(nodes[i])}, nil
					}
				}
				return nil, r.sim.notFound(path)
			}
		default:
			return rt, false
		}
		return readOnly(r, rt), true
	}
	return rt, false
}
