package lb

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// ErrNotLoaded: what the cluster has in NSX, or which nodes it has, is not known yet, so that nothing may be concluded
// from what is not seen.
var ErrNotLoaded = errors.New("not ready yet")

// ErrBadService: the Service asks for what cannot be done; the error says what to change. Trying again does not help
// before somebody does.
var ErrBadService = errors.New("the Service cannot be served")

// Options of an Engine.
type Options struct {
	Backend nsx.Backend
	// Config is the loadBalancer section of the cloud config.
	Config config.LoadBalancer
	// ClusterUID is what ownership in NSX goes by. With a Service's UID it seeds the choice of an address.
	ClusterUID string
	// Services lists all Services of the cluster, which it does not change; ok is false while they are not known. Without it
	// there is no audit.
	Services func() (all []*corev1.Service, ok bool)
	// AuditReads marks the context of calls by which the audit looks, and AuditWrites waits until the audit may make one more
	// change and gives the context for it, so that audits never delay what is done for Services; nil: they may.
	AuditReads  func(context.Context) context.Context
	AuditWrites func(context.Context) (context.Context, error)
	// Audited takes note of what audits find and do; nil: nobody does. It must not block.
	Audited func(AuditEntry)
	Clock   clock.Clock
	// Random gives numbers in [0, 1), to spread retries. It must be safe for concurrent use, as rand.Float64 is.
	Random func() float64
	// Record takes events. It is called under locks and must neither block nor call the Engine.
	Record func(Event)
}

// Event is something that a user should be told about a Service, or about the cluster's load balancing as a whole.
type Event struct {
	// Namespace, Name and UID of the Service; all empty for an event about the whole cluster.
	Namespace, Name, UID string
	// Type is corev1.EventTypeWarning or corev1.EventTypeNormal.
	Type string
	// Reason is one of the Reason constants, Message a sentence for people.
	Reason, Message string
}

// The reasons of events.
const (
	// ReasonBadService: the Service asks for what cannot be done, and what it has is left as it is.
	ReasonBadService = "BadService"
	// ReasonNoAddress: no address is free, or the one asked for is not.
	ReasonNoAddress = "NoFreeAddress"
	// ReasonNoRoom: no load-balancer service of the class takes another virtual server.
	ReasonNoRoom = "NoRoom"
	// ReasonIgnored: something that the Service says has no effect, such as a mistyped annotation.
	ReasonIgnored = "Ignored"
	// ReasonDoubtfulAddress: an address was left because it may be somebody else's.
	ReasonDoubtfulAddress = "DoubtfulAddress"
	// ReasonLostAddress: the allocation of an address in use is gone or somebody else's.
	ReasonLostAddress = "LostAddress"
	// ReasonDrift: what the Service has in NSX, or what all of them share, was changed or deleted by somebody else, whom the
	// text names as far as NSX does, and is put right.
	ReasonDrift = "Drift"
	// ReasonOrphan: something in NSX belonged to a Service that is gone, and is removed.
	ReasonOrphan = "Orphan"
	// ReasonUnrecordedAddress: an address is allocated, and no virtual server has it. In an exclusive IP pool it is released;
	// in another one it may be somebody else's.
	ReasonUnrecordedAddress = "UnrecordedAddress"
	// ReasonAllMembersDown: the health checks find nobody behind a pool, although there are Ready nodes.
	ReasonAllMembersDown = "AllMembersDown"
	// ReasonTooFewNodes: more than half of the nodes look unfit, so that the rest of them keep getting traffic.
	ReasonTooFewNodes = "TooFewNodes"
)
