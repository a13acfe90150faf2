package lb

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
)

// ClassOf is the load-balancer class that serves a Service: the one that its annotation names, else spec.loadBalancerClass,
// else the default one. The error wraps ErrBadService when there is no such class, or when it is another controller's.
func ClassOf(svc *corev1.Service, lb config.LoadBalancer) (config.Class, error) {
	var bad faults
	name := lb.DefaultClass
	if c := svc.Spec.LoadBalancerClass; c != nil {
		ours := false
		if name, ours = strings.CutPrefix(*c, names.LoadBalancerClassPrefix); !ours {
			bad.add("spec.loadBalancerClass %q is another controller's", *c)
			return config.Class{}, bad.error()
		}
	}
	if c := strings.TrimSpace(svc.Annotations[names.AnnotationClass]); c != "" {
		name = c
	}
	i := slices.IndexFunc(lb.Classes, func(c config.Class) bool { return c.Name == name })
	if i < 0 {
		var known []string
		for _, c := range lb.Classes {
			known = append(known, c.Name)
		}
		slices.Sort(known)
		bad.add("there is no load-balancer class %q: name another in the annotation %s (there are: %s)",
			name, names.AnnotationClass, orNone(strings.Join(known, ", ")))
		return config.Class{}, bad.error()
	}
	return lb.Classes[i], nil
}
