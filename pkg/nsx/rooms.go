package nsx

// ReserveRoom keeps room for n more virtual servers of a Service in the load-balancer service with that id or key, so that
// Services that are published at the same time do not count on the same room. What was reserved for it before is added
// to, and Unreserve lets go of all of it. Without enough room ok is false, room says what there is, and nothing is kept.
func (inv *Inventory) ReserveRoom(o Owner, key string, n int) (room LBServiceRoom, ok bool) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	room = inv.room(key)
	if room.Problem != "" || room.Free < n {
		return room, false
	}
	at := room.ID
	if at == "" {
		at = key
	}
	if inv.promised[at] == nil {
		inv.promised[at] = map[string]int{}
	}
	attached := inv.attachedOf(o.UID, room.ID)
	inv.promised[at][o.UID] = max(inv.promised[at][o.UID], attached) + n
	return room, true
}

// room is what a key stands for and how much fits in, less what is promised.
func (inv *Inventory) room(key string) LBServiceRoom {
	if r, ok := inv.lbService(key); ok {
		free := Unlimited
		if r.Capacity > 0 {
			free = r.Capacity - len(r.VirtualServers) - inv.promisedIn(r.ID, r.ID)
			for _, k := range r.Keys {
				if k != r.ID { // promised when the service was yet to be made
					free -= inv.promisedIn(k, r.ID)
				}
			}
		}
		return LBServiceRoom{Key: key, ID: r.ID, Free: max(0, free)}
	}
	if r, ok := inv.rooms[key]; ok {
		r.Free = max(0, r.Free-inv.promisedIn(key, ""))
		return r
	}
	return LBServiceRoom{Key: key, Problem: "not found in NSX"}
}

// promisedIn is how much room is kept under an id or key in the load-balancer service of that id. A promise is how many
// virtual servers a Service will have there, so that it is kept as soon as they are attached.
func (inv *Inventory) promisedIn(at, id string) int {
	n := 0
	for uid, total := range inv.promised[at] {
		n += max(0, total-inv.attachedOf(uid, id))
	}
	return n
}

// attachedOf counts a Service's virtual servers in a load-balancer service.
func (inv *Inventory) attachedOf(uid, lbService string) int {
	s := inv.services[uid]
	if s == nil || lbService == "" {
		return 0
	}
	n := 0
	for id := range s.virtualServers {
		if inv.attached[id] == lbService {
			n++
		}
	}
	return n
}
