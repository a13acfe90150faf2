package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// memberships commits the changes to the virtual servers of load-balancer services in groups: all that wait for the same
// service while a write of it is under way share the next one. Nobody waits for more than one write besides its own.
type memberships struct {
	// commit writes one group.
	commit func(ctx context.Context, lbService string, group []*membershipChange) error

	mu     sync.Mutex
	queues map[string]*membershipQueue
}

type membershipQueue struct {
	waiting []*membershipChange
	busy    bool
}

// membershipChange is what one Service asks of a load-balancer service.
type membershipChange struct {
	attach, detach []string
	err            error
	done           chan struct{}
	// lead is closed when this change is to write the next group.
	lead chan struct{}
}

// change attaches and detaches virtual servers and returns when that is committed. Which caller writes a group changes
// with every group; once queued, a change waits for its outcome even when its ctx ends, since it may be written any time,
// but the write itself, bounded by the transport's time-outs, is not cut short by the end of one of its callers.
func (m *memberships) change(ctx context.Context, lbService string, attach, detach []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &membershipChange{attach: attach, detach: detach, done: make(chan struct{}), lead: make(chan struct{})}
	m.mu.Lock()
	if m.queues == nil {
		m.queues = map[string]*membershipQueue{}
	}
	q := m.queues[lbService]
	if q == nil {
		q = &membershipQueue{}
		m.queues[lbService] = q
	}
	q.waiting = append(q.waiting, c)
	leader := !q.busy
	q.busy = true
	m.mu.Unlock()

	if !leader {
		select {
		case <-c.done:
			return c.err
		case <-c.lead:
		}
	}
	m.mu.Lock()
	group := q.waiting
	q.waiting = nil
	m.mu.Unlock()

	m.commitGroup(context.WithoutCancel(ctx), lbService, group)

	m.mu.Lock()
	if len(q.waiting) > 0 {
		close(q.waiting[0].lead)
	} else {
		q.busy = false
		delete(m.queues, lbService)
	}
	m.mu.Unlock()
	for _, done := range group {
		close(done.done)
	}
	return c.err
}

// commitGroup writes a group; one that NSX refuses is split until only the offender fails.
func (m *memberships) commitGroup(ctx context.Context, lbService string, group []*membershipChange) {
	err := m.commit(ctx, lbService, group)
	refused := errors.Is(err, nsx.ErrInvalid) || errors.Is(err, nsx.ErrInUse)
	if refused && len(group) > 1 {
		half := len(group) / 2
		m.commitGroup(ctx, lbService, group[:half])
		m.commitGroup(ctx, lbService, group[half:])
		return
	}
	for _, c := range group {
		c.err = err
	}
}

// commitMembership is the write: one PUT of the load-balancer service's document, with our ids merged into whatever list
// it has.
func (b *Backend) commitMembership(ctx context.Context, lbService string, group []*membershipChange) error {
	r, ok := b.inv.LBService(lbService)
	if !ok {
		return fmt.Errorf("load-balancer service %s: %w", lbService, nsx.ErrNotFound)
	}
	raw, err := b.write(ctx, "/loadbalancer/services/"+url.PathEscape(lbService), r.Doc, func(d document) document {
		have := d.strings("virtual_server_ids")
		want := slices.Clone(have)
		for _, c := range group {
			want = slices.DeleteFunc(want, func(id string) bool { return slices.Contains(c.detach, id) })
			for _, id := range c.attach {
				if !slices.Contains(want, id) {
					want = append(want, id)
				}
			}
		}
		if slices.Equal(have, want) {
			return d
		}
		return d.with(func(d document) {
			if want == nil {
				want = []string{}
			}
			d.set("virtual_server_ids", want)
		})
	})
	if isNotFound(err) {
		b.inv.DeleteLBService(lbService)
	}
	if err != nil {
		return fmt.Errorf("writing the virtual servers of load-balancer service %s: %w", lbService, err)
	}
	return b.recordLBService(r, raw)
}

// recordLBService takes over a document of a known load-balancer service.
func (b *Backend) recordLBService(known nsx.LBServiceRecord, raw json.RawMessage) error {
	_, r, err := b.lbServiceRecord(raw)
	if err != nil {
		return err
	}
	r.Keys, r.Capacity = known.Keys, known.Capacity
	b.inv.PutLBService(r)
	return nil
}
