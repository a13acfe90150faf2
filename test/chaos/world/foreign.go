package world

import (
	"fmt"
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Foreign is a user of NSX who knows nothing of the clusters. What is its own must stay as it left it.
type Foreign struct {
	w *World
	// VirtualServer and Pool are ids of what it has from the beginning; the virtual server is in LBFirst and carries an
	// address of PoolFloating.
	VirtualServer, Pool string
	// made numbers what it makes.
	made int
}

const foreignUser = "somebody"

// newForeign makes what the foreign user has from the beginning: a load balancer whose tags look like a cluster's, on a
// floating IP beside theirs, and, in IP pools that are not exclusive, an address that no virtual server carries.
func newForeign(w *World) *Foreign {
	f := &Foreign{w: w}
	as := w.Sim.As(foreignUser)
	monitor := nsxsim.Must(as.Create(nsxsim.KindMonitor, nsxsim.Object{"resource_type": "LbTcpMonitor", "display_name": "theirs"}))
	f.Pool = nsxsim.Must(as.Create(nsxsim.KindPool, nsxsim.Object{
		"display_name": "theirs", "active_monitor_ids": []string{monitor.ID()}, "members": []any{},
	})).ID()
	address, err := as.Allocate(w.pools[PoolFloating], "")
	check(err)
	f.VirtualServer = f.create(address)
	f.attach(f.VirtualServer)
	must(as.Update(nsxsim.KindLBService, f.lb(LBFirst), func(o nsxsim.Object) { o["relax_scale_validation"] = true }))
	if !w.o.Exclusive {
		_, err := as.Allocate(w.pools[PoolFloating], "")
		check(err)
	}
	return f
}

func must(_ nsxsim.Object, err error) { check(err) }

// check panics on an error of what the simulator cannot refuse.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Do lets the foreign user change NSX. What it leaves there is held against what is there later.
func (f *Foreign) Do(what string, act func(nsxsim.Editor) error) error {
	err := act(f.w.Sim.As(foreignUser))
	f.w.Say("%s: %s: %v", foreignUser, what, err)
	f.w.watch.rebase()
	return err
}

// Allocate takes an address of an IP pool that is not exclusive: any, or the one given.
func (f *Foreign) Allocate(pool, addr string) (got string, err error) {
	err = f.Do("allocate "+addr, func(as nsxsim.Editor) error {
		got, err = as.Allocate(f.w.pools[pool], addr)
		if err == nil {
			f.w.watch.foreignHolds(f.w.pools[pool], got)
		}
		return err
	})
	return got, err
}

// Release gives an address back that the foreign user has allocated.
func (f *Foreign) Release(pool, addr string) error {
	return f.Do("release "+addr, func(as nsxsim.Editor) error {
		if err := as.Release(f.w.pools[pool], addr); err != nil {
			return err
		}
		f.w.watch.foreignLets(f.w.pools[pool], addr)
		return nil
	})
}

// Touch rewrites a load-balancer service that clusters use, which makes their copies of it stale.
func (f *Foreign) Touch(lb string) error {
	f.made++
	return f.Do("touch "+lb, func(as nsxsim.Editor) error {
		_, err := as.Update(nsxsim.KindLBService, f.lb(lb), func(o nsxsim.Object) { o["description"] = fmt.Sprint(f.made) })
		return err
	})
}

// AddVirtualServer makes a virtual server on an address outside of the IP pools and attaches it in LBFirst.
func (f *Foreign) AddVirtualServer() (id string, err error) {
	err = f.Do("add a virtual server", func(nsxsim.Editor) error {
		f.made++
		id = f.create(fmt.Sprintf("10.0.200.%d", f.made%250+1))
		f.attach(id)
		return nil
	})
	return id, err
}

// RemoveVirtualServer detaches and deletes a virtual server of the foreign user's.
func (f *Foreign) RemoveVirtualServer(id string) error {
	return f.Do("remove virtual server "+id, func(as nsxsim.Editor) error {
		if _, err := as.Update(nsxsim.KindLBService, f.lb(LBFirst), func(o nsxsim.Object) {
			o["virtual_server_ids"] = slices.DeleteFunc(o.Strings("virtual_server_ids"), func(v string) bool { return v == id })
		}); err != nil {
			return err
		}
		return as.Delete(nsxsim.KindVirtualServer, id)
	})
}

func (f *Foreign) create(address string) string {
	return nsxsim.Must(f.w.Sim.As(foreignUser).Create(nsxsim.KindVirtualServer, nsxsim.Object{
		"display_name": "theirs", "ip_address": address, "ip_protocol": "TCP", "ports": []string{"80"}, "pool_id": f.Pool,
		"application_profile_id": f.w.named(nsxsim.KindApplicationProfile, "default-tcp-lb-app-profile"),
		"tags": []any{
			map[string]any{"scope": nsx.TagServiceUID, "tag": "a-web-1"},
			map[string]any{"scope": nsx.TagClusterUID, "tag": "uid-of-somebody"},
			map[string]any{"tag": "no scope"},
		},
	})).ID()
}

func (f *Foreign) attach(id string) {
	must(f.w.Sim.As(foreignUser).Update(nsxsim.KindLBService, f.lb(LBFirst), func(o nsxsim.Object) {
		o["virtual_server_ids"] = append(o.Strings("virtual_server_ids"), id)
	}))
}

func (f *Foreign) lb(name string) string { return f.w.named(nsxsim.KindLBService, name) }

// named is the id of an object by its display name.
func (w *World) named(kind nsxsim.Kind, name string) string {
	for _, o := range w.Sim.List(kind) {
		if o.String("display_name") == name {
			return o.ID()
		}
	}
	panic(fmt.Sprintf("world: no %s is named %q", kind, name)) // a mistake in the play
}
