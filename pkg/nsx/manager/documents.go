package manager

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/go-vmware-nsxt/common"
	"go4.org/netipx"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// document is an NSX object as raw JSON by field: fields that we do not know survive a read and a write.
type document map[string]json.RawMessage

func parseDocument(raw []byte) (document, error) {
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("decoding an NSX object: %w: %w", nsx.ErrUnavailable, err)
	}
	return d, nil
}

// set puts a value that always marshals: strings, numbers, booleans, slices and maps of them.
func (d document) set(key string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("manager: %s does not marshal: %v", key, err)) // a programmer's error: no input gets here
	}
	d[key] = b
}

// with is a copy with changes made by f.
func (d document) with(f func(document)) document {
	c := make(document, len(d)+8)
	for k, v := range d {
		c[k] = v
	}
	f(c)
	return c
}

// header is what every object has.
type header struct {
	ID          string       `json:"id"`
	DisplayName string       `json:"display_name"`
	Tags        []common.Tag `json:"tags"`
	// ModifiedTime counts milliseconds since 1970.
	ModifiedUser string `json:"_last_modified_user"`
	ModifiedTime int64  `json:"_last_modified_time"`
}

// edit is the last write of an object, if it is not ours: it hides who changed the object before.
func (b *Backend) edit(h header) nsx.Edit {
	if b.api.own.is(h.ModifiedUser) || b.opts.User != nil && h.ModifiedUser == b.opts.User() {
		return nsx.Edit{}
	}
	return nsx.Edit{By: h.ModifiedUser, At: time.UnixMilli(h.ModifiedTime).UTC()}
}

// tags of an object of a Service; extra come after in their order.
func (b *Backend) serviceTags(o nsx.Owner, extra ...common.Tag) []common.Tag {
	return append([]common.Tag{
		{Scope: nsx.TagCluster, Tag: clip(b.opts.ClusterName)},
		{Scope: nsx.TagClusterUID, Tag: b.opts.ClusterUID},
		{Scope: nsx.TagServiceUID, Tag: o.UID},
		{Scope: nsx.TagService, Tag: clip(o.Name)},
	}, extra...)
}

// sharedTags mark an object that serves the whole cluster.
func (b *Backend) sharedTags(what string) []common.Tag {
	return []common.Tag{
		{Scope: nsx.TagCluster, Tag: clip(b.opts.ClusterName)},
		{Scope: nsx.TagClusterUID, Tag: b.opts.ClusterUID},
		{Scope: nsx.TagShared, Tag: clip(what)},
	}
}

// clip keeps a tag within NSX's 256 characters.
func clip(s string) string {
	if len(s) > 256 {
		return s[:256]
	}
	return s
}

// mergeTags replaces the tags of our scopes and keeps everybody else's.
func mergeTags(raw json.RawMessage, ours []common.Tag) []common.Tag {
	var have []common.Tag
	_ = json.Unmarshal(raw, &have) // absent or malformed: none to keep
	have = slices.DeleteFunc(have, func(t common.Tag) bool { return strings.HasPrefix(t.Scope, "nsxt.io/") })
	return append(have, ours...)
}

// displayName is a name for people; ownership never goes by it.
func (b *Backend) displayName(o nsx.Owner, parts ...string) string {
	s := strings.Join(append([]string{b.opts.ClusterName, strings.ReplaceAll(o.Name, "/", ".")}, parts...), ".")
	if len(s) > 255 {
		return s[:255]
	}
	return s
}

// needs are the ids of what a virtual server refers to, besides its application profile; empty for none.
type needs struct{ pool, persistence, sources string }

// virtualServerDoc puts what a virtual server should be onto base, which is empty for a new one.
func (b *Backend) virtualServerDoc(base document, o nsx.Owner, v nsx.VirtualServer, n needs) document {
	return base.with(func(d document) {
		ports, nodePorts := make([]string, len(v.Ports)), make([]string, len(v.Ports))
		for i, p := range v.Ports {
			ports[i], nodePorts[i] = strconv.Itoa(int(p.Port)), strconv.Itoa(int(p.NodePort))
		}
		// NSX mirrors the first port beside the lists, and would refuse a stale mirror.
		if !slices.Equal(d.strings("ports"), ports) || !slices.Equal(d.strings("default_pool_member_ports"), nodePorts) {
			delete(d, "port")
			delete(d, "default_pool_member_port")
		}
		d.set("resource_type", "LbVirtualServer")
		d.set("display_name", b.displayName(o, strings.ToLower(string(v.Protocol))))
		d.set("tags", mergeTags(d["tags"], b.serviceTags(o,
			common.Tag{Scope: nsx.TagIPPool, Tag: v.IPPool}, common.Tag{Scope: nsx.TagClass, Tag: v.Class})))
		d.set("enabled", true)
		d.set("ip_address", v.Address.String())
		d.set("ip_protocol", v.Protocol)
		d.set("ports", ports)
		d.set("default_pool_member_ports", nodePorts)
		d.set("application_profile_id", v.ApplicationProfile)
		d.set("pool_id", n.pool)
		if n.persistence == "" {
			delete(d, "persistence_profile_id")
		} else {
			d.set("persistence_profile_id", n.persistence)
		}
		b.setAccessList(d, n.sources)
	})
}

// virtualServerRecord reads a virtual server of anybody's. One that is not provably ours has no owner.
func (b *Backend) virtualServerRecord(raw []byte) (nsx.VirtualServerRecord, error) {
	var d struct {
		header
		Enabled                bool     `json:"enabled"`
		IPAddress              string   `json:"ip_address"`
		IPProtocol             string   `json:"ip_protocol"`
		Ports                  []string `json:"ports"`
		DefaultPoolMemberPorts []string `json:"default_pool_member_ports"`
		ApplicationProfileID   string   `json:"application_profile_id"`
		PoolID                 string   `json:"pool_id"`
		PersistenceProfileID   string   `json:"persistence_profile_id"`
		AccessListControl      struct {
			Action  string `json:"action"`
			Enabled bool   `json:"enabled"`
			GroupID string `json:"group_id"`
		} `json:"access_list_control"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return nsx.VirtualServerRecord{}, fmt.Errorf("decoding a virtual server: %w: %w", nsx.ErrUnavailable, err)
	}
	addr, _ := netip.ParseAddr(d.IPAddress) // the zero Addr carries nothing
	r := nsx.VirtualServerRecord{VirtualServer: nsx.VirtualServer{ID: d.ID, Address: addr.Unmap()}, AccessGroup: d.AccessListControl.GroupID}
	if !b.ours(d.header) || d.owner().UID == "" {
		return r, nil
	}
	r.Owner = d.owner()
	r.PoolID, r.PersistenceID = d.PoolID, d.PersistenceProfileID
	r.AccessEdited = d.AccessListControl.Action != "ALLOW" || !d.AccessListControl.Enabled
	r.Doc = raw
	v := &r.VirtualServer
	v.Protocol = nsx.Protocol(d.IPProtocol)
	v.IPPool = d.tag(nsx.TagIPPool)
	v.Class = d.tag(nsx.TagClass)
	v.ApplicationProfile = d.ApplicationProfileID
	var profileEdit nsx.Edit
	v.Affinity, profileEdit = b.shared.affinity(d.PersistenceProfileID)
	r.Edit = b.edit(d.header).Later(profileEdit)
	if !d.Enabled {
		// Switched off by hand. Nothing that is wanted has no application profile, so this asks for an update.
		v.ApplicationProfile = ""
	}
	for i, p := range d.Ports {
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil || i >= len(d.DefaultPoolMemberPorts) {
			continue // edited by hand into something that we never write: an update puts it right
		}
		node, _ := strconv.ParseUint(d.DefaultPoolMemberPorts[i], 10, 16)
		v.Ports = append(v.Ports, nsx.PortMap{Port: uint16(port), NodePort: uint16(node)})
	}
	slices.SortFunc(v.Ports, nsx.ComparePorts)
	return r, nil
}

// monitorDoc puts what a monitor should be onto base.
func monitorDoc(base document, name string, tags []common.Tag, m nsx.Monitor) document {
	return base.with(func(d document) {
		d.set("resource_type", "LbHttpMonitor")
		d.set("display_name", name)
		d.set("tags", mergeTags(d["tags"], tags))
		d.set("monitor_port", strconv.Itoa(int(m.Port)))
		d.set("request_url", m.Path)
		d.set("request_method", "GET")
		d.set("request_version", "HTTP_VERSION_1_1")
		d.set("response_status_codes", []int{200})
		d.set("interval", int(m.Interval/time.Second))
		d.set("timeout", int(m.Timeout/time.Second))
		d.set("fall_count", m.Fall)
		d.set("rise_count", m.Rise)
	})
}

// monitorRecord reads a monitor; ok is false for one that is not ours.
func (b *Backend) monitorRecord(raw []byte) (r nsx.MonitorRecord, ok bool, err error) {
	var d struct {
		header
		MonitorPort string `json:"monitor_port"`
		RequestURL  string `json:"request_url"`
		Interval    int    `json:"interval"`
		Timeout     int    `json:"timeout"`
		FallCount   int    `json:"fall_count"`
		RiseCount   int    `json:"rise_count"`
		Method      string `json:"request_method"`
		StatusCodes []int  `json:"response_status_codes"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return r, false, fmt.Errorf("decoding a monitor: %w: %w", nsx.ErrUnavailable, err)
	}
	if !b.ours(d.header) {
		return r, false, nil
	}
	port, _ := strconv.ParseUint(d.MonitorPort, 10, 16)
	if d.Method != "GET" || !slices.Equal(d.StatusCodes, []int{200}) {
		d.RequestURL = "" // edited by hand into something that we never write: an update puts it right
	}
	return nsx.MonitorRecord{
		Owner: d.owner(), ID: d.ID, Edit: b.edit(d.header), Doc: raw,
		Monitor: nsx.Monitor{
			Port: uint16(port), Path: d.RequestURL,
			Interval: time.Duration(d.Interval) * time.Second, Timeout: time.Duration(d.Timeout) * time.Second,
			Fall: d.FallCount, Rise: d.RiseCount,
		},
	}, true, nil
}

// member is what we write of a pool member. It has no port: the virtual server's default pool member ports apply.
type member struct {
	DisplayName string
	IPAddress   string
	AdminState  nsx.AdminState
}

// members of a shared pool: the nodes that have an address of its family.
func members(nodes []nsx.Node, f nsx.Family) []member {
	var out []member
	for _, n := range nodes {
		if a := n.Address(f); a.IsValid() {
			out = append(out, member{DisplayName: n.Name, IPAddress: a.String(), AdminState: n.State})
		}
	}
	slices.SortFunc(out, func(a, b member) int { return cmp.Compare(a.IPAddress, b.IPAddress) })
	return out
}

// mergeMembers makes the nodes the members of a pool. It keeps what others set on a member that stays, such as its
// weight; and while there is no node it keeps all members, since a pool is never emptied. An empty list is [].
func mergeMembers(raw json.RawMessage, nodes []nsx.Node, f nsx.Family) []document {
	have := []document{}
	_ = json.Unmarshal(raw, &have) // absent: none to keep
	want := members(nodes, f)
	if len(want) == 0 {
		return have
	}
	byAddress := map[string]document{}
	for _, m := range have {
		byAddress[m.string("ip_address")] = m
	}
	out := make([]document, len(want))
	for i, w := range want {
		out[i] = byAddress[w.IPAddress].with(func(d document) {
			d.set("ip_address", w.IPAddress)
			d.set("display_name", w.DisplayName)
			d.set("admin_state", w.AdminState)
		})
	}
	return out
}

// poolDoc puts what a pool should be onto base. groupID is the node group of a pool of a Service's own.
func poolDoc(base document, name string, tags []common.Tag, p nsx.Pool, monitorID, groupID string, nodes []nsx.Node) document {
	return base.with(func(d document) {
		d.set("resource_type", "LbPool")
		d.set("display_name", name)
		d.set("tags", mergeTags(d["tags"], tags))
		d.set("algorithm", p.Algorithm)
		d.set("min_active_members", 1)
		monitors := []string{}
		if monitorID != "" {
			monitors = append(monitors, monitorID)
		}
		d.set("active_monitor_ids", monitors)
		if p.SNAT == nsx.AutoMap {
			d.set("snat_translation", map[string]string{"type": "LbSnatAutoMap"})
		} else {
			delete(d, "snat_translation")
		}
		if !p.PerService {
			delete(d, "member_group")
			d.set("members", mergeMembers(d["members"], nodes, p.Family))
			return
		}
		delete(d, "members")
		var group document
		_ = json.Unmarshal(d["member_group"], &group) // absent: a new one
		d.set("member_group", group.with(func(g document) {
			g.set("grouping_object", map[string]string{"target_type": "NSGroup", "target_id": groupID})
			g.set("ip_revision_filter", strings.ToUpper(string(p.Family)))
			g.set("max_ip_list_size", p.MaxNodes)
		}))
	})
}

// poolRecord reads a pool; ok is false for one that is not ours.
func (b *Backend) poolRecord(raw []byte) (r nsx.PoolRecord, ok bool, err error) {
	var d struct {
		header
		Algorithm        string   `json:"algorithm"`
		ActiveMonitorIDs []string `json:"active_monitor_ids"`
		MinActiveMembers int      `json:"min_active_members"`
		MemberGroup      *struct {
			GroupingObject struct {
				TargetID string `json:"target_id"`
			} `json:"grouping_object"`
			IPRevisionFilter string `json:"ip_revision_filter"`
			MaxIPListSize    int    `json:"max_ip_list_size"`
		} `json:"member_group"`
		SNATTranslation *struct {
			Type string `json:"type"`
		} `json:"snat_translation"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return r, false, fmt.Errorf("decoding a pool: %w: %w", nsx.ErrUnavailable, err)
	}
	if !b.ours(d.header) {
		return r, false, nil
	}
	r = nsx.PoolRecord{Owner: d.owner(), Key: d.tag(nsx.TagShared), ID: d.ID, Edit: b.edit(d.header), Doc: raw}
	r.Pool = nsx.Pool{Algorithm: d.Algorithm, SNAT: nsx.Transparent, PerService: r.Owner.UID != ""}
	if d.SNATTranslation != nil {
		r.Pool.SNAT = nsx.SNAT(strings.TrimPrefix(d.SNATTranslation.Type, "LbSnat"))
	}
	if d.MinActiveMembers > 1 {
		r.Pool.Algorithm = "" // edited by hand into something that we never write: an update puts it right
	}
	if len(d.ActiveMonitorIDs) > 0 {
		r.MonitorID = d.ActiveMonitorIDs[0]
	}
	if g := d.MemberGroup; g != nil && r.Pool.PerService {
		if _, group := b.shared.group(); g.GroupingObject.TargetID == group {
			r.Pool.MaxNodes = g.MaxIPListSize // with another group it stays 0, which nobody wants: an update puts it right
		}
		r.Pool.Family = nsx.IPv4
		if g.IPRevisionFilter == "IPV6" {
			r.Pool.Family = nsx.IPv6
		}
	}
	if !r.Pool.PerService {
		// The members may be none yet, so the family is read from the key that the pool was made with.
		if fields := strings.Fields(r.Key); len(fields) > 1 {
			r.Pool.Family = nsx.Family(fields[1])
		}
	}
	return r, true, nil
}

// ipPool reads an IP pool.
func ipPool(raw []byte) (header, nsx.IPPool, error) {
	var d struct {
		header
		IPReleaseDelay *int64 `json:"ip_release_delay"`
		Subnets        []struct {
			AllocationRanges []struct {
				Start string `json:"start"`
				End   string `json:"end"`
			} `json:"allocation_ranges"`
		} `json:"subnets"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return d.header, nsx.IPPool{}, fmt.Errorf("decoding an IP pool: %w: %w", nsx.ErrUnavailable, err)
	}
	p := nsx.IPPool{ID: d.ID, ReleaseDelay: defaultReleaseDelay}
	if d.IPReleaseDelay != nil {
		p.ReleaseDelay = time.Duration(*d.IPReleaseDelay) * time.Millisecond
	}
	for _, s := range d.Subnets {
		for _, r := range s.AllocationRanges {
			from, err1 := netip.ParseAddr(r.Start)
			to, err2 := netip.ParseAddr(r.End)
			if rng := netipx.IPRangeFrom(from, to); err1 == nil && err2 == nil && rng.IsValid() {
				p.Ranges = append(p.Ranges, rng)
			}
		}
	}
	slices.SortFunc(p.Ranges, func(a, b netipx.IPRange) int { return a.From().Compare(b.From()) })
	if len(p.Ranges) == 0 {
		p.Problem = "has no allocation ranges in NSX"
	}
	return d.header, p, nil
}

// defaultReleaseDelay is how long NSX keeps a released address when the pool does not say (the models of later SDKs).
const defaultReleaseDelay = 2 * time.Minute

// lbServiceRecord reads a load-balancer service of anybody's. Its keys and capacity are filled in by the caller.
func (b *Backend) lbServiceRecord(raw []byte) (header, nsx.LBServiceRecord, error) {
	var d struct {
		header
		VirtualServerIDs []string `json:"virtual_server_ids"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return d.header, nsx.LBServiceRecord{}, fmt.Errorf("decoding a load-balancer service: %w: %w", nsx.ErrUnavailable, err)
	}
	return d.header, nsx.LBServiceRecord{ID: d.ID, Ours: b.ours(d.header), VirtualServers: d.VirtualServerIDs, Edit: b.edit(d.header), Doc: raw}, nil
}

// string is a field's text; empty when it is absent or no text.
func (d document) string(key string) string {
	var s string
	_ = json.Unmarshal(d[key], &s)
	return s
}

// strings is a field's list of texts; nil when it is absent or no such list.
func (d document) strings(key string) []string {
	var s []string
	_ = json.Unmarshal(d[key], &s)
	return s
}

// id of the object; an answer without one is no answer.
func (d document) id() (string, error) {
	if id := d.string("id"); id != "" {
		return id, nil
	}
	return "", fmt.Errorf("%w: NSX answered with an object without id", nsx.ErrAmbiguous)
}

func idOf(raw []byte) (string, error) {
	d, err := parseDocument(raw)
	if err != nil {
		return "", err
	}
	return d.id()
}

// sameJSON tells whether two documents say the same. It decodes only what is not the same text, for lists can be long.
func sameJSON(a, b document) bool {
	return maps.EqualFunc(a, b, func(x, y json.RawMessage) bool {
		if bytes.Equal(x, y) {
			return true
		}
		var v, w any
		return json.Unmarshal(x, &v) == nil && json.Unmarshal(y, &w) == nil && reflect.DeepEqual(v, w)
	})
}
