// Package cloud implements cloudprovider.Interface: it turns what Kubernetes asks of a cloud provider into calls on
// this project's packages, and their answers into Kubernetes' types.
//
// It is thin: what a load balancer is made of is decided in pkg/lb, and where a VM is, in pkg/vcenter.
package cloud
