package random

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/chaos/world"
)

// stepKinds are what can happen, and how often it does.
var stepKinds = []struct {
	weight int
	make   func(d *dice, cluster string) step
}{
	{24, apply},
	{18, edit},
	{10, remove},
	{14, node},
	{8, faults},
	{6, process},
	{4, configure},
	{8, somebodyElse},
	{8, byHand},
	{5, wait},
}

// on is a step of a cluster.
func on(cluster, text string, do func(*player, *world.Cluster)) step {
	return step{text: text, do: func(p *player) { do(p, p.Cluster(cluster)) }}
}

var (
	serviceNames = []string{"web", "shop", "dns", "mail", "game"}
	somePorts    = []string{"80", "443", "53", "53/UDP", "8080", "514/UDP", "25"}
)

func service(d *dice) *corev1.Service {
	ports := some(d, somePorts...)
	if d.chance(12) {
		for i := range 15 {
			ports = append(ports, fmt.Sprint(2000+i))
		}
	}
	policy := world.PolicyCluster
	if d.chance(3) {
		policy = world.PolicyLocal
	}
	svc := world.Service(of(d, serviceNames...), policy, ports...)
	if d.chance(5) {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	}
	if d.chance(5) {
		svc.Spec.LoadBalancerSourceRanges = sources(d)
	}
	if d.chance(4) {
		svc.Annotations = map[string]string{names.AnnotationClass: world.ClassGateway}
	}
	return svc
}

func sources(d *dice) []string {
	return some(d, "192.0.2.0/24", "198.51.100.0/24", "203.0.113.7/32")
}

// apply creates a Service or makes it another one.
func apply(d *dice, cluster string) step {
	svc := service(d)
	ask := 0
	if d.chance(6) {
		ask = 1 + d.IntN(8)
	}
	text := "apply " + world.Describe(svc)
	if ask > 0 {
		text += fmt.Sprintf(" that asks for address %d", ask)
	}
	return on(cluster, text, func(p *player, c *world.Cluster) {
		svc := svc.DeepCopy()
		p.ask(svc, ask)
		c.Apply(svc)
	})
}

// ask lets a Service ask for an address of the IP pool that every class has, where NSX honours that; 0 for none.
func (p *player) ask(svc *corev1.Service, number int) {
	svc.Spec.LoadBalancerIP = ""
	if number == 0 || p.o.ChosenAddress != nsxsim.ChosenAddressHonoured {
		return
	}
	svc.Spec.LoadBalancerIP = fmt.Sprintf("10.0.0.%d", number)
}

// edit changes something of a Service.
func edit(d *dice, cluster string) step {
	name := of(d, serviceNames...)
	change := func(text string, change func(*corev1.Service)) step {
		return on(cluster, "Service "+name+": "+text, func(_ *player, c *world.Cluster) { c.Edit(name, change) })
	}
	switch d.IntN(9) {
	case 0:
		port := of(d, somePorts...)
		return change("with port "+port, func(svc *corev1.Service) {
			added := world.Ports(port)[0]
			if !slices.ContainsFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == added.Name }) {
				svc.Spec.Ports = append(svc.Spec.Ports, added)
			}
		})
	case 1:
		return change("without its first port", func(svc *corev1.Service) {
			if len(svc.Spec.Ports) > 1 {
				svc.Spec.Ports = svc.Spec.Ports[1:]
			}
		})
	case 2:
		return change("with another node port", func(svc *corev1.Service) { svc.Spec.Ports[0].NodePort = 0; svc.Spec.Ports[0].Port++ })
	case 3:
		return change("the other policy", func(svc *corev1.Service) {
			if svc.Spec.ExternalTrafficPolicy == world.PolicyLocal {
				svc.Spec.ExternalTrafficPolicy = world.PolicyCluster
			} else {
				svc.Spec.ExternalTrafficPolicy = world.PolicyLocal
			}
		})
	case 4:
		ranges := sources(d)
		if d.chance(2) {
			ranges = nil
		}
		return change(fmt.Sprintf("from %v", ranges), func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = ranges })
	case 5:
		affinity := corev1.ServiceAffinity(of(d, "ClientIP", "None"))
		return change("affinity "+string(affinity), func(svc *corev1.Service) { svc.Spec.SessionAffinity = affinity })
	case 6:
		class := of(d, world.ClassDefault, world.ClassGateway)
		return change("class "+class, func(svc *corev1.Service) { svc.Annotations = map[string]string{names.AnnotationClass: class} })
	case 7:
		number := d.IntN(9)
		return on(cluster, fmt.Sprintf("Service %s: asks for address %d", name, number), func(p *player, c *world.Cluster) {
			c.Edit(name, func(svc *corev1.Service) { p.ask(svc, number) })
		})
	default:
		return change("type LoadBalancer", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
	}
}

// remove ends the load balancer of a Service.
func remove(d *dice, cluster string) step {
	name := of(d, serviceNames...)
	if d.chance(3) {
		return on(cluster, "Service "+name+": type ClusterIP", func(_ *player, c *world.Cluster) {
			c.Edit(name, func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP })
		})
	}
	return on(cluster, "delete Service "+name, func(_ *player, c *world.Cluster) { c.Delete(name) })
}

// node lets something happen to a Node.
func node(d *dice, cluster string) step {
	i := d.IntN(6)
	name := fmt.Sprintf("node-%d", i)
	change := func(text string, change func(*corev1.Node)) step {
		return on(cluster, name+": "+text, func(_ *player, c *world.Cluster) {
			if slices.ContainsFunc(c.Nodes(), func(n *corev1.Node) bool { return n.Name == name }) {
				c.SetNode(name, change)
			}
		})
	}
	switch d.IntN(9) {
	case 0, 1:
		return on(cluster, name+": there, and Ready", func(_ *player, c *world.Cluster) { c.AddNode(name, fmt.Sprintf("192.168.0.%d", i+1)) })
	case 2:
		return on(cluster, name+": gone", func(_ *player, c *world.Cluster) { c.DeleteNode(name) })
	case 3:
		return change("not Ready", world.Ready(false))
	case 4:
		return change("Ready", world.Ready(true))
	case 5:
		return change("to be deleted", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}}
		})
	case 6:
		return change("not to be deleted", func(n *corev1.Node) { n.Spec.Taints = nil })
	case 7:
		return on(cluster, "the API server shows no Nodes", func(_ *player, c *world.Cluster) { c.LoseNodes() })
	default:
		return on(cluster, "the API server shows the Nodes", func(_ *player, c *world.Cluster) { c.SeeNodes() })
	}
}

// faults let calls fail for a while.
func faults(d *dice, cluster string) step {
	var list []world.Fault
	var shown []string
	all := world.Faults()
	for range 1 + d.IntN(3) {
		f := all[d.IntN(len(all))]
		list, shown = append(list, f), append(shown, f.Name)
	}
	part := []float64{0.05, 0.2, 0.5, 1}[d.IntN(4)]
	writes := d.chance(2)
	span := []time.Duration{2 * time.Second, 20 * time.Second, 2 * time.Minute, 15 * time.Minute}[d.IntN(4)]
	salt := d.Uint64()
	what := "calls"
	if writes {
		what = "writes"
	}
	text := fmt.Sprintf("for %v, %g of the %s: %s", span, part, what, strings.Join(shown, ", "))
	return on(cluster, text, func(_ *player, c *world.Cluster) {
		end := time.Now().Add(span)
		c.Fail(func(call world.Call) *world.Fault {
			if time.Now().After(end) || writes && !call.Write() || chance("%d fails %d", salt, call.N) >= part {
				return nil
			}
			return &list[int(chance("%d how %d", salt, call.N)*float64(len(list)))]
		})
	})
}

// process ends a controller's process or begins another one.
func process(d *dice, cluster string) step {
	switch d.IntN(4) {
	case 0:
		return on(cluster, "SIGKILL", func(_ *player, c *world.Cluster) { c.Kill() })
	case 1:
		return on(cluster, "SIGTERM", func(_ *player, c *world.Cluster) { c.Stop() })
	case 2:
		return on(cluster, "SIGKILL, start", func(_ *player, c *world.Cluster) { c.Start() })
	default:
		return on(cluster, "SIGTERM, start", func(_ *player, c *world.Cluster) { c.Stop(); c.Start() })
	}
}

// configure edits the config of a cluster's controller and starts it again.
func configure(d *dice, cluster string) step {
	class := of(d, world.ClassDefault, world.ClassGateway)
	change := func(text string, change func(*config.Class)) step {
		return on(cluster, "config of class "+class+": "+text, func(_ *player, c *world.Cluster) {
			c.Config.Classes = slices.Clone(c.Config.Classes)
			for i := range c.Config.Classes {
				if c.Config.Classes[i].Name == class {
					change(&c.Config.Classes[i])
				}
			}
			c.Stop()
			c.Start()
		})
	}
	switch d.IntN(5) {
	case 0:
		pools := [][]string{{world.PoolFloating}, {world.PoolFloating, world.PoolSpare}, {world.PoolSpare, world.PoolFloating}}[d.IntN(3)]
		return change(fmt.Sprintf("ipPools %v", pools), func(c *config.Class) { c.IPPools = pools })
	case 1:
		lbs := []string{of(d, world.LBFirst, world.LBSecond)}
		return change(fmt.Sprintf("loadBalancerServices %v", lbs), func(c *config.Class) {
			if len(c.Tier1Gateways) == 0 {
				c.LoadBalancerServices = lbs
			}
		})
	case 2:
		check := config.HealthCheck{Port: 9000 + d.IntN(2), Path: "/live"}
		return change(fmt.Sprintf("healthCheck %v", check), func(c *config.Class) { c.HealthCheck = check })
	case 3:
		algorithm := config.Algorithm(of(d, string(config.AlgorithmRoundRobin), string(config.AlgorithmLeastConnection), string(config.AlgorithmIPHash)))
		return change("algorithm "+string(algorithm), func(c *config.Class) { c.Algorithm = algorithm })
	default:
		preserve := config.PreserveClientIP(of(d, string(config.PreserveClientIPAuto), string(config.PreserveClientIPAlways), string(config.PreserveClientIPNever)))
		return change("preserveClientIP "+string(preserve), func(c *config.Class) { c.PreserveClientIP = preserve })
	}
}

// somebodyElse lets the foreign user go about its business.
func somebodyElse(d *dice, _ string) step {
	theirs := func(text string, do func(*player)) step { return step{about: "somebody else", text: text, do: do} }
	switch d.IntN(7) {
	case 0, 1:
		lb := of(d, world.LBFirst, world.LBSecond)
		return theirs("touches "+lb, func(p *player) { _ = p.Foreign.Touch(lb) })
	case 2:
		return theirs("makes a virtual server", func(p *player) {
			if id, err := p.Foreign.AddVirtualServer(); err == nil {
				p.theirs = append(p.theirs, id)
			}
		})
	case 3:
		return theirs("removes a virtual server of theirs", func(p *player) {
			if len(p.theirs) > 0 && p.Foreign.RemoveVirtualServer(p.theirs[0]) == nil {
				p.theirs = p.theirs[1:]
			}
		})
	case 4:
		port := 1000 + d.IntN(1000)
		return theirs(fmt.Sprintf("moves its virtual server to port %d", port), func(p *player) {
			_ = p.Foreign.Do("edit", func(as nsxsim.Editor) error {
				_, err := as.Update(nsxsim.KindVirtualServer, p.Foreign.VirtualServer, func(o nsxsim.Object) { o["ports"] = []string{fmt.Sprint(port)} })
				return err
			})
		})
	case 5:
		pool, number := of(d, world.PoolFloating, world.PoolSpare), d.IntN(9)
		return theirs(fmt.Sprintf("allocates address %d of %s", number, pool), func(p *player) {
			if p.o.Exclusive {
				return // the promise
			}
			asked := ""
			if number > 0 && p.o.ChosenAddress == nsxsim.ChosenAddressHonoured {
				asked = fmt.Sprintf("10.0.%d.%d", slices.Index([]string{world.PoolFloating, world.PoolSpare}, pool), number)
			}
			if addr, err := p.Foreign.Allocate(pool, asked); err == nil {
				p.addresses = append(p.addresses, foreignAddress{pool, addr})
			}
		})
	default:
		return theirs("releases an address of theirs", func(p *player) {
			if len(p.addresses) > 0 && p.Foreign.Release(p.addresses[0].pool, p.addresses[0].addr) == nil {
				p.addresses = p.addresses[1:]
			}
		})
	}
}

// byHand lets somebody change or delete what is a cluster's.
func byHand(d *dice, cluster string) step {
	which := d.IntN(16)
	// one changes the which-th object of a kind.
	one := func(text string, kind nsxsim.Kind, may func(nsxsim.Object) bool, change func(*player, nsxsim.Editor, nsxsim.Object) error) step {
		return on(cluster, fmt.Sprintf("by hand, to %s %d: %s", kind, which, text), func(p *player, c *world.Cluster) {
			list := slices.DeleteFunc(p.objects(c, kind), func(o nsxsim.Object) bool {
				return may != nil && !may(o) || kind == nsxsim.KindVirtualServer && !shown(c, o)
			})
			if len(list) == 0 {
				return
			}
			o := list[which%len(list)]
			_ = p.ByHand(text+" "+o.ID(), func(as nsxsim.Editor) error { return change(p, as, o) })
		})
	}
	set := func(text string, kind nsxsim.Kind, may func(nsxsim.Object) bool, field string, value any) step {
		return one(text, kind, may, func(_ *player, as nsxsim.Editor, o nsxsim.Object) error {
			_, err := as.Update(kind, o.ID(), func(o nsxsim.Object) { o[field] = value })
			return err
		})
	}
	withMembers := func(o nsxsim.Object) bool { return o["member_group"] == nil }
	vs := nsxsim.KindVirtualServer
	switch d.IntN(11) {
	case 0:
		return set("switched off", vs, nil, "enabled", false)
	case 1:
		return set("another node port", vs, nil, "default_pool_member_ports", []string{"1"})
	case 2:
		return one("detached", vs, nil, func(p *player, as nsxsim.Editor, o nsxsim.Object) error { return detach(p, as, o.ID()) })
	case 3, 4:
		return one("deleted", vs, nil, func(p *player, as nsxsim.Editor, o nsxsim.Object) error {
			if err := detach(p, as, o.ID()); err != nil {
				return err
			}
			return as.Delete(vs, o.ID())
		})
	case 5:
		return set("without members", nsxsim.KindPool, withMembers, "members", []any{})
	case 6:
		return set("another algorithm", nsxsim.KindPool, nil, "algorithm", "WEIGHTED_ROUND_ROBIN")
	case 7:
		return set("another interval", nsxsim.KindMonitor, nil, "interval", 77)
	case 8:
		return set("other addresses", nsxsim.KindIPSet, nil, "ip_addresses", []string{"203.0.113.99"})
	case 9:
		return on(cluster, fmt.Sprintf("by hand, address %d: released", which), func(p *player, c *world.Cluster) {
			list := slices.DeleteFunc(p.objects(c, vs), func(o nsxsim.Object) bool { return !shown(c, o) })
			if !p.o.Exclusive || len(list) == 0 {
				return // somebody else may have it at once
			}
			addr := list[which%len(list)].String("ip_address")
			_ = p.ReleaseByHand(map[bool]string{true: world.PoolFloating, false: world.PoolSpare}[strings.HasPrefix(addr, "10.0.0.")], addr)
		})
	default:
		return one("left behind, of a Service that is gone", vs, nil, func(_ *player, as nsxsim.Editor, o nsxsim.Object) error {
			o = maps.Clone(o)
			for field := range o {
				if strings.HasPrefix(field, "_") || field == "id" {
					delete(o, field)
				}
			}
			o["ip_address"] = fmt.Sprintf("10.0.201.%d", which+1)
			o["display_name"] = "left behind"
			var tags []any
			tagged := o.Tags()
			for _, scope := range slices.Sorted(maps.Keys(tagged)) {
				tag := tagged[scope]
				if scope == nsx.TagServiceUID {
					tag = "gone"
				}
				tags = append(tags, map[string]any{"scope": scope, "tag": tag})
			}
			o["tags"] = tags
			_, err := as.Create(vs, o)
			return err
		})
	}
}

// shown tells whether the Service of a virtual server shows its address.
func shown(c *world.Cluster, vs nsxsim.Object) bool {
	return slices.ContainsFunc(c.Services(), func(svc *corev1.Service) bool {
		return string(svc.UID) == vs.Tags()[nsx.TagServiceUID] && len(svc.Status.LoadBalancer.Ingress) > 0 &&
			svc.Status.LoadBalancer.Ingress[0].IP == vs.String("ip_address")
	})
}

func detach(p *player, as nsxsim.Editor, id string) error {
	for _, lb := range p.Sim.List(nsxsim.KindLBService) {
		ids := lb.Strings("virtual_server_ids")
		if !slices.Contains(ids, id) {
			continue
		}
		if _, err := as.Update(nsxsim.KindLBService, lb.ID(), func(o nsxsim.Object) {
			o["virtual_server_ids"] = slices.DeleteFunc(ids, func(v string) bool { return v == id })
		}); err != nil {
			return err
		}
	}
	return nil
}

// wait lets time pass.
func wait(d *dice, _ string) step {
	return step{about: "all", text: "nothing", do: func(*player) {}, then: time.Duration(1+d.IntN(40)) * time.Minute}
}
