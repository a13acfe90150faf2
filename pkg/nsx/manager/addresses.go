package manager

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	nsxt "github.com/vmware/go-vmware-nsxt"
	sdkmanager "github.com/vmware/go-vmware-nsxt/manager"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// refusalsUntilAny is how many refusals in a row of addresses that are in nobody's hands show that a manager takes no
// chosen addresses at all. One may come from an address that was released a moment ago.
const refusalsUntilAny = 2

// lostRelease is a RELEASE whose outcome is unknown. It is not repeated before two sightings far enough apart show the
// address allocated and recorded by us alone: in between it may have become somebody else's.
type lostRelease struct {
	// sighted is when the address was first seen allocated after the lost RELEASE; zero before that.
	sighted time.Time
}

// spareAddress is an address that ALLOCATE gave and no virtual server records.
type spareAddress struct {
	addr netip.Addr
	// owner is the Service that a virtual server with this address may have been made for; empty when there is surely none.
	owner string
	// since is when it became spare.
	since time.Time
}

// spareTime is how long a spare address waits for somebody to take it. In a full IP pool nobody does: a plan that finds no
// free address does not get as far as ALLOCATE.
const spareTime = 5 * time.Minute

// claimed tells whether the address of a Service is allocated and known to be its own.
func (b *Backend) claimed(o nsx.Owner, addr netip.Addr) bool {
	return b.lostRelease(addr) == nil && slices.ContainsFunc(b.inv.Observe(o).VirtualServers, func(v nsx.ObservedVirtualServer) bool {
		return v.Address == addr && v.Claim == nsx.Claimed
	})
}

// attachedAt tells whether a virtual server of the Service carries traffic on the address.
func (b *Backend) attachedAt(o nsx.Owner, addr netip.Addr) bool {
	return slices.ContainsFunc(b.inv.Observe(o).VirtualServers, func(v nsx.ObservedVirtualServer) bool {
		return v.Address == addr && v.Attached()
	})
}

// claim makes the address of a written record ours: it allocates it, or proves that it is. It returns the address that is
// ours then, which may be another than the record's unless that is fixed.
func (b *Backend) claim(ctx context.Context, p nsx.Publish, v nsx.VirtualServer, fixed bool) (netip.Addr, error) {
	o := p.Owner
	if b.lostRelease(v.Address) != nil {
		// We were about to give it back, and do not know whether we did.
		pool, _ := b.inv.IPPool(v.IPPool)
		if err := b.settleRelease(ctx, o, pool, v.Address); err != nil {
			return netip.Addr{}, err
		}
	}
	claim := nsx.Unclaimed
	attached := false
	for _, have := range b.inv.Observe(o).VirtualServers {
		if have.ID == v.ID {
			claim, attached = have.Claim, have.Attached()
		}
	}
	switch claim {
	case nsx.Claimed:
		return v.Address, nil
	case nsx.Refused:
		return netip.Addr{}, fmt.Errorf("address %s for %s: %w", v.Address, o, nsx.ErrAlreadyAllocated)
	case nsx.Doubtful:
		if err := b.resolveDoubt(ctx, p, v); err != nil || b.claimed(o, v.Address) {
			return v.Address, err
		}
	case nsx.Unclaimed:
		if attached && b.carriedByOthers(o, v.Address) {
			return netip.Addr{}, fmt.Errorf("address %s of %s was released by somebody, and a virtual server of somebody else carries it now: %w",
				v.Address, o, nsx.ErrInvalid)
		}
	}
	return b.allocate(ctx, o, v, fixed)
}

// resolveDoubt decides about an address that is allocated, by nobody knows whom, and recorded by a virtual server of ours
// that is not attached. It is ours in an exclusive pool, where every other user writes its record first, or if the
// Service's status shows it, and only if a fresh list shows no other record.
func (b *Backend) resolveDoubt(ctx context.Context, p nsx.Publish, v nsx.VirtualServer) error {
	o := p.Owner
	taken := func() error {
		b.inv.SetRefused(v.ID, v.IPPool, v.Address)
		return fmt.Errorf("address %s for %s is allocated, perhaps by somebody else: %w", v.Address, o, nsx.ErrAlreadyAllocated)
	}
	if pool, _ := b.inv.IPPool(v.IPPool); !pool.Exclusive && !slices.Contains(p.Published, v.Address.String()) {
		return taken()
	}
	if err := b.refreshPool(ctx, v.IPPool); err != nil {
		return err
	}
	if err := b.refreshVirtualServers(ctx); err != nil {
		return err
	}
	if b.carriedByOthers(o, v.Address) {
		return taken()
	}
	if b.inv.Allocated(v.IPPool, v.Address) {
		b.inv.SetAllocated(v.IPPool, v.Address, true)
	}
	return nil
}

// carriedByOthers tells whether a virtual server that is not the Service's carries the address.
func (b *Backend) carriedByOthers(o nsx.Owner, addr netip.Addr) bool {
	return slices.ContainsFunc(b.inv.Carriers(addr), func(id string) bool {
		r, _ := b.inv.VirtualServer(id)
		return r.Owner.UID != o.UID
	})
}

// stillCarried tells whether a virtual server that is not the Service's carries an address that ALLOCATE has just given: by a fresh
// list, since what is left to a virtual server that is gone would be left to nobody. The address is kept if there is no list.
func (b *Backend) stillCarried(ctx context.Context, o nsx.Owner, pool string, addr netip.Addr) (bool, error) {
	b.inv.SetAllocated(pool, addr, true)
	if !b.carriedByOthers(o, addr) {
		return false, nil
	}
	if err := b.refreshVirtualServers(ctx); err != nil {
		b.keepSpare(o, pool, addr, nil)
		return false, err
	}
	return b.carriedByOthers(o, addr), nil
}

// allocate asks for the address of a record. A manager may honour that, refuse it, or answer with another address.
func (b *Backend) allocate(ctx context.Context, o nsx.Owner, v nsx.VirtualServer, fixed bool) (netip.Addr, error) {
	if !fixed {
		if a, ok := b.takeSpare(o, v.IPPool); ok { // given in place of another one, and not recorded then
			return a, nil
		}
	}
	got, err := b.callAllocate(ctx, v.IPPool, v.Address)
	switch {
	case err == nil && got == v.Address:
		b.refused(v.IPPool, 0)
		return got, nil
	case err == nil:
		// It answered with another address. What another virtual server records is left to that one.
		// One that honours choices would have refused.
		b.refused(v.IPPool, refusalsUntilAny)
		carried, err := b.stillCarried(ctx, o, v.IPPool, got)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("allocating %s for %s, in whose place NSX gives %s: %w", v.Address, o, got, err)
		}
		if !carried {
			if !fixed {
				return got, nil
			}
			b.giveBack(ctx, v.IPPool, got)
			return netip.Addr{}, fmt.Errorf("allocating %s, and no other, for %s: NSX gives %s in its place: %w", v.Address, o, got, nsx.ErrAlreadyAllocated)
		}
		b.inv.SetAllocated(v.IPPool, got, false)
		return netip.Addr{}, fmt.Errorf("allocating %s for %s: NSX answered with %s, which somebody else's virtual server carries: %w",
			v.Address, o, got, nsx.ErrAlreadyAllocated)
	case !errors.Is(err, nsx.ErrInvalid):
		return netip.Addr{}, fmt.Errorf("allocating %s for %s: %w", v.Address, o, err)
	}
	// Refused. Codes differ from release to release, so a fresh list tells why.
	if listErr := b.refreshPool(ctx, v.IPPool); listErr != nil {
		return netip.Addr{}, fmt.Errorf("allocating %s for %s: %w", v.Address, o, errors.Join(err, listErr))
	}
	if !b.inv.Allocated(v.IPPool, v.Address) {
		b.refused(v.IPPool, 1)
	}
	b.inv.SetRefused(v.ID, v.IPPool, v.Address)
	return netip.Addr{}, fmt.Errorf("allocating %s for %s: %w: %w", v.Address, o, nsx.ErrAlreadyAllocated, err)
}

// refused counts refusals in a row of free addresses, by which it is known that the manager gives none of one's choice; n = 0
// ends the row.
func (b *Backend) refused(pool string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusals[pool] += n
	if n == 0 {
		delete(b.refusals, pool)
	}
	b.inv.SetNoChoice(pool, b.refusals[pool] >= refusalsUntilAny)
}

// giveBack releases an address that was allocated a moment ago, in place of the only one that would do. What does not
// succeed, Tidy does later.
func (b *Backend) giveBack(ctx context.Context, pool string, addr netip.Addr) {
	b.mu.Lock()
	b.unwanted[addr] = pool
	b.mu.Unlock()
	if err := b.releaseUnwanted(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Giving back an address that NSX gave in place of another one failed", "ipPool", pool, "address", addr)
	}
}

// giveUpSpares makes spare addresses unwanted that nobody has taken for long, and no virtual server records by now.
func (b *Backend) giveUpSpares(ctx context.Context) error {
	last := b.opts.Clock.Now().Add(-spareTime)
	old := func(s spareAddress) bool { return !s.since.After(last) }
	b.mu.Lock()
	due := false
	for _, spares := range b.spare {
		due = due || slices.ContainsFunc(spares, old)
	}
	b.mu.Unlock()
	if !due {
		return nil
	}
	if err := b.refreshVirtualServers(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for pool, spares := range b.spare {
		for _, s := range spares {
			if old(s) {
				b.unwanted[s.addr] = pool // on a virtual server after all, it is not released
			}
		}
		b.spare[pool] = slices.DeleteFunc(spares, old)
	}
	return nil
}

// releaseUnwanted gives back the addresses that giveBack could not, and those that giveUpSpares gave up.
func (b *Backend) releaseUnwanted(ctx context.Context) error {
	nobody := nsx.Owner{Name: "nobody"}
	for {
		b.mu.Lock()
		addr, ok := firstAddr(b.unwanted)
		pool := b.unwanted[addr]
		delete(b.unwanted, addr) // nobody else does it at the same time
		b.mu.Unlock()
		if !ok {
			return nil
		}
		err := func() error {
			if b.lostRelease(addr) != nil {
				known, _ := b.inv.IPPool(pool)
				if err := b.settleRelease(ctx, nobody, known, addr); err != nil {
					return err
				}
			}
			if !b.inv.Allocated(pool, addr) || len(b.inv.Carriers(addr)) > 0 {
				return nil
			}
			return b.callRelease(ctx, nobody, nsx.ObservedVirtualServer{VirtualServer: nsx.VirtualServer{Address: addr, IPPool: pool}})
		}()
		if err != nil {
			b.mu.Lock()
			b.unwanted[addr] = pool
			b.mu.Unlock()
			return err
		}
	}
}

// firstAddr is the lowest key of a map; ok is false when there is none.
func firstAddr[V any](m map[netip.Addr]V) (first netip.Addr, ok bool) {
	for a := range m {
		if !ok || a.Less(first) {
			first, ok = a, true
		}
	}
	return first, ok
}

// allocateAny takes whatever address the manager gives. One that a virtual server of somebody else carries is left to that
// one, and another is asked for.
func (b *Backend) allocateAny(ctx context.Context, o nsx.Owner, pool string) (netip.Addr, error) {
	if a, ok := b.takeSpare(o, pool); ok {
		return a, nil
	}
	for range 8 {
		got, err := b.callAllocate(ctx, pool, netip.Addr{})
		if errors.Is(err, nsx.ErrInvalid) {
			return netip.Addr{}, fmt.Errorf("allocating an address of IP pool %s for %s: %w: %w", pool, o, nsx.ErrExhausted, err)
		}
		if err != nil {
			return netip.Addr{}, fmt.Errorf("allocating an address of IP pool %s for %s: %w", pool, o, err)
		}
		carried, err := b.stillCarried(ctx, o, pool, got)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("allocating an address of IP pool %s for %s: %w", pool, o, err)
		}
		if !carried {
			return got, nil
		}
		b.inv.SetAllocated(pool, got, false)
	}
	return netip.Addr{}, fmt.Errorf("allocating an address of IP pool %s for %s: every address that NSX gave is on somebody else's virtual server: %w",
		pool, o, nsx.ErrAlreadyAllocated)
}

// keepSpare keeps an allocated address whose virtual server could not be written, for the next that needs one. If nobody
// knows whether it was written, only the same Service may take it, which looks first.
func (b *Backend) keepSpare(o nsx.Owner, pool string, addr netip.Addr, failure error) {
	s := spareAddress{addr: addr, since: b.opts.Clock.Now()}
	if errors.Is(failure, nsx.ErrAmbiguous) {
		s.owner = o.UID
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare[pool] = append(b.spare[pool], s)
}

// takeSpare gives an address that an earlier allocateAny got and no virtual server records.
func (b *Backend) takeSpare(o nsx.Owner, pool string) (netip.Addr, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare[pool] = slices.DeleteFunc(b.spare[pool], func(s spareAddress) bool { return len(b.inv.Carriers(s.addr)) > 0 })
	i := slices.IndexFunc(b.spare[pool], func(s spareAddress) bool { return s.owner == "" || s.owner == o.UID })
	if i < 0 {
		return netip.Addr{}, false
	}
	a := b.spare[pool][i].addr
	b.spare[pool] = slices.Delete(b.spare[pool], i, i+1)
	return a, true
}

// callAllocate is the ALLOCATE call. The zero Addr asks for any.
func (b *Backend) callAllocate(ctx context.Context, pool string, addr netip.Addr) (netip.Addr, error) {
	body := sdkmanager.AllocationIpAddress{}
	if addr.IsValid() {
		body.AllocationId = addr.String()
	}
	raw, err := b.api.sdk(ctx, func(ctx context.Context, api *nsxt.APIClient) error {
		_, _, err := api.PoolManagementApi.AllocateOrReleaseFromIpPool(ctx, pool, body, "ALLOCATE")
		return err
	})
	if err != nil {
		return netip.Addr{}, err
	}
	d, err := parseDocument(raw)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", nsx.ErrAmbiguous, err)
	}
	got, err := netip.ParseAddr(d.string("allocation_id"))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: NSX answered with no address: %w", nsx.ErrAmbiguous, err)
	}
	got = got.Unmap()
	if got == addr.Unmap() {
		b.inv.SetAllocated(pool, got, true)
	}
	return got, nil
}

// release gives back the address of the last virtual server that records it.
func (b *Backend) release(ctx context.Context, w nsx.Withdraw, v nsx.ObservedVirtualServer) error {
	pool, known := b.inv.IPPool(v.IPPool)
	if !known || pool.Problem != "" && !b.inv.AnyAllocated(v.IPPool) {
		return nil // the pool is gone, and with it the allocation
	}
	if !b.inv.Allocated(v.IPPool, v.Address) {
		b.forgetLost(v.Address)
		return nil // not allocated: never was, or given back already
	}
	if v.Claim == nsx.Doubtful && (pool.Exclusive || slices.Contains(w.Published, v.Address.String())) {
		// An earlier run of the controller may have sent a RELEASE and not lived to see the answer.
		b.doubtRelease(v.Address, b.opts.Clock.Now())
	} else if v.Claim != nsx.Claimed && b.lostRelease(v.Address) == nil {
		klog.FromContext(ctx).Info("Leaving an allocation that is not provably ours", "service", w.Owner.Name, "ipPool", v.IPPool, "address", v.Address)
		return nil
	}
	if b.lostRelease(v.Address) != nil {
		if err := b.settleRelease(ctx, w.Owner, pool, v.Address); err != nil {
			return err
		}
		if !b.inv.Allocated(v.IPPool, v.Address) || b.carriedByOthers(w.Owner, v.Address) {
			return nil
		}
	}
	return b.callRelease(ctx, w.Owner, v)
}

// callRelease is the RELEASE call.
func (b *Backend) callRelease(ctx context.Context, o nsx.Owner, v nsx.ObservedVirtualServer) error {
	// The SDK reports every success of this call as an error, so the recorded answer alone counts.
	_, err := b.api.sdk(ctx, func(ctx context.Context, api *nsxt.APIClient) error {
		_, _, err := api.PoolManagementApi.AllocateOrReleaseFromIpPool(ctx, v.IPPool,
			sdkmanager.AllocationIpAddress{AllocationId: v.Address.String()}, "RELEASE")
		return err
	})
	switch {
	case err == nil:
		b.inv.SetReleased(v.IPPool, v.Address)
		return nil
	case errors.Is(err, nsx.ErrAmbiguous):
		b.doubtRelease(v.Address, time.Time{})
	case errors.Is(err, nsx.ErrInvalid), errors.Is(err, nsx.ErrNotFound):
		// Not allocated, it seems; a fresh list tells.
		if listErr := b.refreshPool(ctx, v.IPPool); listErr != nil && !isNotFound(listErr) {
			return fmt.Errorf("releasing %s of %s: %w", v.Address, o, errors.Join(err, listErr))
		}
		if !b.inv.Allocated(v.IPPool, v.Address) || isNotFound(err) {
			return nil
		}
	}
	return fmt.Errorf("releasing %s of %s: %w", v.Address, o, err)
}

// settleRelease finds out what became of a RELEASE of unknown outcome: when it returns nil, the inventory tells whether the
// address is still allocated, and if so by us. It takes two sightings far enough apart, and a RetryAt in between.
func (b *Backend) settleRelease(ctx context.Context, o nsx.Owner, pool nsx.IPPool, addr netip.Addr) error {
	now := b.opts.Clock.Now()
	b.mu.Lock()
	lost := b.lost[addr]
	if lost.sighted.IsZero() {
		lost.sighted = now // Settle has just read the lists, and there it is
	}
	at := lost.sighted.Add(sightingGap(pool))
	b.mu.Unlock()
	if b.inv.Allocated(pool.ID, addr) && now.Before(at) {
		return &nsx.RetryAt{At: at, Err: fmt.Errorf("releasing %s of %s: %w: it is settled at %s whether it is still allocated",
			addr, o, nsx.ErrAmbiguous, at.UTC().Format(time.RFC3339))}
	}
	if err := b.refreshPool(ctx, pool.ID); err != nil {
		return err
	}
	if err := b.refreshVirtualServers(ctx); err != nil {
		return err
	}
	if b.inv.Allocated(pool.ID, addr) && !b.carriedByOthers(o, addr) {
		b.inv.SetAllocated(pool.ID, addr, true)
	}
	b.forgetLost(addr)
	return nil
}

// doubtRelease remembers a RELEASE of unknown outcome; sighted is when the address was seen allocated after it.
func (b *Backend) doubtRelease(a netip.Addr, sighted time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost[a] == nil {
		b.lost[a] = &lostRelease{sighted: sighted}
	}
}

func (b *Backend) lostRelease(a netip.Addr) *lostRelease {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost[a]
}

func (b *Backend) forgetLost(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.lost, a)
}
