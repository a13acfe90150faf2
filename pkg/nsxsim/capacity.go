package nsxsim

import "slices"

// Capacity is what a load balancer service of one size holds.
type Capacity struct{ VirtualServers, Pools, Members int }

// defaultCapacity by LbService.size. LARGE is documented for 2.5; no reference
// settles the others, so that clients should read /usage.
func defaultCapacity() map[string]Capacity {
	return map[string]Capacity{
		"SMALL":  {20, 60, 300},
		"MEDIUM": {100, 300, 2000},
		"LARGE":  {1000, 3000, 7500},
		"XLARGE": {2000, 4000, 10000},
		"DLB":    {1000, 3000, 7500},
	}
}

// capacityOf gives what the service may hold. relax_scale_validation lifts it to
// that of the largest size.
func (s *Sim) capacityOf(service document) Capacity {
	size := service.str("size")
	if service.boolean("relax_scale_validation") {
		size = "XLARGE"
	}
	return s.capacity[size]
}

// usageOf counts what the service holds, as if changed (a virtual server or a
// pool, may be nil) were stored already. A pool counts once, however many
// virtual servers share it.
func (s *Sim) usageOf(service document, changed *object) Capacity {
	at := func(k Kind, id string) document {
		if changed != nil && changed.kind.name == k && changed.id == id {
			return changed.doc
		}
		if o := s.store.get(k, id); o != nil {
			return o.doc
		}
		return nil
	}
	var used Capacity
	pools := map[string]bool{}
	for _, id := range service.strs("virtual_server_ids") {
		used.VirtualServers++
		vs := at(KindVirtualServer, id)
		for _, pool := range poolsOf(vs) {
			if !pools[pool] {
				pools[pool] = true
				used.Members += budgetedMembers(at(KindPool, pool))
			}
		}
	}
	used.Pools = len(pools)
	return used
}

func poolsOf(virtualServer document) []string {
	var pools []string
	for _, name := range []string{"pool_id", "sorry_pool_id"} {
		if id := virtualServer.str(name); id != "" {
			pools = append(pools, id)
		}
	}
	return pools
}

// budgetedMembers: a group counts with its max_ip_list_size, and with one
// member when that is unset.
func budgetedMembers(pool document) int {
	if !pool.has("member_group") {
		return len(pool.objects("members"))
	}
	if n, ok := pool.object("member_group").integer("max_ip_list_size"); ok {
		return int(n)
	}
	return 1
}

// servicesWith gives the load balancer services that a virtual server or a pool
// is live on.
func (s *Sim) servicesWith(o *object) []*object {
	if o.kind.name == KindVirtualServer {
		return s.store.referrersOf(objectRef{KindVirtualServer, o.id}, KindLBService)
	}
	var services []*object
	for _, vs := range s.store.referrersOf(objectRef{KindPool, o.id}, KindVirtualServer) {
		for _, service := range s.store.referrersOf(objectRef{KindVirtualServer, vs.id}, KindLBService) {
			if !slices.Contains(services, service) {
				services = append(services, service)
			}
		}
	}
	return services
}

// checkServicesOf holds every service that the changed virtual server or pool is
// live on against its capacity.
func (s *Sim) checkServicesOf(changed *object) *Error {
	for _, service := range s.servicesWith(changed) {
		if err := s.checkUse(service.id, service.doc, changed); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sim) checkCapacity(service *object) *Error { return s.checkUse(service.id, service.doc, nil) }

func (s *Sim) checkUse(id string, service document, changed *object) *Error {
	limit, used := s.capacityOf(service), s.usageOf(service, changed)
	for _, c := range []struct {
		what        string
		used, limit int
	}{
		{"virtual servers", used.VirtualServers, limit.VirtualServers},
		{"pools", used.Pools, limit.Pools},
		{"pool members", used.Members, limit.Members},
	} {
		if c.used > c.limit {
			return refuseLB(codeCapacity, "Load balancer service %s of size %s holds at most %d %s, %d were requested.",
				id, service.str("size"), c.limit, c.what, c.used)
		}
	}
	if s.quirks.PoolPerService {
		return s.checkPoolsOfOneService(id, service, changed)
	}
	return nil
}

// checkPoolsOfOneService refuses a pool that another service uses already.
func (s *Sim) checkPoolsOfOneService(id string, service document, changed *object) *Error {
	for _, vsID := range service.strs("virtual_server_ids") {
		vs := s.store.get(KindVirtualServer, vsID)
		if changed != nil && changed.kind.name == KindVirtualServer && changed.id == vsID {
			vs = changed
		}
		if vs == nil {
			continue
		}
		for _, pool := range poolsOf(vs.doc) {
			for _, other := range s.servicesWith(&object{id: pool, kind: s.kinds[KindPool]}) {
				if other.id != id {
					return refuseLB(codeLBConflict, "Pool %s is already used by load balancer service %s.", pool, other.id)
				}
			}
		}
	}
	return nil
}

// usageDocument is the answer of /loadbalancer/services/{id}/usage.
func (s *Sim) usageDocument(service *object) map[string]any {
	limit, used := s.capacityOf(service.doc), s.usageOf(service.doc, nil)
	percent := 0.0
	for _, c := range [][2]int{{used.VirtualServers, limit.VirtualServers}, {used.Pools, limit.Pools}, {used.Members, limit.Members}} {
		if c[1] > 0 {
			percent = max(percent, 100*float64(c[0])/float64(c[1]))
		}
	}
	severity := "GREEN"
	switch {
	case percent >= 90:
		severity = "RED"
	case percent >= 70:
		severity = "ORANGE"
	}
	return map[string]any{
		"service_id":                   service.id,
		"service_size":                 service.doc.str("size"),
		"virtual_server_capacity":      limit.VirtualServers,
		"pool_capacity":                limit.Pools,
		"pool_member_capacity":         limit.Members,
		"current_virtual_server_count": used.VirtualServers,
		"current_pool_count":           used.Pools,
		"current_pool_member_count":    used.Members,
		"usage_percentage":             percent,
		"severity":                     severity,
		"last_update_timestamp":        s.now(),
	}
}
