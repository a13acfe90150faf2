// Package manager is the nsx.Backend over NSX's Manager API (/api/v1, NSX-T 2.5 to 4.x), on go-vmware-nsxt.
//
// It owns the order of calls that survives a crash at any point, the rules that keep floating IPs from leaking or being
// stolen, the group commits on load-balancer services, and the objects that the cluster shares. It decides nothing about
// what a Service should have: that is in the intents. It never changes an object that is not the cluster's own, but for
// the list of virtual servers in the load-balancer services that the config names.
//
// # How an address is claimed
//
// An allocation of an IP pool carries no owner, so the virtual server is its written record, written first: create the
// virtual server with the chosen address, attached to nothing; ALLOCATE that very address; attach. On the way back:
// detach, RELEASE, delete the virtual server last. At every point in between, an allocation of ours has a virtual server
// that says so.
package manager
