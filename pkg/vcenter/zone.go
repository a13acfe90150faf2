package vcenter

import (
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

// zoneEntry is the zone and region of a host, as of a moment.
type zoneEntry struct {
	zone, region string
	read         time.Time
}

// zone returns the zone and region of the VMs on a host.
func (s *server) zone(ctx context.Context, host types.ManagedObjectReference) (zoneEntry, error) {
	s.mu.Lock()
	entry, known := s.zones[host]
	s.mu.Unlock()
	if known && s.opts.Clock.Since(entry.read) < s.opts.ZoneTTL {
		return entry, nil
	}
	entry = zoneEntry{read: s.opts.Clock.Now()}
	var lineage []mo.Reference
	err := s.sdk.use(ctx, func(client *govmomi.Client) (err error) {
		lineage, err = ancestry(ctx, client, host)
		return err
	})
	if err != nil {
		return zoneEntry{}, err
	}
	err = s.tags.use(ctx, func(service *tags.Manager) (err error) {
		entry.zone, entry.region, err = s.readTags(ctx, service, lineage)
		return err
	})
	if err != nil {
		return zoneEntry{}, fmt.Errorf("read tags: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, old := range s.zones {
		if s.opts.Clock.Since(old.read) >= s.opts.ZoneTTL {
			delete(s.zones, other)
		}
	}
	s.zones[host] = entry
	return entry, nil
}

// ancestry lists the host and its ancestors: cluster, folders, datacenter, folders.
func ancestry(ctx context.Context, client *govmomi.Client, host types.ManagedObjectReference) ([]mo.Reference, error) {
	var out []mo.Reference
	for next := &host; next != nil; {
		if len(out) == maxDepth {
			return nil, fmt.Errorf("host %s has more than %d ancestors", host.Value, maxDepth)
		}
		out = append(out, *next)
		var entity mo.ManagedEntity
		if err := client.RetrieveOne(ctx, *next, []string{"parent"}, &entity); err != nil {
			return nil, fmt.Errorf("read the parent of %s: %w", next.Value, err)
		}
		next = entity.Parent
	}
	return out, nil
}

// readTags returns the nearest zone and region tags on the objects, which are in order of their distance. Its errors
// from the REST client are not wrapped, so that an expired session is recognised.
func (s *server) readTags(ctx context.Context, service *tags.Manager, objects []mo.Reference) (zone, region string, err error) {
	attached, err := service.ListAttachedTagsOnObjects(ctx, objects)
	if err != nil {
		return "", "", err
	}
	ids := map[types.ManagedObjectReference][]string{} // the answer is in no particular order
	for _, a := range attached {
		ids[a.ObjectID.Reference()] = a.TagIDs
	}
	categories := map[string]string{} // names by id
	for _, object := range objects {
		values := map[string]string{} // of the tags on this object, by category
		for _, id := range ids[object.Reference()] {
			tag, err := service.GetTag(ctx, id)
			if rest.IsStatusError(err, http.StatusNotFound) {
				continue // deleted since
			}
			if err != nil {
				return "", "", err
			}
			if _, known := categories[tag.CategoryID]; !known {
				category, err := service.GetCategory(ctx, tag.CategoryID)
				if err != nil {
					return "", "", err
				}
				categories[tag.CategoryID] = category.Name
			}
			category := categories[tag.CategoryID]
			if other, twice := values[category]; twice && (category == s.opts.ZoneCategory || category == s.opts.RegionCategory) {
				first, second := min(tag.Name, other), max(tag.Name, other)
				return "", "", fmt.Errorf("%s has two tags of the category %s: %s and %s", object.Reference().Value, category, first, second)
			}
			values[category] = tag.Name
		}
		if zone == "" {
			zone = values[s.opts.ZoneCategory]
		}
		if region == "" {
			region = values[s.opts.RegionCategory]
		}
		if zone != "" && region != "" {
			break
		}
	}
	return zone, region, nil
}
