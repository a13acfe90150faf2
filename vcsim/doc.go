// Package vcsim runs a vCenter that holds the virtual machines of a cluster's nodes, on govmomi's simulator,
// inside the calling process: for tests and for the lab.
//
// It owns the inventory (datacenters, clusters, hosts, VMs, zone tags) and the changes a test makes to it while
// it runs: a VM that appears, vanishes, is switched off or gets other addresses; a session that ends; a password
// that changes. The controller never imports it, and it knows nothing of Kubernetes.
package vcsim
