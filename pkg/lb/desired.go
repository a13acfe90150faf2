package lb

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// OwnerOf is a Service's identity in NSX.
func OwnerOf(svc *corev1.Service) nsx.Owner {
	return nsx.Owner{UID: string(svc.UID), Name: svc.Namespace + "/" + svc.Name}
}

// Desired is what a Service of a class should have in NSX. It honours every field of the Service that matters to a load
// balancer, or returns an ErrBadService that names all of those that it can't honour, and what to change.
func Desired(svc *corev1.Service, class config.Class) (Frontend, error) {
	var bad faults
	f := Frontend{
		Owner:         OwnerOf(svc),
		Class:         class.Name,
		FewerFamilies: svc.Spec.IPFamilyPolicy != nil && *svc.Spec.IPFamilyPolicy == corev1.IPFamilyPolicyPreferDualStack,
		IPPools:       class.IPPools,
		LBServices:    lbServiceKeys(class),
		Published:     published(svc),
		Ignored:       unknownAnnotations(svc),
	}
	if svc.UID == "" {
		bad.add("it has no UID")
	}
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		bad.add("it is of type %s, not LoadBalancer", svc.Spec.Type)
	}
	f.Families = families(svc, &bad)
	f.Listeners = listeners(svc, class, &bad)
	f.Pool = pool(svc, class, &bad)
	f.Affinity = affinity(svc, &bad)
	f.Asked = asked(svc, f.Families, &bad)
	f.Sources = sources(svc, f.Families, &bad)
	return f, bad.error()
}

// lbServiceKeys are the class's places for virtual servers, as the inventory knows them.
func lbServiceKeys(class config.Class) []string {
	keys := slices.Clone(class.LoadBalancerServices)
	for _, t := range class.Tier1Gateways {
		keys = append(keys, nsx.TierKey(t.ID, string(t.Size)))
	}
	return keys
}

// families are those of the Service; a Service from before dual-stack clusters has the family of its cluster IP.
func families(svc *corev1.Service, bad *faults) []nsx.Family {
	var out []nsx.Family
	for _, f := range svc.Spec.IPFamilies {
		switch family := nsx.Family(f); {
		case family != nsx.IPv4 && family != nsx.IPv6:
			bad.add("spec.ipFamilies: %q is no IP family", f)
		case !slices.Contains(out, family):
			out = append(out, family)
		}
	}
	if len(out) > 0 {
		return out
	}
	if a, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil {
		return []nsx.Family{nsx.FamilyOf(a)}
	}
	return []nsx.Family{nsx.IPv4}
}

// listeners are the Service's ports by protocol.
func listeners(svc *corev1.Service, class config.Class, bad *faults) []Listener {
	ports := map[nsx.Protocol][]nsx.PortMap{}
	for _, p := range svc.Spec.Ports {
		protocol := nsx.Protocol(cmp.Or(p.Protocol, corev1.ProtocolTCP))
		name := fmt.Sprintf("port %d/%s", p.Port, protocol)
		taken := func(q nsx.PortMap) bool { return int32(q.Port) == p.Port }
		switch {
		case protocol != nsx.TCP && protocol != nsx.UDP:
			bad.add("%s: NSX balances TCP and UDP only; use one of these, or remove the port", name)
		case !isPort(p.Port):
			bad.add("%s: a port is a number from 1 to 65535", name)
		case p.NodePort == 0:
			bad.add("%s has no node port to forward to: set spec.allocateLoadBalancerNodePorts to true, or give the port a nodePort", name)
		case !isPort(p.NodePort):
			bad.add("%s: its nodePort %d is not a number from 1 to 65535", name, p.NodePort)
		case slices.ContainsFunc(ports[protocol], taken):
			bad.add("%s is there twice", name)
		default:
			ports[protocol] = append(ports[protocol], nsx.PortMap{Port: uint16(p.Port), NodePort: uint16(p.NodePort)})
		}
	}
	if len(svc.Spec.Ports) == 0 {
		bad.add("it has no ports")
	}
	var out []Listener
	for _, l := range []Listener{
		{Protocol: nsx.TCP, ApplicationProfile: class.ApplicationProfiles.TCP},
		{Protocol: nsx.UDP, ApplicationProfile: class.ApplicationProfiles.UDP},
	} {
		l.Ports = ports[l.Protocol]
		slices.SortFunc(l.Ports, nsx.ComparePorts)
		if len(l.Ports) > 0 {
			out = append(out, l)
		}
	}
	return out
}

func isPort(n int32) bool { return n >= 1 && n <= 65535 }

// pool is the pool that the Service's traffic policy asks for, but for its family.
func pool(svc *corev1.Service, class config.Class, bad *faults) nsx.Pool {
	p := nsx.Pool{Algorithm: string(class.Algorithm), SNAT: nsx.AutoMap}
	monitor := &nsx.Monitor{
		Interval: class.Monitor.Interval,
		Timeout:  class.Monitor.Timeout,
		Fall:     class.Monitor.FallCount,
		Rise:     class.Monitor.RiseCount,
	}
	switch policy := svc.Spec.ExternalTrafficPolicy; policy {
	case corev1.ServiceExternalTrafficPolicyLocal:
		// Whether a node can answer differs from Service to Service: each has its own pool, which asks kube-proxy about it.
		p.PerService, p.MaxNodes = true, class.MaxNodes
		if !isPort(svc.Spec.HealthCheckNodePort) {
			bad.add("externalTrafficPolicy: Local without a healthCheckNodePort, so that no node could be asked for its endpoints: " +
				"set spec.externalTrafficPolicy to Cluster and back to Local to get one")
		}
		monitor.Port, monitor.Path = uint16(svc.Spec.HealthCheckNodePort), "/healthz"
		p.Monitor = monitor
	case corev1.ServiceExternalTrafficPolicyCluster, "":
		if !class.HealthCheck.None() {
			monitor.Port, monitor.Path = uint16(class.HealthCheck.Port), class.HealthCheck.Path
			p.Monitor = monitor
		}
	default:
		bad.add("spec.externalTrafficPolicy: %q is neither Cluster nor Local", policy)
	}
	switch class.PreserveClientIP {
	case config.PreserveClientIPAlways:
		p.SNAT = nsx.Transparent
	case config.PreserveClientIPAuto:
		if p.PerService {
			p.SNAT = nsx.Transparent
		}
	}
	return p
}

func affinity(svc *corev1.Service, bad *faults) time.Duration {
	switch svc.Spec.SessionAffinity {
	case corev1.ServiceAffinityNone, "":
		return 0
	case corev1.ServiceAffinityClientIP:
	default:
		bad.add("spec.sessionAffinity: %q is neither None nor ClientIP", svc.Spec.SessionAffinity)
		return 0
	}
	seconds := corev1.DefaultClientIPServiceAffinitySeconds
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		seconds = *c.ClientIP.TimeoutSeconds
	}
	if seconds < 1 {
		bad.add("spec.sessionAffinityConfig.clientIP.timeoutSeconds: %d is not a number above 0", seconds)
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// asked are the addresses that the user wants.
func asked(svc *corev1.Service, families []nsx.Family, bad *faults) []netip.Addr {
	where, value := "annotation "+names.AnnotationIPAddresses, svc.Annotations[names.AnnotationIPAddresses]
	if strings.TrimSpace(value) == "" {
		where, value = "spec.loadBalancerIP", svc.Spec.LoadBalancerIP
	}
	if strings.TrimSpace(value) == "" {
		return nil
	}
	var out []netip.Addr
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		a, err := netip.ParseAddr(part)
		a = a.Unmap()
		switch {
		case err != nil || a.Zone() != "":
			bad.add("%s: %q is no IP address; give one, or one of each family separated by a comma", where, part)
		case !slices.Contains(families, nsx.FamilyOf(a)):
			bad.add("%s: %s is an %s address, and spec.ipFamilies has no %[3]s", where, a, nsx.FamilyOf(a))
		case firstOf(out, nsx.FamilyOf(a)).IsValid():
			bad.add("%s: %s is a second %s address; a Service gets one of each family", where, a, nsx.FamilyOf(a))
		default:
			out = append(out, a)
		}
	}
	return out
}

// published are the addresses in the Service's status.
func published(svc *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil && !slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// unknownAnnotations says which annotations look like ours and are not.
func unknownAnnotations(svc *corev1.Service) []string {
	known := []string{names.AnnotationClass, names.AnnotationIPAddresses}
	var out []string
	for name := range svc.Annotations {
		if strings.HasPrefix(name, names.AnnotationPrefix) && !slices.Contains(known, name) {
			out = append(out, fmt.Sprintf("annotation %s is unknown; known ones are %s", name, strings.Join(known, ", ")))
		}
	}
	slices.Sort(out)
	return out
}
