package vcenter

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// maxDepth bounds the walk from a host to the root folder, should the answers ever form a ring.
const maxDepth = 64

// place is a zone and a region, each empty if no tag says it, as of a moment.
type place struct {
	zone, region string
	read         time.Time
}

// locate returns the place of a VM on a host. The host's is remembered apart, for all the VMs that it runs.
func (s *server) locate(ctx context.Context, vm, host types.ManagedObjectReference) (place, error) {
	at, known := s.recall(vm)
	if !known {
		var err error
		if at, err = s.readPlace(ctx, []mo.Reference{vm}); err != nil {
			return place{}, err
		}
		s.remember(vm, at)
	}
	if at.zone != "" && at.region != "" {
		return at, nil
	}
	above, known := s.recall(host)
	if !known {
		lineage, err := s.ancestry(ctx, host)
		if err != nil {
			return place{}, err
		}
		if above, err = s.readPlace(ctx, lineage); err != nil {
			return place{}, err
		}
		s.remember(host, above)
	}
	return place{zone: cmp.Or(at.zone, above.zone), region: cmp.Or(at.region, above.region)}, nil
}

func (s *server) recall(ref types.ManagedObjectReference) (place, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, known := s.places[ref]
	return at, known && s.opts.Clock.Since(at.read) < s.opts.ZoneTTL
}

func (s *server) remember(ref types.ManagedObjectReference, at place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, old := range s.places {
		if s.opts.Clock.Since(old.read) >= s.opts.ZoneTTL {
			delete(s.places, other)
		}
	}
	s.places[ref] = at
}

// ancestry lists the host and its ancestors: cluster, folders, datacenter, folders.
func (s *server) ancestry(ctx context.Context, host types.ManagedObjectReference) ([]mo.Reference, error) {
	var out []mo.Reference
	err := s.sdk.use(ctx, func(client *govmomi.Client) error {
		out = nil
		for next := &host; next != nil; {
			if len(out) == maxDepth {
				return fmt.Errorf("host %s has more than %d ancestors", host.Value, maxDepth)
			}
			out = append(out, *next)
			var entity mo.ManagedEntity
			if err := client.RetrieveOne(ctx, *next, []string{"parent"}, &entity); err != nil {
				return fmt.Errorf("read the parent of %s: %w", next.Value, err)
			}
			next = entity.Parent
		}
		return nil
	})
	return out, err
}

// readPlace returns the nearest zone and the nearest region on the objects, which are in the order of their distance.
func (s *server) readPlace(ctx context.Context, objects []mo.Reference) (place, error) {
	at := place{read: s.opts.Clock.Now()}
	err := s.tags.use(ctx, func(service *tags.Manager) error {
		at.zone, at.region = "", ""
		// The errors of the tag service are returned bare, for govmomi recognises an expired session by no other.
		attached, err := service.ListAttachedTagsOnObjects(ctx, objects)
		if err != nil {
			return err
		}
		ids := map[types.ManagedObjectReference][]string{} // the answer is in no particular order
		for _, a := range attached {
			ids[a.ObjectID.Reference()] = a.TagIDs
		}
		categories := map[string]string{} // names by id
		for _, object := range objects {
			values, err := readTags(ctx, service, ids[object.Reference()], categories)
			if err != nil {
				return err
			}
			for _, want := range []struct {
				category string
				value    *string
			}{{s.config.ZoneCategory, &at.zone}, {s.config.RegionCategory, &at.region}} {
				found := values[want.category]
				if *want.value != "" || len(found) == 0 {
					continue
				}
				if len(found) > 1 {
					return fmt.Errorf("%s has %d tags of the category %s, not one", object.Reference().Value, len(found), want.category)
				}
				*want.value = found[0]
			}
			if at.zone != "" && at.region != "" {
				break
			}
		}
		return nil
	})
	if err != nil {
		return place{}, fmt.Errorf("read tags: %w", err)
	}
	return at, nil
}

// readTags returns the names of tags by the names of their categories, which it collects by id on the way.
func readTags(ctx context.Context, service *tags.Manager, ids []string, categories map[string]string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, id := range ids {
		tag, err := service.GetTag(ctx, id)
		if rest.IsStatusError(err, http.StatusNotFound) {
			continue // deleted since it was listed
		}
		if err != nil {
			return nil, err
		}
		if _, known := categories[tag.CategoryID]; !known {
			category, err := service.GetCategory(ctx, tag.CategoryID)
			if err != nil {
				return nil, err
			}
			categories[tag.CategoryID] = category.Name
		}
		name := categories[tag.CategoryID]
		out[name] = append(out[name], tag.Name)
	}
	return out, nil
}
