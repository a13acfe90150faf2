package dataplane

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"
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
	// DisabledKeepsConnections: the connections of a member that becomes DISABLED live on, as NSX's reference has
	// it, where GRACEFUL_DISABLED differs only for persisted clients. Otherwise they are reset, which shows up
	// those who disable members that they should drain.
	DisabledKeepsConnections bool
	// DialTimeout for one connection to a member; 0: 3 s.
	DialTimeout time.Duration
	// DialAttempts is the number of members tried for one connection; 0: 3.
	DialAttempts int
	// MaxFlows at once of one UDP port; beyond it the flow that was idle longest is forgotten. 0: 4096.
	MaxFlows int
	// Housekeeping is how often unbound ports are retried, and idle connections and expired persistence
	// looked for; 0: 1 s.
	Housekeeping time.Duration
	// HealthChanged, if given, is called when probes have changed a member's health, before Status tells of it. It must not
	// wait, nor call the Plane.
	HealthChanged func()
	// Clock for intervals and expiry; nil: the real one. Deadlines of network calls are always real.
	Clock clock.WithTicker
	// Logger for state changes; the zero value logs nothing.
	Logger klog.Logger
}

// ErrClosed is the error of Apply after Close.
var ErrClosed = errors.New("data plane is closed")

// Plane is a running load balancer.
type Plane struct {
	opts      Options
	clock     clock.WithTicker
	segments  sync.Pool // *[]byte for TCP
	datagrams sync.Pool // *[]byte of maxDatagram
	garbler   garbler   // of cookies

	ctx     context.Context // ends with Close, and with it all that runs
	cancel  context.CancelFunc
	running sync.WaitGroup // all goroutines

	mu             sync.Mutex // orders Apply and Close; nothing on the data path takes it
	virtualServers []*virtualServer
	pools          []*pool
	byID           map[string]*pool
	shared         map[string]*stickiness // by Persistence.Shared
}

// New returns a Plane that serves nothing yet. Close it to end its goroutines.
func New(opts Options) *Plane {
	opts.DialTimeout = cmp.Or(opts.DialTimeout, 3*time.Second)
	opts.DialAttempts = cmp.Or(opts.DialAttempts, 3)
	opts.MaxFlows = cmp.Or(opts.MaxFlows, 4096)
	opts.Housekeeping = cmp.Or(opts.Housekeeping, time.Second)
	opts.SNATAddress = opts.SNATAddress.Unmap()
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	p := &Plane{
		opts: opts, clock: opts.Clock, garbler: newGarbler(),
		segments:  sync.Pool{New: func() any { return new(make([]byte, 32<<10)) }},
		datagrams: sync.Pool{New: func() any { return new(make([]byte, maxDatagram)) }},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	ticker := p.clock.NewTicker(opts.Housekeeping)
	p.running.Go(func() { p.keepHouse(ticker) })
	return p
}

// Apply makes cfg the desired state, at once: when it returns, ports that are not wanted are free, and those that
// are wanted are bound or will be retried, which their status tells and is no error. What does not differ is not
// touched. Each virtual server changes in one step.
//
// A virtual server that cannot be served as configured is DOWN with a reason; the error, which wraps ErrInvalid,
// names all of these, and everything else is applied. After Close the error is ErrClosed.
func (p *Plane) Apply(ctx context.Context, cfg Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	all, invalid := normalize(cfg)
	wanted := make(map[string]desired, len(all))
	for _, d := range all {
		wanted[d.ID] = d
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return ErrClosed
	}
	// What is not wanted goes first, as it may be in the way of what is.
	running := map[string]*virtualServer{}
	for _, vs := range p.virtualServers {
		vs.narrow(wanted[vs.id]) // closes it, if it is not wanted
		running[vs.id] = vs
	}
	unused := p.applyPools(all)
	p.share(all)
	p.virtualServers = nil
	for _, d := range all {
		vs := running[d.ID]
		if vs == nil {
			vs = newVirtualServer(p, d.ID)
		}
		p.virtualServers = append(p.virtualServers, vs)
		vs.apply(ctx, d)
	}
	for _, pool := range unused {
		pool.close()
	}
	return invalid
}

// applyPools makes the pools of all the desired state. Those that it returns are not wanted any more, and still to be
// closed.
func (p *Plane) applyPools(all []desired) (unused map[string]*pool) {
	unused = p.byID
	p.pools, p.byID = nil, map[string]*pool{}
	inUse := map[string]bool{}
	for _, d := range all {
		for _, cfg := range d.pools() {
			inUse[cfg.ID] = inUse[cfg.ID] || d.fault == nil && !d.Disabled
		}
	}
	for _, d := range all {
		for _, cfg := range d.pools() {
			if p.byID[cfg.ID] != nil {
				continue
			}
			pool := unused[cfg.ID]
			if pool == nil {
				pool = newPool(p, cfg.ID)
			}
			delete(unused, pool.id)
			p.pools = append(p.pools, pool)
			p.byID[pool.id] = pool
			pool.apply(cfg, inUse[pool.id])
		}
	}
	return unused
}

// poolOf gives the running pool of a Config's; nil for nil.
func (p *Plane) poolOf(cfg *Pool) *pool {
	if cfg == nil {
		return nil
	}
	return p.byID[cfg.ID]
}

// share keeps the tables of persistence that virtual servers share, and makes those that are new.
func (p *Plane) share(all []desired) {
	before := p.shared
	p.shared = map[string]*stickiness{}
	for _, d := range all {
		for _, t := range d.tables() {
			if t.Shared == "" || p.shared[t.Shared] != nil {
				continue
			}
			table := before[t.Shared]
			if table == nil {
				table = newStickiness()
			}
			table.set(t)
			p.shared[t.Shared] = table
		}
	}
}

// keepHouse does what time asks for, until Close.
func (p *Plane) keepHouse(ticker clock.Ticker) {
	defer ticker.Stop()
	var sampled time.Time
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-ticker.C():
		}
		now := p.clock.Now()
		servers, pools, tables := p.serving()
		for _, vs := range servers {
			vs.keepHouse(now)
		}
		for _, t := range tables {
			t.expire(now)
		}
		if now.Sub(sampled) >= time.Second {
			sampled = now
			for _, vs := range servers {
				vs.counters.sample(now)
			}
			for _, pool := range pools {
				pool.sample(now)
			}
		}
	}
}

func (p *Plane) serving() ([]*virtualServer, []*pool, map[string]*stickiness) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.virtualServers), slices.Clone(p.pools), p.shared
}

// Status of all that the last Config names.
func (p *Plane) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var st Status
	pools := map[string]*PoolStatus{}
	for _, pool := range p.pools {
		st.Pools = append(st.Pools, pool.status())
	}
	for i := range st.Pools {
		pools[st.Pools[i].ID] = &st.Pools[i]
	}
	for _, vs := range p.virtualServers {
		st.VirtualServers = append(st.VirtualServers, vs.status(pools))
	}
	return st
}

// Close closes all listeners, resets all connections, and waits for all goroutines to end.
func (p *Plane) Close() {
	p.mu.Lock()
	p.cancel()
	for _, vs := range p.virtualServers {
		vs.close()
	}
	for _, pool := range p.pools {
		pool.close()
	}
	p.virtualServers, p.pools = nil, nil
	p.mu.Unlock()
	p.running.Wait()
}
