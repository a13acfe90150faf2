package vcsim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// datastore is the name of the one datastore of each datacenter, which its hosts share.
const datastore = "datastore-1"

// taggedObject is an object of the inventory with its tags, by category.
type taggedObject struct {
	ref  types.ManagedObjectReference
	tags map[string]string
}

// build creates the inventory by govmomi's own methods, called in process, and returns what is to be tagged.
func (s *Server) build(ctx context.Context, inv Inventory) ([]taggedObject, error) {
	var tagged []taggedObject
	root, err := object[*simulator.Folder](s, s.model.ServiceContent.RootFolder)
	if err != nil {
		return nil, err
	}
	for d, dc := range inv.Datacenters {
		created := root.CreateDatacenter(s.context(), &types.CreateDatacenter{This: root.Self, Name: dc.Name}).(*methods.CreateDatacenterBody)
		if created.Fault_ != nil {
			return nil, fmt.Errorf("create datacenter %s: %s", dc.Name, faultText(created))
		}
		dcRef := created.Res.Returnval
		tagged = append(tagged, taggedObject{dcRef, dc.Tags})
		datacenter, err := object[*simulator.Datacenter](s, dcRef)
		if err != nil {
			return nil, err
		}
		hostFolder, err := object[*simulator.Folder](s, datacenter.HostFolder)
		if err != nil {
			return nil, err
		}
		vmFolder, err := object[*simulator.Folder](s, datacenter.VmFolder)
		if err != nil {
			return nil, err
		}
		// Registering a VM needs govmomi's own search index, which this simulator replaces.
		vmFolder.DisabledMethod = append(vmFolder.DisabledMethod, "RegisterVMTask")

		files := filepath.Join(s.dir, fmt.Sprintf("datacenter-%d", d+1))
		if err := os.Mkdir(files, 0o700); err != nil {
			return nil, err
		}
		for _, cluster := range dc.Clusters {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			created := hostFolder.CreateClusterEx(s.context(), &types.CreateClusterEx{This: hostFolder.Self, Name: cluster.Name}).(*methods.CreateClusterExBody)
			if created.Fault_ != nil {
				return nil, fmt.Errorf("create cluster %s: %s", cluster.Name, faultText(created))
			}
			compute, err := object[*simulator.ClusterComputeResource](s, created.Res.Returnval)
			if err != nil {
				return nil, err
			}
			tagged = append(tagged, taggedObject{compute.Self, cluster.Tags})
			for _, host := range cluster.Hosts {
				ref, err := s.addHost(compute, host.Name, files)
				if err != nil {
					return nil, fmt.Errorf("add host %s to cluster %s: %w", host.Name, cluster.Name, err)
				}
				tagged = append(tagged, taggedObject{ref, host.Tags})
				s.hosts[host.Name] = placement{host: ref, pool: *compute.ResourcePool, folder: vmFolder.Self}
				if err := s.createVMs(host.Name, host.VMs); err != nil {
					return nil, err
				}
				for _, vm := range host.VMs {
					tagged = append(tagged, taggedObject{s.vms[vm.Name].ref, vm.Tags})
				}
			}
		}
	}
	return tagged, nil
}

func (s *Server) addHost(cluster *simulator.ClusterComputeResource, name, files string) (types.ManagedObjectReference, error) {
	none := types.ManagedObjectReference{}
	add := cluster.AddHostTask(s.context(), &types.AddHost_Task{
		This:        cluster.Self,
		Spec:        types.HostConnectSpec{HostName: name},
		AsConnected: true,
	}).(*methods.AddHost_TaskBody)
	if add.Fault_ != nil {
		return none, errors.New(faultText(add))
	}
	result, err := s.wait(add.Res.Returnval)
	if err != nil {
		return none, err
	}
	ref, ok := result.(types.ManagedObjectReference)
	if !ok {
		return none, fmt.Errorf("the task returned a %T", result)
	}
	host, err := object[*simulator.HostSystem](s, ref)
	if err != nil {
		return none, err
	}
	stores, err := object[*simulator.HostDatastoreSystem](s, *host.ConfigManager.DatastoreSystem)
	if err != nil {
		return none, err
	}
	mount := stores.CreateLocalDatastore(s.context(), &types.CreateLocalDatastore{This: stores.Self, Name: datastore, Path: files})
	if mount.Fault() != nil {
		return none, fmt.Errorf("create datastore: %s", faultText(mount))
	}
	return ref, nil
}

// attachTags creates the tag categories and tags, through REST as an administrator would, and attaches them.
func (s *Server) attachTags(ctx context.Context, objects []taggedObject) error {
	objects = slices.DeleteFunc(objects, func(o taggedObject) bool { return len(o.tags) == 0 })
	if len(objects) == 0 {
		return nil
	}
	user, password := s.Credentials()
	sdk := soap.NewClient(s.http.URL, true)
	defer sdk.CloseIdleConnections()
	client := rest.NewClient(&vim25.Client{Client: sdk})
	if err := client.Login(ctx, url.UserPassword(user, password)); err != nil {
		return fmt.Errorf("log in to the tag service: %w", err)
	}
	manager := tags.NewManager(client)
	categories, ids := map[string]string{}, map[[2]string]string{}
	for _, object := range objects {
		for _, category := range slices.Sorted(maps.Keys(object.tags)) {
			name := object.tags[category]
			if categories[category] == "" {
				id, err := manager.CreateCategory(ctx, &tags.Category{Name: category, Cardinality: "SINGLE"})
				if err != nil {
					return fmt.Errorf("create tag category %s: %w", category, err)
				}
				categories[category] = id
			}
			key := [2]string{category, name}
			if ids[key] == "" {
				id, err := manager.CreateTag(ctx, &tags.Tag{Name: name, CategoryID: categories[category]})
				if err != nil {
					return fmt.Errorf("create tag %s of category %s: %w", name, category, err)
				}
				ids[key] = id
			}
			if err := manager.AttachTag(ctx, ids[key], object.ref); err != nil {
				return fmt.Errorf("attach tag %s of category %s to %s: %w", name, category, object.ref, err)
			}
		}
	}
	return client.Logout(ctx)
}

// object looks an object up in the simulator's registry.
func object[T any](s *Server, ref types.ManagedObjectReference) (T, error) {
	found, ok := s.model.Map().Get(ref).(T)
	if !ok {
		return found, fmt.Errorf("the simulator has no %T %s", found, ref.Value)
	}
	return found, nil
}

// wait blocks until a task of the simulator ends and returns its result.
func (s *Server) wait(ref types.ManagedObjectReference) (any, error) {
	task, err := object[*simulator.Task](s, ref)
	if err != nil {
		return nil, err
	}
	task.Wait()
	if failed := task.Info.Error; failed != nil {
		return nil, fmt.Errorf("task %s failed: %T", task.Info.Name, failed.Fault)
	}
	return task.Info.Result, nil
}

// faultText says what went wrong in a call to the simulator. The text of a fault is often empty, its type never.
func faultText(body soap.HasFault) string {
	fault := body.Fault()
	return fmt.Sprintf("%s %T", fault.String, fault.VimFault())
}
