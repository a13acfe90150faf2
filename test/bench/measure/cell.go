package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/bench"
)

const nsxRate = nsxsim.NSXRateLimit

// measure measures one size of a cluster.
func measure(services, nodes int, rate, restartRate float64) (Cell, error) {
	c := Cell{Services: services, Nodes: nodes, When: time.Now().UTC().Format(time.DateOnly)}
	nsx, err := bench.NewNSX(services, nsxsim.Options{
		RateLimit: nsxRate, MaxConcurrent: nsxsim.NSXMaxConcurrent, MaxConcurrentTotal: nsxsim.NSXMaxConcurrentTotal,
		JournalSize: 10*services + 1000,
	})
	if err != nil {
		return c, err
	}
	server, err := nsx.Listen(nsxsim.ListenOptions{})
	if err != nil {
		return c, err
	}
	defer server.Close()
	seen := &watch{nsx: nsx}
	_, err = nsx.Faults().Add(
		nsxsim.Rule{Name: "latency", Delay: nsxsim.Duration(latency)},
		nsxsim.Rule{Name: "members", Method: "PUT", Path: "/loadbalancer/pools/*", When: nsxsim.AfterCommit, Hook: seen.look},
	)
	if err != nil {
		return c, err
	}
	o := order{URL: server.URL, CA: string(server.CA), LBNames: nsx.LBNames, Services: services, Nodes: nodes}

	o.Rate, o.Restart = rate, false
	if c.Bulk, c.NodeBusy, err = run(o, nsx, seen); err != nil {
		return c, fmt.Errorf("bulk: %w", err)
	}
	o.Rate, o.Restart, o.Nodes = restartRate, true, nodes+1
	if c.Restart, c.NodeIdle, err = run(o, nsx, seen); err != nil {
		return c, fmt.Errorf("restart: %w", err)
	}
	return c, nil
}

// run runs a controller in a child and returns what it took, and how long the node that it added took to be ENABLED.
func run(o order, nsx *bench.NSX, seen *watch) (Phase, float64, error) {
	nsx.Journal().Reset()
	enabled := seen.wait(bench.Node(o.Nodes).Status.Addresses[0].Address)
	self, err := os.Executable()
	if err != nil {
		return Phase{}, 0, err
	}
	cmd := exec.Command(self, childMode)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return Phase{}, 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return Phase{}, 0, err
	}
	if err := cmd.Start(); err != nil {
		return Phase{}, 0, err
	}
	p, node, err := func() (p Phase, node float64, err error) {
		if err := json.NewEncoder(in).Encode(o); err != nil {
			return p, 0, err
		}
		answers := json.NewDecoder(out)
		if err := answers.Decode(&p); err != nil {
			return p, 0, fmt.Errorf("reading what the controller took: %w", err)
		}
		if o.Restart { // the node comes afterwards, and is not counted
			p = counted(p, nsx)
		}
		var added time.Time
		if err := answers.Decode(&added); err != nil {
			return p, 0, fmt.Errorf("reading when the node was added: %w", err)
		}
		select {
		case at := <-enabled:
			node = at.Sub(added).Seconds()
		case <-time.After(time.Minute):
			return p, 0, fmt.Errorf("the node is no member after a minute")
		}
		if !o.Restart {
			p = counted(p, nsx)
		}
		return p, node, nil
	}()
	in.Close() // which ends it
	_, _ = io.Copy(io.Discard, out)
	if waitErr := cmd.Wait(); err == nil {
		err = waitErr
	}
	return p, node, err
}

// counted adds what NSX saw.
func counted(p Phase, nsx *bench.NSX) Phase {
	p.Calls = nsx.Journal().Count()
	for _, n := range nsx.Journal().Writes() {
		p.Writes += n
	}
	for _, e := range nsx.Journal().Entries() {
		if e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable {
			p.Throttled++
		}
	}
	return p
}

// watch waits for a pool to get a member.
type watch struct {
	nsx *bench.NSX

	mu   sync.Mutex
	addr string
	seen chan time.Time
}

// wait returns a channel that gets the time at which the address is an ENABLED member.
func (w *watch) wait(addr string) <-chan time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addr, w.seen = addr, make(chan time.Time, 1)
	return w.seen
}

// look is a hook of the simulator, for writes of pools.
func (w *watch) look(*http.Request) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.addr != "" && w.nsx.Members()[w.addr] == "ENABLED" {
		w.addr = ""
		w.seen <- now
	}
}
