// Package scenarios plays what users of Kubernetes tutorials do with Services, in a lab, and checks all that they must
// see. Commands are typed as users type them, to kubectl and curl.
package scenarios

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

// timeout of one scenario, far more than any takes.
const timeout = 3 * time.Minute

// Scenario is one row of the table of scenarios.
type Scenario struct {
	Row  int
	Name string
	play func(*Stage)
}

// All are the scenarios that can be played, by row.
func All() []Scenario {
	return []Scenario{
		{1, "a Service with a cluster IP", clusterIP},
		{2, "a headless Service", headless},
		{3, "type LoadBalancer", loadBalancer},
		{4, "type NodePort, and back from LoadBalancer to it", nodePort},
		{5, "kubectl expose, and a second pod", expose},
		{6, "no pool, or an empty one", pending},
		{7, "kubectl edit: from NodePort to LoadBalancer with two ports", edit},
		{8, "the source address, policy Cluster", sourceCluster},
		{9, "kubectl patch: policy Local", sourceLocal},
		{10, "from policy Cluster to Local and back, under traffic", flip},
		{11, "a pod and nodes leave, under traffic", leave},
		{13, "delete a Service, and many of them", deletion},
		{15, "a Service made by a program", program},
		{16, "EXTERNAL-IP stays over edits and restarts", stays},
		{17, "source ranges: who is let in", sourceRanges},
	}
}

// Matching are the scenarios whose number, such as 9, or name matches.
func Matching(pattern string) ([]Scenario, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("pattern of scenarios: %w", err)
	}
	var found []Scenario
	for _, s := range All() {
		row := fmt.Sprint(s.Row)
		if pattern == row || re.MatchString(s.Name) || re.FindString(row) == row {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no scenario matches %q", pattern)
	}
	return found, nil
}

// Result is how a scenario went.
type Result struct {
	Scenario Scenario
	Took     time.Duration
	// Err is what the user would not have seen as they should; nil: all was well.
	Err error
	// Seen is a short account of what was seen.
	Seen string
	// Transcript has the commands typed and their output.
	Transcript string
}

// Play plays a scenario in a lab, and takes away what it made.
func (sc Scenario) Play(ctx context.Context, l *lab.Lab) Result {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := Result{Scenario: sc}
	s, err := newStage(ctx, l, fmt.Sprintf("row-%d", sc.Row))
	if err != nil {
		r.Err = err
		return r
	}
	s.run(sc.play)
	s.sendClientsHome()
	s.run((*Stage).strike)
	r.Took, r.Err, r.Seen, r.Transcript = time.Since(began), s.failure, strings.Join(s.seen, ", "), s.transcript.String()
	return r
}

// run runs a part of a scenario to its end or to the first failure.
func (s *Stage) run(part func(*Stage)) {
	done := make(chan struct{})
	go func() { // for fail, which ends it
		defer close(done)
		part(s)
	}()
	<-done
}

// fail ends the scenario.
func (s *Stage) fail(format string, args ...any) {
	if s.failure == nil { // what comes later follows from the first
		s.failure = fmt.Errorf(format, args...)
	}
	runtime.Goexit()
}

// need ends the scenario if err is not nil.
func (s *Stage) need(err error) {
	if err != nil {
		s.fail("%w", err)
	}
}
