package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
)

// newTransport makes the transport to NSX as the config says.
func (c *Cloud) newTransport() (*transport.Transport, error) {
	n := c.o.Config.NSX
	o := transport.Options{
		InsecureSkipVerify:  n.InsecureSkipVerify,
		RequestsPerSecond:   float64(n.RateLimit.RequestsPerSecond),
		Burst:               n.RateLimit.Burst,
		MaxConcurrent:       n.RateLimit.MaxConcurrent,
		BackgroundPerSecond: float64(n.RateLimit.AuditRequestsPerSecond),
		Timeout:             n.RequestTimeout,
		MaxStall:            c.o.RenewDeadline,
		OnStall:             c.stalled,
		Metrics:             c.o.Metrics,
	}
	for _, m := range n.Managers {
		if !strings.Contains(m, "://") {
			m = "https://" + m
		}
		o.Managers = append(o.Managers, m)
	}
	if n.CAFile != "" {
		o.RootCAs = func() (*x509.CertPool, error) {
			pem, err := os.ReadFile(n.CAFile)
			if err != nil {
				return nil, fmt.Errorf("nsx.caFile: %w", err)
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("nsx.caFile: %s holds no PEM certificate", n.CAFile)
			}
			return roots, nil
		}
	}
	if cert := n.Credentials.ClientCertificate; cert != nil {
		// Read for every new connection, so that a renewed certificate is used without a restart.
		o.ClientCertificate = func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("nsx.credentials.clientCertificate: %w", err)
			}
			return &pair, nil
		}
	} else {
		o.Authentication = transport.Authentication(n.Authentication)
		o.Credentials = func(ctx context.Context) (transport.Credentials, error) {
			user, password, err := c.credentials(ctx, n.Credentials)
			c.nsxUser.Store(&user)
			return transport.Credentials{Username: user, Password: password}, err
		}
	}
	return transport.New(o)
}

// checkNSX makes and drops a transport, so that a file that is missing or no certificate stops the start.
func (c *Cloud) checkNSX() error {
	t, err := c.newTransport()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.ctx)
	cancel() // nobody has logged in
	t.Close(ctx)
	if cert := c.o.Config.NSX.Credentials.ClientCertificate; cert != nil {
		if _, err := tls.LoadX509KeyPair(cert.CertFile, cert.KeyFile); err != nil {
			return fmt.Errorf("nsx.credentials.clientCertificate: %w", err)
		}
	}
	return nil
}

// stalled is told that the process stood still for longer than the lease lasts without renewal. If the lease was lost,
// the framework ends the process within the renew deadline; if it is still here after that, it is still the leader.
func (c *Cloud) stalled(gap time.Duration) {
	logger := klog.FromContext(c.ctx)
	logger.Info("The process stood still: no write goes to NSX until the lease is known to be held", "for", gap)
	c.work.Go(func() {
		timer := time.NewTimer(c.o.RenewDeadline)
		defer timer.Stop()
		select {
		case <-c.ctx.Done():
		case <-timer.C:
			if r := c.running.Load(); r != nil {
				r.transport.ReopenWrites()
				logger.Info("The lease is still held: writing to NSX again")
			}
		}
	})
}

// user is who the controller logs in to NSX as, as far as that is known.
func (c *Cloud) user() string {
	if u := c.nsxUser.Load(); u != nil {
		return *u
	}
	return ""
}

// ipPools are the IP pools of the config, as the backend wants them.
func ipPools(c *config.CloudConfig) []manager.IPPool {
	out := make([]manager.IPPool, len(c.LoadBalancer.IPPools))
	for i, p := range c.LoadBalancer.IPPools {
		out[i] = manager.IPPool{Name: p.Name, ID: p.ID, Exclusive: p.Exclusive}
	}
	return out
}

// lbServices are the keys of all load-balancer services that classes name, each once.
func lbServices(c *config.CloudConfig) []string {
	var keys []string
	for _, class := range c.LoadBalancer.Classes {
		keys = append(keys, class.LoadBalancerServices...)
		for _, t := range class.Tier1Gateways {
			keys = append(keys, nsx.TierKey(t.ID, string(t.Size)))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// newVCenter makes the client of the config's vCenters.
func (c *Cloud) newVCenter() (*vcenter.Client, error) {
	o := vcenter.Options{AllowLoopback: c.o.Config.Nodes.AllowLoopbackAddresses}
	var errs []error
	for i, v := range c.o.Config.VCenters {
		s := vcenter.Server{
			Address:        v.Server,
			Thumbprint:     v.Thumbprint,
			Insecure:       v.InsecureSkipVerify,
			Datacenters:    v.Datacenters,
			ZoneCategory:   v.ZoneTagCategory,
			RegionCategory: v.RegionTagCategory,
			Credentials: func(ctx context.Context) (string, string, error) {
				return c.credentials(ctx, v.Credentials)
			},
		}
		if v.CAFile != "" {
			pem, err := os.ReadFile(v.CAFile)
			if err != nil {
				errs = append(errs, fmt.Errorf("vcenters[%d].caFile: %w", i, err))
				continue
			}
			s.CA = pem
		}
		o.Servers = append(o.Servers, s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return vcenter.New(o)
}
