package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/bench"
)

// childMode is the argument that makes the program a controller: it reads an order from its input, does it, writes a Phase
// and the time at which it added a node, and ends with its input.
const childMode = "controller"

// order is what a child is to do.
type order struct {
	URL, CA         string
	LBNames         []string
	Rate            float64
	Services, Nodes int
	// Restart: the Services are there, and the node comes when all is done. Else they are to be made, and the node comes
	// when half of them are.
	Restart bool
}

func child(in io.Reader, out io.Writer) error {
	var o order
	input := json.NewDecoder(in)
	if err := input.Decode(&o); err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	cas := x509.NewCertPool()
	if !cas.AppendCertsFromPEM([]byte(o.CA)) {
		return errors.New("no certificate in the order")
	}
	services := bench.Services("bulk", o.Services, corev1.ServiceExternalTrafficPolicyCluster, "80", "443")
	start := time.Now()
	c, err := bench.StartController(bench.Options{URL: o.URL, RootCAs: cas, Rate: o.Rate, LBNames: o.LBNames})
	if err != nil {
		return err
	}
	defer c.Close()
	c.NodesChanged(bench.Nodes(o.Nodes))
	if err := waitUntil(func() bool { return c.Ready() == nil }); err != nil {
		return c.Ready()
	}
	ctx := context.Background()
	if !o.Restart {
		start = time.Now() // what is measured is the Services
	}
	var added time.Time
	var g errgroup.Group
	g.Go(func() error { return c.EnsureAll(ctx, workers, services) })
	if !o.Restart {
		for len(c.Backend.Inventory().Owners()) < o.Services/2 {
			time.Sleep(100 * time.Millisecond)
		}
		added = time.Now()
		c.NodesChanged(bench.Nodes(o.Nodes + 1))
	}
	if err := g.Wait(); err != nil {
		return err
	}
	p := Phase{Seconds: time.Since(start).Seconds()}
	if p.CPU, p.PeakMiB, err = used(); err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	if err := answers.Encode(p); err != nil {
		return err
	}
	if o.Restart {
		time.Sleep(5 * time.Second) // a node that comes to a cluster at rest
		added = time.Now()
		c.NodesChanged(bench.Nodes(o.Nodes + 1))
	}
	if err := answers.Encode(added); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

func waitUntil(ok func() bool) error {
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("waited for a minute in vain")
		}
	}
	return nil
}

// used are this process's CPU time in seconds and its peak of memory in MiB.
func used() (cpu, peak float64, err error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0, 0, err
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			if _, err := fmt.Sscan(value, &peak); err != nil {
				return 0, 0, err
			}
		}
	}
	return seconds(r.Utime) + seconds(r.Stime), peak / 1024, nil
}
