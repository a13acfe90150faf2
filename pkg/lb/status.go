package lb

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// statusOf is the status of a Service that has these virtual servers: the address of each of its families that carries
// traffic, in the order of its families. ipMode is spelt out: the API server defaults it, so that a status without it
// would differ from what is stored and be written again at every restart.
func statusOf(svc *corev1.Service, have nsx.Observed) *corev1.LoadBalancerStatus {
	vip := corev1.LoadBalancerIPModeVIP
	status := &corev1.LoadBalancerStatus{}
	shown := published(svc)
	for _, f := range families(svc, new(faults)) {
		v, ok := preferred(have.VirtualServers, shown, func(v nsx.ObservedVirtualServer) bool {
			return v.Family() == f && v.Attached()
		})
		if ok {
			status.Ingress = append(status.Ingress, corev1.LoadBalancerIngress{IP: v.Address.String(), IPMode: &vip})
		}
	}
	return status
}
