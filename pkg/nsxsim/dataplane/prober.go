package dataplane

import (
	"context"
	"net/netip"
	"reflect"
)

// prober runs one monitor against one member.
type prober struct {
	pool    *pool
	member  *member
	monitor Monitor
	target  netip.AddrPort
	cancel  context.CancelFunc
	verdict verdict // guarded by pool.mu
}

// run probes at once and then every interval, until ctx ends.
func (pr *prober) run(ctx context.Context) {
	plane := pr.pool.plane
	for {
		next := plane.clock.NewTimer(pr.monitor.Interval)
		err := probe(ctx, plane.dialFromSNAT, plane.opts.SNATAddress, &pr.monitor, pr.target)
		if ctx.Err() != nil {
			next.Stop()
			return
		}
		pr.pool.record(pr, err)
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-next.C():
		}
	}
}

// sameAs tells whether the prober does what is wanted.
func (pr *prober) sameAs(m *Monitor, target netip.AddrPort) bool {
	return pr.target == target && reflect.DeepEqual(&pr.monitor, m)
}
