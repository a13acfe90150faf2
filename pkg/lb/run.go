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
	// nodeWriteInterval is how far apart writes of the node set are at least. It doubles with every write that could not go
	// at once, up to maxNodeWriteInterval: a storm of changes is a few writes, and a single change never waits.
	nodeWriteInterval, maxNodeWriteInterval = time.Second, 4 * time.Second
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
	work.Go(func() { e.keepAudited(ctx) })
	e.keepNodes(ctx)
	work.Wait()
	return nil
}

// load reads the inventory until that succeeds; it returns false when ctx ended first.
func (e *Engine) load(ctx context.Context) bool {
	b := backoff{e: e}
	for {
		under := e.watchdog.begin("reading what the cluster has in NSX")
		err := e.o.Backend.Load(ctx)
		under.end()
		if err == nil {
			return true
		}
		e.mu.Lock()
		e.loadErr = err
		e.mu.Unlock()
		again := b.retry(err)
		failedMeanwhile(ctx, err, "Reading what the cluster has in NSX failed", again)
		if !e.sleep(ctx, again, nil) {
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

// recheckNodes lets the node set be written to the pools whose members somebody else has changed.
func (e *Engine) recheckNodes() {
	e.mu.Lock()
	e.recheck = true
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default: // it has been woken already and will see it
	}
}

// keepNodes writes the node set whenever it changes, until ctx ends.
func (e *Engine) keepNodes(ctx context.Context) {
	w := nodeWriter{
		e:       e,
		set:     NewNodeSet(e.o.Config.NotReadyGrace, e.o.Config.DrainTime),
		backoff: backoff{e: e},
	}
	for {
		under := e.watchdog.begin("the node set")
		next := w.step(ctx)
		under.end()
		if !e.sleep(ctx, next, e.wake) {
			return
		}
	}
}

// nodeWriter brings the node set to NSX: the first change at once, further ones after an interval that grows as long as
// they keep coming.
type nodeWriter struct {
	e       *Engine
	set     *NodeSet
	backoff backoff
	// written is what NSX has, nil when that is not known; notBefore is when it may be written again, which is interval
	// after the last write.
	written   []nsx.Node
	notBefore time.Time
	interval  time.Duration
}

// step does what is due and returns when there is something to do again, even without another list of nodes; the zero Time
// for never.
func (w *nodeWriter) step(ctx context.Context) time.Time {
	e := w.e
	e.mu.Lock()
	nodes, known, recheck := e.listed, e.known, e.recheck
	e.recheck = false
	e.mu.Unlock()
	if !known {
		return time.Time{}
	}
	if recheck && w.written != nil {
		w.recheck(ctx)
	}
	now := e.o.Clock.Now()
	view := w.set.Observe(nodes, now)
	for _, n := range view.Notices {
		e.o.Record(Event{Type: corev1.EventTypeWarning, Reason: n.Reason, Message: n.Message})
	}
	next := view.Next
	if w.differs(view.Nodes) && !now.Before(w.notBefore) {
		w.write(ctx, view.Nodes)
	}
	if w.differs(view.Nodes) {
		next = earlier(next, w.notBefore)
	}
	enabled := 0
	for _, n := range view.Nodes {
		if n.State == nsx.Enabled {
			enabled++
		}
	}
	e.mu.Lock()
	e.decided, e.enabled = true, enabled
	e.mu.Unlock()
	return next
}

// differs tells whether there is something to write. As long as there has been no node there is not: the pools keep what
// they have.
func (w *nodeWriter) differs(nodes []nsx.Node) bool {
	return !slices.EqualFunc(w.written, nodes, sameNode)
}

// recheck writes what was written before to pools that somebody else has changed since.
func (w *nodeWriter) recheck(ctx context.Context) {
	if err := w.e.o.Backend.SetNodes(ctx, w.written); err != nil {
		w.written = nil
		w.notBefore = w.backoff.retry(err)
		failedMeanwhile(ctx, err, "Writing the node set to NSX failed", w.notBefore)
	}
}

// write makes the nodes the members of the pools, and sets when the next write may be.
func (w *nodeWriter) write(ctx context.Context, nodes []nsx.Node) {
	e := w.e
	if quiet := e.o.Clock.Since(w.notBefore) >= nodeWriteInterval; quiet {
		w.interval = nodeWriteInterval
	} else {
		w.interval = min(2*w.interval, maxNodeWriteInterval)
	}
	if err := e.o.Backend.SetNodes(ctx, nodes); err != nil {
		w.written = nil // perhaps part of it has been
		w.notBefore = w.backoff.retry(err)
		failedMeanwhile(ctx, err, "Writing the node set to NSX failed", w.notBefore)
		return
	}
	w.written = nodes
	w.notBefore = e.o.Clock.Now().Add(w.interval)
	w.backoff.reset()
	enabled := 0
	for _, n := range nodes {
		if n.State == nsx.Enabled {
			enabled++
		}
	}
	klog.FromContext(ctx).Info("Wrote the node set to NSX", "nodes", len(nodes), "enabled", enabled)
}

// failedMeanwhile logs what nobody waits for, and will be tried again: not what failed because it is to end.
func failedMeanwhile(ctx context.Context, err error, what string, again time.Time) {
	if ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, what, "retryAt", again)
	}
}

// earlier is the first of two moments, where the zero Time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
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

// retry is the moment of the next try after one more failure: what the error asks for, but not sooner than after
// firstBackoff; or after a wait that doubles, jittered.
func (b *backoff) retry(err error) time.Time {
	now := b.e.o.Clock.Now()
	var given *nsx.RetryAt
	if errors.As(err, &given) {
		return now.Add(max(firstBackoff, given.At.Sub(now)))
	}
	b.last = min(max(firstBackoff, 2*b.last), lastBackoff)
	return now.Add(b.last + time.Duration(b.e.o.Random()*float64(b.last)/2))
}
