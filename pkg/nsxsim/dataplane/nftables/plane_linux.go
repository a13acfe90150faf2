package nftables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// Plane is a running load balancer in the kernel.
type Plane struct {
	opts    dataplane.Options
	health  *dataplane.Plane // checks all pools, and serves layer 7
	stale   atomic.Bool      // members' health is another than the kernel was told
	changed chan struct{}    // holds one token: stale became true
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	addresses *addresses
	marks     *marks
	ledger    *ledger

	wanted   []served
	disabled []served                   // their TCP connections live on
	faults   map[string]string          // by virtual server: why it is not served
	full     map[string]map[uint32]bool // by pool: members that have as many connections as they may

	committed ruleset
	failed    error // why the kernel does not have what is wanted
	by        owned // as committed
	survivors survivors
}

// New takes over nftables' tables named nsxsim, and serves nothing yet. Close it to have all undone. The error wraps
// ErrUnavailable when this process may not, or the kernel cannot.
func New(opts dataplane.Options) (*Plane, error) {
	if !forwards(families()[0]) {
		return nil, fmt.Errorf("this host does not forward IPv4 (sysctl net.ipv4.ip_forward=1): %w", ErrUnavailable)
	}
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.Housekeeping == 0 {
		opts.Housekeeping = time.Second
	}
	p := &Plane{
		opts: opts, changed: make(chan struct{}, 1),
		marks: newMarks(), ledger: newLedger(),
	}
	if err := p.begin(); err != nil {
		return nil, err
	}
	inner := opts
	inner.HealthChanged = func() {
		p.stale.Store(true)
		select {
		case p.changed <- struct{}{}:
		default:
		}
		if opts.HealthChanged != nil {
			opts.HealthChanged()
		}
	}
	p.health = dataplane.New(inner)
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(func() { p.keepUp(ctx) })
	return p, nil
}

// begin replaces what an earlier process left by what is there without virtual servers.
func (p *Plane) begin() error {
	var err error
	if p.addresses, err = newAddresses(); err == nil {
		p.committed = render(desired{snatAddress: p.opts.SNATAddress.Unmap()})
		if err = replaceBy(p.committed); err == nil {
			err = connections(func(connection) bool { return false })
		}
		if err != nil {
			err = errors.Join(err, p.addresses.close())
		}
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("the nftables data plane needs CAP_NET_ADMIN in its network namespace: %w: %w", ErrUnavailable, err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the kernel lacks what the nftables data plane needs: %w: %w", ErrUnavailable, err)
	}
	return err
}

// Apply makes cfg the desired state, as [dataplane.Plane.Apply] does: what it cannot serve is DOWN with a reason.
func (p *Plane) Apply(ctx context.Context, cfg dataplane.Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	valid, _ := cfg.Valid() // what is not valid is in the error of p.health
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return dataplane.ErrClosed
	}
	p.want(valid)
	inner := dataplane.Config{VirtualServers: slices.Clone(cfg.VirtualServers)}
	bound := map[string]bool{}
	for _, vs := range p.wanted {
		bound[vs.ID] = vs.userSpace
	}
	for i := range inner.VirtualServers {
		vs := &inner.VirtualServers[i]
		vs.Offloaded = !bound[vs.ID]
	}
	err := errors.Join(p.health.Apply(context.WithoutCancel(ctx), inner), p.sync())
	wanted := map[netip.Prefix]bool{}
	for _, vs := range p.wanted {
		for _, address := range addressesOf(vs.VirtualServer) {
			wanted[address] = true
		}
	}
	return errors.Join(err, p.addresses.releaseBut(wanted))
}

// keepUp follows the members' health, until ctx ends.
func (p *Plane) keepUp(ctx context.Context) {
	ticker := p.opts.Clock.NewTicker(p.opts.Housekeeping)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
			p.mu.Lock()
			err = p.follow()
			p.mu.Unlock()
		case <-ticker.C():
			p.mu.Lock()
			err = p.visit()
			if p.fill() || p.failed != nil {
				err = errors.Join(err, p.sync())
			}
			p.mu.Unlock()
		}
		if err != nil {
			p.opts.Logger.Error(err, "Following the health of members")
		}
	}
}

// follow brings the kernel to the members' health, if that has changed.
func (p *Plane) follow() error {
	if !p.stale.Swap(false) {
		return nil
	}
	return p.sync()
}

// Close cuts all connections, and removes the tables and the addresses.
func (p *Plane) Close() {
	p.cancel()
	p.running.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.closed = true
	p.health.Close()
	t := &transaction{}
	for _, f := range families() {
		t.table(f) // so that it is no error when somebody has deleted it
		t.noTable(f)
	}
	err := errors.Join(t.commit(), p.addresses.close(), connections(func(connection) bool { return false }))
	if err != nil {
		p.opts.Logger.Error(err, "Cleaning up")
	}
}
