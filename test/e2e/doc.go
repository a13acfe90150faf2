// Package e2e tests the controller end to end: in the cluster of package cluster, with real kubelets, containers, kube-proxy
// and DNS in network namespaces, and NSX's edge between the nodes and a client outside. It runs the upstream tests of
// Services of type LoadBalancer, and its own of what these leave out.
//
// The tests have the build tag e2e, want root, and are run by "make e2e". They own what they make in the cluster; the
// cluster itself is package cluster's.
package e2e
