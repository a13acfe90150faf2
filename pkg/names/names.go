// Package names owns every name that users type or read: provider, annotations, classes. It holds constants alone.
package names

const (
	// Provider is the cloud provider's name, and the scheme of provider ids.
	Provider = "nsxt"

	// ConfigAPIVersion and ConfigKind head the cloud config file.
	ConfigAPIVersion = "nsxt.io/v1alpha1"
	ConfigKind       = "CloudConfig"

	// LoadBalancerClassPrefix begins a spec.loadBalancerClass that is ours: nsxt.io/<class>.
	LoadBalancerClassPrefix = "nsxt.io/"

	// AnnotationPrefix begins every annotation of ours on a Service.
	AnnotationPrefix = "loadbalancer.nsxt.io/"
	// AnnotationClass names the load-balancer class of the cloud config that serves the Service. Without it, and without
	// spec.loadBalancerClass, the default class does.
	AnnotationClass = AnnotationPrefix + "class"
	// AnnotationIPAddresses asks for one address, or one of each family separated by a comma. It does what the deprecated
	// spec.loadBalancerIP does, which may be used instead.
	AnnotationIPAddresses = AnnotationPrefix + "ip-addresses"
)
