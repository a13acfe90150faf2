package ipam

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// ErrNotInPools: the address asked for lies in none of the pools, so that waiting does not help.
var ErrNotInPools = errors.New("not in the IP pools")

// failure is an error whose text is for people and whose kind is a sentinel that the text need not repeat.
type failure struct {
	kind error
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// exhausted names each pool that was tried and why it has no address.
func exhausted(r Request, tried []string) error {
	if len(tried) == 0 {
		return &failure{nsx.ErrExhausted, fmt.Sprintf("class %q has no IP pools", r.Class)}
	}
	return &failure{nsx.ErrExhausted, fmt.Sprintf("no free %s address in class %q: %s", r.Family, r.Class, strings.Join(tried, "; "))}
}

// title names a pool as its users know it.
func title(p nsx.IPPool) string {
	if p.Name == "" {
		return fmt.Sprintf("pool %q", p.ID)
	}
	return fmt.Sprintf("pool %q", p.Name)
}
