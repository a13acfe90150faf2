// Package vsphere runs the load balancers and routes of cloud-provider-vsphere,
// the Kubernetes project's own cloud provider for NSX-T, as it is published,
// against the simulator: a client of the Policy API that knows nothing of it. It is
// a module of its own so that the product does not depend on that client.
package vsphere
