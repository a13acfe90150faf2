package nsxsim

import (
	"net/netip"
	"strconv"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// How a member of a pool is used.
type memberUse int

const (
	memberServes   memberUse = iota
	memberSurplus            // of a group without max_ip_list_size: DISABLED
	memberOverSize           // of a group over its max_ip_list_size: UNUSED
)

// member is one member of a pool: one of its list, or an address of its group.
type member struct {
	dataplane.Member
	use memberUse
}

// membersOf gives the members of a pool in the order of its list, or of its
// group's IP sets.
func (s *Sim) membersOf(pool document) []member {
	if pool.has("member_group") {
		return s.groupMembers(pool.object("member_group"))
	}
	var members []member
	for _, m := range pool.objects("members") {
		members = append(members, member{Member: dataplane.Member{
			Address:    parseAddress(m.str("ip_address")),
			Port:       portOf(m.str("port")),
			Weight:     count(m, "weight"),
			AdminState: dataplane.AdminState(m.str("admin_state")),
			Backup:     m.boolean("backup_member"),

			MaxConnections: count(m, "max_concurrent_connections"),
		}})
	}
	return members
}

// groupMembers gives the addresses of a member group. Link-local and loopback
// addresses are no members; neither are those of the other IP revision.
func (s *Sim) groupMembers(group document) []member {
	limit, limited := group.integer("max_ip_list_size")
	port, _ := group.integer("port")
	custom := map[netip.Addr]document{}
	for _, m := range group.objects("customized_members") {
		custom[parseAddress(m.str("ip_address"))] = m
	}
	var members []member
	for _, a := range s.groupAddresses(group.object("grouping_object").str("target_id"), group.str("ip_revision_filter")) {
		m := member{Member: dataplane.Member{Address: a, Port: uint16(port), Weight: 1, AdminState: dataplane.Enabled}}
		if setting, ok := custom[a]; ok {
			m.AdminState = dataplane.AdminState(setting.str("admin_state"))
			if p := portOf(setting.str("port")); p != 0 {
				m.Port = p
			}
		}
		switch {
		case limited && len(members) >= int(limit):
			m.use = memberOverSize
		case !limited && len(members) >= 1 && !s.quirks.UnsizedGroupServes:
			m.use = memberSurplus
		}
		members = append(members, m)
	}
	return members
}

// maxRangeAddresses bounds how far a range or CIDR in an IP set is gone through.
const maxRangeAddresses = 4096

func (s *Sim) groupAddresses(groupID, revision string) []netip.Addr {
	var addrs []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, text := range s.effectiveAddresses(groupID) {
		r, err := parseAddressRange(text)
		if err != nil {
			continue
		}
		if revision != "IPV4_IPV6" && (revision == "IPV6") != r.From().Is6() {
			continue
		}
		a := r.From()
		for n := 0; n < maxRangeAddresses && a.IsValid() && a.Compare(r.To()) <= 0; n++ {
			local := a.IsLinkLocalUnicast() || a.IsLoopback() && !s.allowLoopback
			if !local && !seen[a] {
				seen[a] = true
				addrs = append(addrs, a)
			}
			a = a.Next()
		}
	}
	return addrs
}

// parseAddress, portOf and count read what the store holds, which is valid.

func parseAddress(s string) netip.Addr {
	a, _ := netip.ParseAddr(s)
	return a.Unmap()
}

func portOf(s string) uint16 {
	p, _ := strconv.ParseUint(s, 10, 16)
	return uint16(p)
}

func count(doc document, name string) int {
	n, _ := doc.integer(name)
	return int(n)
}

// memberAction serves POST /loadbalancer/pools/{id}?action=...: changes of
// single members, without a revision.
func memberAction(apply func(members []document, given []document) ([]document, *Error)) func(*request, *object) (*response, *Error) {
	return func(r *request, pool *object) (*response, *Error) {
		body, err := r.document()
		if err != nil {
			return nil, err
		}
		if problems := conform(body, []field{{name: "members", shape: listShape, required: true, min: 1,
			fields: []field{{name: "ip_address", shape: stringShape, required: true, check: checkAddress}}}}, "", ""); len(problems) > 0 {
			return nil, invalid(problems...)
		}
		given := body.objects("members")
		doc := pool.doc.clone()
		if doc.has("member_group") {
			err = customizeMembers(doc, given, r.query.Get("action"))
		} else {
			var members []document
			if members, err = apply(doc.objects("members"), given); err == nil {
				doc.set("members", members)
			}
		}
		if err != nil {
			return nil, err
		}
		return r.store(pool, doc)
	}
}

func addMembers(members, given []document) ([]document, *Error) {
	return append(members, given...), nil
}

func removeMembers(members, given []document) ([]document, *Error) {
	for _, g := range given {
		i := indexMember(members, g)
		if i < 0 {
			return nil, refuseLB(codeLBConflict, "The pool has no member %s.", g.str("ip_address"))
		}
		members = append(members[:i:i], members[i+1:]...)
	}
	return members, nil
}

// updateMembers changes only what is given of a member.
func updateMembers(members, given []document) ([]document, *Error) {
	for _, g := range given {
		i := indexMember(members, g)
		if i < 0 {
			return nil, refuseLB(codeLBConflict, "The pool has no member %s.", g.str("ip_address"))
		}
		for name, raw := range g {
			members[i][name] = raw
		}
	}
	return members, nil
}

// customizeMembers keeps the settings given for addresses of a member group.
func customizeMembers(pool document, given []document, action string) *Error {
	if action != "UPDATE_MEMBERS" {
		return refuseLB(codeLBConflict, "A pool with a member group takes only UPDATE_MEMBERS.")
	}
	group := pool.object("member_group")
	settings := group.objects("customized_members")
	for _, g := range given {
		if g.has("weight") || g.has("display_name") {
			return invalid("only admin_state can be set for members of a group")
		}
		if i := indexMember(settings, g); i >= 0 {
			for name, raw := range g {
				settings[i][name] = raw
			}
			continue
		}
		settings = append(settings, g)
	}
	group.set("customized_members", settings)
	pool.set("member_group", group)
	return nil
}

// indexMember finds a member by address and port.
func indexMember(members []document, like document) int {
	for i, m := range members {
		if parseAddress(m.str("ip_address")) == parseAddress(like.str("ip_address")) && m.str("port") == like.str("port") {
			return i
		}
	}
	return -1
}

var poolSubs = []sub{
	{method: "POST", action: "ADD_MEMBERS", write: true, serve: memberAction(addMembers)},
	{method: "POST", action: "REMOVE_MEMBERS", write: true, serve: memberAction(removeMembers)},
	{method: "POST", action: "UPDATE_MEMBERS", write: true, serve: memberAction(updateMembers)},
}
