package lb

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

const (
	// nodeWriteInterval is how far apart writes of the node set are at least, so that a storm of changes is a few writes.
	nodeWriteInterval = time.Second
	// The back-off after failures of Run's own calls.
	firstBackoff, lastBackoff = time.Second, 30 * time.Second
)

// Run reads the inventory, again and again until that succeeds, and then keeps the nodes in NSX as they should be, and
// NSX free of what no Service uses any more. It returns nil when ctx ends, with nothing of it running any more. It must be
// called once.
func (e *Engine) Run(ctx context.Context) error {
	if !e.load(ctx) {
		return nil
	}
	var work sync.WaitGroup
	work.Go(func() { e.keepTidy(ctx) })
	e.keepNodes(ctx)
	work.Wait()
	return nil
}

// load reads the inventory until that succeeds; it returns false when ctx ended first.
func (e *Engine) load(ctx context.Context) bool {
	b := backoff{e: e}
	for {
		err := e.o.Backend.Load(ctx)
		if err == nil {
			return true
		}
		e.mu.Lock()
		e.loadErr = err
		e.mu.Unlock()
		delay := b.next(err)
		klog.FromContext(ctx).Error(err, "Reading what the cluster has in NSX failed", "retryIn", delay)
		if !e.sleep(ctx, e.o.Clock.Now().Add(delay), nil) {
			return false
		}
	}
}

// NodesChanged takes the complete list of the cluster's Nodes, which it does not change. It does not block; of several
// lists in a row the last one counts. The first call must come when the list is known to be complete.
func (e *Engine) NodesChanged(nodes []*corev1.Node) {
	e.mu.Lock()
	e.listed, e.known = nodes, true
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default: // it has been woken already and will see this list
	}
}

// keepNodes writes the node set whenever it changes, until ctx ends: the first change at once, further ones not more often
// than every nodeWriteInterval.
func (e *Engine) keepNodes(ctx context.Context) {
	set := NewNodeSet(e.o.Config.NotReadyGrace, e.o.Config.DrainTime)
	b := backoff{e: e}
	var written []nsx.Node
	for {
		e.mu.Lock()
		nodes, known := e.listed, e.known
		e.mu.Unlock()
		var next, earliest time.Time
		if known {
			view := set.Observe(nodes, e.o.Clock.Now())
			for _, n := range view.Notices {
				e.o.Record(Event{Type: corev1.EventTypeWarning, Reason: n.Reason, Message: n.Message})
			}
			next = view.Next
			// As long as there has been no node, the pools keep what they have: EqualFunc takes nothing for nothing written.
			if !slices.EqualFunc(written, view.Nodes, sameNode) {
				err := e.writeNodes(ctx, view.Nodes)
				if err == nil {
					written = view.Nodes
					b.reset()
				} else {
					written = nil // perhaps part of it has been
					next = b.retry(err, next)
					klog.FromContext(ctx).Error(err, "Writing the node set to NSX failed", "retryAt", next)
				}
				earliest = e.o.Clock.Now().Add(nodeWriteInterval)
			}
			e.mu.Lock()
			e.decided = true
			e.mu.Unlock()
		}
		if !e.sleep(ctx, next, e.wake) || !e.sleep(ctx, earliest, nil) {
			return
		}
	}
}

// writeNodes makes the nodes the members of the pools.
func (e *Engine) writeNodes(ctx context.Context, nodes []nsx.Node) error {
	if err := e.o.Backend.SetNodes(ctx, nodes); err != nil {
		return err
	}
	enabled := 0
	for _, n := range nodes {
		if n.State == nsx.Enabled {
			enabled++
		}
	}
	klog.FromContext(ctx).Info("Wrote the node set to NSX", "nodes", len(nodes), "enabled", enabled)
	return nil
}

func sameNode(a, b nsx.Node) bool {
	return a.Name == b.Name && a.State == b.State && a.InGroup == b.InGroup && slices.Equal(a.Addresses, b.Addresses)
}

// sleep waits until a moment, or until something is received, or until ctx ends, when it returns false. The zero moment
// means: for ever, if there is something to receive, else not at all.
func (e *Engine) sleep(ctx context.Context, until time.Time, wake <-chan struct{}) bool {
	var timeout <-chan time.Time
	switch {
	case until.IsZero() && wake == nil:
		return ctx.Err() == nil
	case !until.IsZero():
		timer := e.o.Clock.NewTimer(max(0, until.Sub(e.o.Clock.Now())))
		defer timer.Stop()
		timeout = timer.C()
	}
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timeout:
	}
	return true
}

// backoff is how long to wait after failures in a row.
type backoff struct {
	e    *Engine
	last time.Duration
}

func (b *backoff) reset() { b.last = 0 }

// next is the wait after one more failure: what the error asks for, or doubling and jittered.
func (b *backoff) next(err error) time.Duration {
	var given *nsx.RetryAt
	if errors.As(err, &given) {
		return max(0, given.At.Sub(b.e.o.Clock.Now()))
	}
	b.last = min(max(firstBackoff, 2*b.last), lastBackoff)
	return b.last + time.Duration(b.e.o.Random()*float64(b.last)/2)
}

// retry is the moment of the next try, or the other moment if that is earlier.
func (b *backoff) retry(err error, other time.Time) time.Time {
	at := b.e.o.Clock.Now().Add(b.next(err))
	if !other.IsZero() && other.Before(at) {
		return other
	}
	return at
}
