package nsxsim

import "net/http"

// What can be asked of the state of routers, their ports, networks and edge
// clusters: they work as long as they are there, and no packet goes through them.

// stateSub serves a document on an object.
func stateSub(path string, describe func(s *Sim, o *object) map[string]any) sub {
	return sub{method: http.MethodGet, path: path, serve: func(r *request, o *object) (*response, *Error) {
		if source := r.query.Get("source"); source != "" && source != "realtime" && source != "cached" {
			return nil, invalid("source must be one of realtime, cached")
		}
		return &response{status: http.StatusOK, body: encode(describe(r.sim, o))}, nil
	}}
}

// stateSubs are those of kinds that have no more to tell than this file does.
func stateSubs() map[Kind][]sub {
	return map[Kind][]sub{
		KindLogicalRouter: {
			stateSub("status", (*Sim).routerStatus),
			stateSub("nat/rules/*/statistics", func(s *Sim, router *object) map[string]any {
				return map[string]any{"logical_router_id": router.id, "total_packets": 0, "total_bytes": 0, "active_sessions": 0, "last_update_timestamp": s.now()}
			}),
		},
		KindLogicalRouterPort: {
			stateSub("statistics", func(_ *Sim, port *object) map[string]any {
				return map[string]any{"logical_router_port_id": port.id, "per_node_statistics": []any{}}
			}),
			stateSub("statistics/summary", func(s *Sim, port *object) map[string]any {
				return map[string]any{"logical_router_port_id": port.id, "last_update_timestamp": s.now(), "rx": noPackets(), "tx": noPackets()}
			}),
		},
		KindLogicalPort: {
			stateSub("status", func(s *Sim, port *object) map[string]any {
				return map[string]any{"logical_port_id": port.id, "status": port.doc["admin_state"], "last_update_timestamp": s.now()}
			}),
			stateSub("state", func(_ *Sim, port *object) map[string]any {
				return map[string]any{"id": port.id, "realized_bindings": []any{}, "discovered_bindings": []any{}}
			}),
		},
		KindLogicalSwitch: {
			stateSub("statistics", func(s *Sim, net *object) map[string]any {
				none := map[string]any{"total": 0, "dropped": 0, "multicast_broadcast": 0}
				return map[string]any{"logical_switch_id": net.id, "last_update_timestamp": s.now(),
					"rx_bytes": none, "rx_packets": none, "tx_bytes": none, "tx_packets": none}
			}),
			stateSub("summary", func(s *Sim, net *object) map[string]any {
				return map[string]any{"logical_switch_id": net.id, "vlan": net.doc["vlan"],
					"num_logical_ports": len(s.store.referrersOf(objectRef{KindLogicalSwitch, net.id}, KindLogicalPort))}
			}),
		},
		KindTransportZone: {
			stateSub("status", func(_ *Sim, zone *object) map[string]any {
				return map[string]any{"transport_zone_id": zone.id, "up_count": 0, "down_count": 0, "degraded_count": 0, "unknown_count": 0}
			}),
			stateSub("summary", func(s *Sim, zone *object) map[string]any {
				switches := s.store.referrersOf(objectRef{KindTransportZone, zone.id}, KindLogicalSwitch)
				ports := 0
				for _, net := range switches {
					ports += len(s.store.referrersOf(objectRef{KindLogicalSwitch, net.id}, KindLogicalPort))
				}
				return map[string]any{"transport_zone_id": zone.id, "num_logical_switches": len(switches), "num_logical_ports": ports, "num_transport_nodes": 0}
			}),
		},
		KindEdgeCluster: {
			stateSub("status", func(s *Sim, cluster *object) map[string]any {
				members := []any{}
				for _, m := range cluster.doc.objects("members") {
					members = append(members, map[string]any{"status": isUp, "transport_node": map[string]any{
						"target_id": m.str("transport_node_id"), "target_type": "TransportNode", "target_display_name": m.str("display_name"), "is_valid": true}})
				}
				state := isUp
				if len(members) == 0 {
					state = "UNKNOWN"
				}
				return map[string]any{"edge_cluster_id": cluster.id, "edge_cluster_status": state, "member_status": members, "last_update_timestamp": s.now()}
			}),
			stateSub("state", func(_ *Sim, cluster *object) map[string]any {
				return map[string]any{"id": cluster.id, "state": "in_sync", "details": []any{}}
			}),
		},
	}
}

// policyStateSubs are those of the Policy API.
func policyStateSubs() map[Kind][]sub {
	gateway := func(tier string) sub {
		return stateSub("state", func(s *Sim, intent *object) map[string]any {
			state, status := map[string]any{"state": configState(s, intent), "details": []any{}}, map[string]any{"logical_router_id": "", "per_node_status": []any{}}
			if router := s.store.get(KindLogicalRouter, s.realizedIn(intent.id, KindLogicalRouter)); router != nil {
				status = s.routerStatus(router)
			}
			return map[string]any{tier + "_state": state, tier + "_status": status, "enforcement_point_path": enforcementPoint}
		})
	}
	return map[Kind][]sub{
		KindPolicyTier0: {gateway("tier0")},
		KindPolicyTier1: {gateway("tier1")},
		KindPolicySegment: {stateSub("state", func(s *Sim, intent *object) map[string]any {
			return map[string]any{"segment_path": intent.id, "state": configState(s, intent), "details": []any{}}
		})},
	}
}

// configState is how far an intent is configured.
func configState(s *Sim, intent *object) string {
	return map[string]string{realized: "success", unrealized: "in_progress", inError: "failed"}[s.policy.records[intent.id].state]
}

// routerStatus tells on which edge nodes a router runs: the first two of its edge
// cluster, of which one stands by unless both are active.
func (s *Sim) routerStatus(router *object) map[string]any {
	nodes := []any{}
	if cluster := s.store.get(KindEdgeCluster, router.doc.str("edge_cluster_id")); cluster != nil {
		for i, m := range cluster.doc.objects("members") {
			ha := "ACTIVE"
			if i > 0 && router.doc.str("high_availability_mode") != "ACTIVE_ACTIVE" {
				ha = "STANDBY"
			}
			nodes = append(nodes, map[string]any{"transport_node_id": m.str("transport_node_id"), "high_availability_status": ha,
				"service_router_id": freshID("service-router/" + router.id)})
			if i == 1 {
				break
			}
		}
	}
	return map[string]any{"logical_router_id": router.id, "per_node_status": nodes, "last_update_timestamp": s.now()}
}

func noPackets() map[string]any {
	return map[string]any{"total_packets": 0, "total_bytes": 0, "dropped_packets": 0}
}
