// Command measure measures the controller's load balancing against a simulated NSX on the wall clock: with a latency,
// NSX's own limits, and TLS. The simulator runs in this process and the controller in a child, so that its CPU time and
// memory are its own. It writes JSON, from which test/bench/report makes docs/performance.md.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

const (
	latency = 5 * time.Millisecond
	workers = 64
)

func main() {
	klog.SetLogger(logr.Discard())
	var err error
	if len(os.Args) == 2 && os.Args[1] == childMode {
		err = child(os.Stdin, os.Stdout)
	} else {
		err = parent()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func parent() error {
	services := flag.String("services", "100,1000", "numbers of Services")
	nodes := flag.String("nodes", "10,100,1000", "numbers of nodes")
	rate := flag.Float64("rate", 60, "the controller's limit of requests a second when Services are created")
	restartRate := flag.Float64("restart-rate", 100, "the same when it restarts")
	out := flag.String("out", "", "file to write; its cells of other sizes stay. Default: standard output alone")
	flag.Parse()
	s, err := sizes(*services)
	if err != nil {
		return err
	}
	n, err := sizes(*nodes)
	if err != nil {
		return err
	}
	r := Results{
		Machine: machine(), LatencyMS: int(latency.Milliseconds()), NSXRate: nsxRate,
		Rate: *rate, RestartRate: *restartRate, Workers: workers,
	}
	if *out != "" {
		if r.Cells, err = cells(*out); err != nil {
			return err
		}
	}
	for _, services := range s {
		for _, nodes := range n {
			c, err := measure(services, nodes, *rate, *restartRate)
			if err != nil {
				return fmt.Errorf("%d Services, %d nodes: %w", services, nodes, err)
			}
			fmt.Printf("%+v\n", c)
			r.Cells = with(r.Cells, c)
			if *out == "" {
				continue
			}
			text, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				return err
			}
			if err := os.WriteFile(*out, append(text, '\n'), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// with puts a cell in the place of the one of the same size.
func with(cells []Cell, c Cell) []Cell {
	for i, old := range cells {
		if old.Services == c.Services && old.Nodes == c.Nodes {
			cells[i] = c
			return cells
		}
	}
	return append(cells, c)
}

// cells are those that a file has.
func cells(file string) ([]Cell, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r Results
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r.Cells, nil
}

func sizes(list string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no list of sizes such as 100,1000", list)
		}
		out = append(out, n)
	}
	return out, nil
}

// machine is what was measured on, as far as it matters.
func machine() string {
	return fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
