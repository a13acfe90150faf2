package main

import (
	"fmt"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// defects is a flag that may be repeated.
type defects []nsxsim.Defect

// Set adds one.
func (d *defects) Set(name string) error {
	var one nsxsim.Defect
	if err := one.UnmarshalText([]byte(name)); err != nil {
		return err
	}
	*d = append(*d, one)
	return nil
}

func (d *defects) String() string { return fmt.Sprint(*d) }

// Type is its name in the usage.
func (d *defects) Type() string { return "defect" }

func defectNames() string {
	var names []string
	for _, d := range nsxsim.Defects() {
		names = append(names, string(d))
	}
	return strings.Join(names, ", ")
}
