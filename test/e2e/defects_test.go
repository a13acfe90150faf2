//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

var broken = flag.String("break", "", "have NSX's edge do things wrong, to see the tests fail that look at them: nsxsim's --defect, separated by commas")

// defects are what the edge shall do wrong.
func defects() (all []nsxsim.Defect, err error) {
	if *broken == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(*broken, ",") {
		var d nsxsim.Defect
		if err := d.UnmarshalText([]byte(name)); err != nil {
			return nil, fmt.Errorf("-break: %w", err)
		}
		all = append(all, d)
	}
	return all, nil
}
