package dataplane

import "sync/atomic"

// counters are the live Counters of one object.
type counters struct {
	current, peak, total, refused, keptOut, dropped, in, out, requests atomic.Int64
}

// begin counts a connection that begins.
func (c *counters) begin() {
	now := c.current.Add(1)
	for peak := c.peak.Load(); now > peak && !c.peak.CompareAndSwap(peak, now); peak = c.peak.Load() {
	}
	c.total.Add(1)
}

// end counts the end of a connection that began.
func (c *counters) end() { c.current.Add(-1) }

func (c *counters) snapshot() Counters {
	return Counters{
		CurrentConnections: uint64(c.current.Load()),
		MaxConnections:     uint64(c.peak.Load()),
		TotalConnections:   uint64(c.total.Load()),
		RefusedConnections: uint64(c.refused.Load()),
		BytesIn:            uint64(c.in.Load()),
		BytesOut:           uint64(c.out.Load()),
		HTTPRequests:       uint64(c.requests.Load()),
		DroppedByAccess:    uint64(c.keptOut.Load()),
		DroppedByRules:     uint64(c.dropped.Load()),
	}
}
