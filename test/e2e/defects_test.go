//go:build e2e

package e2e

import (
	"flag"
	"strings"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

var broken = flag.String("break", "", "have NSX's edge do things wrong, to see the tests fail that look at them: nsxsim's --defect, separated by commas")

// defects are what the edge shall do wrong.
func defects(t *testing.T) []nsxsim.Defect {
	t.Helper()
	if *broken == "" {
		return nil
	}
	var all []nsxsim.Defect
	for name := range strings.SplitSeq(*broken, ",") {
		var d nsxsim.Defect
		if err := d.UnmarshalText([]byte(name)); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	t.Logf("NSX's edge does %v wrong: tests shall fail", all)
	return all
}
