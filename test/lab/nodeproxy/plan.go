// Package nodeproxy does on loopback addresses what kube-proxy does on a node, as far as clients from outside the
// cluster can tell: node ports, health check node ports and its own health check.
//
// [MakePlan] is pure: from Services and EndpointSlices to what one node does. A [Proxy] makes it so. It owns sockets and
// the goroutines that serve them, and never talks to the API server.
package nodeproxy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// Plan is what the proxy of one node does for all Services.
type Plan struct {
	Ports  []Port        // by protocol and number
	Checks []HealthCheck // by port
}

// Port is a node port that forwards to endpoints. A node port without usable endpoints is in no plan: connections to it
// are refused.
type Port struct {
	Service  types.NamespacedName
	Protocol corev1.Protocol // TCP or UDP
	Number   uint16
	// Local is externalTrafficPolicy: Local: the endpoints are this node's and see the client's own address. Otherwise
	// they see the node's.
	Local     bool
	Endpoints []netip.AddrPort // of pods; never empty
	// Affinity is how long a client stays with its endpoint; 0: not at all.
	Affinity time.Duration
}

// HealthCheck is a health check node port: it answers 200 as long as the node has ready endpoints.
type HealthCheck struct {
	Service        types.NamespacedName
	Number         uint16
	LocalEndpoints int // that are ready
}

// MakePlan says what the proxy of a node does. EndpointSlices of other families than IPv4 are ignored, because the nodes
// have none.
func MakePlan(node string, services []*corev1.Service, endpointSlices []*discoveryv1.EndpointSlice) Plan {
	byService := map[types.NamespacedName][]*discoveryv1.EndpointSlice{}
	for _, s := range endpointSlices {
		if s.AddressType == discoveryv1.AddressTypeIPv4 {
			name := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
			byService[name] = append(byService[name], s)
		}
	}

	var plan Plan
	for _, svc := range services {
		if svc.Spec.Type != corev1.ServiceTypeNodePort && svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		name := types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
		local := svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
		for _, p := range svc.Spec.Ports {
			if p.NodePort == 0 || p.Protocol != corev1.ProtocolTCP && p.Protocol != corev1.ProtocolUDP {
				continue
			}
			endpoints := endpointsOf(byService[name], p.Name, p.Protocol, node)
			if usable := usable(endpoints, local); len(usable) > 0 {
				plan.Ports = append(plan.Ports, Port{
					Service: name, Protocol: p.Protocol, Number: uint16(p.NodePort),
					Local: local, Endpoints: usable, Affinity: affinity(svc),
				})
			}
		}
		if svc.Spec.Type == corev1.ServiceTypeLoadBalancer && local && svc.Spec.HealthCheckNodePort != 0 {
			plan.Checks = append(plan.Checks, HealthCheck{
				Service: name, Number: uint16(svc.Spec.HealthCheckNodePort),
				LocalEndpoints: localReady(byService[name], node),
			})
		}
	}
	slices.SortFunc(plan.Ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Number, b.Number))
	})
	slices.SortFunc(plan.Checks, func(a, b HealthCheck) int { return cmp.Compare(a.Number, b.Number) })
	return plan
}

type endpoint struct {
	address netip.AddrPort
	local   bool
	ready   bool
	// leaving endpoints terminate but still serve.
	leaving bool
}

// endpointsOf lists the endpoints of one port of a Service, each address once.
func endpointsOf(endpointSlices []*discoveryv1.EndpointSlice, portName string, protocol corev1.Protocol, node string) []endpoint {
	var all []endpoint
	for _, s := range endpointSlices {
		i := slices.IndexFunc(s.Ports, func(p discoveryv1.EndpointPort) bool {
			return ptr.Deref(p.Name, "") == portName && ptr.Deref(p.Protocol, corev1.ProtocolTCP) == protocol && p.Port != nil
		})
		if i < 0 {
			continue
		}
		for _, e := range s.Endpoints {
			ip, err := netip.ParseAddr(e.Addresses[0]) // the API server wants one or more, all alike
			if err != nil {
				continue
			}
			all = append(all, endpoint{
				address: netip.AddrPortFrom(ip, uint16(*s.Ports[i].Port)),
				local:   ptr.Deref(e.NodeName, "") == node,
				ready:   ptr.Deref(e.Conditions.Ready, true),
				leaving: ptr.Deref(e.Conditions.Serving, true) && ptr.Deref(e.Conditions.Terminating, false),
			})
		}
	}
	slices.SortFunc(all, func(a, b endpoint) int { return a.address.Compare(b.address) })
	return slices.CompactFunc(all, func(a, b endpoint) bool { return a.address == b.address })
}

// usable picks the endpoints that get traffic: those that are ready or, when there are none, those that terminate but
// still serve (KEP-1669). Policy Local looks at the node's own endpoints alone.
func usable(endpoints []endpoint, local bool) []netip.AddrPort {
	var ready, leaving []netip.AddrPort
	for _, e := range endpoints {
		switch {
		case local && !e.local:
		case e.ready:
			ready = append(ready, e.address)
		case e.leaving:
			leaving = append(leaving, e.address)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return leaving
}

// localReady counts the addresses of ready endpoints on a node, over all ports.
func localReady(endpointSlices []*discoveryv1.EndpointSlice, node string) int {
	addresses := map[string]bool{}
	for _, s := range endpointSlices {
		for _, e := range s.Endpoints {
			if ptr.Deref(e.NodeName, "") == node && ptr.Deref(e.Conditions.Ready, true) {
				addresses[e.Addresses[0]] = true
			}
		}
	}
	return len(addresses)
}

func affinity(svc *corev1.Service) time.Duration {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	seconds := int32(corev1.DefaultClientIPServiceAffinitySeconds)
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil {
		seconds = ptr.Deref(c.ClientIP.TimeoutSeconds, seconds)
	}
	return time.Duration(seconds) * time.Second
}
