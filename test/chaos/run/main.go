// Command run plays the whole chaos suite and prints how much of it passed: a line for each group of cases as it ends, what
// failed and why, the totals by part, and at the end "N passed, 0 failed". A case is a test without subtests.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run plays the suite; args are for `go test`, such as -run.
func run(args []string, out io.Writer) error {
	began := time.Now()
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json", "-count=1", "-timeout=30m"}, args, []string{"./test/chaos", "./test/chaos/random", "-args", "-every=1"})...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the suite: %w", err)
	}
	t := newTally(out)
	if err := t.read(stdout); err != nil {
		return fmt.Errorf("reading what the suite says: %w", err)
	}
	err = cmd.Wait()
	t.summary(time.Since(began))
	if err != nil && t.failed == 0 {
		return fmt.Errorf("the suite broke off: %w\n%s", err, t.rest.String())
	}
	return err
}

// event is a line of `go test -json`.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// tally counts cases.
type tally struct {
	out io.Writer
	// output of tests that run, by name; rest is what belongs to none.
	output map[string]*strings.Builder
	rest   strings.Builder
	// parents are the tests that have subtests, blamed those of which one has failed.
	parents, blamed map[string]bool
	// groups and parts count cases by their first two names and by the first, in the order of their ends.
	groups, parts  map[string]*count
	order          []string
	passed, failed int
}

type count struct {
	passed, failed int
	seconds        float64
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, output: map[string]*strings.Builder{}, parents: map[string]bool{}, blamed: map[string]bool{}, groups: map[string]*count{}, parts: map[string]*count{}}
}

func (t *tally) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			t.rest.WriteString(lines.Text() + "\n") // the compiler's, for instance
			continue
		}
		t.take(e)
	}
	return lines.Err()
}

func (t *tally) take(e event) {
	switch e.Action {
	case "run":
		t.output[e.Test] = &strings.Builder{}
		above(e.Test, t.parents)
	case "output":
		if b := t.output[e.Test]; b != nil {
			b.WriteString(e.Output)
		} else {
			t.rest.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		if e.Test != "" {
			t.end(e)
		}
	}
}

// end counts a test that has ended.
func (t *tally) end(e event) {
	text := t.output[e.Test].String()
	delete(t.output, e.Test)
	names := strings.Split(e.Test, "/")
	part, group := of(t.parts, names[0]), of(t.groups, strings.Join(names[:min(2, len(names))], "/"))
	if len(names) == 1 {
		part.seconds = e.Elapsed
		t.order = append(t.order, e.Test)
	}
	byItself := e.Action == "fail" && !t.blamed[e.Test]
	if !t.parents[e.Test] || byItself {
		switch e.Action {
		case "pass":
			t.passed, part.passed, group.passed = t.passed+1, part.passed+1, group.passed+1
		default: // what is skipped proves nothing
			t.failed, part.failed, group.failed = t.failed+1, part.failed+1, group.failed+1
			above(e.Test, t.blamed)
			fmt.Fprintf(t.out, "--- %s: %s\n%s\n", strings.ToUpper(e.Action), e.Test, text)
		}
	}
	if len(names) == 2 || len(names) == 1 && !t.parents[e.Test] {
		fmt.Fprintf(t.out, "%-55s %6d passed, %d failed  %6.1fs\n", strings.Join(names, " "), group.passed, group.failed, e.Elapsed)
	}
}

// above puts all tests that a test is part of into a set.
func above(test string, into map[string]bool) {
	for i := strings.LastIndexByte(test, '/'); i > 0; i = strings.LastIndexByte(test[:i], '/') {
		into[test[:i]] = true
	}
}

func of(counts map[string]*count, name string) *count {
	if counts[name] == nil {
		counts[name] = &count{}
	}
	return counts[name]
}

func (t *tally) summary(took time.Duration) {
	fmt.Fprintln(t.out)
	for _, name := range t.order {
		c := t.parts[name]
		fmt.Fprintf(t.out, "%-55s %6d passed, %d failed  %6.1fs\n", name, c.passed, c.failed, c.seconds)
	}
	fmt.Fprintf(t.out, "%d passed, %d failed in %v\n", t.passed, t.failed, took.Round(time.Second))
}
