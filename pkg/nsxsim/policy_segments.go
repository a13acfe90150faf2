package nsxsim

import "strconv"

// Segments are the networks of the Policy API: realised in logical switches, and no
// packet goes through them.

// transportZoneOf gives the transport zone that a segment is in: NSX's own for
// overlays, if it does not say.
func (s *Sim) transportZoneOf(segment document) *object {
	if path := segment.str("transport_zone_path"); path != "" {
		if o := s.reflected(path); o != nil && o.kind.name == KindTransportZone {
			return o
		}
		return nil
	}
	return s.store.get(KindTransportZone, freshID(overlayTransportZone))
}

// checkSegment: a segment in a VLAN names it.
func checkSegment(c *change) *Error {
	zone := c.transportZoneOf(c.doc)
	if zone == nil {
		return invalidPath(c.doc.str("transport_zone_path"))
	}
	if zone.doc.str("transport_type") == "VLAN" && len(c.doc.strs("vlan_ids")) == 0 {
		return invalid("vlan_ids is required in a transport zone of type VLAN")
	}
	kind := "DISCONNECTED"
	if c.doc.str("connectivity_path") != "" {
		kind = "ROUTED"
	}
	c.doc.set("type", kind)
	return nil
}

func realizeSegment(s *Sim, o *object, rec *realization) *Error {
	whole := managerDoc(o)
	doc := document{}
	for _, name := range []string{"display_name", "description", "tags", "admin_state", "replication_mode"} {
		if whole.has(name) {
			doc[name] = whole[name]
		}
	}
	zone := s.transportZoneOf(o.doc)
	if zone == nil {
		return invalidPath(o.doc.str("transport_zone_path"))
	}
	doc.set("transport_zone_id", zone.id)
	if vlans := o.doc.strs("vlan_ids"); len(vlans) > 0 {
		if vlan, err := strconv.Atoi(vlans[0]); err == nil { // else a range
			doc.set("vlan", vlan)
		} else {
			doc.set("vlan", 0)
		}
	}
	return s.make(rec, o.id, KindLogicalSwitch, rec.uid, doc)
}
