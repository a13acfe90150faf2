package bench

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Options of a Controller.
type Options struct {
	// URL of NSX; Base, if set, is the network to it, else RootCAs verify its certificate.
	URL     string
	Base    http.RoundTripper
	RootCAs *x509.CertPool
	// Rate is the client's limit of requests a second; 0 for the product's default.
	Rate float64
	// LBNames are the load-balancer services of the default class.
	LBNames []string
}

// Controller is the load balancing of one cluster.
type Controller struct {
	*lb.Engine
	Backend *manager.Backend
	// Class is the default class of load balancers.
	Class config.Class
	// Close ends it and waits for what it runs.
	Close func()
}

const clusterConfig = `
apiVersion: nsxt.io/v1alpha1
kind: CloudConfig
cluster: {name: test}
nsx:
  managers: [https://nsx.example.com]
  credentials: {file: /credentials}
loadBalancer:
  ipPools: [{name: floating, exclusive: true}]
  classes:
  - name: default
    ipPools: [floating]
    loadBalancerServices: [%s]
`

// StartController starts a Controller, which knows no nodes yet: see lb.Engine's NodesChanged and Ready.
func StartController(o Options) (*Controller, error) {
	cfg, err := config.Parse("bench", fmt.Appendf(nil, clusterConfig, strings.Join(o.LBNames, ", ")))
	if err != nil {
		return nil, err
	}
	tr, err := transport.New(transport.Options{
		Managers: []string{o.URL}, Base: o.Base, RootCAs: func() (*x509.CertPool, error) { return o.RootCAs, nil }, RequestsPerSecond: o.Rate,
		Credentials: func(context.Context) (transport.Credentials, error) {
			return transport.Credentials{Username: nsxsim.DefaultUsername, Password: nsxsim.DefaultPassword}, nil
		},
		Authentication: transport.Basic,
	})
	if err != nil {
		return nil, err
	}
	const uid = "0c5c1f2e-cluster"
	c := &Controller{Class: cfg.LoadBalancer.Classes[0]}
	c.Backend = manager.New(manager.Options{
		Transport: tr, ClusterName: "test", ClusterUID: uid, Clock: clock.RealClock{},
		IPPools: []manager.IPPool{{Name: "floating", ID: "floating", Exclusive: true}}, LBServices: o.LBNames,
	})
	c.Engine = lb.New(lb.Options{
		Backend: c.Backend, Config: cfg.LoadBalancer, ClusterUID: uid, Clock: clock.RealClock{}, Random: func() float64 { return 0.5 },
		Record: func(lb.Event) {}, // nobody reads them here
	})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = c.Run(ctx) }) // it ends with ctx, without an error
	c.Close = sync.OnceFunc(func() {
		cancel()
		work.Wait()
		tr.Close(context.Background())
	})
	return c, nil
}

// EnsureAll ensures Services by that many workers, each Service once, and takes over their status.
func (c *Controller) EnsureAll(ctx context.Context, workers int, services []*corev1.Service) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for _, svc := range services {
		g.Go(func() error {
			status, err := c.Ensure(ctx, svc)
			if err == nil {
				svc.Status.LoadBalancer = *status
			}
			return err
		})
	}
	return g.Wait()
}

// DeleteAll deletes Services by that many workers.
func (c *Controller) DeleteAll(ctx context.Context, workers int, services []*corev1.Service) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for _, svc := range services {
		g.Go(func() error { return c.Delete(ctx, svc) })
	}
	return g.Wait()
}
