package world

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// In fake time, everything that was woken by the same event goes on at the same moment, in an order that the Go scheduler
// chooses: all Services whose group commit has ended, all calls of a list of everything, all that wait for an IP pool to be
// read. What follows gives each of them a moment of its own before it can meet the others at a lock, a queue or a counter,
// so that the same play brings the same order of requests.

// turnTime bounds the time that something waits for its turn: short against all other times, and long enough for no two to
// have the same.
const turnTime = time.Millisecond

// turn waits for the moment of somebody who goes on now; less long when ctx ends.
func (c *Cluster) turn(ctx context.Context, who string) {
	timer := time.NewTimer(1 + time.Duration(c.w.random(c.Name+" "+who)*float64(turnTime)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// patient is the context in which something is done for a Service. Who is about to go on asks it for an error, and waits for a
// turn by that.
type patient struct {
	context.Context
	c   *Cluster
	who string
}

// Err implements context.Context. It must not be called under a sync.Mutex.
func (p patient) Err() error {
	p.c.turn(p.Context, p.who)
	return p.Context.Err()
}

// queued is the context of a request. Who is about to wait asks for its end, and waits for a turn by that: calls that the
// transport lets go at the same moment, when a pause is over, log in one after the other.
type queued struct {
	context.Context
	c   *Cluster
	who string
}

// Done implements context.Context. It must not be called under a sync.Mutex.
func (q queued) Done() <-chan struct{} {
	q.c.turn(q.Context, q.who)
	return q.Context.Done()
}

// early is the way of the controller's requests to the transport.
type early struct {
	c    *Cluster
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (e early) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body) // it is in memory
		r.Body.Close()
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	caller, _ := r.Context().Value(callerKey{}).(string)
	ctx := queued{r.Context(), e.c, caller + " " + r.Method + " " + r.URL.String() + " " + string(body)}
	e.c.turn(r.Context(), ctx.who)
	return e.next.RoundTrip(r.WithContext(ctx))
}

// callerKey is that of the context's value which says for what a request is made.
type callerKey struct{}

// orderly is the backend as the engine calls it.
type orderly struct {
	nsx.Backend
	c *Cluster
}

// in calls the backend, with a turn before and after.
func (o orderly) in(ctx context.Context, who string, call func(context.Context) error) error {
	o.c.turn(ctx, who)
	defer o.c.turn(ctx, who)
	return call(context.WithValue(ctx, callerKey{}, who))
}

func (o orderly) Load(ctx context.Context) error {
	return o.in(ctx, "Load", o.Backend.Load)
}

func (o orderly) Settle(ctx context.Context, owner nsx.Owner) error {
	return o.in(ctx, "Settle "+owner.UID, func(ctx context.Context) error { return o.Backend.Settle(ctx, owner) })
}

func (o orderly) Apply(ctx context.Context, i nsx.Intent) error {
	return o.in(ctx, "Apply "+i.Service().UID, func(ctx context.Context) error { return o.Backend.Apply(ctx, i) })
}

func (o orderly) SetNodes(ctx context.Context, nodes []nsx.Node) error {
	return o.in(ctx, "SetNodes", func(ctx context.Context) error { return o.Backend.SetNodes(ctx, nodes) })
}

func (o orderly) Tidy(ctx context.Context) error {
	return o.in(ctx, "Tidy", o.Backend.Tidy)
}

func (o orderly) Reclaim(ctx context.Context, pool string, addr netip.Addr) error {
	return o.in(ctx, "Reclaim", func(ctx context.Context) error { return o.Backend.Reclaim(ctx, pool, addr) })
}

func (o orderly) SharedDrift(ctx context.Context) (found []nsx.Finding) {
	_ = o.in(ctx, "SharedDrift", func(ctx context.Context) error { found = o.Backend.SharedDrift(ctx); return nil })
	return found
}

func (o orderly) PoolHealth(ctx context.Context) (health []nsx.PoolHealth, err error) {
	err = o.in(ctx, "PoolHealth", func(ctx context.Context) error { health, err = o.Backend.PoolHealth(ctx); return err })
	return health, err
}

func (o orderly) RefreshAddresses(ctx context.Context, pool string) error {
	return o.in(ctx, "RefreshAddresses "+pool, func(ctx context.Context) error { return o.Backend.RefreshAddresses(ctx, pool) })
}

func (o orderly) RefreshRoom(ctx context.Context) error {
	return o.in(ctx, "RefreshRoom", o.Backend.RefreshRoom)
}
