package nftables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// Plane is a running load balancer in the kernel.
type Plane struct {
	opts    dataplane.Options
	health  *dataplane.Plane // checks all pools, and serves layer 7
	changed chan struct{}    // holds one token: members' health is another
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
		t := &transaction{}
		empty := render(desired{snatAddress: p.opts.SNATAddress.Unmap()})
		for _, f := range families() {
			t.table(f)
			t.noTable(f)
			t.table(f)
		}
		for _, c := range diff(ruleset{}, empty) {
			t.change(c)
		}
		if err = t.commit(); err == nil {
			err = connections(func(connection) bool { return false })
		}
		if err != nil {
			err = errors.Join(err, p.addresses.close())
		}
		p.committed = empty
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
	valid, _ := cfg.Valid()
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
	err := p.health.Apply(ctx, inner)
	if errors.Is(err, ctx.Err()) && ctx.Err() != nil {
		return err
	}
	err = errors.Join(err, p.sync())
	wanted := map[netip.Prefix]bool{}
	for _, vs := range p.wanted {
		for _, address := range addressesOf(vs.VirtualServer) {
			wanted[address] = true
		}
	}
	return errors.Join(err, p.addresses.releaseBut(wanted))
}

// want decides which virtual servers can be served, and claims their addresses.
func (p *Plane) want(valid dataplane.Config) {
	p.wanted, p.disabled, p.faults = nil, nil, map[string]string{}
	taken := map[service]string{}
	claims := map[netip.Prefix]error{}
	router := map[uint8]bool{}
	for _, f := range families() {
		router[f.number] = forwards(f)
	}
next:
	for _, vs := range valid.VirtualServers {
		if vs.Disabled {
			p.disabled = append(p.disabled, served{vs, vs.HTTP != nil})
			continue
		}
		for _, port := range vs.Ports {
			if other, ok := taken[serviceOf(vs, port)]; ok {
				p.faults[vs.ID] = fmt.Sprintf("%v port %d is served by %s", vs.Address, port.Listen, other)
				continue next
			}
		}
		if vs.Address.Is6() && !router[unix.NFPROTO_IPV6] {
			p.faults[vs.ID] = "this host does not forward IPv6"
			continue
		}
		for _, address := range addressesOf(vs) {
			if _, ok := claims[address]; !ok {
				claims[address] = p.addresses.claim(address)
			}
			if err := claims[address]; err != nil {
				p.faults[vs.ID] = err.Error()
				continue next
			}
		}
		for _, port := range vs.Ports {
			taken[serviceOf(vs, port)] = vs.ID
		}
		p.wanted = append(p.wanted, served{vs, vs.HTTP != nil})
	}
}

// addressesOf gives all that a virtual server has this host answer for.
func addressesOf(vs dataplane.VirtualServer) []netip.Prefix {
	all := []netip.Prefix{netip.PrefixFrom(vs.Address, vs.Address.BitLen())}
	for _, pool := range poolsOf(vs) {
		if pool.SNAT != dataplane.Transparent {
			all = append(all, pool.SNATAddresses...)
		}
	}
	return all
}

// sync brings the kernel to what is wanted, given the health of members.
func (p *Plane) sync() error {
	d := desired{virtualServers: p.wanted, pools: map[string]choice{}, snatAddress: p.opts.SNATAddress.Unmap()}
	states := map[string][]dataplane.MemberStatus{}
	for _, s := range p.health.Status().Pools {
		states[s.ID] = s.Members
	}
	known := map[netip.AddrPort]bool{}
	all := slices.Concat(p.disabled, p.wanted)
	for _, vs := range all {
		if vs.userSpace {
			continue
		}
		for _, pool := range poolsOf(vs.VirtualServer) {
			if _, ok := d.pools[pool.ID]; ok {
				continue
			}
			d.pools[pool.ID] = choose(pool, states[pool.ID], p.full[pool.ID], p.marks, p.opts.DisabledKeepsConnections)
			for _, m := range pool.Members {
				known[netip.AddrPortFrom(m.Address, m.Port)] = true
			}
		}
	}
	rules := render(d)
	survivors := surviving(p.survivors, all, d.pools, p.marks)
	by := ownedBy(all, survivors)
	var uncounted error
	if by.differs(p.by) {
		uncounted = p.ledger.look(p.by) // what was counted until now is the former owners'
	}
	t := &transaction{}
	for _, c := range diff(p.committed, rules) {
		t.change(c)
	}
	if p.failed = t.commit(); p.failed != nil {
		return p.failed
	}
	p.ledger.forget(by.services)
	nothingToCut := survivors.include(p.survivors)
	p.committed, p.by, p.survivors = rules, by, survivors
	p.marks.keep(known)
	if nothingToCut {
		return uncounted // to look at all connections takes its time
	}
	return errors.Join(uncounted, p.visit())
}

// ownedBy tells whose the services are of virtual servers; of two with the same one, it is the last one's.
func ownedBy(all []served, s survivors) owned {
	by := owned{services: map[service]owner{}, pools: s.tcp, marks: s.marks}
	for _, vs := range all {
		if vs.userSpace {
			continue
		}
		o := owner{virtualServer: vs.ID}
		if vs.Pool != nil {
			o.pool = vs.Pool.ID
		}
		if vs.SorryPool != nil {
			o.sorryPool = vs.SorryPool.ID
		}
		for _, port := range vs.Ports {
			by.services[serviceOf(vs.VirtualServer, port)] = o
		}
	}
	return by
}

// differs tells whether a service has another owner than before.
func (by owned) differs(before owned) bool {
	for s, o := range before.services {
		if by.services[s] != o {
			return true
		}
	}
	return false
}

// visit cuts the connections that are not to live on, and counts the others.
func (p *Plane) visit() error {
	open := map[counted]uint64{}
	err := connections(func(c connection) bool {
		if !p.survivors.has(c) {
			return false
		}
		if c.open {
			open[counted{c.service, c.mark}]++
		}
		return true
	})
	p.ledger.current(open, p.by)
	return err
}

// fill takes note of the members that have as many connections as they may, and tells whether they are others than before.
func (p *Plane) fill() bool {
	full := map[string]map[uint32]bool{}
	for _, vs := range p.wanted {
		for _, pool := range poolsOf(vs.VirtualServer) {
			for _, m := range pool.Members {
				key := netip.AddrPortFrom(m.Address, m.Port)
				c := p.ledger.members[pool.ID][key]
				if m.MaxConnections == 0 || c == nil || c.CurrentConnections < uint64(m.MaxConnections) {
					continue
				}
				if full[pool.ID] == nil {
					full[pool.ID] = map[uint32]bool{}
				}
				full[pool.ID][p.marks.of(key)] = true
			}
		}
	}
	changed := !maps.EqualFunc(full, p.full, maps.Equal[map[uint32]bool])
	p.full = full
	return changed
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
			err = p.sync()
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

// Status of all that the last Config names.
func (p *Plane) Status() dataplane.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.health.Status()
	if p.closed {
		return st
	}
	if err := errors.Join(p.ledger.look(p.by), p.visit()); err != nil {
		p.opts.Logger.Error(err, "Reading counters")
	}
	byID := map[string]served{}
	for _, vs := range p.wanted {
		byID[vs.ID] = vs
	}
	for i := range st.VirtualServers {
		s := &st.VirtualServers[i]
		if fault := p.faults[s.ID]; fault != "" {
			s.State, s.Reason = dataplane.StateDown, fault
			s.Listeners = []dataplane.ListenerStatus{{Error: fault}}
			continue
		}
		vs, ok := byID[s.ID]
		if !ok || vs.userSpace {
			continue
		}
		for _, port := range vs.Ports {
			l := dataplane.ListenerStatus{Port: port.Listen}
			if p.failed != nil && p.by.services[serviceOf(vs.VirtualServer, port)].virtualServer != vs.ID {
				s.State, s.Reason = dataplane.StateDown, p.failed.Error()
				l.Error = s.Reason
			}
			s.Listeners = append(s.Listeners, l)
		}
		add(&s.Counters, p.ledger.virtualServers[s.ID])
	}
	for i := range st.Pools {
		s := &st.Pools[i]
		add(&s.Counters, p.ledger.pools[s.ID])
		for j := range s.Members {
			m := &s.Members[j]
			add(&m.Counters, p.ledger.members[s.ID][netip.AddrPortFrom(m.Address, m.Port)])
		}
	}
	return st
}

func add(to *dataplane.Counters, more *dataplane.Counters) {
	if more == nil {
		return
	}
	to.CurrentConnections += more.CurrentConnections
	to.MaxConnections += more.MaxConnections
	to.TotalConnections += more.TotalConnections
	to.RefusedConnections += more.RefusedConnections
	to.BytesIn += more.BytesIn
	to.BytesOut += more.BytesOut
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
