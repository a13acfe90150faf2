package lb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// errNoRoom: the load-balancer services that a virtual server may go to are full or can't be used.
var errNoRoom = fmt.Errorf("no room: %w", nsx.ErrExhausted)

// failure is an error whose text is for people and whose kind is a sentinel that the text need not repeat.
type failure struct {
	kind error
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// faults gathers everything that is wrong with a Service, so that its user learns it all at once.
type faults []string

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// error is an ErrBadService with all faults, or nil when there are none.
func (f faults) error() error {
	if len(f) == 0 {
		return nil
	}
	return &failure{ErrBadService, strings.Join(f, "; ")}
}

// several gathers errors. Unlike errors.Join it makes one line, which says the same thing once.
type several []error

func (s *several) add(err error) {
	if err != nil && !slices.ContainsFunc(*s, func(e error) bool { return e.Error() == err.Error() }) {
		*s = append(*s, err)
	}
}

// error is nil when there are none.
func (s several) error() error {
	switch len(s) {
	case 0:
		return nil
	case 1:
		return s[0]
	}
	return s
}

func (s several) Error() string {
	texts := make([]string, len(s))
	for i, err := range s {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (s several) Unwrap() []error { return s }
