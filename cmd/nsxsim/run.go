package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/klog/v2/textlogger"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// stopTime is how long requests in service may take to end when the process is told to stop.
const stopTime = 10 * time.Second

// run serves a simulator until ctx ends. The line on stdout says that it is ready.
func run(ctx context.Context, f flags, stdout, stderr io.Writer) (err error) {
	o, err := f.options()
	if err != nil {
		return err
	}
	verbosity := 0
	if f.verbose {
		verbosity = 2
	}
	o.Logger = textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(stderr), textlogger.Verbosity(verbosity)))
	sim, err := nsxsim.New(o)
	if err != nil {
		return err
	}
	defer sim.Close()
	if err := fill(sim, f); err != nil {
		return err
	}
	listen := nsxsim.ListenOptions{Addr: f.addr, Plain: f.plain}
	var authority []byte // of the certificate, if that is made here
	if listen.Certificate, authority, err = f.certificate(); err != nil {
		return err
	}
	srv, err := sim.Listen(listen)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		err = errors.Join(err, srv.Shutdown(ctx))
	}()
	ca := ""
	if authority != nil {
		path, remove, err := f.writeCA(authority)
		if err != nil {
			return err
		}
		defer remove()
		ca = " ca=" + path
	}
	nodes, err := f.listenNodes(sim, listen)
	for _, node := range nodes {
		defer func() { err = errors.Join(err, node.Close()) }()
	}
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "nsxsim is ready: url=%s%s username=%s%s\n", srv.URL, ca, f.username, told(nodes)); err != nil {
		return fmt.Errorf("saying that the simulator is ready: %w", err)
	}
	<-ctx.Done()
	sim.Close() // lets go of the requests that faults hold, on whichever node
	return nil
}

// fill loads the inventory and the fault rules.
func fill(sim *nsxsim.Sim, f flags) error {
	if f.inventory != "" {
		text, err := os.ReadFile(f.inventory)
		if err != nil {
			return fmt.Errorf("--inventory: %w", err)
		}
		inventory, err := nsxsim.ParseInventory(text)
		if err == nil {
			err = sim.Load(inventory)
		}
		if err != nil {
			return fmt.Errorf("--inventory %s: %w", f.inventory, err)
		}
	}
	if f.faults != "" {
		text, err := os.ReadFile(f.faults)
		if err != nil {
			return fmt.Errorf("--faults: %w", err)
		}
		rules, err := nsxsim.ParseRules(text)
		if err == nil {
			_, err = sim.Faults().Add(rules...)
		}
		if err != nil {
			return fmt.Errorf("--faults %s: %w", f.faults, err)
		}
	}
	return nil
}

// listenNodes serves the further nodes. On an error it gives those that it started.
func (f flags) listenNodes(sim *nsxsim.Sim, listen nsxsim.ListenOptions) ([]*nsxsim.Server, error) {
	host, _, err := net.SplitHostPort(f.addr)
	if err != nil {
		return nil, fmt.Errorf("--addr: %w", err)
	}
	listen.Addr = net.JoinHostPort(host, "0")
	var nodes []*nsxsim.Server
	for n := 1; n < f.nodes; n++ {
		node, err := sim.ListenNode(n, listen)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// told says where the further nodes are; nothing when there are none.
func told(nodes []*nsxsim.Server) string {
	var urls []string
	for _, node := range nodes {
		urls = append(urls, node.URL)
	}
	if len(urls) == 0 {
		return ""
	}
	return " nodes=" + strings.Join(urls, ",")
}

// certificate reads the one given, or makes one with an authority of its own; none for
// a plain server.
func (f flags) certificate() (cert *tls.Certificate, authority []byte, err error) {
	if f.tlsCert == "" && f.tlsKey == "" {
		if f.plain {
			return nil, nil, nil
		}
		host, _, err := net.SplitHostPort(f.addr)
		if err != nil {
			return nil, nil, fmt.Errorf("--addr: %w", err)
		}
		var hosts []string
		if host != "" {
			hosts = append(hosts, host)
		}
		made, authority, err := nsxsim.NewCertificate(hosts...)
		return &made, authority, err
	}
	given, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
	if err != nil {
		return nil, nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
	}
	return &given, nil, nil
}

// writeCA writes the authority's certificate where clients find it. What remove deletes is temporary.
func (f flags) writeCA(ca []byte) (path string, remove func(), err error) {
	path, remove = f.caOut, func() {}
	if path == "" {
		dir, err := os.MkdirTemp("", "nsxsim-")
		if err != nil {
			return "", nil, fmt.Errorf("writing the authority's certificate: %w", err)
		}
		path, remove = filepath.Join(dir, "ca.crt"), func() { _ = os.RemoveAll(dir) }
	}
	if err := os.WriteFile(path, ca, 0o644); err != nil {
		remove()
		return "", nil, fmt.Errorf("writing the authority's certificate: %w", err)
	}
	return path, remove, nil
}
