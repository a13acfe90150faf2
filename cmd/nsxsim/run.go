package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/klog/v2/textlogger"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// stopTime is how long requests in service may take to end when the process is told to stop.
const stopTime = 5 * time.Second

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
	if listen.Certificate, err = f.certificate(); err != nil {
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
	if srv.CA != nil {
		path, remove, err := f.writeCA(srv.CA)
		if err != nil {
			return err
		}
		defer remove()
		ca = " ca=" + path
	}
	if _, err := fmt.Fprintf(stdout, "nsxsim is ready: url=%s%s username=%s\n", srv.URL, ca, f.username); err != nil {
		return fmt.Errorf("saying that the simulator is ready: %w", err)
	}
	<-ctx.Done()
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

// certificate reads the one given; nil when none is.
func (f flags) certificate() (*tls.Certificate, error) {
	if f.tlsCert == "" && f.tlsKey == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
	}
	return &cert, nil
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
