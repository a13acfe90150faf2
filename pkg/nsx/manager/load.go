package manager

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"go4.org/netipx"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Load implements nsx.Backend: it reads everything that is the cluster's, and the use of its pools, by paged lists.
func (b *Backend) Load(ctx context.Context) error {
	mark, generation, began := b.inv.Begin(), b.shared.begin(), b.opts.Clock.Now()
	var (
		pools, monitors, services, appProfiles, persistence, ipSets, groups, tiers, virtualServers []json.RawMessage
		ipPools                                                                                    map[string]nsx.IPPool
		allocations                                                                                map[string][]netip.Addr
		version                                                                                    nsx.Version
	)
	g, gctx := errgroup.WithContext(ctx)
	list := func(into *[]json.RawMessage, path string, query url.Values) {
		g.Go(func() (err error) {
			*into, err = b.api.list(gctx, path, query)
			return err
		})
	}
	list(&pools, "/loadbalancer/pools", nil)
	list(&monitors, "/loadbalancer/monitors", nil)
	list(&services, "/loadbalancer/services", nil)
	list(&appProfiles, "/loadbalancer/application-profiles", nil)
	list(&persistence, "/loadbalancer/persistence-profiles", nil)
	list(&ipSets, "/ip-sets", nil)
	list(&groups, "/ns-groups", nil)
	g.Go(func() (err error) {
		version, err = b.readVersion(gctx)
		return err
	})
	g.Go(func() (err error) {
		tiers, err = b.listTiers(gctx)
		return err
	})
	g.Go(func() (err error) {
		// Allocations first: whoever allocates by the written record has its virtual server made before, so that the list
		// of virtual servers that follows shows the record of every allocation that is listed here.
		if ipPools, allocations, err = b.listIPPools(gctx, ""); err != nil {
			return err
		}
		virtualServers, err = b.api.list(gctx, "/loadbalancer/virtual-servers", nil)
		return err
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("reading the inventory from NSX: %w", err)
	}

	if err := b.shared.merge(b, generation, persistence, ipSets, groups, pools); err != nil {
		return err
	}
	l := nsx.Listing{IPPools: ipPools, Allocations: allocations}
	var err error
	if l.VirtualServers, err = decode(virtualServers, func(raw []byte) (string, nsx.VirtualServerRecord, bool, error) {
		r, err := b.virtualServerRecord(raw)
		return r.VirtualServer.ID, r, true, err
	}); err != nil {
		return err
	}
	if l.Monitors, err = decode(monitors, func(raw []byte) (string, nsx.MonitorRecord, bool, error) {
		r, ok, err := b.monitorRecord(raw)
		return r.ID, r, ok, err
	}); err != nil {
		return err
	}
	if l.Pools, err = decode(pools, func(raw []byte) (string, nsx.PoolRecord, bool, error) {
		r, ok, err := b.poolRecord(raw)
		return r.ID, r, ok, err
	}); err != nil {
		return err
	}
	if l.SourceSets, err = decode(ipSets, func(raw []byte) (string, nsx.SourceSetRecord, bool, error) {
		r, ok, err := b.sourceSetRecord(raw)
		return r.ID, r, ok, err
	}); err != nil {
		return err
	}
	if l.SourceGroups, err = decode(groups, func(raw []byte) (string, nsx.SourceGroupRecord, bool, error) {
		r, ok, err := b.sourceGroupRecord(raw)
		return r.ID, r, ok, err
	}); err != nil {
		return err
	}
	restorePools(l.VirtualServers, sortedValues(l.IPPools))
	// A pool that only a virtual server's tag still names is gone from the config, but its addresses must be released.
	if err := b.loadTaggedPools(ctx, &l); err != nil {
		return err
	}
	if err := b.loadLBServices(ctx, &l, services, tiers); err != nil {
		return err
	}
	profiles, err := profileIDs(appProfiles)
	if err != nil {
		return err
	}
	b.inv.SetVersion(version)
	b.inv.SetProfiles(profiles)
	b.inv.Merge(mark, l, true)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !began.Before(b.sharedLost) {
		b.sharedLost = time.Time{} // it has been looked up
	}
	return nil
}

// readVersion asks for the release of NSX. Where the role may not ask, or the answer is none, it is not known.
func (b *Backend) readVersion(ctx context.Context) (nsx.Version, error) {
	raw, err := b.api.get(ctx, "/node/version")
	if isNotFound(err) || errors.Is(err, nsx.ErrUnauthorized) {
		return nsx.Version{}, nil
	}
	if err != nil {
		return nsx.Version{}, fmt.Errorf("reading the version: %w", err)
	}
	d, err := parseDocument(raw)
	if err != nil {
		return nsx.Version{}, err
	}
	v, err := nsx.ParseVersion(cmp.Or(d.string("node_version"), d.string("product_version")))
	if err != nil {
		klog.FromContext(ctx).Error(err, "NSX does not tell its version, so that it is taken for an old one")
	}
	return v, nil
}

// decode makes records by id of raw objects; ok says which to keep.
func decode[T any](raws []json.RawMessage, f func([]byte) (id string, r T, ok bool, err error)) (map[string]T, error) {
	out := make(map[string]T, len(raws))
	for _, raw := range raws {
		id, r, ok, err := f(raw)
		if err != nil {
			return nil, err
		}
		if ok {
			out[id] = r
		}
	}
	return out, nil
}

func profileIDs(raws []json.RawMessage) (map[string]string, error) {
	ids := make(map[string]string, 2*len(raws))
	for _, raw := range raws {
		var h header
		if err := json.Unmarshal(raw, &h); err != nil {
			return nil, fmt.Errorf("decoding an application profile: %w: %w", nsx.ErrUnavailable, err)
		}
		if _, taken := ids[h.DisplayName]; !taken {
			ids[h.DisplayName] = h.ID
		}
	}
	for _, raw := range raws { // an id goes before a display name that happens to look like it
		var h header
		_ = json.Unmarshal(raw, &h) // decoded above
		ids[h.ID] = h.ID
	}
	return ids, nil
}

// listIPPools reads the config's IP pools, and the allocations of one, or with an empty name of all.
func (b *Backend) listIPPools(ctx context.Context, name string) (map[string]nsx.IPPool, map[string][]netip.Addr, error) {
	raws, err := b.api.list(ctx, "/pools/ip-pools", nil)
	if err != nil {
		return nil, nil, err
	}
	pools := map[string]nsx.IPPool{}
	byRef := map[string][]string{} // id or display name -> ids
	for _, raw := range raws {
		h, p, err := ipPool(raw)
		if err != nil {
			return nil, nil, err
		}
		pools[p.ID] = p
		byRef[h.ID] = []string{h.ID}
		if h.DisplayName != h.ID {
			byRef[h.DisplayName] = append(byRef[h.DisplayName], h.ID)
		}
	}
	used := map[string]nsx.IPPool{}
	for _, c := range b.opts.IPPools {
		switch ids := byRef[c.ID]; {
		case len(ids) == 0:
			used["?"+c.Name] = nsx.IPPool{Name: c.Name, Problem: fmt.Sprintf("no IP pool with id or display name %q in NSX", c.ID)}
		case len(ids) > 1:
			used["?"+c.Name] = nsx.IPPool{Name: c.Name, Problem: fmt.Sprintf("%d IP pools in NSX have the display name %q: name it by id", len(ids), c.ID)}
		default:
			p := pools[ids[0]]
			p.Name, p.Exclusive = c.Name, c.Exclusive
			used[p.ID] = p
		}
	}
	allocations := map[string][]netip.Addr{}
	for _, p := range sortedValues(used) {
		if p.ID == "" || (name != "" && name != p.Name) {
			continue // not in NSX, or not asked for
		}
		if allocations[p.ID], err = b.listAllocations(ctx, p.ID); err != nil {
			return nil, nil, err
		}
	}
	return used, allocations, nil
}

func (b *Backend) listAllocations(ctx context.Context, pool string) ([]netip.Addr, error) {
	raws, err := b.api.list(ctx, "/pools/ip-pools/"+url.PathEscape(pool)+"/allocations", nil)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 0, len(raws))
	for _, raw := range raws {
		var a struct {
			AllocationID string `json:"allocation_id"`
		}
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, fmt.Errorf("decoding an allocation: %w: %w", nsx.ErrUnavailable, err)
		}
		if addr, err := netip.ParseAddr(a.AllocationID); err == nil {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, nil
}

// restorePools finds the IP pool of virtual servers of ours that have lost the tag which says it, by its ranges: without it
// their addresses could not be given back. The class is forgotten, which asks for an update, which writes both tags again.
func restorePools(all map[string]nsx.VirtualServerRecord, pools []nsx.IPPool) {
	for id, r := range all {
		v := &r.VirtualServer
		if r.Owner.UID == "" || v.IPPool != "" {
			continue
		}
		i := slices.IndexFunc(pools, func(p nsx.IPPool) bool {
			return slices.ContainsFunc(p.Ranges, func(r netipx.IPRange) bool { return r.Contains(v.Address) })
		})
		if i >= 0 {
			v.IPPool, v.Class = pools[i].ID, ""
			all[id] = r
		}
	}
}

// loadTaggedPools adds the pools that only tags name.
func (b *Backend) loadTaggedPools(ctx context.Context, l *nsx.Listing) error {
	missing := map[string]bool{}
	for _, r := range l.VirtualServers {
		if id := r.VirtualServer.IPPool; r.Owner.UID != "" && id != "" {
			if _, ok := l.IPPools[id]; !ok {
				missing[id] = true
			}
		}
	}
	for _, id := range sortedKeys(missing) {
		raw, err := b.api.get(ctx, "/pools/ip-pools/"+url.PathEscape(id))
		switch {
		case isNotFound(err):
			l.IPPools[id] = nsx.IPPool{ID: id, Problem: "is gone from NSX"}
			continue
		case err != nil:
			return fmt.Errorf("reading IP pool %s, which virtual servers name: %w", id, err)
		}
		_, p, err := ipPool(raw)
		if err != nil {
			return err
		}
		l.IPPools[id] = p
		if l.Allocations[id], err = b.listAllocations(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// loadLBServices finds the load-balancer services that classes name, and those that we made. Whose virtual servers are in
// them is read from the listing, or from the inventory if they were not listed.
func (b *Backend) loadLBServices(ctx context.Context, l *nsx.Listing, services, tiers []json.RawMessage) error {
	owned := func(vs string) bool {
		r, ok := l.VirtualServers[vs]
		if !ok && l.VirtualServers == nil {
			r, _ = b.inv.VirtualServer(vs)
		}
		return r.Owner.UID != ""
	}
	l.LBServices = map[string]nsx.LBServiceRecord{}
	found := map[string]nsx.LBServiceRecord{}
	byName := map[string][]string{}
	byTier := map[string]string{} // tier-1 id -> LB service id: NSX allows one
	for _, raw := range services {
		h, r, err := b.lbServiceRecord(raw)
		if err != nil {
			return err
		}
		var a struct {
			Attachment struct {
				TargetID string `json:"target_id"`
			} `json:"attachment"`
		}
		_ = json.Unmarshal(raw, &a) // decoded above
		found[r.ID] = r
		byName[h.DisplayName] = append(byName[h.DisplayName], r.ID)
		byTier[a.Attachment.TargetID] = r.ID
	}
	use := func(id, key string) {
		r, ok := l.LBServices[id]
		if !ok {
			r = found[id]
		}
		r.Keys = append(r.Keys, key)
		l.LBServices[id] = r
	}
	for _, key := range b.opts.LBServices {
		if tier, _, ok := nsx.ParseTierKey(key); ok {
			id, problem := tierID(tiers, tier)
			lb := byTier[id]
			switch {
			case problem != "":
			case lb == "":
				b.inv.SetRoom(nsx.LBServiceRoom{Key: key, Free: nsx.Unlimited})
				b.shared.setTier(key, id)
				continue
			case !found[lb].Ours:
				problem = fmt.Sprintf("already has load-balancer service %s, which the controller did not make: name that one under loadBalancerServices to use it", lb)
			default:
				use(lb, key)
				continue
			}
			b.inv.SetRoom(nsx.LBServiceRoom{Key: key, Problem: problem})
			continue
		}
		switch ids := byName[key]; {
		case found[key].ID != "":
			use(key, key)
		case len(ids) == 1:
			use(ids[0], key)
		case len(ids) > 1:
			b.inv.SetRoom(nsx.LBServiceRoom{Key: key, Problem: fmt.Sprintf("%d load-balancer services have this display name: name it by id", len(ids))})
		default:
			b.inv.SetRoom(nsx.LBServiceRoom{Key: key, Problem: "no load-balancer service with this id or display name in NSX"})
		}
	}
	// Virtual servers of ours may sit in services that no class names any more.
	for id, r := range found {
		if _, ok := l.LBServices[id]; !ok && (r.Ours || slices.ContainsFunc(r.VirtualServers, owned)) {
			l.LBServices[id] = r
		}
	}
	for _, id := range sortedKeys(l.LBServices) {
		r := l.LBServices[id]
		var err error
		if r.Capacity, err = b.capacity(ctx, id); err != nil {
			return err
		}
		l.LBServices[id] = r
	}
	return nil
}

// capacity asks how many virtual servers a load-balancer service takes; 0 when NSX does not tell.
func (b *Backend) capacity(ctx context.Context, id string) (int, error) {
	raw, err := b.api.get(ctx, "/loadbalancer/services/"+url.PathEscape(id)+"/usage")
	if isNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the usage of load-balancer service %s: %w", id, err)
	}
	var u struct {
		Capacity int `json:"virtual_server_capacity"`
	}
	if err := json.Unmarshal(raw, &u); err != nil {
		return 0, fmt.Errorf("decoding the usage of load-balancer service %s: %w: %w", id, nsx.ErrUnavailable, err)
	}
	return u.Capacity, nil
}

func tierID(tiers []json.RawMessage, ref string) (id, problem string) {
	var ids []string
	for _, raw := range tiers {
		var h header
		if json.Unmarshal(raw, &h) != nil {
			continue
		}
		if h.ID == ref {
			return h.ID, ""
		}
		if h.DisplayName == ref {
			ids = append(ids, h.ID)
		}
	}
	switch len(ids) {
	case 0:
		return "", "no tier-1 gateway with this id or display name in NSX"
	case 1:
		return ids[0], ""
	}
	return "", fmt.Sprintf("%d tier-1 gateways have this display name: name it by id", len(ids))
}

// RefreshAddresses implements nsx.Backend.
func (b *Backend) RefreshAddresses(ctx context.Context, pool string) error {
	mark := b.inv.Begin()
	pools, allocations, err := b.listIPPools(ctx, pool)
	if err != nil {
		return fmt.Errorf("reading the use of IP pool %q: %w", pool, err)
	}
	for _, p := range b.inv.IPPools() { // pools that only tags name stay as they are
		if p.Name == "" {
			pools[p.ID] = p
		}
	}
	b.inv.Merge(mark, nsx.Listing{IPPools: pools, Allocations: allocations}, false)
	if p, ok := b.inv.IPPool(pool); ok && b.inv.KeptByOthers(p.ID) {
		return b.refreshVirtualServers(ctx)
	}
	return nil
}

// RefreshRoom implements nsx.Backend.
func (b *Backend) RefreshRoom(ctx context.Context) error {
	mark := b.inv.Begin()
	services, err := b.api.list(ctx, "/loadbalancer/services", nil)
	if err != nil {
		return fmt.Errorf("reading the load-balancer services: %w", err)
	}
	tiers, err := b.listTiers(ctx)
	if err != nil {
		return fmt.Errorf("reading the tier-1 gateways: %w", err)
	}
	var l nsx.Listing
	if err := b.loadLBServices(ctx, &l, services, tiers); err != nil {
		return err
	}
	b.inv.Merge(mark, l, false)
	return nil
}

// listTiers reads the tier-1 gateways, if any class names one.
func (b *Backend) listTiers(ctx context.Context) ([]json.RawMessage, error) {
	if !slices.ContainsFunc(b.opts.LBServices, func(k string) bool { _, _, ok := nsx.ParseTierKey(k); return ok }) {
		return nil, nil
	}
	return b.api.list(ctx, "/logical-routers", url.Values{"router_type": {"TIER1"}})
}

// refreshPool reads the allocations of one IP pool again.
func (b *Backend) refreshPool(ctx context.Context, pool string) error {
	mark := b.inv.Begin()
	addrs, err := b.listAllocations(ctx, pool)
	if err != nil {
		return fmt.Errorf("reading the allocations of IP pool %s: %w", pool, err)
	}
	b.inv.Merge(mark, nsx.Listing{Allocations: map[string][]netip.Addr{pool: addrs}}, false)
	return nil
}

// refreshVirtualServers reads everybody's virtual servers again.
func (b *Backend) refreshVirtualServers(ctx context.Context) error {
	mark := b.inv.Begin()
	raws, err := b.api.list(ctx, "/loadbalancer/virtual-servers", nil)
	if err != nil {
		return fmt.Errorf("reading the virtual servers: %w", err)
	}
	records, err := decode(raws, func(raw []byte) (string, nsx.VirtualServerRecord, bool, error) {
		r, err := b.virtualServerRecord(raw)
		return r.VirtualServer.ID, r, true, err
	})
	if err != nil {
		return err
	}
	restorePools(records, b.inv.IPPools())
	b.inv.Merge(mark, nsx.Listing{VirtualServers: records}, false)
	return nil
}

// sightingGap is how far apart two sightings must be before a RELEASE of unknown outcome is repeated.
func sightingGap(p nsx.IPPool) time.Duration {
	if p.ReleaseDelay == 0 {
		return 30 * time.Second
	}
	return p.ReleaseDelay + 30*time.Second
}
