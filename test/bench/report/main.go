// Command report makes the tables and plots of docs/performance.md from what test/bench/measure measured.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// results are what measure wrote: see its documentation of the fields.
type results struct {
	Machine            string
	LatencyMS, NSXRate int
	Rate, RestartRate  float64
	Workers            int
	Cells              []cell
}

type cell struct {
	Services, Nodes    int
	When               string
	Bulk, Restart      phase
	NodeBusy, NodeIdle float64
}

type phase struct {
	Seconds, CPU, PeakMiB    float64
	Calls, Writes, Throttled int
}

// The generated part of the document is between these lines.
const begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"

func main() {
	in := flag.String("in", "results.json", "what was measured")
	docs := flag.String("docs", "../../../docs", "the folder of performance.md and images")
	flag.Parse()
	if err := run(*in, *docs); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(in, docs string) error {
	text, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	slices.SortFunc(r.Cells, func(a, b cell) int {
		if a.Services != b.Services {
			return a.Services - b.Services
		}
		return a.Nodes - b.Nodes
	})
	images := filepath.Join(docs, "images")
	if err := os.MkdirAll(images, 0o755); err != nil {
		return err
	}
	for _, p := range plots(r) {
		if err := p.save(images); err != nil {
			return fmt.Errorf("drawing %s: %w", p.file, err)
		}
	}
	page := filepath.Join(docs, "performance.md")
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return errors.New(page + " has no place for what was measured")
	}
	return os.WriteFile(page, []byte(before+begin+"\n"+r.markdown()+end+after), 0o644)
}

// markdown is the table and the plots.
func (r results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s, shared with other work. NSX answers after %d ms and takes %d requests a second; "+
		"the controller sends at most %g a second when Services are created and %g when it restarts; %d Services are worked on at the same time.\n\n",
		r.Machine, r.LatencyMS, r.NSXRate, r.Rate, r.RestartRate, r.Workers)
	b.WriteString("| Services | nodes | all EXTERNAL-IPs | calls a Service | x rate limit | CPU | peak memory | restart to idle | reads | writes | CPU | peak memory | node ENABLED, busy | idle | on |\n")
	b.WriteString("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n")
	for _, c := range r.Cells {
		fmt.Fprintf(&b, "| %d | %d | %.1f s | %.2f | %.2f | %.2f s | %.0f MiB | %.2f s | %d | %d | %.2f s | %.0f MiB | %.2f s | %.3f s | %s |\n",
			c.Services, c.Nodes, c.Bulk.Seconds, float64(c.Bulk.Calls)/float64(c.Services), c.Bulk.Seconds/r.least(c), c.Bulk.CPU, c.Bulk.PeakMiB,
			c.Restart.Seconds, c.Restart.Calls-c.Restart.Writes, c.Restart.Writes, c.Restart.CPU, c.Restart.PeakMiB, c.NodeBusy, c.NodeIdle, c.When)
	}
	throttled := 0
	for _, c := range r.Cells {
		throttled += c.Bulk.Throttled + c.Restart.Throttled
	}
	fmt.Fprintf(&b, "\nRequests that NSX refused for their rate: %d.\n\n", throttled)
	for _, p := range plots(r) {
		fmt.Fprintf(&b, "![%s](images/%s)\n\n", p.title, p.file)
	}
	return b.String()
}

// least is the time that the calls of a bulk take by the rate limit alone, in seconds: the first half second's worth goes
// out at once.
func (r results) least(c cell) float64 {
	return (float64(c.Bulk.Calls) - float64(int(r.Rate/2))) / r.Rate
}
