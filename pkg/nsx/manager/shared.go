package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	nsxt "github.com/vmware/go-vmware-nsxt"
	"github.com/vmware/go-vmware-nsxt/common"
	"github.com/vmware/go-vmware-nsxt/loadbalancer"
	sdkmanager "github.com/vmware/go-vmware-nsxt/manager"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// What TagShared says of the objects that the cluster shares besides its pools.
const (
	sharedAddressSet  = "node group addresses"
	sharedNodeGroup   = "node group"
	sharedPersistence = "source IP persistence "
	sharedMonitor     = "monitor "
	sharedLBService   = "load-balancer service"
)

// shared remembers what the cluster shares besides pools and monitors: the node group (an NSGroup over an IPSet) of
// policy-Local pools, and a source-IP persistence profile for each timeout.
type shared struct {
	mu sync.Mutex
	// generation counts our writes, so that a list that was read meanwhile does not undo them.
	generation uint64
	// persistence profiles by id, and who wrote them last, as far as a list told.
	persistence      map[string]time.Duration
	persistenceEdits map[string]nsx.Edit
	// addressSet is the document of the IPSet; nil when there is none. groupID is the NSGroup over it, nodeGroup its
	// document.
	addressSet document
	groupID    string
	nodeGroup  document
	// extraGroups and extraSets are the ids of others of the kind, which nothing uses.
	extraGroups, extraSets []string
	// tiers are ids of tier-1 gateways by nsx.TierKey.
	tiers map[string]string
}

func (s *shared) begin() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation
}

// write changes what is remembered after a write to NSX.
func (s *shared) write(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	f()
}

func (s *shared) setTier(key, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tiers == nil {
		s.tiers = map[string]string{}
	}
	s.tiers[key] = id
}

func (s *shared) tier(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tiers[key]
}

// affinity is the timeout of a persistence profile of ours, and who wrote it last; -1 for one that is not ours.
func (s *shared) affinity(id string) (time.Duration, nsx.Edit) {
	if id == "" {
		return 0, nsx.Edit{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.persistence[id]; ok {
		return t, s.persistenceEdits[id]
	}
	return -1, nsx.Edit{}
}

func (s *shared) group() (addressSet document, groupID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addressSet, s.groupID
}

func (s *shared) extras() (groups, sets []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.extraGroups), slices.Clone(s.extraSets)
}

func (s *shared) groupDocument() document {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodeGroup
}

// merge takes over what lists showed that were begun at the generation.
func (s *shared) merge(b *Backend, generation uint64, persistence, ipSets, groups, pools []json.RawMessage) error {
	profiles, edits := map[string]time.Duration{}, map[string]nsx.Edit{}
	for _, raw := range persistence {
		var d struct {
			header
			Timeout int64 `json:"timeout"`
		}
		if err := json.Unmarshal(raw, &d); err != nil {
			return fmt.Errorf("decoding a persistence profile: %w: %w", nsx.ErrUnavailable, err)
		}
		if b.ours(d.header) && strings.HasPrefix(d.tag(nsx.TagShared), sharedPersistence) {
			profiles[d.ID], edits[d.ID] = time.Duration(d.Timeout)*time.Second, b.edit(d.header)
		}
	}
	nodeGroups, err := b.findShared(groups, sharedNodeGroup)
	if err != nil {
		return err
	}
	sets, err := b.findShared(ipSets, sharedAddressSet)
	if err != nil {
		return err
	}
	group, extraGroups := mostUsed(nodeGroups, b.poolsOfGroups(nodeGroups, pools))
	set, extraSets := mostUsed(sets, map[string]int{setOf(group): 1})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation != generation {
		return nil // ours is newer
	}
	s.persistence, s.persistenceEdits = profiles, edits
	s.addressSet, s.groupID, s.nodeGroup = set, group.string("id"), group
	s.extraGroups, s.extraSets = extraGroups, extraSets
	return nil
}

// findShared finds the shared objects of ours that are what, in the order of their ids. There are several when two leaders
// made them at once, or when NSX did a write after its outcome had been looked up.
func (b *Backend) findShared(raws []json.RawMessage, what string) ([]document, error) {
	var found []document
	for _, raw := range raws {
		var h header
		if err := json.Unmarshal(raw, &h); err != nil {
			return nil, fmt.Errorf("decoding a shared object: %w: %w", nsx.ErrUnavailable, err)
		}
		if !b.ours(h) || h.tag(nsx.TagShared) != what {
			continue
		}
		d, err := parseDocument(raw)
		if err != nil {
			return nil, err
		}
		found = append(found, d)
	}
	slices.SortFunc(found, func(a, b document) int { return strings.Compare(a.string("id"), b.string("id")) })
	return found, nil
}

// poolsOfGroups counts the pools that have each of several groups for their members; of one group it need not know.
func (b *Backend) poolsOfGroups(groups []document, pools []json.RawMessage) map[string]int {
	if len(groups) < 2 {
		return nil
	}
	users := map[string]int{}
	for _, raw := range pools {
		var p struct {
			MemberGroup struct {
				GroupingObject struct {
					TargetID string `json:"target_id"`
				} `json:"grouping_object"`
			} `json:"member_group"`
		}
		_ = json.Unmarshal(raw, &p) // decoded by the caller too, who tells
		users[p.MemberGroup.GroupingObject.TargetID]++
	}
	return users
}

// mostUsed takes the object that is used most, or the first of those; the ids of the others are extra.
func mostUsed(all []document, users map[string]int) (best document, extra []string) {
	for _, d := range all {
		if best == nil || users[d.string("id")] > users[best.string("id")] {
			best = d
		}
	}
	for _, d := range all {
		if id := d.string("id"); id != best.string("id") {
			extra = append(extra, id)
		}
	}
	return best, extra
}

// doubtShared remembers that a create of a shared object has an unknown outcome, if err says so: no other Service may make
// it once more. It returns err.
func (b *Backend) doubtShared(err error) error {
	if errors.Is(err, nsx.ErrAmbiguous) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sharedLost = b.opts.Clock.Now().Add(b.opts.SettleTime)
	}
	return err
}

// settleShared looks up creates of shared objects whose outcome is unknown. It costs nothing when there are none, and
// returns a RetryAt when it is too early to look. Called before anything shared is made.
func (b *Backend) settleShared(ctx context.Context) error {
	b.mu.Lock()
	at := b.sharedLost
	b.mu.Unlock()
	switch {
	case at.IsZero():
		return nil
	case b.opts.Clock.Now().Before(at):
		return &nsx.RetryAt{Err: fmt.Errorf("what the cluster shares: %w, looking it up shortly", nsx.ErrAmbiguous), At: at}
	}
	if err := b.Load(ctx); err != nil {
		return fmt.Errorf("looking up what became of a write for the whole cluster: %w", err)
	}
	return nil
}

// ensurePersistence finds or makes the source-IP persistence profile of a timeout. Called with b.life held for reading.
func (b *Backend) ensurePersistence(ctx context.Context, timeout time.Duration) (string, error) {
	if timeout == 0 {
		return "", nil
	}
	find := func() string {
		b.shared.mu.Lock()
		defer b.shared.mu.Unlock()
		best, users := "", -1 // of several, the one that is used most, so that the others go
		for _, id := range sortedKeys(b.shared.persistence) {
			if n := b.inv.ProfileUsers(id); b.shared.persistence[id] == timeout && n > users {
				best, users = id, n
			}
		}
		return best
	}
	if id := find(); id != "" {
		return id, nil
	}
	unlock, err := b.making.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := b.settleShared(ctx); err != nil {
		return "", err
	}
	if id := find(); id != "" {
		return id, nil
	}
	seconds := strconv.FormatInt(int64(timeout/time.Second), 10) + "s"
	raw, err := b.api.sdk(ctx, func(ctx context.Context, api *nsxt.APIClient) error {
		_, _, err := api.ServicesApi.CreateLoadBalancerSourceIpPersistenceProfile(ctx, loadbalancer.LbSourceIpPersistenceProfile{
			ResourceType: "LbSourceIpPersistenceProfile",
			DisplayName:  b.opts.ClusterName + ".source-ip." + seconds,
			Tags:         b.sharedTags(sharedPersistence + seconds),
			Purge:        "FULL",
			Timeout:      int64(timeout / time.Second),
		})
		return err
	})
	if err != nil {
		return "", b.doubtShared(fmt.Errorf("creating a source-IP persistence profile of %s: %w", seconds, err))
	}
	id, err := idOf(raw)
	if err != nil {
		return "", err
	}
	b.shared.write(func() {
		if b.shared.persistence == nil {
			b.shared.persistence = map[string]time.Duration{}
		}
		b.shared.persistence[id] = timeout
	})
	return id, nil
}

// ensureGroup finds or makes the node group. Called with b.making held.
func (b *Backend) ensureGroup(ctx context.Context) (string, error) {
	set, group := b.shared.group()
	if group != "" && set != nil {
		return group, nil
	}
	if set == nil {
		raw, err := b.createIPSet(ctx, b.opts.ClusterName+".nodes", b.sharedTags(sharedAddressSet), groupAddresses(b.currentNodes()))
		if err != nil {
			return "", b.doubtShared(fmt.Errorf("creating the IP set of the node group: %w", err))
		}
		if set, err = parseDocument(raw); err != nil {
			return "", err
		}
		b.shared.write(func() { b.shared.addressSet = set })
	}
	setID, err := set.id()
	if err != nil {
		return "", err
	}
	raw, err := b.createGroup(ctx, b.opts.ClusterName+".nodes", b.sharedTags(sharedNodeGroup), setID)
	if err != nil {
		return "", b.doubtShared(fmt.Errorf("creating the node group: %w", err))
	}
	doc, err := parseDocument(raw)
	if err != nil {
		return "", err
	}
	id, err := doc.id()
	if err != nil {
		return "", err
	}
	b.shared.write(func() { b.shared.groupID, b.shared.nodeGroup = id, doc })
	return id, nil
}

// createIPSet creates an IP set of addresses, ranges and CIDRs, and gives its document.
func (b *Backend) createIPSet(ctx context.Context, name string, tags []common.Tag, addresses []string) ([]byte, error) {
	return b.api.sdk(ctx, func(ctx context.Context, api *nsxt.APIClient) error {
		_, _, err := api.GroupingObjectsApi.CreateIPSet(ctx, sdkmanager.IpSet{
			ResourceType: "IPSet", DisplayName: name, Tags: tags, IpAddresses: addresses,
		})
		return err
	})
}

// createGroup creates a group of what an IP set holds, and gives its document.
func (b *Backend) createGroup(ctx context.Context, name string, tags []common.Tag, setID string) ([]byte, error) {
	return b.api.sdk(ctx, func(ctx context.Context, api *nsxt.APIClient) error {
		_, _, err := api.GroupingObjectsApi.CreateNSGroup(ctx, sdkmanager.NsGroup{
			ResourceType: "NSGroup", DisplayName: name, Tags: tags, Members: groupMembers(setID),
		})
		return err
	})
}

// groupMembers are the members of a group that is what an IP set holds.
func groupMembers(setID string) []sdkmanager.NsGroupSimpleExpression {
	return []sdkmanager.NsGroupSimpleExpression{{
		ResourceType: "NSGroupSimpleExpression", TargetType: "IPSet", TargetProperty: "id", Op: "EQUALS", Value: setID,
	}}
}

// groupAddresses are the addresses of the nodes in the group, ascending.
func groupAddresses(nodes []nsx.Node) []string {
	out := []string{}
	for _, n := range nodes {
		if !n.InGroup {
			continue
		}
		for _, a := range n.Addresses {
			out = append(out, a.String())
		}
	}
	slices.Sort(out)
	return out
}

// ensureLBService gives the id of the load-balancer service that a virtual server is to be attached to, and makes it on
// its tier-1 gateway when it is not there.
func (b *Backend) ensureLBService(ctx context.Context, key string) (string, error) {
	if r, ok := b.inv.LBService(key); ok {
		return r.ID, nil
	}
	_, size, ok := nsx.ParseTierKey(key)
	tier := b.shared.tier(key)
	if !ok || tier == "" {
		return "", fmt.Errorf("load-balancer service %q: %w", key, nsx.ErrNotFound)
	}
	unlock, err := b.making.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := b.settleShared(ctx); err != nil {
		return "", err
	}
	if r, ok := b.inv.LBService(key); ok {
		return r.ID, nil
	}
	raw, err := b.api.sdk(ctx, func(ctx context.Context, api *nsxt.APIClient) error {
		_, _, err := api.ServicesApi.CreateLoadBalancerService(ctx, loadbalancer.LbService{
			ResourceType: "LbService",
			DisplayName:  b.opts.ClusterName + "." + tier,
			Tags:         b.sharedTags(sharedLBService),
			Enabled:      true,
			Size:         size,
			Attachment:   &common.ResourceReference{TargetType: "LogicalRouter", TargetId: tier},
		})
		return err
	})
	if err != nil {
		return "", b.doubtShared(fmt.Errorf("creating a load-balancer service on tier-1 gateway %s: %w", tier, err))
	}
	_, r, err := b.lbServiceRecord(raw)
	if err != nil {
		return "", err
	}
	r.Keys = []string{key}
	b.inv.PutLBService(r) // before its capacity is known, so that it is not made twice
	if r.Capacity, err = b.capacity(ctx, r.ID); err != nil {
		return "", err
	}
	b.inv.PutLBService(r)
	return r.ID, nil
}

func (b *Backend) currentNodes() []nsx.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodes
}

// SetNodes implements nsx.Backend.
func (b *Backend) SetNodes(ctx context.Context, nodes []nsx.Node) error {
	if !b.inv.Loaded() {
		return errNotLoaded
	}
	unlock, err := b.making.lock(ctx) // a pool that is being made has either these nodes or those
	if err != nil {
		return fmt.Errorf("setting the nodes: %w", err)
	}
	defer unlock()
	b.mu.Lock()
	b.nodes, b.nodesWritten = slices.Clone(nodes), false
	b.mu.Unlock()
	for _, r := range b.inv.SharedPools() {
		if err := b.writePool(ctx, r, func(d document) document {
			return d.with(func(d document) { d.set("members", mergeMembers(d["members"], nodes, r.Pool.Family)) })
		}); err != nil {
			return fmt.Errorf("setting the nodes: %w", err)
		}
	}
	if err := b.writeGroup(ctx, nodes); err != nil {
		return fmt.Errorf("setting the nodes: %w", err)
	}
	if err := b.writeGroupMembers(ctx); err != nil {
		return fmt.Errorf("setting the nodes: %w", err)
	}
	b.mu.Lock()
	b.nodesWritten = true
	b.mu.Unlock()
	return nil
}

// writeGroup makes the IPSet of the node group hold the nodes.
func (b *Backend) writeGroup(ctx context.Context, nodes []nsx.Node) error {
	set, _ := b.shared.group()
	want := groupAddresses(nodes)
	if set == nil || (len(want) == 0 && len(set.strings("ip_addresses")) > 0) {
		return nil // no policy-Local Service, or nothing that could take the last node's place
	}
	for try := 0; ; try++ {
		have := set.strings("ip_addresses")
		slices.Sort(have)
		if slices.Equal(have, want) {
			b.shared.write(func() { b.shared.addressSet = set })
			return nil
		}
		id, err := set.id()
		if err != nil {
			return err
		}
		path := "/ip-sets/" + url.PathEscape(id)
		raw, err := b.api.do(ctx, http.MethodPut, path, nil, set.with(func(d document) { d.set("ip_addresses", want) }))
		if stale(err) && try < maxMerges {
			raw, err = b.api.get(ctx, path)
		}
		if err != nil {
			return fmt.Errorf("writing the addresses of the node group: %w", err)
		}
		if set, err = parseDocument(raw); err != nil {
			return err
		}
	}
}

// Tidy implements nsx.Backend.
func (b *Backend) Tidy(ctx context.Context) error {
	if !b.inv.Loaded() {
		return errNotLoaded
	}
	if err := b.giveUpSpares(ctx); err != nil {
		return err
	}
	if err := b.releaseUnwanted(ctx); err != nil {
		return err
	}
	if !b.anyUnused() {
		return nil
	}
	endLife, err := b.life.lock(ctx) // nobody is about to use any of it
	if err != nil {
		return err
	}
	defer endLife()
	endMaking, err := b.making.lock(ctx)
	if err != nil {
		return err
	}
	defer endMaking()
	for _, r := range b.inv.SharedPools() {
		if b.inv.PoolUsers(r.ID) > 0 {
			continue
		}
		if err := b.deletePool(ctx, r.ID); err != nil {
			return err
		}
	}
	for _, m := range b.unusedMonitors() {
		if err := b.deleteMonitor(ctx, m); err != nil {
			return err
		}
	}
	if err := b.dropExtras(ctx); err != nil {
		return err
	}
	if err := b.dropGroup(ctx); err != nil {
		return err
	}
	for _, id := range b.unusedPersistence() {
		if err := b.api.remove(ctx, "/loadbalancer/persistence-profiles/"+url.PathEscape(id), nil); err != nil {
			return fmt.Errorf("deleting persistence profile %s: %w", id, err)
		}
		b.shared.write(func() { delete(b.shared.persistence, id) })
	}
	for _, r := range b.inv.LBServices() {
		if !r.Ours || len(r.VirtualServers) > 0 {
			continue
		}
		if err := b.api.remove(ctx, "/loadbalancer/services/"+url.PathEscape(r.ID), nil); err != nil {
			return fmt.Errorf("deleting load-balancer service %s: %w", r.ID, err)
		}
		for _, key := range r.Keys {
			b.inv.SetRoom(nsx.LBServiceRoom{Key: key, Free: nsx.Unlimited})
		}
		b.inv.DeleteLBService(r.ID)
	}
	return b.dropSources(ctx)
}

// anyUnused is a cheap look for something that Tidy would delete.
func (b *Backend) anyUnused() bool {
	for _, r := range b.inv.SharedPools() {
		if b.inv.PoolUsers(r.ID) == 0 {
			return true
		}
	}
	for _, r := range b.inv.LBServices() {
		if r.Ours && len(r.VirtualServers) == 0 {
			return true
		}
	}
	if groups, sets := b.unusedSources(); len(groups)+len(sets) > 0 {
		return true
	}
	if groups, sets := b.shared.extras(); len(groups)+len(sets) > 0 {
		return true
	}
	set, group := b.shared.group()
	return len(b.unusedMonitors()) > 0 || len(b.unusedPersistence()) > 0 || ((set != nil || group != "") && !b.inv.AnyServicePool())
}

func (b *Backend) unusedMonitors() []string {
	used := map[string]bool{}
	for _, p := range b.inv.SharedPools() {
		used[p.MonitorID] = true
	}
	var out []string
	for _, m := range b.inv.SharedMonitors() {
		if !used[m.ID] {
			out = append(out, m.ID)
		}
	}
	return out
}

func (b *Backend) unusedPersistence() []string {
	b.shared.mu.Lock()
	defer b.shared.mu.Unlock()
	var out []string
	for _, id := range sortedKeys(b.shared.persistence) {
		if b.inv.ProfileUsers(id) == 0 {
			out = append(out, id)
		}
	}
	return out
}

// dropExtras deletes node groups and IP sets besides those in use.
func (b *Backend) dropExtras(ctx context.Context) error {
	groups, sets := b.shared.extras()
	for _, id := range groups {
		if err := b.api.remove(ctx, "/ns-groups/"+url.PathEscape(id), nil); err != nil {
			return fmt.Errorf("deleting the extra node group %s: %w", id, err)
		}
		b.shared.write(func() {
			b.shared.extraGroups = slices.DeleteFunc(b.shared.extraGroups, func(g string) bool { return g == id })
		})
	}
	for _, id := range sets {
		if err := b.api.remove(ctx, "/ip-sets/"+url.PathEscape(id), nil); err != nil {
			return fmt.Errorf("deleting the extra IP set %s: %w", id, err)
		}
		b.shared.write(func() {
			b.shared.extraSets = slices.DeleteFunc(b.shared.extraSets, func(s string) bool { return s == id })
		})
	}
	return nil
}

// dropGroup deletes the node group when no policy-Local pool is left.
func (b *Backend) dropGroup(ctx context.Context) error {
	set, group := b.shared.group()
	if b.inv.AnyServicePool() {
		return nil
	}
	if group != "" {
		if err := b.api.remove(ctx, "/ns-groups/"+url.PathEscape(group), nil); err != nil {
			return fmt.Errorf("deleting the node group %s: %w", group, err)
		}
		b.shared.write(func() { b.shared.groupID, b.shared.nodeGroup = "", nil })
	}
	if set != nil {
		id, err := set.id()
		if err != nil {
			return err
		}
		if err := b.api.remove(ctx, "/ip-sets/"+url.PathEscape(id), nil); err != nil {
			return fmt.Errorf("deleting the IP set %s of the node group: %w", id, err)
		}
		b.shared.write(func() { b.shared.addressSet = nil })
	}
	return nil
}
