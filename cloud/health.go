package cloud

import (
	"context"
	"fmt"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
)

const (
	// pingAfter is how long NSX or a vCenter may have answered nothing before it is asked something small, so that an outage
	// shows also while there is nothing to do.
	pingAfter = 30 * time.Second
	// pingEvery is how often that is looked at.
	pingEvery = 10 * time.Second
	// stuckAfter is how long something may make no progress besides waiting for NSX.
	stuckAfter = 10 * time.Minute
)

// Check is one condition of health.
type Check struct {
	Name string
	// Fails says what is wrong; nil when nothing is.
	Fails func() error
}

// Readiness are the checks that tell whether the controller can do its work now. They call nobody. A process that is not the
// leader has nothing to do, and is ready.
func (c *Cloud) Readiness() []Check {
	whenRunning := func(check func(*running) error) func() error {
		return func() error {
			if c.client.Load() == nil {
				return nil // not the leader
			}
			if r := c.running.Load(); r != nil {
				return check(r)
			}
			return errStarting
		}
	}
	checks := []Check{
		{"nsx", whenRunning(func(r *running) error { return r.transport.Reach().Check() })},
		{"inventory", whenRunning(func(r *running) error { return r.engine.InventoryKnown() })},
		{"nodes", whenRunning(func(r *running) error { return r.engine.NodesKnown() })},
		{"writes", whenRunning(func(r *running) error { return r.transport.WritesOpen() })},
	}
	if c.vms != nil {
		checks = append(checks, Check{"vcenter", whenRunning(func(*running) error { return c.vms.Check() })})
	}
	return checks
}

// Alive is nil as long as the process is not stuck, whatever becomes of NSX, vCenter or the API server: a restart would help
// against the error, and against nothing else.
func (c *Cloud) Alive() error {
	if err := c.ended.Load(); err != nil && c.ctx.Err() == nil {
		return fmt.Errorf("load balancing has ended: %w", *err)
	}
	if r := c.running.Load(); r != nil {
		// A call is sent up to four times, and each time may take the whole time-out.
		return r.engine.Stuck(stuckAfter + 4*c.o.Config.NSX.RequestTimeout)
	}
	return nil
}

// errNotLeader: this process has nothing to do; the leader has.
var errNotLeader = fmt.Errorf("%w: this process is not the leader", lb.ErrNotLoaded)

// Audit compares NSX with what Services want, now. An empty mode is the config's; Off is as Report.
func (c *Cloud) Audit(ctx context.Context, mode config.AuditMode) (lb.AuditReport, error) {
	r := c.running.Load()
	if r == nil {
		return lb.AuditReport{}, errNotLeader
	}
	if mode == "" {
		mode = c.o.Config.LoadBalancer.AuditMode
	}
	return r.engine.Audit(ctx, mode)
}

// keepPinging asks NSX and the vCenters something small when they have answered nothing for a while, until ctx ends.
func (c *Cloud) keepPinging(ctx context.Context, r *running, backend *manager.Backend) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		if r.transport.Reach().Idle() >= pingAfter {
			_ = backend.Ping(transport.WithPriority(ctx, transport.Background)) // the transport takes note of how it went
		}
		if c.vms != nil {
			c.vms.Ping(ctx, pingAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
