package nsxsim

import (
	"net/http"
	"slices"
)

// What became of intents, and what the load balancer reports of them: the same
// as of the Manager's objects, under paths.

func searchPolicy(r *request) (*response, *Error) { return r.sim.policy.index.serve(r) }

// intentOf finds the intent that a request asks the state of.
func (r *request) intentOf() (*object, *realization, *Error) {
	path := r.query.Get("intent_path")
	if path == "" {
		return nil, nil, invalid("intent_path is required")
	}
	o := r.sim.intentAt(path)
	if o == nil {
		return nil, nil, r.sim.notFound(path)
	}
	return o, r.sim.policy.records[path], nil
}

// realizedEntities serves GET /infra/realized-state/realized-entities: nothing
// yet for what waits, else the Manager's objects, or why there is none.
func realizedEntities(r *request) (*response, *Error) {
	o, rec, err := r.intentOf()
	if err != nil {
		return nil, err
	}
	entities := []any{}
	for _, ref := range rec.objects {
		entities = append(entities, r.sim.realizedEntity(o, rec, ref))
	}
	if len(entities) == 0 && (rec.problem != nil || rec.state == realized) {
		entities = append(entities, r.sim.realizedEntity(o, rec, objectRef{kind: o.kind.name, id: rec.uid}))
	}
	return r.page(entities)
}

func (s *Sim) realizedEntity(o *object, rec *realization, ref objectRef) map[string]any {
	path := "/infra/realized-state/enforcement-points/default/" + string(ref.kind) + "/" + ref.id
	e := map[string]any{
		"resource_type": "GenericPolicyRealizedResource", "id": ref.id, "display_name": o.doc.str("display_name"),
		"path": path, "relative_path": ref.id, "parent_path": parentPath(path), "unique_id": ref.id, "marked_for_delete": false,
		"entity_type": "Realized" + string(ref.kind), "state": rec.state, "runtime_status": "UNKNOWN",
		"realization_specific_identifier": ref.id, "enforcement_point_path": enforcementPoint, "site_path": "/infra/sites/default",
		"intent_paths": []string{o.id}, "intent_reference": []string{o.id}, "publish_status": rec.state,
		"alarms": []any{}, "extended_attributes": []any{}, "_revision": 0, "_protection": "NOT_PROTECTED", "_create_user": systemUser,
	}
	switch rec.state {
	case realized:
		e["runtime_status"] = "UP"
		e["publish_time"] = rec.at
	case inError:
		e["runtime_status"] = "DOWN"
		e["publish_status_error"] = rec.problem.Message
		e["alarms"] = []any{alarm(o, rec)}
	}
	if k := s.kinds[ref.kind]; k != nil && k.path != "" {
		e["realization_api"] = managerBase + "/" + k.path + "/" + ref.id
	}
	if rec.address.IsValid() {
		e["extended_attributes"] = []any{map[string]any{"data_type": "STRING", "multivalue": false,
			"key": "allocation_ip", "values": []string{rec.address.String()}}}
	}
	return e
}

// realizedAlarms serves GET /infra/realized-state/alarms: why intents are in error.
func realizedAlarms(r *request) (*response, *Error) {
	list := []any{}
	for _, k := range r.sim.policy.kinds {
		for _, o := range r.sim.store.list(k.name) {
			if rec := r.sim.policy.records[o.id]; rec != nil && rec.state == inError {
				list = append(list, alarm(o, rec))
			}
		}
	}
	return r.page(list)
}

func alarm(o *object, rec *realization) map[string]any {
	return map[string]any{
		"resource_type": "PolicyAlarmResource", "id": "alarm-" + rec.uid, "message": rec.problem.Message, "source_reference": o.id,
		"error_details": map[string]any{"httpStatus": rec.problem.httpStatus(), "error_code": rec.problem.Code,
			"module_name": rec.problem.Module, "error_message": rec.problem.Message},
	}
}

// realizedStatus serves GET /infra/realized-state/status.
func realizedStatus(r *request) (*response, *Error) {
	o, rec, err := r.intentOf()
	if err != nil {
		return nil, err
	}
	consolidated := map[string]string{realized: "SUCCESS", unrealized: "IN_PROGRESS", inError: "ERROR"}[rec.state]
	doc := map[string]any{
		"intent_path": o.id, "intent_version": string(o.doc["_revision"]), "publish_status": rec.state,
		"consolidated_status": map[string]string{"consolidated_status": consolidated},
	}
	if rec.state == realized {
		doc["publish_time"] = rec.at
	}
	return &response{status: http.StatusOK, body: encode(doc)}, nil
}

// serviceView is what a status of an LBService is told of: its intent, and the
// Manager's service if there is one yet.
type serviceView struct {
	*Sim
	intent, service *object
	report          *report
}

// policyStatusSub serves a status or statistics document: one result per
// enforcement point, of which there is one; none before it is realised.
func policyStatusSub(path string, describe func(v serviceView, r *request) (string, map[string]any, *Error)) sub {
	return sub{method: http.MethodGet, path: path, serve: func(r *request, intent *object) (*response, *Error) {
		if source := r.query.Get("source"); source != "" && source != "realtime" && source != "cached" {
			return nil, invalid("source must be one of realtime, cached")
		}
		s := r.sim
		v := serviceView{s, intent, s.store.get(KindLBService, s.realizedIn(intent.id, KindLBService)), s.report()}
		path, doc, err := describe(v, r)
		if err != nil {
			return nil, err
		}
		results := []any{}
		if doc != nil {
			results = append(results, doc)
		}
		return &response{status: http.StatusOK, body: encode(map[string]any{"intent_path": path, "results": results})}, nil
	}}
}

// one finds the virtual server or pool that the request names: its path, and the
// Manager's object if it is realised on this service.
func (v serviceView) one(r *request, k Kind, live func(*object) []*object) (string, *object, *Error) {
	path := "/infra/" + v.policy.byName[k].collection + "/" + r.route.params[0]
	o := v.store.get(k, path)
	if o == nil {
		return path, nil, v.notFound(path)
	}
	if v.service == nil {
		return path, nil, nil
	}
	objects := live(v.service)
	i := slices.IndexFunc(objects, func(m *object) bool { return m.id == o.doc.str("unique_id") })
	if i < 0 {
		return path, nil, nil
	}
	return path, objects[i], nil
}

// named makes a document of the Manager one of the Policy API: the path of the
// intent is in the place of the id.
func (v serviceView) named(doc map[string]any, resource, idName, pathName string, o *object) map[string]any {
	delete(doc, idName)
	doc[pathName] = v.policy.made[objectRef{o.kind.name, o.id}]
	doc["resource_type"], doc["enforcement_point_path"] = resource, enforcementPoint
	return doc
}

func (v serviceView) serverStatus(o *object) map[string]any {
	return v.named(v.virtualServerStatus(o, v.service.doc, v.report), "LBVirtualServerStatus", "virtual_server_id", "virtual_server_path", o)
}

func (v serviceView) poolStatus(o *object) map[string]any {
	return v.named(v.Sim.poolStatus(o, v.report), "LBPoolStatus", "pool_id", "pool_path", o)
}

func (v serviceView) serverStatistics(o *object) map[string]any {
	return v.named(v.virtualServerStatistics(o, v.report), "LBVirtualServerStatistics", "virtual_server_id", "virtual_server_path", o)
}

func (v serviceView) poolStatistics(o *object) map[string]any {
	return v.named(v.Sim.poolStatistics(o, v.report), "LBPoolStatistics", "pool_id", "pool_path", o)
}

var policyLBServiceSubs = []sub{
	policyStatusSub("detailed-status", func(v serviceView, _ *request) (string, map[string]any, *Error) {
		if v.service == nil {
			return v.intent.id, nil, nil
		}
		nodes := v.transportNodes(v.service.doc)
		d := map[string]any{
			"resource_type": "LBServiceStatus", "enforcement_point_path": enforcementPoint,
			"service_path": v.intent.id, "service_status": serviceState(v.service.doc, nodes),
			"virtual_servers": each(v.virtualServersOn(v.service), v.serverStatus),
			"pools":           each(v.poolsOn(v.service), v.poolStatus),
			"cpu_usage":       0, "memory_usage": 0, "last_update_timestamp": v.now(),
		}
		if len(nodes) > 0 {
			d["active_transport_nodes"], d["standby_transport_nodes"] = nodes[:1], nodes[1:min(2, len(nodes))]
		}
		return v.intent.id, d, nil
	}),
	policyStatusSub("statistics", func(v serviceView, _ *request) (string, map[string]any, *Error) {
		if v.service == nil {
			return v.intent.id, nil, nil
		}
		return v.intent.id, map[string]any{
			"resource_type": "LBServiceStatistics", "enforcement_point_path": enforcementPoint,
			"service_path": v.intent.id, "last_update_timestamp": v.now(),
			"statistics":      v.serviceStatistics(v.service, v.report),
			"virtual_servers": each(v.virtualServersOn(v.service), v.serverStatistics),
			"pools":           each(v.poolsOn(v.service), v.poolStatistics),
		}, nil
	}),
	policyStatusSub("service-usage", func(v serviceView, _ *request) (string, map[string]any, *Error) {
		if v.service == nil {
			return v.intent.id, nil, nil
		}
		d := v.usageDocument(v.service)
		delete(d, "service_id")
		d["resource_type"], d["enforcement_point_path"], d["service_path"] = "LBServiceUsage", enforcementPoint, v.intent.id
		return v.intent.id, d, nil
	}),
	partSub("lb-virtual-servers/*/detailed-status", KindPolicyVirtualServer, (*Sim).virtualServersOn, serviceView.serverStatus),
	partSub("lb-virtual-servers/*/statistics", KindPolicyVirtualServer, (*Sim).virtualServersOn, serviceView.serverStatistics),
	partSub("lb-pools/*/detailed-status", KindPolicyPool, (*Sim).poolsOn, serviceView.poolStatus),
	partSub("lb-pools/*/statistics", KindPolicyPool, (*Sim).poolsOn, serviceView.poolStatistics),
}

// partSub serves a document of one virtual server or pool on a service.
func partSub(path string, k Kind, live func(*Sim, *object) []*object, describe func(serviceView, *object) map[string]any) sub {
	return policyStatusSub(path, func(v serviceView, r *request) (string, map[string]any, *Error) {
		intent, o, err := v.one(r, k, func(service *object) []*object { return live(v.Sim, service) })
		if err != nil || o == nil {
			return intent, nil, err
		}
		return intent, describe(v, o), nil
	})
}
