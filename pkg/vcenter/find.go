package vcenter

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// query searches a datacenter, or all if it is nil, for VMs.
type query func(ctx context.Context, index *object.SearchIndex, dc *object.Datacenter) ([]object.Reference, error)

// find returns the VM that the query selects. Its error is ErrNotFound only if the vCenter showed its inventory and
// has no such VM.
func (s *server) find(ctx context.Context, q query) (VM, error) {
	var found VM
	err := s.sdk.use(ctx, func(client *govmomi.Client) error {
		vms, err := s.search(ctx, client, q)
		if err == nil {
			found, err = choose(vms)
		}
		return err
	})
	return found, err
}

func (s *server) search(ctx context.Context, client *govmomi.Client, q query) ([]VM, error) {
	index := object.NewSearchIndex(client.Client)
	datacenters, err := s.scope(ctx, index)
	if err != nil {
		return nil, err
	}
	var refs []types.ManagedObjectReference
	for _, dc := range datacenters {
		matches, err := q(ctx, index, dc)
		if err != nil {
			return nil, fmt.Errorf("search: %w", err)
		}
		for _, match := range matches {
			if ref := match.Reference(); !slices.Contains(refs, ref) {
				refs = append(refs, ref)
			}
		}
	}
	var vms []VM
	for _, ref := range refs {
		var properties mo.VirtualMachine
		err := client.RetrieveOne(ctx, ref, vmProperties, &properties)
		if vanished(err, ref) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the properties of %s: %w", ref.Value, err)
		}
		vms = append(vms, newVM(s, properties))
	}
	if len(vms) == 0 {
		return nil, s.visible(ctx, client)
	}
	return vms, nil
}

// scope lists the datacenters to search; one nil stands for the whole inventory. The datacenters are looked up for
// each search, which proves that the account still sees them.
func (s *server) scope(ctx context.Context, index *object.SearchIndex) ([]*object.Datacenter, error) {
	if len(s.config.Datacenters) == 0 {
		return []*object.Datacenter{nil}, nil
	}
	var out []*object.Datacenter
	for _, path := range s.config.Datacenters {
		ref, err := index.FindByInventoryPath(ctx, strings.TrimPrefix(path, "/"))
		if err != nil {
			return nil, fmt.Errorf("look up datacenter %s: %w", path, err)
		}
		dc, ok := ref.(*object.Datacenter)
		if !ok {
			return nil, fmt.Errorf("%w: the account sees no datacenter with the inventory path %s", ErrNotVisible, path)
		}
		out = append(out, dc)
	}
	return out, nil
}

// visible is asked before a VM is said not to exist, because an account without permissions is told that there is no
// such VM just like one with them. The datacenters that scope looked up are visible.
func (s *server) visible(ctx context.Context, client *govmomi.Client) error {
	if len(s.config.Datacenters) > 0 {
		return nil
	}
	var root mo.Folder
	if err := client.RetrieveOne(ctx, client.ServiceContent.RootFolder, []string{"childEntity"}, &root); err != nil {
		return fmt.Errorf("read the root folder: %w", err)
	}
	if len(root.ChildEntity) == 0 {
		return fmt.Errorf("%w: the account sees nothing in the root folder", ErrNotVisible)
	}
	return nil
}

// vanished says whether the error means that the object was destroyed after the search found it. The fault must name
// the very object, because the same fault is given for a session's own objects.
func vanished(err error, ref types.ManagedObjectReference) bool {
	var gone *types.ManagedObjectNotFound
	if _, ok := fault.As(err, &gone); !ok {
		return false
	}
	return gone.Obj == ref
}

// choose picks the VM among those that match: a replica or a copy has the BIOS UUID of the original, but only one of
// them can run as the node.
func choose(vms []VM) (VM, error) {
	switch len(vms) {
	case 0:
		return VM{}, ErrNotFound
	case 1:
		return vms[0], nil
	}
	var running, names []string
	var chosen VM
	for _, vm := range vms {
		names = append(names, vm.Name)
		if vm.PoweredOn {
			running = append(running, vm.Name)
			chosen = vm
		}
	}
	if len(running) == 1 {
		return chosen, nil
	}
	slices.Sort(names)
	return VM{}, fmt.Errorf("%w, of which %d are on: %s", ErrAmbiguous, len(running), strings.Join(names, ", "))
}
