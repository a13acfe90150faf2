package bench

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Nodes are n Nodes that are Ready.
func Nodes(n int) []*corev1.Node {
	out := make([]*corev1.Node, n)
	for i := range out {
		out[i] = Node(i)
	}
	return out
}

// Node is the i-th Node, Ready, with an address that no other has.
func Node(i int) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%05d", i), UID: types.UID(fmt.Sprintf("node-uid-%d", i))},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.16.%d.%d", i/250, i%250+1)}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
}

// Services are Services named after the prefix, of the policy, with the ports, written "80" or "53/UDP".
func Services(prefix string, n int, policy corev1.ServiceExternalTrafficPolicy, ports ...string) []*corev1.Service {
	out := make([]*corev1.Service, n)
	for i := range out {
		out[i] = Service(fmt.Sprintf("%s-%d", prefix, i), policy, ports...)
		if policy == corev1.ServiceExternalTrafficPolicyLocal {
			out[i].Spec.HealthCheckNodePort = 31000 + int32(i%1700)
		}
	}
	return out
}

// Service is one such Service.
func Service(name string, policy corev1.ServiceExternalTrafficPolicy, ports ...string) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: policy, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		},
	}
	if policy == corev1.ServiceExternalTrafficPolicyLocal {
		svc.Spec.HealthCheckNodePort = 31999
	}
	for i, p := range ports {
		number, protocol, found := strings.Cut(p, "/")
		if !found {
			protocol = "TCP"
		}
		var port int32
		if _, err := fmt.Sscan(number, &port); err != nil {
			panic(fmt.Sprintf("port %q: %v", p, err)) // a programmer's error
		}
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{
			Name: fmt.Sprintf("p%d", i), Protocol: corev1.Protocol(protocol), Port: port, NodePort: 30000 + int32(i),
		})
	}
	return svc
}
