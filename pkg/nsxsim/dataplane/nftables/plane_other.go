//go:build !linux

package nftables

import "github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"

// Plane is there on Linux only.
type Plane struct{ *dataplane.Plane }

// New fails: the kernel is not Linux.
func New(dataplane.Options) (*Plane, error) { return nil, ErrUnavailable }
