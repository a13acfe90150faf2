package nodeproxy_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/nodeproxy"
)

// The node that plans are made for, and another.
const here, there = "node-1", "node-2"

var web = types.NamespacedName{Namespace: "default", Name: "web"}

func service(edit func(*corev1.ServiceSpec)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: web.Namespace, Name: web.Name},
		Spec: corev1.ServiceSpec{
			Type:  corev1.ServiceTypeLoadBalancer,
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080}},
		},
	}
	if edit != nil {
		edit(&svc.Spec)
	}
	return svc
}

func local(s *corev1.ServiceSpec) {
	s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	s.HealthCheckNodePort = 31000
}

// The states of an endpoint.
var (
	ready       = discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)}
	unready     = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(false), Terminating: ptr.To(false)}
	terminating = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
	dying       = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(false), Terminating: ptr.To(true)}
)

func endpoint(ip, node string, c discoveryv1.EndpointConditions) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: &node, Conditions: c}
}

func slice(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: web.Namespace, Labels: map[string]string{discoveryv1.LabelServiceName: web.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080), Protocol: ptr.To(corev1.ProtocolTCP)}},
		Endpoints:   endpoints,
	}
}

func TestPlan(t *testing.T) {
	port := func(local bool, endpoints ...string) nodeproxy.Port {
		p := nodeproxy.Port{Service: web, Protocol: corev1.ProtocolTCP, Number: 30080, Local: local}
		for _, e := range endpoints {
			p.Endpoints = append(p.Endpoints, netip.MustParseAddrPort(e))
		}
		return p
	}
	check := func(n int) []nodeproxy.HealthCheck {
		return []nodeproxy.HealthCheck{{Service: web, Number: 31000, LocalEndpoints: n}}
	}
	tests := []struct {
		name   string
		edit   func(*corev1.ServiceSpec)
		slices []*discoveryv1.EndpointSlice
		want   nodeproxy.Plan
	}{
		{
			name:   "policy Cluster uses ready endpoints everywhere",
			slices: []*discoveryv1.EndpointSlice{slice(endpoint("10.0.2.1", there, ready), endpoint("10.0.1.1", here, ready), endpoint("10.0.1.2", here, unready))},
			want:   nodeproxy.Plan{Ports: []nodeproxy.Port{port(false, "10.0.1.1:8080", "10.0.2.1:8080")}},
		},
		{
			name:   "policy Local uses this node's endpoints",
			edit:   local,
			slices: []*discoveryv1.EndpointSlice{slice(endpoint("10.0.1.1", here, ready), endpoint("10.0.2.1", there, ready))},
			want:   nodeproxy.Plan{Ports: []nodeproxy.Port{port(true, "10.0.1.1:8080")}, Checks: check(1)},
		},
		{
			name:   "policy Local without an endpoint here",
			edit:   local,
			slices: []*discoveryv1.EndpointSlice{slice(endpoint("10.0.2.1", there, ready))},
			want:   nodeproxy.Plan{Checks: check(0)},
		},
		{
			name:   "terminating endpoints rest while others are ready",
			slices: []*discoveryv1.EndpointSlice{slice(endpoint("10.0.1.1", here, terminating), endpoint("10.0.2.1", there, ready))},
			want:   nodeproxy.Plan{Ports: []nodeproxy.Port{port(false, "10.0.2.1:8080")}},
		},
		{
			name:   "terminating endpoints serve when none is ready, but never those that serve no more",
			slices: []*discoveryv1.EndpointSlice{slice(endpoint("10.0.1.1", here, terminating), endpoint("10.0.2.1", there, dying))},
			want:   nodeproxy.Plan{Ports: []nodeproxy.Port{port(false, "10.0.1.1:8080")}},
		},
		{
			name:   "policy Local looks for terminating endpoints on this node, and its health check fails then",
			edit:   local,
			slices: []*discoveryv1.EndpointSlice{slice(endpoint("10.0.1.1", here, terminating), endpoint("10.0.2.1", there, ready))},
			want:   nodeproxy.Plan{Ports: []nodeproxy.Port{port(true, "10.0.1.1:8080")}, Checks: check(0)},
		},
		{
			name: "an endpoint in two slices counts once",
			edit: local,
			slices: []*discoveryv1.EndpointSlice{
				slice(endpoint("10.0.1.1", here, ready)), slice(endpoint("10.0.1.1", here, ready)),
			},
			want: nodeproxy.Plan{Ports: []nodeproxy.Port{port(true, "10.0.1.1:8080")}, Checks: check(1)},
		},
		{
			name: "no node port, nothing to do",
			edit: func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 0 },
			slices: []*discoveryv1.EndpointSlice{
				slice(endpoint("10.0.1.1", here, ready)),
			},
		},
		{
			name:   "type ClusterIP has none",
			edit:   func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeClusterIP },
			slices: []*discoveryv1.EndpointSlice{slice(endpoint("10.0.1.1", here, ready))},
		},
		{
			name: "slices of IPv6 and of other Services are not ours",
			slices: []*discoveryv1.EndpointSlice{
				func() *discoveryv1.EndpointSlice {
					s := slice(endpoint("2001:db8::1", here, ready))
					s.AddressType = discoveryv1.AddressTypeIPv6
					return s
				}(),
				func() *discoveryv1.EndpointSlice {
					s := slice(endpoint("10.0.1.1", here, ready))
					s.Labels[discoveryv1.LabelServiceName] = "other"
					return s
				}(),
			},
		},
		{
			name: "session affinity has Kubernetes' default timeout",
			edit: func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP },
			slices: []*discoveryv1.EndpointSlice{
				slice(endpoint("10.0.1.1", here, ready)),
			},
			want: nodeproxy.Plan{Ports: []nodeproxy.Port{func() nodeproxy.Port {
				p := port(false, "10.0.1.1:8080")
				p.Affinity = 3 * time.Hour
				return p
			}()}},
		},
		{
			name: "the same number for TCP and UDP, and a port that the slice does not have",
			edit: func(s *corev1.ServiceSpec) {
				s.Ports = append(s.Ports,
					corev1.ServicePort{Name: "dns", Protocol: corev1.ProtocolUDP, NodePort: 30080},
					corev1.ServicePort{Name: "missing", Protocol: corev1.ProtocolTCP, NodePort: 30081})
			},
			slices: []*discoveryv1.EndpointSlice{func() *discoveryv1.EndpointSlice {
				s := slice(endpoint("10.0.1.1", here, ready))
				s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: ptr.To("dns"), Port: ptr.To[int32](53), Protocol: ptr.To(corev1.ProtocolUDP)})
				return s
			}()},
			want: nodeproxy.Plan{Ports: []nodeproxy.Port{port(false, "10.0.1.1:8080"), {
				Service: web, Protocol: corev1.ProtocolUDP, Number: 30080, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.0.1.1:53")},
			}}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := nodeproxy.MakePlan(here, []*corev1.Service{service(tt.edit)}, tt.slices)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
