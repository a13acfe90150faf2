package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	nsxt "github.com/vmware/go-vmware-nsxt"
	"github.com/vmware/go-vmware-nsxt/common"
	"github.com/vmware/go-vmware-nsxt/loadbalancer"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// maxMerges bounds how often one write is merged into what somebody else wrote in the meantime.
const maxMerges = 4

func stale(err error) bool { return errors.Is(err, nsx.ErrStaleRevision) }

// ensurePool finds or makes the pool of a virtual server and makes it what it should be. Called with b.life held for
// reading.
func (b *Backend) ensurePool(ctx context.Context, o nsx.Owner, p nsx.Pool) (string, error) {
	if p.PerService {
		return b.ensureServicePool(ctx, o, p)
	}
	if r, ok := b.sharedPool(p); ok && r.Pool.Equal(p) {
		return r.ID, nil
	}
	unlock, err := b.making.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := b.settleShared(ctx); err != nil {
		return "", err
	}
	r, ok := b.sharedPool(p)
	if ok && r.Pool.Equal(p) {
		return r.ID, nil
	}
	monitorID, err := b.ensureSharedMonitor(ctx, p.Monitor)
	if err != nil {
		return "", err
	}
	name := strings.ToLower(fmt.Sprintf("%s.nodes.%s.%s", b.opts.ClusterName, p.Family, p.SNAT))
	change := func(d document) document {
		return poolDoc(d, name, b.sharedTags(p.Key()), p, monitorID, "", b.currentNodes())
	}
	if ok { // ours, but edited by hand
		return r.ID, b.writePool(ctx, r, change)
	}
	id, err := b.createPool(ctx, change(document{}))
	return id, b.doubtShared(err)
}

// sharedPool finds the cluster's pool by its key; of several, made by two leaders at once or by a write that NSX did late, the
// one that is used most, so that the others go.
func (b *Backend) sharedPool(p nsx.Pool) (best nsx.PoolRecord, ok bool) {
	key, users := clip(p.Key()), -1
	for _, r := range b.inv.SharedPools() {
		if n := b.inv.PoolUsers(r.ID); r.Key == key && n > users {
			best, users, ok = r, n, true
		}
	}
	return best, ok
}

// ensureServicePool is ensurePool for policy Local: the pool and its monitor are the Service's own.
func (b *Backend) ensureServicePool(ctx context.Context, o nsx.Owner, p nsx.Pool) (string, error) {
	have := b.inv.Observe(o)
	var r nsx.PoolRecord
	for _, own := range have.Pools {
		if own.Pool.Family == p.Family {
			r, _ = b.inv.Pool(own.ID)
			break
		}
	}
	if r.ID != "" && r.Pool.Equal(p) {
		return r.ID, nil
	}
	groupID, err := func() (string, error) {
		if _, group := b.shared.group(); group != "" {
			return group, nil
		}
		unlock, err := b.making.lock(ctx)
		if err != nil {
			return "", err
		}
		defer unlock()
		if err := b.settleShared(ctx); err != nil {
			return "", err
		}
		return b.ensureGroup(ctx)
	}()
	if err != nil {
		return "", err
	}
	monitorID, err := b.ensureServiceMonitor(ctx, o, have, r.MonitorID, p.Monitor)
	if err != nil {
		return "", err
	}
	change := func(d document) document {
		return poolDoc(d, b.displayName(o, strings.ToLower(string(p.Family))), b.serviceTags(o), p, monitorID, groupID, nil)
	}
	if r.ID != "" {
		return r.ID, b.writePool(ctx, r, change)
	}
	return b.createPool(ctx, change(document{}))
}

func (b *Backend) createPool(ctx context.Context, d document) (string, error) {
	raw, err := b.api.do(ctx, http.MethodPost, "/loadbalancer/pools", nil, d)
	if err != nil {
		return "", fmt.Errorf("creating pool %q: %w", d.string("display_name"), err)
	}
	return b.recordPool(raw)
}

func (b *Backend) recordPool(raw []byte) (string, error) {
	r, ok, err := b.poolRecord(raw)
	if err != nil {
		return "", err
	}
	if !ok || r.ID == "" {
		return "", fmt.Errorf("%w: NSX answered with a pool that is not the one written", nsx.ErrAmbiguous)
	}
	b.inv.PutPool(r)
	return r.ID, nil
}

// writePool changes a pool of ours, merging into what somebody else may have written.
func (b *Backend) writePool(ctx context.Context, r nsx.PoolRecord, change func(document) document) error {
	raw, err := b.write(ctx, "/loadbalancer/pools/"+url.PathEscape(r.ID), r.Doc, change)
	if isNotFound(err) {
		b.inv.DeletePool(r.ID)
	}
	if err != nil {
		return fmt.Errorf("writing pool %s: %w", r.ID, err)
	}
	_, err = b.recordPool(raw)
	return err
}

// write PUTs a changed document, if it changes at all, and merges when it went stale. It returns the document as it is
// then in NSX.
func (b *Backend) write(ctx context.Context, path string, raw []byte, change func(document) document) ([]byte, error) {
	for try := 0; ; try++ {
		d, err := parseDocument(raw)
		if err != nil {
			return nil, err
		}
		next := change(d)
		if sameJSON(d, next) {
			return raw, nil
		}
		answer, err := b.api.do(ctx, http.MethodPut, path, nil, next)
		if !stale(err) || try >= maxMerges {
			return answer, err
		}
		if raw, err = b.api.get(ctx, path); err != nil {
			return nil, err
		}
	}
}

func (b *Backend) deletePool(ctx context.Context, id string) error {
	if err := b.api.remove(ctx, "/loadbalancer/pools/"+url.PathEscape(id), nil); err != nil {
		return fmt.Errorf("deleting pool %s: %w", id, err)
	}
	b.inv.DeletePool(id)
	return nil
}

func (b *Backend) deleteMonitor(ctx context.Context, id string) error {
	if err := b.api.remove(ctx, "/loadbalancer/monitors/"+url.PathEscape(id), nil); err != nil {
		return fmt.Errorf("deleting monitor %s: %w", id, err)
	}
	b.inv.DeleteMonitor(id)
	return nil
}

// ensureSharedMonitor finds or makes the cluster's monitor. Called with b.making held.
func (b *Backend) ensureSharedMonitor(ctx context.Context, m *nsx.Monitor) (string, error) {
	if m == nil {
		return "", nil
	}
	for _, r := range b.inv.SharedMonitors() {
		if r.Monitor == *m {
			return r.ID, nil
		}
	}
	id, err := b.createMonitor(ctx, b.opts.ClusterName+".nodes", b.sharedTags(sharedMonitor+m.String()), *m)
	return id, b.doubtShared(err)
}

// ensureServiceMonitor finds or makes a Service's own monitor: the one its pool has, one that an interrupted try left, or
// a new one.
func (b *Backend) ensureServiceMonitor(ctx context.Context, o nsx.Owner, have nsx.Observed, id string, m *nsx.Monitor) (string, error) {
	if m == nil {
		return "", nil
	}
	if id == "" && len(have.Monitors) > 0 {
		id = have.Monitors[0] // of the other family's pool, which wants the same, or of an interrupted try
	}
	tags, name := b.serviceTags(o), b.displayName(o, "health")
	r, ok := b.inv.Monitor(id)
	if !ok || r.Owner.UID != o.UID {
		return b.createMonitor(ctx, name, tags, *m)
	}
	if r.Monitor == *m {
		return r.ID, nil
	}
	raw, err := b.write(ctx, "/loadbalancer/monitors/"+url.PathEscape(id), r.Doc, func(d document) document {
		return monitorDoc(d, name, tags, *m)
	})
	if err != nil {
		return "", fmt.Errorf("writing monitor %s: %w", id, err)
	}
	return b.recordMonitor(raw)
}

func (b *Backend) createMonitor(ctx context.Context, name string, tags []common.Tag, m nsx.Monitor) (string, error) {
	raw, err := b.api.sdk(ctx, func(ctx context.Context, api *nsxt.APIClient) error {
		var body loadbalancer.LbHttpMonitor
		d, err := json.Marshal(monitorDoc(document{}, name, tags, m))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(d, &body); err != nil {
			return err
		}
		_, _, err = api.ServicesApi.CreateLoadBalancerHttpMonitor(ctx, body)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("creating monitor %q: %w", name, err)
	}
	return b.recordMonitor(raw)
}

func (b *Backend) recordMonitor(raw []byte) (string, error) {
	r, ok, err := b.monitorRecord(raw)
	if err != nil {
		return "", err
	}
	if !ok || r.ID == "" {
		return "", fmt.Errorf("%w: NSX answered with a monitor that is not the one written", nsx.ErrAmbiguous)
	}
	b.inv.PutMonitor(r)
	return r.ID, nil
}

// collect deletes pools and monitors of a Service which nothing uses any more.
func (b *Backend) collect(ctx context.Context, c nsx.Collect) error {
	for _, id := range c.Pools {
		if err := b.deletePool(ctx, id); err != nil {
			return err
		}
	}
	for _, id := range c.Monitors {
		if err := b.deleteMonitor(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
