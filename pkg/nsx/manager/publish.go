package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	nsxt "github.com/vmware/go-vmware-nsxt"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// publish makes virtual servers live. The order is what keeps addresses safe: written record, ALLOCATE, attach.
func (b *Backend) publish(ctx context.Context, p nsx.Publish) error {
	unlock, err := b.life.rLock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	attach := map[string][]string{}
	for _, group := range byAddress(p.VirtualServers) {
		written, err := b.publishAddress(ctx, p, group)
		if err != nil {
			return err
		}
		for _, v := range written {
			lb, err := b.ensureLBService(ctx, v.LBService)
			if err != nil {
				return err
			}
			attach[lb] = append(attach[lb], v.ID)
		}
	}
	for _, lb := range sortedKeys(attach) {
		if err := b.memberships.change(ctx, lb, attach[lb], nil); err != nil {
			return fmt.Errorf("attaching virtual servers of %s: %w", p.Owner, err)
		}
	}
	return nil
}

// byAddress groups virtual servers by address, in the order in which the addresses first appear.
func byAddress(all []nsx.VirtualServer) [][]nsx.VirtualServer {
	var groups [][]nsx.VirtualServer
	at := map[netip.Addr]int{}
	for _, v := range all {
		i, ok := at[v.Address]
		if !ok {
			i = len(groups)
			at[v.Address] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], v)
	}
	return groups
}

// publishAddress writes the virtual servers of one address and claims it. One allocation serves them all.
func (b *Backend) publishAddress(ctx context.Context, p nsx.Publish, group []nsx.VirtualServer) ([]nsx.VirtualServer, error) {
	o, pool, addr := p.Owner, group[0].IPPool, group[0].Address
	claimed, spare := b.claimed(o, addr), false
	// What carries traffic, or was asked for, has this address or none.
	fixed := slices.Contains(p.Asked, addr) || b.attachedAt(o, addr)
	// What is allocated may be its own, and then this is the record of it.
	switch anyOnly := !claimed && b.inv.NoChoice(pool) && !b.inv.Allocated(pool, addr) && b.lostRelease(addr) == nil; {
	case anyOnly && fixed:
		return nil, fmt.Errorf("address %s, and no other, for %s: this NSX gives no address of one's choice: %w", addr, o, nsx.ErrExhausted)
	case anyOnly && !b.left(p, pool, addr):
		// This manager gives no chosen addresses: ALLOCATE first, then the record.
		var err error
		if addr, err = b.allocateAny(ctx, o, pool); err != nil {
			return nil, err
		}
		claimed, spare = true, true
	}
	written := make([]nsx.VirtualServer, 0, len(group))
	for i, v := range group {
		v.Address = addr
		v, err := b.writeVirtualServer(ctx, o, v)
		if err != nil {
			if spare && i == 0 {
				b.keepSpare(o, pool, addr, err)
			}
			return nil, err
		}
		if i == 0 && !claimed {
			got, err := b.claim(ctx, p, v, fixed)
			if err != nil {
				return nil, err
			}
			if got != addr { // NSX allocated another one: the record follows
				addr, v.Address = got, got
				if v, err = b.writeVirtualServer(ctx, o, v); err != nil {
					b.keepSpare(o, pool, addr, err)
					return nil, err
				}
			}
		}
		written = append(written, v)
	}
	return written, nil
}

// left tells whether the address that the Service's status shows is still allocated for it although somebody has deleted its
// virtual server, and can be taken up again. Other than one that is only chosen, it needs no ALLOCATE.
func (b *Backend) left(p nsx.Publish, pool string, addr netip.Addr) bool {
	known, _ := b.inv.IPPool(pool)
	allocated, ours := b.inv.Allocation(pool, addr)
	return allocated && (ours || known.Exclusive) && slices.Contains(p.Published, addr.String())
}

// writeVirtualServer creates a virtual server, or makes the one with its ID what it should be.
func (b *Backend) writeVirtualServer(ctx context.Context, o nsx.Owner, v nsx.VirtualServer) (nsx.VirtualServer, error) {
	poolID, err := b.ensurePool(ctx, o, v.Pool)
	if err != nil {
		return v, fmt.Errorf("virtual server %s of %s: %w", v, o, err)
	}
	persistenceID, err := b.ensurePersistence(ctx, v.Affinity)
	if err != nil {
		return v, fmt.Errorf("virtual server %s of %s: %w", v, o, err)
	}
	groupID, err := b.ensureSources(ctx, v.Sources)
	if err != nil {
		return v, fmt.Errorf("virtual server %s of %s: %w", v, o, err)
	}
	n := needs{poolID, persistenceID, groupID}
	if v.ID == "" {
		return b.createVirtualServer(ctx, o, v, n)
	}
	r, ok := b.inv.VirtualServer(v.ID)
	if !ok || r.Owner.UID != o.UID {
		return v, fmt.Errorf("virtual server %s of %s: %w", v, o, nsx.ErrNotFound)
	}
	raw, err := b.write(ctx, "/loadbalancer/virtual-servers/"+url.PathEscape(v.ID), r.Doc, func(d document) document {
		return b.virtualServerDoc(d, o, v, n)
	})
	if isNotFound(err) {
		b.inv.DeleteVirtualServer(v.ID)
	}
	if err != nil {
		return v, b.maybeTaken(ctx, v, fmt.Errorf("writing virtual server %s of %s: %w", v, o, err))
	}
	_, err = b.recordVirtualServer(raw)
	return v, err
}

func (b *Backend) createVirtualServer(ctx context.Context, o nsx.Owner, v nsx.VirtualServer, n needs) (nsx.VirtualServer, error) {
	raw, err := b.api.do(ctx, http.MethodPost, "/loadbalancer/virtual-servers", nil,
		b.virtualServerDoc(document{}, o, v, n))
	if err != nil {
		return v, b.maybeTaken(ctx, v, fmt.Errorf("creating virtual server %s of %s: %w", v, o, err))
	}
	v.ID, err = b.recordVirtualServer(raw)
	return v, err
}

// maybeTaken looks whether a virtual server was refused because somebody else's carries its address by now.
func (b *Backend) maybeTaken(ctx context.Context, v nsx.VirtualServer, refused error) error {
	if !errors.Is(refused, nsx.ErrInvalid) {
		return refused
	}
	if err := b.refreshVirtualServers(ctx); err != nil {
		return refused
	}
	for _, id := range b.inv.Carriers(v.Address) {
		if r, _ := b.inv.VirtualServer(id); r.Owner.UID == "" {
			return fmt.Errorf("%w: %w", nsx.ErrAlreadyAllocated, refused)
		}
	}
	return refused
}

func (b *Backend) recordVirtualServer(raw []byte) (string, error) {
	r, err := b.virtualServerRecord(raw)
	if err != nil {
		return "", err
	}
	if r.Owner.UID == "" || r.VirtualServer.ID == "" {
		return "", fmt.Errorf("%w: NSX answered with a virtual server that is not the one written", nsx.ErrAmbiguous)
	}
	b.inv.PutVirtualServer(r)
	return r.VirtualServer.ID, nil
}

// update changes virtual servers that are live.
func (b *Backend) update(ctx context.Context, u nsx.Update) error {
	unlock, err := b.life.rLock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, v := range u.VirtualServers {
		if _, err := b.writeVirtualServer(ctx, u.Owner, v); err != nil {
			return err
		}
	}
	return nil
}

// withdraw takes virtual servers out of service, gives their addresses back and deletes them: the last one of an address
// goes last, as the record of its allocation.
func (b *Backend) withdraw(ctx context.Context, w nsx.Withdraw) error {
	going := map[string]bool{}
	detach := map[string][]string{}
	at := map[netip.Addr][]nsx.ObservedVirtualServer{}
	var order []netip.Addr
	for _, v := range w.VirtualServers {
		going[v.ID] = true
		if v.Attached() {
			detach[v.LBService] = append(detach[v.LBService], v.ID)
		}
		if v.Claim == nsx.Claimed {
			b.inv.SetAllocated(v.IPPool, v.Address, true) // known as ours, also when nothing of it is attached any more
		}
		if len(at[v.Address]) == 0 {
			order = append(order, v.Address)
		}
		at[v.Address] = append(at[v.Address], v)
	}
	for _, lb := range sortedKeys(detach) {
		err := b.memberships.change(ctx, lb, nil, detach[lb])
		if isNotFound(err) {
			err = nil // the load-balancer service is gone, and with it every attachment
		}
		if err != nil {
			return fmt.Errorf("detaching virtual servers of %s: %w", w.Owner, err)
		}
	}
	for _, addr := range order {
		virtualServers := at[addr]
		last := virtualServers[len(virtualServers)-1]
		for _, v := range virtualServers[:len(virtualServers)-1] {
			if err := b.deleteVirtualServer(ctx, v.ID); err != nil {
				return err
			}
		}
		if !b.carriedElsewhere(w.Owner, addr, going) {
			if err := b.release(ctx, w, last); err != nil {
				return err
			}
		}
		if err := b.deleteVirtualServer(ctx, last.ID); err != nil {
			return err
		}
	}
	return nil
}

// carriedElsewhere tells whether the Service has another virtual server on the address, which stays.
func (b *Backend) carriedElsewhere(o nsx.Owner, addr netip.Addr, going map[string]bool) bool {
	for _, id := range b.inv.Carriers(addr) {
		if r, _ := b.inv.VirtualServer(id); r.Owner.UID == o.UID && !going[id] {
			return true
		}
	}
	return false
}

func (b *Backend) deleteVirtualServer(ctx context.Context, id string) error {
	_, err := b.api.sdk(ctx, func(ctx context.Context, api *nsxt.APIClient) error {
		_, err := api.ServicesApi.DeleteLoadBalancerVirtualServer(ctx, id, map[string]interface{}{"deleteAssociatedRules": false})
		return err
	})
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("deleting virtual server %s: %w", id, err)
	}
	b.inv.DeleteVirtualServer(id)
	return nil
}
