// Package vcenter finds the virtual machines of a cluster's nodes in one or several vCenters: by the BIOS UUID that
// the kubelet reports as systemUUID, or by host name; with their addresses, power state, zone and region.
//
// It owns the sessions with vCenter. It never changes anything there, and knows nothing of Kubernetes but the
// provider id, which is a BIOS UUID with a scheme.
//
// An answer that a VM does not exist costs a healthy node its Node object, so ErrNotFound is given only on proof:
// every vCenter was reached, accepted the log-in, showed its inventory and had no such VM. Whatever goes wrong on
// the way is another error.
package vcenter
