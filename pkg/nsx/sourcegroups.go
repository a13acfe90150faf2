package nsx

// The clients that access lists let in: what they are, and the objects of ours that hold them.

// sources are the clients that a virtual server lets in. An access list of somebody else's group is theirs: to us it is as if
// there were none.
func (inv *Inventory) sources(r VirtualServerRecord) Sources {
	group, ours := inv.sourceGroups.get(r.AccessGroup)
	if !ours {
		return Sources{}
	}
	set, ok := inv.sourceSets.get(group.SetID)
	if !ok || r.AccessEdited {
		return Sources{Restricted: true} // which no Service wants, so that it is put right
	}
	return set.Sources
}

// ClientGroup finds the group of clients of ours that a virtual server's access list names, as the controller writes it, and
// who wrote the group or the set behind it last.
func (inv *Inventory) ClientGroup(virtualServer string) (id string, e Edit, ok bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	r, _ := inv.virtualServers.get(virtualServer)
	group, ok := inv.sourceGroups.get(r.AccessGroup)
	if !ok || r.AccessEdited {
		return "", Edit{}, false
	}
	set, _ := inv.sourceSets.get(group.SetID)
	return group.ID, group.Edit.Later(set.Edit), true
}

// PutSourceGroup records a group of clients of ours as NSX answered it.
func (inv *Inventory) PutSourceGroup(r SourceGroupRecord) {
	inv.write(func(seq uint64) { inv.sourceGroups.put(r.ID, r, seq) })
}

// DeleteSourceGroup records that a group of clients is gone.
func (inv *Inventory) DeleteSourceGroup(id string) {
	inv.write(func(seq uint64) { inv.sourceGroups.remove(id, seq) })
}

// PutSourceSet records an address set of ours as NSX answered it.
func (inv *Inventory) PutSourceSet(r SourceSetRecord) {
	inv.write(func(seq uint64) { inv.sourceSets.put(r.ID, r, seq) })
}

// DeleteSourceSet records that an address set is gone.
func (inv *Inventory) DeleteSourceSet(id string) {
	inv.write(func(seq uint64) { inv.sourceSets.remove(id, seq) })
}

// SourceGroup finds a group of clients of ours by id.
func (inv *Inventory) SourceGroup(id string) (SourceGroupRecord, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.sourceGroups.get(id)
}

// SourceSet finds an address set of ours by id.
func (inv *Inventory) SourceSet(id string) (SourceSetRecord, bool) {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.sourceSets.get(id)
}

// SourceGroups lists the groups of clients of ours, in the order of their ids.
func (inv *Inventory) SourceGroups() []SourceGroupRecord {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return values(&inv.sourceGroups, func(r SourceGroupRecord) string { return r.ID })
}

// SourceSets lists the address sets behind them, in the order of their ids.
func (inv *Inventory) SourceSets() []SourceSetRecord {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return values(&inv.sourceSets, func(r SourceSetRecord) string { return r.ID })
}

// SourceUsers counts the virtual servers, anybody's, whose access list names a group.
func (inv *Inventory) SourceUsers(group string) int {
	inv.mu.RLock()
	defer inv.mu.RUnlock()
	return inv.sourceUsers[group]
}
