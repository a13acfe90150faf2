package nsxsim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"
)

// Phase is when a fault strikes a request.
type Phase string

const (
	// BeforeCommit: the request has been read and authenticated, nothing is done
	// yet. A rule that answers or drops leaves nothing done.
	BeforeCommit Phase = ""
	// AfterCommit: the request has been done, its answer not yet sent. A rule
	// that answers or drops hides the outcome. It strikes requests that the
	// simulator refuses, too.
	AfterCommit Phase = "after"
)

// Rule is a fault: which requests it strikes, and what it does to them. All
// conditions given must hold; a rule without conditions matches every request to
// the API. Every matching rule is applied, in order, until one answers or drops.
type Rule struct {
	Name string `json:"name,omitempty"` // in the journal; default "rule N"

	// Conditions.
	Method string `json:"method,omitempty"` // "PUT", or several: "PUT,POST"
	// Path is a glob on the path below the API's base (/api/v1): * stands for
	// anything within a segment, ** for anything. "/loadbalancer/pools/*".
	Path       string `json:"path,omitempty"`
	PathRegexp string `json:"pathRegexp,omitempty"` // found in the whole path, with /api/v1
	Action     string `json:"action,omitempty"`     // the query's action: "ALLOCATE"
	// User is a name, or a pattern with * in it: "svc-*".
	User string `json:"user,omitempty"`
	Body string `json:"body,omitempty"` // found in the request's body

	// Which of the matching requests, counted from 1 by the rule itself.
	Nth         int     `json:"nth,omitempty"`         // the n-th only
	Every       int     `json:"every,omitempty"`       // each n-th
	Times       int     `json:"times,omitempty"`       // no more than so many; 0 is no bound
	Probability float64 `json:"probability,omitempty"` // of being struck; 0 is always

	// What happens, in this order.
	When  Phase               `json:"when,omitempty"`  // "before" (default) or "after" the commit
	Hook  func(*http.Request) `json:"-"`               // called with no lock held; may block
	Delay Duration            `json:"delay,omitempty"` // on the simulator's clock
	// Drop closes the connection without an answer. A Go client repeats a GET by
	// itself when that happens on a connection used before.
	Drop bool `json:"drop,omitempty"`
	// Reset is Drop with a TCP reset instead of an orderly end.
	Reset bool `json:"reset,omitempty"`
	// Half sends the status, the header and half of the body, and closes the
	// connection then. It is half of the answer that the rule gives or, after the
	// commit, of the real one.
	Half   bool   `json:"half,omitempty"`
	Status int    `json:"status,omitempty"` // answers with this status
	Code   int    `json:"code,omitempty"`   // error_code of that answer
	Text   string `json:"text,omitempty"`   // error_message of that answer
	// RawBody is the answer's body, in place of the usual error document.
	RawBody    string `json:"rawBody,omitempty"`
	RetryAfter int    `json:"retryAfter,omitempty"` // the answer's Retry-After, in seconds
}

// Duration is a time.Duration that reads "250ms" in JSON and YAML.
type Duration time.Duration

// UnmarshalJSON reads a duration as Go writes it.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("a duration must be a string like \"250ms\": %w", err)
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// MarshalJSON writes a duration as Go does.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// Faults are the rules in force.
type Faults struct {
	mu     sync.Mutex
	rules  []*armed
	made   int
	rand   *rand.Rand
	paused chan struct{} // closed by Resume; nil when not paused
}

// armed is a rule with its counts.
type armed struct {
	Rule
	path, pathRegexp *regexp.Regexp
	user             *regexp.Regexp
	matched, struck  int
}

func newFaults(seed uint64) *Faults {
	return &Faults{rand: rand.New(rand.NewPCG(seed, 0))}
}

// Add puts rules in force, after those that are. The error tells which rule
// cannot be understood; none is added then. The function returned takes them away
// again.
func (f *Faults) Add(rules ...Rule) (remove func(), err error) {
	var added []*armed
	for i, r := range rules {
		a, err := arm(r)
		if err != nil {
			return nil, fmt.Errorf("fault rule %d: %w", i+1, err)
		}
		added = append(added, a)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range added {
		f.made++
		if a.Name == "" {
			a.Name = fmt.Sprintf("rule %d", f.made)
		}
		f.rules = append(f.rules, a)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.rules = slices.DeleteFunc(f.rules, func(a *armed) bool { return slices.Contains(added, a) })
	}, nil
}

// Clear takes all rules away.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Rules gives the rules in force.
func (f *Faults) Rules() []Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	rules := make([]Rule, len(f.rules))
	for i, a := range f.rules {
		rules[i] = a.Rule
	}
	return rules
}

// Pause holds all requests, from now on, until Resume: a manager that hangs.
func (f *Faults) Pause() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused == nil {
		f.paused = make(chan struct{})
	}
}

// Resume lets the requests go on.
func (f *Faults) Resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused != nil {
		close(f.paused)
		f.paused = nil
	}
}

// wait returns when the simulator is not paused; false when done closes first.
func (f *Faults) wait(done <-chan struct{}) bool {
	f.mu.Lock()
	paused := f.paused
	f.mu.Unlock()
	if paused == nil {
		return true
	}
	select {
	case <-paused:
		return true
	case <-done:
		return false
	}
}

// strike gives the rules that apply to the request in any phase. It counts the
// request as matched: it is called once a request.
func (f *Faults) strike(r *request) []Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	var hits []Rule
	for _, a := range f.rules {
		if !a.matches(r) {
			continue
		}
		a.matched++
		switch {
		case a.Nth > 0 && a.matched != a.Nth,
			a.Every > 0 && a.matched%a.Every != 0,
			a.Times > 0 && a.struck >= a.Times,
			a.Probability > 0 && f.rand.Float64() >= a.Probability:
			continue
		}
		a.struck++
		hits = append(hits, a.Rule)
	}
	return hits
}

func (a *armed) matches(r *request) bool {
	return (a.Method == "" || slices.Contains(strings.Split(a.Method, ","), r.Method)) &&
		(a.path == nil || a.path.MatchString(r.route.below)) &&
		(a.pathRegexp == nil || a.pathRegexp.MatchString(r.URL.Path)) &&
		(a.Action == "" || r.query.Get("action") == a.Action) &&
		(a.user == nil || a.user.MatchString(r.author.user)) &&
		(a.Body == "" || bytes.Contains(r.body, []byte(a.Body)))
}

func arm(r Rule) (*armed, error) {
	if r.When == "before" { // the other name of BeforeCommit, for files
		r.When = BeforeCommit
	}
	a := &armed{Rule: r}
	if r.Path != "" {
		a.path = globRegexp(r.Path)
	}
	if r.User != "" {
		a.user = globRegexp(strings.ReplaceAll(r.User, "*", "**"))
	}
	if r.PathRegexp != "" {
		var err error
		if a.pathRegexp, err = regexp.Compile(r.PathRegexp); err != nil {
			return nil, err
		}
	}
	switch {
	case r.When != BeforeCommit && r.When != AfterCommit:
		return nil, fmt.Errorf("when: %q is neither before nor after", r.When)
	case r.Path != "" && r.Path[0] != '/' && r.Path[0] != '*':
		return nil, fmt.Errorf("path: %q does not begin with / and would match nothing", r.Path)
	case r.Status != 0 && (r.Status < 200 || r.Status > 599):
		return nil, fmt.Errorf("status: %d is no status of an answer", r.Status)
	case r.Probability < 0 || r.Probability > 1:
		return nil, fmt.Errorf("probability: %g is not in [0, 1]", r.Probability)
	case r.Nth < 0 || r.Every < 0 || r.Times < 0 || r.Delay < 0 || r.RetryAfter < 0:
		return nil, fmt.Errorf("nth, every, times, delay and retryAfter must not be negative")
	case r.Hook == nil && r.Delay == 0 && !r.Drop && !r.Reset && !r.Half && r.Status == 0:
		return nil, fmt.Errorf("does nothing: give a hook, delay, drop, reset, half or status")
	case (r.Drop || r.Reset) && r.Status != 0:
		return nil, fmt.Errorf("drop and status exclude each other, as do reset and status")
	case r.Half && (r.Drop || r.Reset):
		return nil, fmt.Errorf("half, drop and reset exclude each other")
	case r.Half && r.Status == 0 && r.When != AfterCommit:
		return nil, fmt.Errorf("half: before the commit there is no answer but a status that the rule gives")
	}
	return a, nil
}

// globRegexp: the pattern holds for the whole path; * is within a segment.
func globRegexp(glob string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(glob)
	quoted = strings.ReplaceAll(quoted, `\*\*`, `.*`)
	quoted = strings.ReplaceAll(quoted, `\*`, `[^/]*`)
	return regexp.MustCompile("^" + quoted + "$")
}

// ParseRules reads rules from YAML or JSON: a list of them. Keys are those of
// Rule in lower camel case; unknown keys are errors.
func ParseRules(text []byte) ([]Rule, error) {
	var rules []Rule
	if err := yaml.UnmarshalStrict(text, &rules); err != nil {
		return nil, fmt.Errorf("reading fault rules: %w", err)
	}
	for i, r := range rules {
		a, err := arm(r)
		if err != nil {
			return nil, fmt.Errorf("fault rule %d: %w", i+1, err)
		}
		rules[i] = a.Rule
	}
	return rules, nil
}
