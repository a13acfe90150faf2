package dataplane

import (
	"errors"
	"time"
)

// verdict is what one monitor makes of one member: a state machine fed with the outcomes of probes.
type verdict struct {
	up      bool
	settled bool      // it was UP before (or is to be taken so): Rise counts
	run     int       // outcomes in a row that speak against up
	cause   string    // the last failure's, until it is up and well
	checked time.Time // end of the last probe
	// unprobed: the host cannot make the probe; it counts as a success.
	unprobed bool
}

// newVerdict is the verdict before the first probe.
func newVerdict(o *Options) verdict {
	v := verdict{up: o.InitiallyUp, settled: o.InitiallyUp || o.RiseFromStart}
	if !v.up {
		v.cause = "not checked yet"
	}
	return v
}

// record takes the outcome of a probe that ended at now.
func (v *verdict) record(m *Monitor, err error, now time.Time) {
	v.checked = now
	if v.unprobed = errors.Is(err, errUnprobed); v.unprobed {
		err = nil
	}
	switch {
	case (err == nil) == v.up:
		v.run = 0
	case v.run+1 < v.needed(m):
		v.run++
	default:
		v.up, v.run = !v.up, 0
		v.settled = v.settled || v.up
	}
	switch {
	case err != nil:
		v.cause = err.Error()
	case v.up:
		v.cause = ""
	}
}

// needed is the number of outcomes in a row that turn the verdict.
func (v *verdict) needed(m *Monitor) int {
	switch {
	case v.up:
		return m.Fall
	case v.settled:
		return m.Rise
	default:
		return 1
	}
}
