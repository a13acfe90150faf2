package dataplane

import (
	"sync"
	"sync/atomic"
	"time"
)

// counters are the live Counters of one object.
type counters struct {
	current, peak, total, refused, keptOut, dropped, in, out, packetsIn, packetsOut, requests atomic.Int64

	mu      sync.Mutex
	samples []sample // the last ones, oldest first
}

// sample is what was counted at a time.
type sample struct {
	at     time.Time
	counts Counters
}

// rateSamples are so many that they span the five intervals of a second over which NSX averages.
const rateSamples = 6

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
	all := c.counts()
	c.mu.Lock()
	defer c.mu.Unlock()
	all.Rates = ratesOf(c.samples)
	return all
}

func (c *counters) counts() Counters {
	return Counters{
		CurrentConnections: uint64(c.current.Load()),
		MaxConnections:     uint64(c.peak.Load()),
		TotalConnections:   uint64(c.total.Load()),
		RefusedConnections: uint64(c.refused.Load()),
		BytesIn:            uint64(c.in.Load()),
		BytesOut:           uint64(c.out.Load()),
		PacketsIn:          uint64(c.packetsIn.Load()),
		PacketsOut:         uint64(c.packetsOut.Load()),
		HTTPRequests:       uint64(c.requests.Load()),
		DroppedByAccess:    uint64(c.keptOut.Load()),
		DroppedByRules:     uint64(c.dropped.Load()),
	}
}

// sample notes what was counted until now, for the rates.
func (c *counters) sample(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.samples) == rateSamples {
		c.samples = append(c.samples[:0], c.samples[1:]...)
	}
	c.samples = append(c.samples, sample{now, c.counts()})
}

// ratesOf averages over the time that the samples span.
func ratesOf(samples []sample) Rates {
	if len(samples) < 2 {
		return Rates{}
	}
	first, last := samples[0], samples[len(samples)-1]
	span := last.at.Sub(first.at).Seconds()
	if span <= 0 {
		return Rates{}
	}
	rate := func(of func(*Counters) uint64) float64 { return float64(of(&last.counts)-of(&first.counts)) / span }
	return Rates{
		BytesIn:     rate(func(c *Counters) uint64 { return c.BytesIn }),
		BytesOut:    rate(func(c *Counters) uint64 { return c.BytesOut }),
		PacketsIn:   rate(func(c *Counters) uint64 { return c.PacketsIn }),
		PacketsOut:  rate(func(c *Counters) uint64 { return c.PacketsOut }),
		Connections: rate(func(c *Counters) uint64 { return c.TotalConnections }),
		Requests:    rate(func(c *Counters) uint64 { return c.HTTPRequests }),
	}
}
