package manager

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Reclaim implements nsx.Backend. Only an exclusive pool lets an allocation without a record be told from somebody else's.
func (b *Backend) Reclaim(ctx context.Context, pool string, addr netip.Addr) error {
	p, known := b.inv.IPPool(pool)
	if !known || !p.Exclusive {
		return fmt.Errorf("reclaiming %s: IP pool %s is not exclusive: %w", addr, pool, nsx.ErrInvalid)
	}
	if err := b.refreshPool(ctx, p.ID); err != nil {
		return err
	}
	if err := b.refreshVirtualServers(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	b.spare[p.ID] = slices.DeleteFunc(b.spare[p.ID], func(s spareAddress) bool { return s.addr == addr })
	delete(b.unwanted, addr)
	b.mu.Unlock()
	if allocated, _ := b.inv.Allocation(p.ID, addr); !allocated || len(b.inv.Carriers(addr)) > 0 {
		return nil
	}
	nobody := nsx.Owner{Name: "nobody"}
	return b.callRelease(ctx, nobody, nsx.ObservedVirtualServer{VirtualServer: nsx.VirtualServer{Address: addr, IPPool: p.ID}})
}
