package lb

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// toBeDeletedTaint marks a Node that the cluster autoscaler is about to delete. kube-proxy's /healthz answers 503 on it.
const toBeDeletedTaint = "ToBeDeletedByClusterAutoscaler"

// condition is what of a Node matters to load balancing.
type condition struct {
	// addresses are the InternalIPs: the first of each family.
	addresses []netip.Addr
	// ready, and since when it is as it is; the zero Time when the Node does not say.
	ready      bool
	readySince time.Time
	// leaving: it is being deleted, or about to be, and since when, if the Node says.
	leaving      bool
	leavingSince time.Time
	// excluded from load balancers by label.
	excluded bool
}

func conditionOf(n *corev1.Node) condition {
	var c condition
	for _, a := range n.Status.Addresses {
		addr, err := netip.ParseAddr(a.Address)
		if a.Type != corev1.NodeInternalIP || err != nil || addr.Zone() != "" || firstOf(c.addresses, nsx.FamilyOf(addr)).IsValid() {
			continue
		}
		c.addresses = append(c.addresses, addr.Unmap())
	}
	slices.SortFunc(c.addresses, netip.Addr.Compare)
	for _, r := range n.Status.Conditions {
		if r.Type == corev1.NodeReady {
			c.ready, c.readySince = r.Status == corev1.ConditionTrue, r.LastTransitionTime.Time
		}
	}
	if t := n.DeletionTimestamp; t != nil {
		c.leaving, c.leavingSince = true, t.Time
	}
	for _, t := range n.Spec.Taints {
		if t.Key == toBeDeletedTaint && !c.leaving {
			c.leaving = true
			if t.TimeAdded != nil {
				c.leavingSince = t.TimeAdded.Time
			}
		}
	}
	// As the service controller reads it: the label's presence excludes, unless its value says false.
	if v, ok := n.Labels[corev1.LabelNodeExcludeBalancers]; ok {
		value, err := strconv.ParseBool(v)
		c.excluded = err != nil || value
	}
	return c
}
