package lb

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// Engine gives Services of type LoadBalancer what they should have in NSX. It is safe for concurrent use; what is done for
// one Service is done one after the other.
//
// Until Run has read the inventory and the nodes are known, Ensure, Get and Delete fail with ErrNotLoaded. Errors that
// know when to try again are, or wrap, an *nsx.RetryAt.
type Engine struct {
	o Options
}

// New makes an Engine. It does nothing before Run.
func New(o Options) *Engine { return &Engine{o: o} }

// Run reads the inventory, again and again until that succeeds, and then keeps the nodes in NSX as they should be. It
// returns when ctx ends, with nothing of it running any more.
func (e *Engine) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Ready is nil once inventory and nodes are known; before that it says what is missing and why.
func (e *Engine) Ready() error { return ErrNotLoaded }

// NodesChanged takes the complete list of the cluster's Nodes, which it does not change. It does not block; of several
// lists in a row the last one counts. The first call must come after the list is known to be complete.
func (e *Engine) NodesChanged(nodes []*corev1.Node) {}

// Ensure makes the Service's load balancer what it should be and returns its status. What is live stays so when it fails.
func (e *Engine) Ensure(ctx context.Context, svc *corev1.Service) (*corev1.LoadBalancerStatus, error) {
	return nil, e.Ready()
}

// Get tells whether anything of the Service is in NSX, and the status of what carries traffic.
func (e *Engine) Get(ctx context.Context, svc *corev1.Service) (status *corev1.LoadBalancerStatus, exists bool, err error) {
	return nil, false, e.Ready()
}

// Delete removes everything that the Service has in NSX. There is nothing left when it returns nil.
func (e *Engine) Delete(ctx context.Context, svc *corev1.Service) error { return e.Ready() }
