package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// loadBalancer implements cloudprovider.LoadBalancer by the engine.
type loadBalancer struct{ c *Cloud }

// errStarting is the answer before the cluster's identity is known: nothing may be concluded from absence yet.
var errStarting = fmt.Errorf("%w: the cluster's identity has not been read from the API server yet", lb.ErrNotLoaded)

// startPatience is how long a call waits for the start, which takes a moment: right after the lease is won the framework asks
// for all Services at once, and each that failed would be an error in the log and a warning event of its Service.
const (
	startPatience = 10 * time.Second
	startPoll     = 20 * time.Millisecond
)

// engine is the engine, once it knows what there is, or all that there is of it after some patience.
func (l loadBalancer) engine(ctx context.Context) (*lb.Engine, error) {
	for deadline := time.Now().Add(startPatience); l.c.starting() && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.c.ctx.Done():
			return nil, errStarting
		case <-time.After(startPoll):
		}
	}
	if r := l.c.running.Load(); r != nil {
		return r.engine, nil
	}
	return nil, errStarting
}

// starting tells that Initialize was called, and the engine does not know yet what there is.
func (c *Cloud) starting() bool {
	r := c.running.Load()
	return c.client.Load() != nil && (r == nil || r.engine.Ready() != nil)
}

// GetLoadBalancer implements cloudprovider.LoadBalancer. It says that the load balancer exists while anything of the
// Service remains in NSX: the framework drops the finalizer once it does not.
func (l loadBalancer) GetLoadBalancer(ctx context.Context, _ string, svc *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	e, err := l.engine(ctx)
	if err != nil {
		return nil, false, err
	}
	return e.Get(ctx, svc)
}

// GetLoadBalancerName implements cloudprovider.LoadBalancer. NSX objects are found by their tags, never by this name.
func (l loadBalancer) GetLoadBalancerName(_ context.Context, _ string, svc *corev1.Service) string {
	return cloudprovider.DefaultLoadBalancerName(svc)
}

// EnsureLoadBalancer implements cloudprovider.LoadBalancer. The nodes given are ignored: the framework's list knows
// neither readiness nor drains, so the engine watches the nodes itself.
func (l loadBalancer) EnsureLoadBalancer(ctx context.Context, _ string, svc *corev1.Service, _ []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	e, err := l.engine(ctx)
	if err != nil {
		return nil, api.NewRetryError(err.Error(), time.Second)
	}
	status, err := e.Ensure(ctx, svc)
	if err == nil && len(svc.Status.LoadBalancer.Ingress) == 0 {
		err = l.stillThere(ctx, svc)
	}
	if err != nil {
		return nil, retry(err)
	}
	return status, nil
}

// errGone: the Service was deleted while its load balancer was made. The framework deletes that again.
var errGone = errors.New("the Service was deleted in the meantime")

// stillThere fails when the Service is gone, or another one has its name. The framework patches the status by the name
// alone: if a Service without its finalizer yet is deleted and created anew, the new one would show the address of the
// old one, until that is deleted.
func (l loadBalancer) stillThere(ctx context.Context, svc *corev1.Service) error {
	now, err := (*l.c.client.Load()).CoreV1().Services(svc.Namespace).Get(ctx, svc.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && now.UID != svc.UID:
		return fmt.Errorf("%s/%s: %w", svc.Namespace, svc.Name, errGone)
	case err != nil:
		return fmt.Errorf("reading Service %s/%s before its status is set: %w", svc.Namespace, svc.Name, err)
	}
	return nil
}

// UpdateLoadBalancer implements cloudprovider.LoadBalancer. It has nothing to do: node changes reach NSX by way of the
// node set, once for all Services.
func (l loadBalancer) UpdateLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) error {
	return nil
}

// EnsureLoadBalancerDeleted implements cloudprovider.LoadBalancer.
func (l loadBalancer) EnsureLoadBalancerDeleted(ctx context.Context, _ string, svc *corev1.Service) error {
	e, err := l.engine(ctx)
	if err != nil {
		return err
	}
	return e.Delete(ctx, svc)
}

// retry hands on to the framework when the next try makes sense, instead of its own back-off of up to five minutes.
func retry(err error) error {
	var at *nsx.RetryAt
	if errors.As(err, &at) {
		return api.NewRetryError(err.Error(), max(time.Until(at.At), 0))
	}
	return err
}
