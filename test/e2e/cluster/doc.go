// Package cluster runs a whole Kubernetes cluster in network namespaces of this machine: a control plane, nodes with
// containerd, a kubelet and kube-proxy each, CoreDNS, a vCenter simulator with the nodes' VMs, the NSX simulator on an edge
// that routes between the nodes and an outside client, and the controller as its manifests install it: a Deployment of Pods
// under their own ServiceAccount, whose image is packed here.
//
//	outside client ── 198.51.100.0/24 ── edge ── 10.200.0.0/24 ── control plane, vCenter, DNS (.2)
//	.10 to .13                            │ .1                    node-1 (.11), node-2, node-3 ── pods, 10.244.i.0/24
//	                                      └ floating IPs, 203.0.113.10 to .200
//
//	c, err := cluster.Start(ctx, cluster.Options{ProxyMode: cluster.IPTables})
//	defer c.Close(ctx)
//	c.Client, c.Kubectl(ctx, "get", "nodes"), c.Apply(ctx, yaml)
//	c.Topology.Client().DialContext(ctx, "tcp", "203.0.113.10:80")    // a connection from outside
//	c.Topology.Edge().Command(ctx, "tcpdump", "-i", "any")            // a program on the edge
//	c.PowerOff(ctx, c.Nodes[1]), c.Drain(ctx, c.Nodes[0])
//	c.KillLeader(ctx), c.NSX.Down(ctx)
//
// A Cluster owns all of that: its namespaces, processes, control groups and directory. It needs Linux and root, and refuses
// with ErrMissing, which lists all that is missing, where it cannot run. Nothing outlives the process: children die with
// it, and what the kernel keeps is removed by the next Start, by Clean or by Down. Clusters of several processes run side
// by side: all have the same addresses, which nothing but their own namespaces ever sees.
//
// It never tests anything itself. Options.Defects has NSX's edge do wrong what tests must notice: members that are never
// checked, client addresses hidden, source ranges ignored, old members kept.
package cluster
