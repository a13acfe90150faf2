package world

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The traffic policies of Services.
const (
	PolicyCluster = corev1.ServiceExternalTrafficPolicyCluster
	PolicyLocal   = corev1.ServiceExternalTrafficPolicyLocal
)

// Service is a Service of type LoadBalancer on ports, written "80" or "53/UDP".
func Service(name string, policy corev1.ServiceExternalTrafficPolicy, ports ...string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: policy, Ports: Ports(ports...),
		},
	}
}

// Ports are a Service's, written "80" or "53/UDP".
func Ports(ports ...string) []corev1.ServicePort {
	var out []corev1.ServicePort
	for _, text := range ports {
		number, protocol, found := strings.Cut(text, "/")
		if !found {
			protocol = "TCP"
		}
		p := corev1.ServicePort{Name: "p" + strings.ReplaceAll(strings.ToLower(text), "/", "-"), Protocol: corev1.Protocol(protocol)}
		if _, err := fmt.Sscan(number, &p.Port); err != nil {
			panic(fmt.Sprintf("world: port %q: %v", text, err)) // a mistake in the play
		}
		out = append(out, p)
	}
	return out
}

// Ready makes a Node Ready or not, and gives it an address if it has none: for Cluster.SetNode.
func Ready(ready bool) func(*corev1.Node) {
	return func(n *corev1.Node) {
		status := corev1.ConditionFalse
		if ready {
			status = corev1.ConditionTrue
		}
		if len(n.Status.Conditions) == 0 || n.Status.Conditions[0].Status != status {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.Now()}}
		}
	}
}

// Address gives a Node its address: for Cluster.SetNode.
func Address(a string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: a}}
	}
}

// AddNodes adds Ready Nodes node-0 to node-(n-1), each with an address.
func (c *Cluster) AddNodes(n int) {
	for i := range n {
		c.AddNode(fmt.Sprintf("node-%d", i), fmt.Sprintf("192.168.%d.%d", i/250, i%250+1))
	}
}

// AddNode adds a Ready Node.
func (c *Cluster) AddNode(name, address string) {
	c.SetNode(name, func(n *corev1.Node) {
		Address(address)(n)
		Ready(true)(n)
	})
}
