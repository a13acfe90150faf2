package dataplane

import (
	"context"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"
)

// Options of a Plane. The zero value is usable.
type Options struct {
	// SNATAddress is the source of probes and of connections to AutoMap pools, where it is of the member's
	// address family. Zero: the host chooses.
	SNATAddress netip.Addr
	// InitiallyUp: a new member is UP until its monitors fail Fall times. Otherwise it is DOWN until they
	// succeed: once, or Rise times with RiseFromStart.
	InitiallyUp   bool
	RiseFromStart bool
	// DialTimeout for one connection to a member; 0: 3 s.
	DialTimeout time.Duration
	// DialAttempts is the number of members tried for one connection; 0: 3.
	DialAttempts int
	// MaxFlows at once of one UDP port; beyond it the flow that was idle longest is forgotten. 0: 4096.
	MaxFlows int
	// Housekeeping is how often unbound ports are retried, and idle connections and expired persistence
	// looked for; 0: 1 s.
	Housekeeping time.Duration
	// Clock for intervals and expiry; nil: the real one. Deadlines of network calls are always real.
	Clock clock.WithTicker
	// Logger for state changes; the zero value logs nothing.
	Logger logr.Logger
}

// Plane is a running load balancer.
type Plane struct{}

// New returns a Plane that serves nothing yet. Close it to end its goroutines.
func New(Options) *Plane { return &Plane{} }

// Apply makes cfg the desired state.
func (p *Plane) Apply(ctx context.Context, cfg Config) error { return nil }

// Status of all that the last Config names.
func (p *Plane) Status() Status { return Status{} }

// Close ends everything.
func (p *Plane) Close() {}
