package integration

import (
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// auditInterval is the config's default, with the tenth by which it is spread.
const auditInterval = 11 * time.Minute

// audit lets the next audit come and waits until what it brings about is there.
func (w *world) audit(what string, ok func() bool) {
	w.t.Helper()
	w.eventually(what, func() bool {
		if ok() {
			return true
		}
		w.clock.Step(auditInterval / 10) // the next audit's pause begins when the last one has ended
		return false
	})
}

// audits lets audits pass that bring nothing about: each reads the load-balancer services once.
func (w *world) audits(n int) {
	w.t.Helper()
	for range n {
		w.sim.Journal().Reset()
		w.audit("the audit has read NSX", func() bool { return w.sim.Journal().Count("GET /loadbalancer/virtual-servers") > 0 })
	}
}

func (w *world) event(reason string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.events, func(e lb.Event) bool { return e.Reason == reason })
}

// published is a Service as the framework has left it.
func (w *world) published(svc *corev1.Service) *corev1.Service {
	w.t.Helper()
	svc.Finalizers = []string{"service.kubernetes.io/load-balancer-cleanup"}
	w.ensure(svc)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services = append(w.services, svc)
	return svc
}

func (w *world) virtualServer(svc *corev1.Service) nsxsim.Object {
	w.t.Helper()
	for _, vs := range w.sim.List(nsxsim.KindVirtualServer) {
		if tags := vs.Tags(); tags[nsx.TagClusterUID] == clusterUID && tags[nsx.TagServiceUID] == string(svc.UID) {
			return vs
		}
	}
	return nil
}

func TestAuditPutsRightWhatSomebodyChanged(t *testing.T) {
	type edit struct {
		name   string
		change func(w *world, svc *corev1.Service)
		right  func(w *world, svc *corev1.Service) bool
	}
	closed := func(w *world, svc *corev1.Service) bool { return w.lets(w.virtualServer(svc)) == sourcesOf(svc) }
	somebody := func(w *world) nsxsim.Editor { return w.sim.As("somebody") }
	detach := func(w *world, id string) {
		_, err := somebody(w).Update(nsxsim.KindLBService, w.lb, func(o nsxsim.Object) {
			o["virtual_server_ids"] = slices.DeleteFunc(o.Strings("virtual_server_ids"), func(v string) bool { return v == id })
		})
		w.must(err)
	}
	for _, e := range []edit{
		{"ports edited", func(w *world, svc *corev1.Service) {
			_, err := somebody(w).Update(nsxsim.KindVirtualServer, w.virtualServer(svc).ID(), func(o nsxsim.Object) {
				delete(o, "port")
				delete(o, "default_pool_member_port")
				o["ports"], o["default_pool_member_ports"] = []string{"81"}, []string{"30081"}
			})
			w.must(err)
		}, func(w *world, svc *corev1.Service) bool { return w.virtualServer(svc).Strings("ports")[0] == "80" }},
		{"switched off", func(w *world, svc *corev1.Service) {
			_, err := somebody(w).Update(nsxsim.KindVirtualServer, w.virtualServer(svc).ID(), func(o nsxsim.Object) { o["enabled"] = false })
			w.must(err)
		}, func(w *world, svc *corev1.Service) bool { return w.virtualServer(svc)["enabled"] == true }},
		{"detached", func(w *world, svc *corev1.Service) { detach(w, w.virtualServer(svc).ID()) },
			func(w *world, svc *corev1.Service) bool {
				return slices.Contains(w.sim.Get(nsxsim.KindLBService, w.lb).Strings("virtual_server_ids"), w.virtualServer(svc).ID())
			}},
		{"deleted", func(w *world, svc *corev1.Service) {
			id := w.virtualServer(svc).ID()
			detach(w, id)
			w.must(somebody(w).Delete(nsxsim.KindVirtualServer, id))
		}, func(w *world, svc *corev1.Service) bool {
			vs := w.virtualServer(svc)
			return vs != nil && slices.Contains(w.sim.Get(nsxsim.KindLBService, w.lb).Strings("virtual_server_ids"), vs.ID())
		}},
		{"address released", func(w *world, svc *corev1.Service) {
			w.must(somebody(w).Release(w.pool, svc.Status.LoadBalancer.Ingress[0].IP))
		}, func(w *world, svc *corev1.Service) bool {
			return slices.Contains(w.sim.Allocations(w.pool), svc.Status.LoadBalancer.Ingress[0].IP)
		}},
		{"node pool's algorithm edited", func(w *world, svc *corev1.Service) {
			_, err := somebody(w).Update(nsxsim.KindPool, w.virtualServer(svc).String("pool_id"), func(o nsxsim.Object) { o["algorithm"] = "IP_HASH" })
			w.must(err)
		}, func(w *world, svc *corev1.Service) bool {
			return w.sim.Get(nsxsim.KindPool, w.virtualServer(svc).String("pool_id")).String("algorithm") == "ROUND_ROBIN"
		}},
		{"access list taken away", func(w *world, svc *corev1.Service) {
			_, err := somebody(w).Update(nsxsim.KindVirtualServer, w.virtualServer(svc).ID(), func(o nsxsim.Object) { delete(o, "access_list_control") })
			w.must(err)
		}, closed},
		{"access list switched off", func(w *world, svc *corev1.Service) {
			_, err := somebody(w).Update(nsxsim.KindVirtualServer, w.virtualServer(svc).ID(), func(o nsxsim.Object) {
				o["access_list_control"].(map[string]any)["enabled"] = false
			})
			w.must(err)
		}, closed},
		{"a client let in by hand", func(w *world, svc *corev1.Service) {
			for _, set := range w.sim.List(nsxsim.KindIPSet) {
				if set.Tags()[nsx.TagClusterUID] != clusterUID {
					continue
				}
				_, err := somebody(w).Update(nsxsim.KindIPSet, set.ID(), func(o nsxsim.Object) {
					o["ip_addresses"] = append(o.Strings("ip_addresses"), "10.0.0.0/8")
				})
				w.must(err)
			}
		}, closed},
		{"a group of clients emptied", func(w *world, svc *corev1.Service) {
			group := w.virtualServer(svc)["access_list_control"].(map[string]any)["group_id"].(string)
			_, err := somebody(w).Update(nsxsim.KindNSGroup, group, func(o nsxsim.Object) { o["members"] = []any{} })
			w.must(err)
		}, closed},
	} {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nsxsim.Options{})
			w.exclusive = false // what somebody else has allocated is none of the audit's business
			w.start()
			svc := service("web", cluster, "80")
			svc.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24", "198.51.100.7/32"}
			w.published(svc)
			ip := svc.Status.LoadBalancer.Ingress[0].IP
			e.change(w, svc)
			w.audit("it is put right", func() bool { return e.right(w, svc) })
			w.eventually("an event says so", func() bool { return w.event(lb.ReasonDrift) })
			w.ensure(svc)
			if got := svc.Status.LoadBalancer.Ingress[0].IP; got != ip {
				t.Errorf("EXTERNAL-IP changed from %s to %s", ip, got)
			}
			w.check(svc)
		})
	}
}

func TestAuditRestoresMembers(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.exclusive = false
	w.start()
	svc := w.published(service("web", cluster, "80"))
	pool := w.virtualServer(svc).String("pool_id")
	_, err := w.sim.As("somebody").Update(nsxsim.KindPool, pool, func(o nsxsim.Object) { o["members"] = []any{} })
	w.must(err)
	w.audit("the nodes are members again", func() bool {
		members, _ := w.sim.Get(nsxsim.KindPool, pool)["members"].([]any)
		return len(members) == len(w.nodes)
	})
}

func TestAuditWritesNothingWhenAllIsRight(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.exclusive = false // what somebody else has allocated is none of the audit's business
	w.start()
	w.published(service("web", cluster, "80"))
	w.published(service("dns", local, "53", "53/UDP"))
	restricted := service("restricted", cluster, "80")
	restricted.Spec.LoadBalancerSourceRanges = []string{"198.51.100.128/25", "198.51.100.9/25", "192.0.2.1/32"}
	w.published(restricted)
	w.sim.Journal().Reset()
	w.audits(2)
	if got := w.sim.Journal().Writes(); len(got) != 0 {
		t.Errorf("wrote %v", got)
	}
}

// TestOneAuditRestoresClientsOfAllServices: Services share the group that somebody edits; it is written once, for all of them.
func TestOneAuditRestoresClientsOfAllServices(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.exclusive = false
	w.start()
	var services []*corev1.Service
	for _, name := range []string{"a", "b", "c"} {
		svc := service(name, cluster, "80")
		svc.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
		services = append(services, w.published(svc))
	}
	for _, set := range w.sim.List(nsxsim.KindIPSet) {
		if set.Tags()[nsx.TagClusterUID] == clusterUID {
			_, err := w.sim.As("somebody").Update(nsxsim.KindIPSet, set.ID(), func(o nsxsim.Object) { o["ip_addresses"] = []string{"0.0.0.0/0"} })
			w.must(err)
		}
	}
	w.sim.Journal().Reset()
	w.audit("the clients are those of before", func() bool { return w.lets(w.virtualServer(services[0])) == "192.0.2.0/24" })
	w.eventually("an event says so", func() bool { return w.event(lb.ReasonDrift) })
	if got := w.sim.Journal().Writes(); !maps.Equal(got, map[string]int{"PUT /ip-sets/{id}": 1}) {
		t.Errorf("wrote %v", got)
	}
	w.audits(1)
	if got := w.sim.Journal().Writes(); len(got) != 0 {
		t.Errorf("another audit wrote %v", got)
	}
	w.check(services...)
}

// TestAuditRemovesOrphansAtTheSecondSighting: a Service may be on its way into the list when the first audit comes.
func TestAuditRemovesOrphansAtTheSecondSighting(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.exclusive = false // what somebody else has allocated is none of the audit's business
	w.start()
	stays := w.published(service("stays", cluster, "80"))
	gone := w.published(service("gone", local, "80"))
	w.mu.Lock()
	w.services = []*corev1.Service{stays} // the other one was deleted while nobody looked, finalizer and all
	w.mu.Unlock()
	w.audits(1)
	if w.virtualServer(gone) == nil {
		t.Fatal("removed at the first sighting")
	}
	w.audit("the orphan is gone", func() bool { return w.virtualServer(gone) == nil })
	w.eventually("its pool and monitor are gone too", func() bool {
		want, got := w.support([]*corev1.Service{stays})
		return want[nsxsim.KindPool] == got[nsxsim.KindPool] && want[nsxsim.KindMonitor] == got[nsxsim.KindMonitor]
	})
	w.check(stays)
	if !w.event(lb.ReasonOrphan) {
		t.Error("no event says so")
	}
}

func TestAuditReclaimsAddressesOfExclusivePoolsAlone(t *testing.T) {
	for _, exclusive := range []bool{true, false} {
		w := newWorld(t, nsxsim.Options{})
		w.exclusive = exclusive
		w.start()
		svc := w.published(service("web", cluster, "80"))
		w.audits(1)
		if !slices.Contains(w.sim.Allocations(w.pool), "10.0.0.7") {
			t.Fatal("released at the first sighting")
		}
		if exclusive {
			w.audit("the address is released", func() bool { return !slices.Contains(w.sim.Allocations(w.pool), "10.0.0.7") })
			w.eventually("an event says so", func() bool { return w.event(lb.ReasonUnrecordedAddress) })
		} else {
			w.audits(2)
			if !slices.Contains(w.sim.Allocations(w.pool), "10.0.0.7") {
				t.Error("released somebody else's address")
			}
		}
		if ip := svc.Status.LoadBalancer.Ingress[0].IP; !slices.Contains(w.sim.Allocations(w.pool), ip) {
			t.Errorf("released %s, which is in use", ip)
		}
	}
}
