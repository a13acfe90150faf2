package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"go4.org/netipx"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// The clients that a virtual server lets in are a group (NSGroup) over an IP set, which its access list names. The cluster has
// one such pair for each list of ranges in use, found by a hash of the list in its tags, so that Services with the same list
// share it. A pair is never given another list: a Service with other ranges gets another pair, and Tidy deletes the one that
// it leaves.

// What TagShared says of them, before the Sources.Key.
const (
	sharedSourceSet   = "source addresses "
	sharedSourceGroup = "source group "
)

// ensureSources finds or makes the group of the clients that are let in, and makes it what it should be. It is empty for
// everybody. Called with b.life held for reading.
func (b *Backend) ensureSources(ctx context.Context, s nsx.Sources) (string, error) {
	if !s.Restricted {
		return "", nil
	}
	if id := b.sourceGroup(s); id != "" {
		return id, nil
	}
	// All who want the same list at the same time get the same pair, or the same error: after a lost answer, nobody makes a second
	// one. They wait for two calls at most, which the transport's time-outs bound.
	id, err, _ := b.sourceMaking.Do(s.Key(), func() (any, error) {
		if err := b.settleShared(ctx); err != nil {
			return nil, err
		}
		if id := b.sourceGroup(s); id != "" {
			return id, nil
		}
		id, err := b.makeSources(ctx, s)
		return id, b.doubtShared(err)
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", s, err)
	}
	return id.(string), nil
}

// sourceGroup finds the group that holds just these clients; of several, made by two leaders at once, the one of lowest id.
func (b *Backend) sourceGroup(s nsx.Sources) string {
	key := s.Key()
	for _, g := range b.inv.SourceGroups() {
		if g.Key != key {
			continue
		}
		if set, ok := b.inv.SourceSet(g.SetID); ok && set.Sources.Equal(s) {
			return g.ID
		}
	}
	return ""
}

// makeSources makes the pair, or what of it an earlier try did not make, or somebody edited.
func (b *Backend) makeSources(ctx context.Context, s nsx.Sources) (string, error) {
	key := s.Key()
	var group nsx.SourceGroupRecord
	for _, g := range b.inv.SourceGroups() {
		if g.Key == key {
			group = g
			break
		}
	}
	set, _ := b.inv.SourceSet(group.SetID)
	if set.Key != key { // none, or that of another list
		set = nsx.SourceSetRecord{}
		for _, other := range b.inv.SourceSets() {
			if other.Key == key {
				set = other
				break
			}
		}
	}
	setID, err := b.writeSourceSet(ctx, set, s)
	if err != nil {
		return "", err
	}
	return b.writeSourceGroup(ctx, group, key, setID)
}

// writeSourceSet makes an IP set hold the clients; the zero record is one that is yet to be made.
func (b *Backend) writeSourceSet(ctx context.Context, r nsx.SourceSetRecord, s nsx.Sources) (string, error) {
	if r.ID != "" && r.Sources.Equal(s) {
		return r.ID, nil
	}
	var raw []byte
	var err error
	addresses := sourceAddresses(s)
	if r.ID == "" {
		raw, err = b.createIPSet(ctx, b.sourceName(s.Key()), b.sharedTags(sharedSourceSet+s.Key()), addresses)
	} else {
		raw, err = b.write(ctx, "/ip-sets/"+url.PathEscape(r.ID), r.Doc, func(d document) document {
			return d.with(func(d document) { d.set("ip_addresses", addresses) })
		})
	}
	if isNotFound(err) {
		b.inv.DeleteSourceSet(r.ID)
	}
	if err != nil {
		return "", fmt.Errorf("writing their IP set: %w", err)
	}
	r, ok, err := b.sourceSetRecord(raw)
	if err != nil {
		return "", err
	}
	if !ok || r.ID == "" {
		return "", fmt.Errorf("%w: NSX answered with an IP set that is not the one written", nsx.ErrAmbiguous)
	}
	b.inv.PutSourceSet(r)
	return r.ID, nil
}

// writeSourceGroup makes a group consist of an IP set; the zero record is one that is yet to be made.
func (b *Backend) writeSourceGroup(ctx context.Context, r nsx.SourceGroupRecord, key, setID string) (string, error) {
	if r.ID != "" && r.SetID == setID {
		return r.ID, nil
	}
	var raw []byte
	var err error
	if r.ID == "" {
		raw, err = b.createGroup(ctx, b.sourceName(key), b.sharedTags(sharedSourceGroup+key), setID)
	} else {
		raw, err = b.write(ctx, "/ns-groups/"+url.PathEscape(r.ID), r.Doc, func(d document) document {
			return d.with(func(d document) {
				d.set("members", groupMembers(setID))
				delete(d, "membership_criteria")
			})
		})
	}
	if isNotFound(err) {
		b.inv.DeleteSourceGroup(r.ID)
	}
	if err != nil {
		return "", fmt.Errorf("writing their group: %w", err)
	}
	r, ok, err := b.sourceGroupRecord(raw)
	if err != nil {
		return "", err
	}
	if !ok || r.ID == "" {
		return "", fmt.Errorf("%w: NSX answered with a group that is not the one written", nsx.ErrAmbiguous)
	}
	b.inv.PutSourceGroup(r)
	return r.ID, nil
}

func (b *Backend) sourceName(key string) string {
	return b.opts.ClusterName + ".source-ranges." + key[:8]
}

// sourceAddresses are the ranges as an IP set has them: addresses and CIDRs.
func sourceAddresses(s nsx.Sources) []string {
	out := make([]string, len(s.Ranges))
	for i, p := range s.Ranges {
		if out[i] = p.String(); p.IsSingleIP() {
			out[i] = p.Addr().String()
		}
	}
	return out
}

// sourceSetRecord reads an IP set; ok is false for one that is none of clients of ours.
func (b *Backend) sourceSetRecord(raw []byte) (r nsx.SourceSetRecord, ok bool, err error) {
	var d struct {
		header
		IPAddresses []string `json:"ip_addresses"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		return r, false, fmt.Errorf("decoding an IP set: %w: %w", nsx.ErrUnavailable, err)
	}
	key, ok := strings.CutPrefix(d.tag(nsx.TagShared), sharedSourceSet)
	if !ok || !b.ours(d.header) {
		return r, false, nil
	}
	r = nsx.SourceSetRecord{ID: d.ID, Key: key, Edit: b.edit(d.header), Doc: raw, Sources: nsx.Sources{Restricted: true}}
	ranges := make([]netipx.IPRange, len(d.IPAddresses))
	for i, text := range d.IPAddresses {
		if ranges[i], err = parseAddresses(text); err != nil {
			return r, true, nil // we never wrote that: as if it held nobody, so that it is written again
		}
	}
	r.Sources.Ranges = nsx.Prefixes(ranges)
	return r, true, nil
}

// parseAddresses reads an item of an IP set: an address, a CIDR or a range.
func parseAddresses(text string) (netipx.IPRange, error) {
	text = strings.ReplaceAll(text, " ", "")
	if strings.Contains(text, "-") {
		return netipx.ParseIPRange(text)
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return netipx.RangeOfPrefix(p), nil
	}
	a, err := netip.ParseAddr(text)
	if err == nil && a.Zone() != "" {
		err = fmt.Errorf("%s has a zone", text)
	}
	return netipx.IPRangeFrom(a, a), err
}

// sourceGroupRecord reads a group; ok is false for one that is none of clients of ours.
func (b *Backend) sourceGroupRecord(raw []byte) (r nsx.SourceGroupRecord, ok bool, err error) {
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return r, false, fmt.Errorf("decoding a group: %w: %w", nsx.ErrUnavailable, err)
	}
	key, ok := strings.CutPrefix(h.tag(nsx.TagShared), sharedSourceGroup)
	if !ok || !b.ours(h) {
		return r, false, nil
	}
	d, err := parseDocument(raw)
	if err != nil {
		return r, false, err
	}
	return nsx.SourceGroupRecord{ID: h.ID, Key: key, SetID: setOf(d), Edit: b.edit(h), Doc: raw}, true, nil
}

// setAccessList lets in the clients of a group alone, or everybody if there is none. An access list of a group that is not
// ours is somebody else's, and stays unless it is in the way.
func (b *Backend) setAccessList(d document, groupID string) {
	const field = "access_list_control"
	var list document
	_ = json.Unmarshal(d[field], &list) // absent: there is none
	if groupID != "" {
		d.set(field, list.with(func(l document) {
			l.set("action", "ALLOW")
			l.set("enabled", true)
			l.set("group_id", groupID)
		}))
	} else if _, ours := b.inv.SourceGroup(list.string("group_id")); ours {
		delete(d, field)
	}
}

// unusedSources are the groups that no access list names, and the IP sets of none of the other groups.
func (b *Backend) unusedSources() (groups, sets []string) {
	used := map[string]bool{}
	for _, g := range b.inv.SourceGroups() {
		if b.inv.SourceUsers(g.ID) == 0 {
			groups = append(groups, g.ID)
		} else {
			used[g.SetID] = true
		}
	}
	for _, s := range b.inv.SourceSets() {
		if !used[s.ID] {
			sets = append(sets, s.ID)
		}
	}
	return groups, sets
}

// dropSources deletes the groups of clients that no virtual server uses any more. What somebody has put to another use, so that
// NSX refuses to delete it, stays until a later Tidy; the rest goes all the same. Called with b.life held for writing.
func (b *Backend) dropSources(ctx context.Context) error {
	groups, sets := b.unusedSources()
	for _, drop := range []struct {
		ids    []string
		path   string
		forget func(id string)
	}{
		{groups, "/ns-groups/", b.inv.DeleteSourceGroup},
		{sets, "/ip-sets/", b.inv.DeleteSourceSet},
	} {
		for _, id := range drop.ids {
			err := b.api.remove(ctx, drop.path+url.PathEscape(id), nil)
			switch {
			case err == nil:
				drop.forget(id)
			case errors.Is(err, nsx.ErrInvalid):
				klog.FromContext(ctx).Info("Leaving what no Service lets clients in by any more", "path", drop.path+id, "reason", err)
			default:
				return fmt.Errorf("deleting what no Service lets clients in by any more: %w", err)
			}
		}
	}
	return nil
}
