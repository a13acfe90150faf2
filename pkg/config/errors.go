package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrInvalid is what every complaint about the content of a config file is:
// errors.Is(err, ErrInvalid). A file that cannot be read is not.
var ErrInvalid = errors.New("invalid cloud config")

// Error is one thing wrong with a config file, and where. It never quotes a
// value that could be a secret.
type Error struct {
	// File is the file's name as given to [Load] or [Parse].
	File string
	// Line and Column count from 1.
	Line, Column int
	// Key is the path of the key, such as loadBalancer.classes[0].healthCheck.
	// It is empty for the file as a whole.
	Key string
	// Reason says what is wrong and what is allowed.
	Reason string
}

// Error returns file:line:column: key: reason.
func (e *Error) Error() string {
	place := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Key != "" {
		place += e.Key + ": "
	}
	return place + e.Reason
}

// Unwrap makes every Error an [ErrInvalid].
func (e *Error) Unwrap() error { return ErrInvalid }

// Errors is everything wrong with a config file, in the order of the file. It
// is never empty when returned as an error.
type Errors []*Error

// Error returns one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.Is and errors.As each single [Error].
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// sort puts the errors into the order of the file. Those of one place stay as
// they were found.
func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
