// Package cluster runs a whole Kubernetes cluster in network namespaces of this machine: a control plane, nodes with
// containerd, a kubelet and kube-proxy each, CoreDNS, a vCenter simulator with the nodes' VMs, the NSX simulator on an edge
// that routes between the nodes and an outside client, and the controller as its manifests install it.
//
// A Cluster owns all of that: its namespaces, processes, control groups and directory. It needs Linux and root, and refuses
// with ErrMissing, which lists all that is missing, where it cannot run. Nothing outlives the process: children die with
// it, and what the kernel keeps is removed by the next Start, by Clean or by Down. Clusters of several processes run side
// by side. It never tests anything itself.
package cluster
