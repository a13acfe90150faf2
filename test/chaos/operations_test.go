package chaos

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/chaos/world"
)

// An operation is a step in the life of a cluster's load balancing.
type operation struct {
	name string
	// before is there when it begins; nil for nothing but the Nodes.
	before func(*stage)
	do     func(*stage)
	// addresses says what it does to floating IPs.
	addresses addresses
}

// addresses is what an operation does to floating IPs: by default, it takes or gives back some.
type addresses int

const (
	_ addresses = iota
	// chosen: it takes one that it chooses.
	chosen
	// none: it leaves them alone, so that it does not matter where they come from.
	none
)

// stage is a world with one cluster, whose controller is started again a while after it died.
type stage struct {
	*world.World
	*world.Cluster
}

const (
	// takeover is how long it takes until another process goes on where one has died: a lease runs out.
	takeover = 15 * time.Second
	// calm is how long a step takes when nothing fails, with time to spare.
	calm = 30 * time.Second
)

// pass lets time pass.
func (s *stage) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); s.Wait(time.Second) {
		if s.Dead() {
			s.Wait(takeover)
			s.Start()
		}
	}
}

// serve makes the Service web be on ports.
func serve(policy corev1.ServiceExternalTrafficPolicy, ports ...string) func(*stage) {
	return func(s *stage) { s.Apply(world.Service("web", policy, ports...)) }
}

// edit changes the Service web.
func edit(change func(*corev1.Service)) func(*stage) {
	return func(s *stage) { s.Edit("web", change) }
}

// release lets somebody give back the address of a Service.
func (s *stage) release(name string) {
	if svc := s.Service(name); len(svc.Status.LoadBalancer.Ingress) > 0 {
		_ = s.ReleaseByHand(world.PoolFloating, svc.Status.LoadBalancer.Ingress[0].IP) // told in the trace
	}
}

// configure changes the controller's config, which takes a restart.
func configure(change func(*config.LoadBalancer)) func(*stage) {
	return func(s *stage) {
		change(&s.Config)
		s.Stop()
		s.Start()
	}
}

// inTurn does one thing after the other, each when the one before had the time that it takes.
func inTurn(steps ...func(*stage)) func(*stage) {
	return func(s *stage) {
		for i, step := range steps {
			if i > 0 {
				s.pass(calm)
			}
			step(s)
		}
	}
}

func onePort() func(*stage)       { return serve(world.PolicyCluster, "80") }
func threePorts() func(*stage)    { return serve(world.PolicyCluster, "80", "443", "8080") }
func bothProtocols() func(*stage) { return serve(world.PolicyCluster, "53", "53/UDP") }
func localPolicy() func(*stage)   { return serve(world.PolicyLocal, "80") }
func gateway() func(*stage) {
	return func(s *stage) {
		svc := world.Service("web", world.PolicyCluster, "80")
		svc.Annotations = map[string]string{names.AnnotationClass: world.ClassGateway}
		s.Apply(svc)
	}
}

// restricted lets some clients in alone.
func restricted() func(*stage) {
	return func(s *stage) {
		svc := world.Service("web", world.PolicyCluster, "53", "53/UDP")
		svc.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
		s.Apply(svc)
	}
}

// sources lets the clients of these ranges in alone; everybody when there are none.
func sources(ranges ...string) func(*stage) {
	return edit(func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = ranges })
}

func gone(s *stage) { s.Delete("web") }

// class changes the class of that name.
func class(name string, change func(*config.Class)) func(*stage) {
	return configure(func(c *config.LoadBalancer) {
		for i := range c.Classes {
			if c.Classes[i].Name == name {
				change(&c.Classes[i])
			}
		}
	})
}

func policy(p corev1.ServiceExternalTrafficPolicy) func(*stage) {
	return edit(func(svc *corev1.Service) { svc.Spec.ExternalTrafficPolicy = p })
}

// eighteen are more ports than a virtual server takes.
var eighteen = []string{
	"1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009",
	"1010", "1011", "1012", "1013", "1014", "1015", "1016", "1017", "1018",
}

// operations are all that can happen to a Service, its class and its Nodes.
var operations = []operation{
	{name: "create-1-port", do: onePort()},
	{name: "create-3-ports", do: threePorts()},
	{name: "create-18-ports", do: serve(world.PolicyCluster, eighteen...)},
	{name: "create-tcp-and-udp", do: bothProtocols()},
	{name: "create-local", do: localPolicy()},
	{name: "create-source-ranges", do: restricted()},
	{name: "add-source-ranges", addresses: none, before: bothProtocols(), do: sources("192.0.2.0/24")},
	{name: "change-source-ranges", addresses: none, before: restricted(), do: sources("198.51.100.0/24", "203.0.113.7/32")},
	{name: "remove-source-ranges", addresses: none, before: restricted(), do: sources()},
	{name: "delete-source-ranges", before: restricted(), do: gone},
	{name: "create-two-at-once", do: func(s *stage) {
		s.Apply(world.Service("web", world.PolicyCluster, "80"))
		s.Apply(world.Service("dns", world.PolicyLocal, "53", "53/UDP"))
	}},
	{name: "change-ports", addresses: none, before: threePorts(), do: edit(func(svc *corev1.Service) {
		svc.Spec.Ports[1].Port, svc.Spec.Ports[2].NodePort = 8443, 31000
	})},
	{name: "add-udp", addresses: none, before: threePorts(), do: edit(func(svc *corev1.Service) { svc.Spec.Ports = append(svc.Spec.Ports, world.Ports("53/UDP")...) })},
	{name: "remove-udp", addresses: none, before: bothProtocols(), do: edit(func(svc *corev1.Service) { svc.Spec.Ports = svc.Spec.Ports[:1] })},
	{name: "to-local", addresses: none, before: threePorts(), do: policy(world.PolicyLocal)},
	{name: "to-cluster", addresses: none, before: localPolicy(), do: policy(world.PolicyCluster)},
	{name: "affinity", addresses: none, before: threePorts(), do: edit(func(svc *corev1.Service) { svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })},
	{name: "ask-for-another-address", before: threePorts(), do: edit(func(svc *corev1.Service) { svc.Spec.LoadBalancerIP = "10.0.0.33" }), addresses: chosen},
	{name: "change-class", addresses: none, before: onePort(), do: edit(func(svc *corev1.Service) {
		svc.Annotations = map[string]string{names.AnnotationClass: world.ClassGateway}
	})},
	{name: "edit-class", addresses: none, before: threePorts(), do: class(world.ClassDefault, func(c *config.Class) {
		c.Algorithm, c.HealthCheck = config.AlgorithmLeastConnection, config.HealthCheck{Port: 9000, Path: "/live"}
	})},
	{name: "edit-pools", before: onePort(), do: inTurn(
		class(world.ClassDefault, func(c *config.Class) { c.IPPools = []string{world.PoolSpare} }),
		func(s *stage) { s.Apply(world.Service("new", world.PolicyCluster, "80")) },
	)},
	{name: "remove-pool", before: onePort(), do: inTurn(
		configure(func(c *config.LoadBalancer) {
			c.IPPools = c.IPPools[1:]
			for i := range c.Classes {
				c.Classes[i].IPPools = []string{world.PoolSpare}
			}
		}),
		gone,
	)},
	{name: "node-comes", addresses: none, before: onePort(), do: func(s *stage) { s.AddNode("new", "192.168.9.9") }},
	{name: "node-goes", addresses: none, before: localPolicy(), do: func(s *stage) { s.DeleteNode("node-1") }},
	{name: "node-flaps", addresses: none, before: onePort(), do: inTurn(
		func(s *stage) { s.SetNode("node-1", world.Ready(false)) },
		func(s *stage) { s.pass(time.Minute) }, // it is out by now
		func(s *stage) { s.SetNode("node-1", world.Ready(true)) },
	)},
	{name: "nodes-out-of-sight", addresses: none, before: inTurn(onePort(), func(s *stage) { s.Apply(world.Service("dns", world.PolicyLocal, "53/UDP")) }), do: inTurn(
		func(s *stage) { s.LoseNodes() },
		func(s *stage) { s.SeeNodes() },
	)},
	{name: "delete-1-port", before: onePort(), do: gone},
	{name: "delete-18-ports", before: serve(world.PolicyCluster, eighteen...), do: gone},
	{name: "delete-tcp-and-udp", before: bothProtocols(), do: gone},
	{name: "delete-local", before: localPolicy(), do: gone},
	{name: "to-cluster-ip", before: threePorts(), do: edit(func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP })},
	{name: "to-cluster-ip-and-back", before: threePorts(), do: inTurn(
		edit(func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP }),
		edit(func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer }),
	)},
	{name: "delete-and-make-again", before: threePorts(), do: inTurn(gone, threePorts())},
	{name: "make-lb-service", do: gateway()},
	{name: "remove-lb-service", before: gateway(), do: gone},
	{name: "restart", before: bothProtocols(), do: func(s *stage) { s.Start() }},
	{name: "released-by-hand", before: threePorts(), do: inTurn(
		func(s *stage) { s.release("web") },
		func(s *stage) { s.pass(world.ReleaseDelay); s.Audit() },
	)},
	{name: "audit-by-a-stale-list", addresses: none, before: onePort(), do: inTurn(
		func(s *stage) { s.Unlist("web"); s.Audit() },
		func(s *stage) { s.List(); s.Audit() },
	)},
	{name: "replace-in-the-middle", do: func(s *stage) {
		threePorts()(s)
		s.Wait(60 * time.Millisecond)
		s.Stop()
		s.Start()
	}},
}
