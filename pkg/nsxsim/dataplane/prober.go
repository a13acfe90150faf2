package dataplane

import (
	"context"
	"maps"
	"net/netip"
	"slices"
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
		err := probe(ctx, plane.dialFromSNAT, &pr.monitor, pr.target)
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
	return pr.target == target && pr.monitor.equal(m)
}

func (m *Monitor) equal(o *Monitor) bool {
	return m.ID == o.ID && m.Type == o.Type && m.Port == o.Port &&
		m.Interval == o.Interval && m.Timeout == o.Timeout && m.Fall == o.Fall && m.Rise == o.Rise &&
		m.Method == o.Method && m.URL == o.URL && maps.Equal(m.Headers, o.Headers) && m.Body == o.Body &&
		slices.Equal(m.StatusCodes, o.StatusCodes) && m.ResponseBody == o.ResponseBody &&
		m.Send == o.Send && m.Receive == o.Receive
}
