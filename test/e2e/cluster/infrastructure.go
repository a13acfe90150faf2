package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

// The names of what NSX has: a load balancer service and a pool of floating IPs.
const (
	lbService = "e2e"
	ipPool    = "floating"
)

// NSX pool: from 203.0.113.10 to 203.0.113.200.
var firstFloatingIP, lastFloatingIP = host(floatingIPs, 10), host(floatingIPs, 200)

// startNSX starts the NSX simulator on the edge, with a load balancer service and an IP pool.
func (c *Cluster) startNSX(ctx context.Context) error {
	inventory, err := render("nsx.yaml", map[string]any{
		"LBService": lbService, "Pool": ipPool, "FloatingIPs": floatingIPs, "First": firstFloatingIP, "Last": lastFloatingIP,
	})
	if err != nil {
		return err
	}
	dir := filepath.Join(c.Dir, "nsx")
	file := filepath.Join(dir, "inventory.yaml")
	if err := writeFile(file, inventory); err != nil {
		return err
	}
	pair, err := c.authority.issue(identity{name: "nsx", addresses: []netip.Addr{edgeOnLAN}})
	if err != nil {
		return err
	}
	if err := pair.write(dir, "nsx"); err != nil {
		return err
	}
	address := netip.AddrPortFrom(edgeOnLAN, nsxPort)
	args := []string{
		filepath.Join(c.options.BinDir, "nsxsim"), "--addr=" + address.String(), "--inventory=" + file,
		"--tls-cert=" + filepath.Join(dir, "nsx.crt"), "--tls-key=" + filepath.Join(dir, "nsx.key"),
		"--dataplane=nftables", "--snat-address=" + snatAddress.String(),
	}
	for _, d := range c.options.Defects {
		args = append(args, "--defect="+string(d))
	}
	c.nsx, err = programs.Command{
		Name: "nsxsim", Log: c.log("nsxsim"), Prepare: inPlace(c.Topology.Edge()), Args: append(args, c.options.NSXArgs...),
	}.Start()
	if err != nil {
		return err
	}
	c.NSX = newNSX("https://"+edgeOnLAN.String(), c.httpClient(c.Topology.Edge()))
	return await(ctx, "NSX answers", partWithin, c.nsx.Err, func(ctx context.Context) error {
		_, err := c.NSX.Faults(ctx)
		return err
	}, c.log("nsxsim"))
}

// httpClient is a client on a machine of the cluster that trusts its certificate authority.
func (c *Cluster) httpClient(from Place) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(c.authority.certificate)
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: from.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots},
	}}
}

// inventory is a VM for each node.
func (c *Cluster) inventory() vcsim.Inventory {
	var addresses [][]netip.Addr
	for _, n := range c.Nodes {
		addresses = append(addresses, []netip.Addr{n.Address})
	}
	inventory := vcsim.Generate(2, addresses)
	for _, dc := range inventory.Datacenters {
		for _, cluster := range dc.Clusters {
			for _, host := range cluster.Hosts {
				for i := range host.VMs {
					host.VMs[i].UUID = c.node(host.VMs[i].Name).uuid
				}
			}
		}
	}
	return inventory
}

// startVCenter starts a vCenter that has the nodes' VMs. It lives in this process, outside the cluster's networks: a proxy
// stands for it on the control plane's machine.
func (c *Cluster) startVCenter(ctx context.Context) error {
	var err error
	if c.VCenter, err = vcsim.Start(ctx, c.inventory(), vcsim.Options{}); err != nil {
		return err
	}
	target, err := url.Parse(c.VCenter.URL())
	if err != nil {
		return err
	}
	target.Path = ""
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(c.VCenter.CA())
	pair, err := c.authority.issue(identity{name: "vcenter", addresses: []netip.Addr{controlPlane}})
	if err != nil {
		return err
	}
	certificate, err := pair.tls()
	if err != nil {
		return err
	}
	listener, err := c.Topology.ControlPlane().Listen(netip.AddrPortFrom(controlPlane, vCenterPort).String())
	if err != nil {
		return fmt.Errorf("address of vCenter: %w", err)
	}
	backend := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: backend,
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}})) // until it is closed
	}()
	c.closeVCenter = func() error {
		err := server.Close()
		<-served
		backend.CloseIdleConnections()
		return errors.Join(err, c.VCenter.Close())
	}
	return nil
}

// startDNS starts CoreDNS beside the API server.
func (c *Cluster) startDNS() error {
	config := filepath.Join(c.Dir, "coredns.kubeconfig")
	if err := c.authority.writeKubeconfig(config, identity{name: "coredns"}); err != nil {
		return err
	}
	text, err := render("Corefile", map[string]any{"Kubeconfig": config, "Context": contextName})
	if err != nil {
		return err
	}
	file := filepath.Join(c.Dir, "Corefile")
	if err := writeFile(file, text); err != nil {
		return err
	}
	c.dns, err = programs.Command{
		Name: "coredns", Log: c.log("coredns"), Prepare: inPlace(c.Topology.ControlPlane()),
		Args: []string{filepath.Join(c.options.BinDir, "e2e", "coredns"), "-conf=" + file},
	}.Start()
	return err
}
