package manager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// SharedDrift implements nsx.Backend. What SetNodes has not written yet, or not with success, is not others' doing.
func (b *Backend) SharedDrift(ctx context.Context) []nsx.Finding {
	unlock, err := b.making.lock(ctx) // no SetNodes is half done
	if err != nil {
		return nil
	}
	defer unlock()
	b.mu.Lock()
	nodes, written := b.nodes, b.nodesWritten
	b.mu.Unlock()
	if !written {
		return nil
	}
	var out []nsx.Finding
	for _, r := range b.inv.SharedPools() {
		d, err := parseDocument(r.Doc)
		if err != nil {
			continue // Load would have failed
		}
		if text := memberChanges(d["members"], mergeMembers(d["members"], nodes, r.Pool.Family)); text != "" {
			out = append(out, nsx.Finding{Kind: nsx.KindPool, ID: r.ID, What: "members " + text, Edit: r.Edit})
		}
	}
	set, _ := b.shared.group()
	if text := listChanges(set.strings("ip_addresses"), groupAddresses(nodes)); set != nil && text != "" && len(groupAddresses(nodes)) > 0 {
		out = append(out, nsx.Finding{Kind: nsx.KindNodeGroup, ID: set.string("id"), What: "addresses " + text, Edit: b.editOf(set)})
	}
	if group := b.shared.groupDocument(); set != nil && group != nil && setOf(group) != set.string("id") {
		out = append(out, nsx.Finding{Kind: nsx.KindNodeGroup, ID: group.string("id"), What: "does not hold the nodes", Edit: b.editOf(group)})
	}
	return out
}

// memberChanges says for people what has to be done to members so that they are as wanted; empty for nothing.
func memberChanges(have json.RawMessage, want []document) string {
	var now []document
	_ = json.Unmarshal(have, &now) // absent: none
	show := func(all []document) []string {
		out := make([]string, len(all))
		for i, m := range all {
			out[i] = m.string("ip_address")
			if s := m.string("admin_state"); s != string(nsx.Enabled) {
				out[i] += "=" + s
			}
		}
		return out
	}
	return listChanges(show(now), show(want))
}

// listChanges says for people what goes (-) and what comes (+); empty when two lists hold the same. Of many it says how many.
func listChanges(have, want []string) string {
	var out []string
	for _, h := range have {
		if !slices.Contains(want, h) {
			out = append(out, "-"+h)
		}
	}
	for _, w := range want {
		if !slices.Contains(have, w) {
			out = append(out, "+"+w)
		}
	}
	slices.Sort(out)
	const most = 10
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("and %d more", len(out)-most))
	}
	return strings.Join(out, " ")
}

// editOf is edit of a document.
func (b *Backend) editOf(d document) nsx.Edit {
	h := header{ModifiedUser: d.string("_last_modified_user")}
	_ = json.Unmarshal(d["_last_modified_time"], &h.ModifiedTime) // absent: the zero time
	return b.edit(h)
}

// setOf is the IP set that a group consists of; empty when it consists of something else.
func setOf(group document) string {
	var members []struct {
		TargetType     string `json:"target_type"`
		TargetProperty string `json:"target_property"`
		Op             string `json:"op"`
		Value          string `json:"value"`
	}
	var criteria []json.RawMessage
	_ = json.Unmarshal(group["membership_criteria"], &criteria) // absent: none
	if json.Unmarshal(group["members"], &members) != nil || len(members) != 1 || len(criteria) > 0 {
		return ""
	}
	if m := members[0]; m.TargetType == "IPSet" && m.TargetProperty == "id" && m.Op == "EQUALS" {
		return m.Value
	}
	return ""
}

// writeGroupMembers makes the node group hold the IP set of the nodes, as it was made.
func (b *Backend) writeGroupMembers(ctx context.Context) error {
	set, id := b.shared.group()
	group := b.shared.groupDocument()
	if set == nil || group == nil || setOf(group) == set.string("id") {
		return nil
	}
	path := "/ns-groups/" + url.PathEscape(id)
	for try := 0; ; try++ {
		raw, err := b.api.do(ctx, http.MethodPut, path, nil, group.with(func(d document) {
			d.set("members", groupMembers(set.string("id")))
			delete(d, "membership_criteria")
		}))
		again := stale(err) && try < maxMerges
		if again {
			raw, err = b.api.get(ctx, path)
		}
		if err != nil {
			return fmt.Errorf("writing the node group: %w", err)
		}
		if group, err = parseDocument(raw); err != nil {
			return err
		}
		if !again {
			b.shared.write(func() { b.shared.nodeGroup = group })
			return nil
		}
	}
}
