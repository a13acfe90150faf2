package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/bench"
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

// audits lets audits pass that bring nothing about.
func (w *world) audits(n int) {
	w.t.Helper()
	for range n {
		before := w.engine.AuditState().Last
		w.audit("an audit has ended", func() bool { return w.engine.AuditState().Last.After(before) })
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

// edits are what somebody may do by hand to what a Service has in NSX, and what the audit says of it.
var edits = []struct {
	name    string
	service func() *corev1.Service
	change  func(w *world, svc *corev1.Service)
	right   func(w *world, svc *corev1.Service) bool
	// found is the kind of what was changed; by who NSX says it was, empty when it does not.
	found nsx.Kind
	by    string
}{
	{"ports edited", threePorts, editVirtualServer(func(o nsxsim.Object) {
		delete(o, "port")
		delete(o, "default_pool_member_port")
		o["ports"], o["default_pool_member_ports"] = []string{"81"}, []string{"30081"}
	}), func(w *world, svc *corev1.Service) bool { return w.virtualServer(svc).Strings("ports")[0] == "80" },
		nsx.KindVirtualServer, "somebody"},
	{"switched off", threePorts, editVirtualServer(func(o nsxsim.Object) { o["enabled"] = false }),
		func(w *world, svc *corev1.Service) bool { return w.virtualServer(svc)["enabled"] == true },
		nsx.KindVirtualServer, "somebody"},
	{"sent to another pool", threePorts, func(w *world, svc *corev1.Service) {
		theirs := w.foreignPool()
		editVirtualServer(func(o nsxsim.Object) { o["pool_id"] = theirs })(w, svc)
	}, func(w *world, svc *corev1.Service) bool {
		return w.virtualServer(svc).String("pool_id") != w.foreignPool()
	},
		nsx.KindVirtualServer, "somebody"},
	{"tag of its IP pool removed", threePorts, editVirtualServer(func(o nsxsim.Object) {
		o["tags"] = slices.DeleteFunc(o["tags"].([]any), func(t any) bool { return t.(map[string]any)["scope"] == nsx.TagIPPool })
	}), func(w *world, svc *corev1.Service) bool { return w.virtualServer(svc).Tags()[nsx.TagIPPool] == w.pool },
		nsx.KindVirtualServer, "somebody"},
	{"tag of its class edited", threePorts, editVirtualServer(func(o nsxsim.Object) {
		for _, t := range o["tags"].([]any) {
			if t.(map[string]any)["scope"] == nsx.TagClass {
				t.(map[string]any)["tag"] = "gold"
			}
		}
	}), func(w *world, svc *corev1.Service) bool {
		return w.virtualServer(svc).Tags()[nsx.TagClass] == "default"
	},
		nsx.KindVirtualServer, "somebody"},
	{"detached", threePorts, func(w *world, svc *corev1.Service) { w.detach(w.virtualServer(svc).ID()) },
		func(w *world, svc *corev1.Service) bool { return w.isAttached(w.virtualServer(svc)) },
		nsx.KindLBService, "somebody"},
	{"deleted", threePorts, func(w *world, svc *corev1.Service) {
		id := w.virtualServer(svc).ID()
		w.detach(id)
		w.must(w.sim.As("somebody").Delete(nsxsim.KindVirtualServer, id))
	}, func(w *world, svc *corev1.Service) bool {
		vs := w.virtualServer(svc)
		return vs != nil && w.isAttached(vs)
	}, nsx.KindVirtualServer, ""},
	{"address released", threePorts, func(w *world, svc *corev1.Service) {
		w.must(w.sim.As("somebody").Release(w.pool, externalIP(svc)))
	}, func(w *world, svc *corev1.Service) bool {
		return slices.Contains(w.sim.Allocations(w.pool), externalIP(svc))
	},
		nsx.KindAddress, ""},
	{"node pool's algorithm edited", threePorts, editPool(func(o nsxsim.Object) { o["algorithm"] = "IP_HASH" }),
		func(w *world, svc *corev1.Service) bool { return w.poolOf(svc).String("algorithm") == "ROUND_ROBIN" },
		nsx.KindPool, "somebody"},
	{"node pool's monitor taken away", threePorts, editPool(func(o nsxsim.Object) { o["active_monitor_ids"] = []string{} }),
		func(w *world, svc *corev1.Service) bool { return len(w.poolOf(svc).Strings("active_monitor_ids")) == 1 },
		nsx.KindPool, "somebody"},
	{"members removed", threePorts, editPool(func(o nsxsim.Object) { o["members"] = []any{} }),
		func(w *world, svc *corev1.Service) bool {
			members, _ := w.poolOf(svc)["members"].([]any)
			return len(members) == len(w.nodes)
		}, nsx.KindPool, "somebody"},
	{"a member drained", threePorts, editPool(func(o nsxsim.Object) {
		o["members"].([]any)[1].(map[string]any)["admin_state"] = "DISABLED"
	}), func(w *world, svc *corev1.Service) bool {
		members, _ := w.poolOf(svc)["members"].([]any)
		return members[1].(map[string]any)["admin_state"] == "ENABLED"
	}, nsx.KindPool, "somebody"},
	{"node pool's monitor edited", threePorts, editMonitor(func(o nsxsim.Object) { o["request_url"] = "/" }),
		func(w *world, svc *corev1.Service) bool { return w.monitorOf(svc).String("request_url") == "/healthz" },
		nsx.KindMonitor, "somebody"},
	{"monitor wants another answer", threePorts, editMonitor(func(o nsxsim.Object) { o["response_status_codes"] = []int{503} }),
		func(w *world, svc *corev1.Service) bool {
			codes, _ := w.monitorOf(svc)["response_status_codes"].([]any)
			return fmt.Sprint(codes) == "[200]"
		}, nsx.KindMonitor, "somebody"},
	{"persistence profile edited", sticky, func(w *world, svc *corev1.Service) {
		_, err := w.sim.As("somebody").Update(nsxsim.KindPersistenceProfile, w.virtualServer(svc).String("persistence_profile_id"),
			func(o nsxsim.Object) { o["timeout"] = 5 })
		w.must(err)
	}, func(w *world, svc *corev1.Service) bool {
		profile := w.sim.Get(nsxsim.KindPersistenceProfile, w.virtualServer(svc).String("persistence_profile_id"))
		return profile != nil && fmt.Sprint(profile["timeout"]) == "600"
	}, nsx.KindVirtualServer, "somebody"},
	{"own pool sent to another group", localPolicy, func(w *world, svc *corev1.Service) {
		theirs := nsxsim.Must(w.sim.As("somebody").Create(nsxsim.KindNSGroup, nsxsim.Object{"display_name": "their group"}))
		w.foreign = w.foreignDocs()
		editPool(func(o nsxsim.Object) {
			o["member_group"].(map[string]any)["grouping_object"] = map[string]any{"target_type": "NSGroup", "target_id": theirs.ID()}
		})(w, svc)
	}, func(w *world, svc *corev1.Service) bool {
		return w.groupOf(svc).Tags()[nsx.TagClusterUID] == clusterUID
	},
		nsx.KindPool, "somebody"},
	{"own monitor edited", localPolicy, editMonitor(func(o nsxsim.Object) { o["monitor_port"] = "1" }),
		func(w *world, svc *corev1.Service) bool { return w.monitorOf(svc).String("monitor_port") == "31999" },
		nsx.KindMonitor, "somebody"},
	{"nodes taken from their IP set", localPolicy, func(w *world, svc *corev1.Service) {
		_, err := w.sim.As("somebody").Update(nsxsim.KindIPSet, w.setOf(svc).ID(), func(o nsxsim.Object) { o["ip_addresses"] = []string{"192.168.9.9"} })
		w.must(err)
	}, func(w *world, svc *corev1.Service) bool {
		return len(w.setOf(svc).Strings("ip_addresses")) == len(w.nodes)
	},
		nsx.KindNodeGroup, "somebody"},
	{"nodes taken from their group", localPolicy, func(w *world, svc *corev1.Service) {
		_, err := w.sim.As("somebody").Update(nsxsim.KindNSGroup, w.groupOf(svc).ID(), func(o nsxsim.Object) { o["members"] = []any{} })
		w.must(err)
	}, func(w *world, svc *corev1.Service) bool { return w.setOf(svc) != nil },
		nsx.KindNodeGroup, "somebody"},
	{"access list taken away", restricted, editVirtualServer(func(o nsxsim.Object) { delete(o, "access_list_control") }), closed,
		nsx.KindVirtualServer, "somebody"},
	{"access list switched off", restricted, editVirtualServer(func(o nsxsim.Object) {
		o["access_list_control"].(map[string]any)["enabled"] = false
	}), closed, nsx.KindVirtualServer, "somebody"},
	{"a client let in by hand", restricted, func(w *world, svc *corev1.Service) {
		for _, set := range w.sim.List(nsxsim.KindIPSet) {
			if set.Tags()[nsx.TagClusterUID] != clusterUID {
				continue
			}
			_, err := w.sim.As("somebody").Update(nsxsim.KindIPSet, set.ID(), func(o nsxsim.Object) {
				o["ip_addresses"] = append(o.Strings("ip_addresses"), "10.0.0.0/8")
			})
			w.must(err)
		}
	}, closed, nsx.KindClientGroup, "somebody"},
	{"a group of clients emptied", restricted, func(w *world, svc *corev1.Service) {
		group := w.virtualServer(svc)["access_list_control"].(map[string]any)["group_id"].(string)
		_, err := w.sim.As("somebody").Update(nsxsim.KindNSGroup, group, func(o nsxsim.Object) { o["members"] = []any{} })
		w.must(err)
	}, closed, nsx.KindClientGroup, "somebody"},
}

func closed(w *world, svc *corev1.Service) bool {
	return w.lets(w.virtualServer(svc)) == sourcesOf(svc)
}

func sticky() *corev1.Service {
	svc := bench.Service("web", cluster, "80")
	seconds := int32(600)
	svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	return svc
}

// The objects behind a Service, and edits of them by somebody.

func (w *world) poolOf(svc *corev1.Service) nsxsim.Object {
	return w.sim.Get(nsxsim.KindPool, w.virtualServer(svc).String("pool_id"))
}

func (w *world) monitorOf(svc *corev1.Service) nsxsim.Object {
	return w.sim.Get(nsxsim.KindMonitor, w.poolOf(svc).Strings("active_monitor_ids")[0])
}

func (w *world) groupOf(svc *corev1.Service) nsxsim.Object {
	group, _ := w.poolOf(svc)["member_group"].(map[string]any)
	target, _ := group["grouping_object"].(map[string]any)
	id, _ := target["target_id"].(string)
	return w.sim.Get(nsxsim.KindNSGroup, id)
}

// setOf is the IP set that the node group holds; nil when it holds none.
func (w *world) setOf(svc *corev1.Service) nsxsim.Object {
	members, _ := w.groupOf(svc)["members"].([]any)
	if len(members) == 0 {
		return nil
	}
	id, _ := members[0].(map[string]any)["value"].(string)
	return w.sim.Get(nsxsim.KindIPSet, id)
}

func (w *world) foreignPool() string {
	for _, p := range w.sim.List(nsxsim.KindPool) {
		if p.String("display_name") == "theirs" {
			return p.ID()
		}
	}
	return ""
}

func (w *world) isAttached(vs nsxsim.Object) bool {
	return slices.Contains(w.sim.Get(nsxsim.KindLBService, w.lb).Strings("virtual_server_ids"), vs.ID())
}

func (w *world) detach(id string) {
	w.t.Helper()
	_, err := w.sim.As("somebody").Update(nsxsim.KindLBService, w.lb, func(o nsxsim.Object) {
		o["virtual_server_ids"] = slices.DeleteFunc(o.Strings("virtual_server_ids"), func(v string) bool { return v == id })
	})
	w.must(err)
}

func editVirtualServer(f func(nsxsim.Object)) func(*world, *corev1.Service) {
	return func(w *world, svc *corev1.Service) {
		_, err := w.sim.As("somebody").Update(nsxsim.KindVirtualServer, w.virtualServer(svc).ID(), f)
		w.must(err)
	}
}

func editPool(f func(nsxsim.Object)) func(*world, *corev1.Service) {
	return func(w *world, svc *corev1.Service) {
		_, err := w.sim.As("somebody").Update(nsxsim.KindPool, w.poolOf(svc).ID(), f)
		w.must(err)
	}
}

func editMonitor(f func(nsxsim.Object)) func(*world, *corev1.Service) {
	return func(w *world, svc *corev1.Service) {
		_, err := w.sim.As("somebody").Update(nsxsim.KindMonitor, w.monitorOf(svc).ID(), f)
		w.must(err)
	}
}

// TestAuditPutsRightWhatSomebodyChanged: a Report names what was changed and by whom, and writes nothing; a Repair does
// what the Report has said, and the EXTERNAL-IP stays.
func TestAuditPutsRightWhatSomebodyChanged(t *testing.T) {
	for _, e := range edits {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nsxsim.Options{})
			w.exclusive = false // what somebody else has allocated is none of the audit's business
			w.start()
			svc := w.published(e.service())
			w.published(bench.Service("other", cluster, "80")) // shares the node pool
			ip := externalIP(svc)
			e.change(w, svc)
			if e.right(w, svc) {
				t.Fatal("nothing has changed: the test proves nothing")
			}
			w.sim.Journal().Reset()

			w.wantFound(config.AuditModeReport, lb.ActionReport, e.found, e.by)
			if got := w.sim.Journal().Writes(); len(got) != 0 {
				t.Errorf("the report wrote %v", got)
			}
			w.wantDrift(e.by, "would be put right")

			w.wantFound(config.AuditModeRepair, lb.ActionRepair, e.found, e.by)
			w.eventually("it is put right", func() bool { return e.right(w, svc) })
			w.wantDrift(e.by, "is put right")
			w.eventually("nothing more is found", func() bool {
				report, err := w.engine.Audit(t.Context(), config.AuditModeReport)
				return err == nil && len(report.Entries) == 0 || onlyForeign(report)
			})
			w.ensure(svc)
			if got := externalIP(svc); got != ip {
				t.Errorf("EXTERNAL-IP changed from %s to %s", ip, got)
			}
		})
	}
}

// wantFound audits and wants one thing found, besides the address that the foreign user has.
func (w *world) wantFound(mode config.AuditMode, action lb.AuditAction, kind nsx.Kind, by string) {
	w.t.Helper()
	w.mu.Lock()
	w.events = nil
	w.mu.Unlock()
	report, err := w.engine.Audit(w.t.Context(), mode)
	w.must(err)
	var got []string
	for _, e := range report.Entries {
		if e.ID != "10.0.0.7" {
			got = append(got, fmt.Sprintf("%s %s by %q", e.Action, e.Kind, e.Edit.By))
		}
	}
	if d := cmp.Diff([]string{fmt.Sprintf("%s %s by %q", action, kind, by)}, got); d != "" {
		w.t.Errorf("%s finds (-want +got):\n%s\n%v", mode, d, report.Entries)
	}
}

func onlyForeign(r lb.AuditReport) bool {
	return !slices.ContainsFunc(r.Entries, func(e lb.AuditEntry) bool { return e.ID != "10.0.0.7" })
}

// wantDrift wants one event about a change, which says who made it and what is done.
func (w *world) wantDrift(by, done string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for _, e := range w.events {
		if e.Reason == lb.ReasonDrift && e.Name != "other" { // which hears of what it shares
			got = append(got, e.Message)
		}
	}
	who := "NSX does not say by whom"
	if by != "" {
		who = fmt.Sprintf("last modified by %q at ", by)
	}
	if len(got) != 1 || !strings.Contains(got[0], who) || !strings.Contains(got[0], done) {
		w.t.Errorf("events are %q, want one with %q and %q", got, who, done)
	}
}

// TestAllWhoShareHearOfADrift: of what several Services use, each that does hears, once in an audit, and nobody else.
func TestAllWhoShareHearOfADrift(t *testing.T) {
	limited := func(name string) *corev1.Service {
		svc := bench.Service(name, cluster, "80")
		svc.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
		return svc
	}
	for _, c := range []struct {
		name   string
		change func(*world, *corev1.Service)
		want   map[string]int
	}{
		{"node pool", editPool(func(o nsxsim.Object) { o["algorithm"] = "IP_HASH" }), map[string]int{"a": 1, "b": 1, "c": 1, "open": 1}},
		{"monitor", editMonitor(func(o nsxsim.Object) { o["request_url"] = "/" }), map[string]int{"a": 1, "b": 1, "c": 1, "open": 1}},
		{"clients", func(w *world, svc *corev1.Service) {
			group := w.virtualServer(svc)["access_list_control"].(map[string]any)["group_id"].(string)
			_, err := w.sim.As("somebody").Update(nsxsim.KindNSGroup, group, func(o nsxsim.Object) { o["members"] = []any{} })
			w.must(err)
		}, map[string]int{"a": 1, "b": 1, "c": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nsxsim.Options{})
			w.exclusive = false
			w.start()
			svc := w.published(limited("a"))
			w.published(limited("b"))
			w.published(limited("c"))
			w.published(bench.Service("open", cluster, "80"))
			w.published(localPolicy())
			c.change(w, svc)
			for _, mode := range []config.AuditMode{config.AuditModeReport, config.AuditModeRepair} {
				w.mu.Lock()
				w.events = nil
				w.mu.Unlock()
				_, err := w.engine.Audit(t.Context(), mode)
				w.must(err)
				got := map[string]int{}
				w.mu.Lock()
				for _, e := range w.events {
					if e.Reason == lb.ReasonDrift {
						got[e.Name]++
					}
				}
				w.mu.Unlock()
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("%s: events by Service (-want +got):\n%s", mode, d)
				}
			}
		})
	}
}

// TestDriftNeverBlamesItself: somebody detaches a virtual server, and the controller attaches another one after that, so that it is
// the load-balancer service's last writer. Then nothing tells who it was.
func TestDriftNeverBlamesItself(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.exclusive = false // what somebody else has allocated is none of the audit's business
	w.start()
	svc := w.published(threePorts())
	w.detach(w.virtualServer(svc).ID())
	w.published(bench.Service("other", cluster, "80"))
	if by := w.sim.Get(nsxsim.KindLBService, w.lb).String("_last_modified_user"); by != nsxsim.DefaultUsername {
		t.Fatalf("%q wrote last: the test proves nothing", by)
	}
	w.wantFound(config.AuditModeReport, lb.ActionReport, nsx.KindLBService, "")
	w.wantDrift("", "would be put right")
}

func TestAuditWritesNothingWhenAllIsRight(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.exclusive = false // what somebody else has allocated is none of the audit's business
	w.start()
	w.published(bench.Service("web", cluster, "80"))
	w.published(bench.Service("dns", local, "53", "53/UDP"))
	restricted := bench.Service("restricted", cluster, "80")
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
		svc := bench.Service(name, cluster, "80")
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
	w.sim.Journal().Reset()
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
	stays := w.published(bench.Service("stays", cluster, "80"))
	gone := w.published(bench.Service("gone", local, "80"))
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
		svc := w.published(bench.Service("web", cluster, "80"))
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

// TestAuditKeepsTheAddressOfAServiceThatCannotBePutRight: its virtual server is gone and cannot be made again for the time
// being; an address that its status shows is not released, however often it is seen without a record.
func TestAuditKeepsTheAddressOfAServiceThatCannotBePutRight(t *testing.T) {
	w := newWorld(t, nsxsim.Options{}) // with an exclusive pool
	w.start()
	svc := w.published(bench.Service("web", cluster, "80"))
	ip := externalIP(svc)
	id := w.virtualServer(svc).ID()
	w.detach(id)
	w.must(w.sim.As("somebody").Delete(nsxsim.KindVirtualServer, id))
	_, err := w.sim.Faults().Add(nsxsim.Rule{Method: "POST", Path: "/loadbalancer/virtual-servers", Status: 500})
	w.must(err)
	failed := 0
	for range 4 { // beside the audits that come by themselves
		w.clock.Step(5 * time.Minute)
		if _, err := w.engine.Audit(t.Context(), config.AuditModeRepair); err != nil {
			failed++
		}
	}
	if failed < 2 {
		t.Fatalf("%d audits failed, want two at least: the test proves nothing", failed)
	}
	if !slices.Contains(w.sim.Allocations(w.pool), ip) {
		t.Fatalf("the audit released %s, which the Service shows", ip)
	}
	w.sim.Faults().Clear()
	w.clock.Step(5 * time.Minute)
	w.settle("the audit", func() error { // another one may have met the fault in this very moment
		_, err := w.engine.Audit(t.Context(), config.AuditModeRepair)
		return err
	})
	if vs := w.virtualServer(svc); vs == nil || vs.String("ip_address") != ip {
		t.Errorf("virtual server is %v, want one on %s", vs, ip)
	}
}

// TestAuditsOnDemandInARowRemoveNothing: two sightings count only with time in between, and a report removes nothing at all.
func TestAuditsOnDemandInARowRemoveNothing(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.start()
	gone := w.published(bench.Service("gone", cluster, "80"))
	w.mu.Lock()
	w.services = nil
	w.mu.Unlock()
	for range 5 {
		if _, err := w.engine.Audit(t.Context(), config.AuditModeRepair); err != nil {
			t.Fatal(err)
		}
	}
	if w.virtualServer(gone) == nil || !slices.Contains(w.sim.Allocations(w.pool), "10.0.0.7") {
		t.Fatal("removed or released by audits that followed one another at once")
	}
	w.clock.Step(3 * time.Minute) // longer than 30 s, and than the pool's release delay
	if _, err := w.engine.Audit(t.Context(), config.AuditModeReport); err != nil {
		t.Fatal(err)
	}
	if w.virtualServer(gone) == nil || !slices.Contains(w.sim.Allocations(w.pool), "10.0.0.7") {
		t.Fatal("a report removed or released something")
	}
	if !w.event(lb.ReasonOrphan) || !w.event(lb.ReasonUnrecordedAddress) {
		t.Error("the report says nothing of the orphan, or of the address")
	}
	if _, err := w.engine.Audit(t.Context(), config.AuditModeRepair); err != nil {
		t.Fatal(err)
	}
	if w.virtualServer(gone) != nil || len(w.sim.Allocations(w.pool)) != 0 {
		t.Error("the orphan, or an address, is still there")
	}
}

// TestAllMembersDown: a warning, but only of what is down for longer than a new pool takes to be checked, and only while
// there are nodes that should answer; it ends with the cause.
func TestAllMembersDown(t *testing.T) {
	for _, tc := range []struct {
		policy      corev1.ServiceExternalTrafficPolicy
		service     string
		shared, own int
	}{{cluster, "", 1, 0}, {local, "web", 0, 1}} {
		t.Run(string(tc.policy), func(t *testing.T) {
			w := newWorld(t, nsxsim.Options{})
			w.exclusive = false
			w.start()
			w.published(bench.Service("web", tc.policy, "80"))
			health := func(up bool, nodes ...*corev1.Node) {
				for _, n := range nodes {
					w.sim.SetMemberHealth(netip.MustParseAddr(n.Status.Addresses[0].Address), up)
				}
			}
			down := func() bool { return w.event(lb.ReasonAllMembersDown) }
			audit := func() lb.AuditState {
				t.Helper()
				if _, err := w.engine.Audit(t.Context(), config.AuditModeRepair); err != nil {
					t.Fatal(err)
				}
				return w.engine.AuditState()
			}
			health(false, w.nodes[1:]...)
			audit()
			w.clock.Step(time.Minute)
			if s := audit(); down() || s.SharedDown+s.OwnDown != 0 {
				t.Fatal("one member is up, and all are said to be down")
			}
			health(false, w.nodes...)
			w.sim.Journal().Reset()
			if s := audit(); down() || s.SharedDown != tc.shared || s.OwnDown != tc.own {
				t.Fatalf("at first sight: event %t, state %+v", down(), s)
			}
			if n := w.sim.Journal().Count("GET /loadbalancer/services/{id}/pools/status"); n != 1 {
				t.Errorf("%d calls for the state of the pools of one load-balancer service, want 1", n)
			}
			w.eventually("an event says so, within minutes", down)
			w.mu.Lock()
			i := slices.IndexFunc(w.events, func(e lb.Event) bool { return e.Reason == lb.ReasonAllMembersDown })
			e := w.events[i]
			w.events = nil
			w.mu.Unlock()
			if e.Name != tc.service || !strings.Contains(e.Message, "all 3 members are DOWN") {
				t.Errorf("event is %+v", e)
			}
			health(true, w.nodes[0])
			w.clock.Step(time.Minute)
			if s := audit(); down() || s.SharedDown+s.OwnDown != 0 {
				t.Errorf("up again: event %t, state %+v", down(), s)
			}
		})
	}
}
