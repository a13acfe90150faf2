package controlplane

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
)

// parseFlags parses defaults and then args, both lists of "--name=value", into the flags of a component. A default named in
// args is left out: for a flag that holds a list, a second value would be added to the first.
func parseFlags(component string, flags cliflag.NamedFlagSets, defaults, args []string) error {
	given := map[string]bool{}
	for _, arg := range args {
		given[flagName(arg)] = true
	}
	var all []string
	for _, arg := range defaults {
		if !given[flagName(arg)] {
			all = append(all, arg)
		}
	}
	fs := pflag.NewFlagSet(component, pflag.ContinueOnError)
	fs.Usage = func() {} // hundreds of lines
	for _, set := range flags.FlagSets {
		fs.AddFlagSet(set)
	}
	if err := fs.Parse(append(all, args...)); err != nil {
		return fmt.Errorf("flags of %s: %w", component, err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("flags of %s: %q is not a flag: want --name=value", component, fs.Arg(0))
	}
	return nil
}

func flagName(arg string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return name
}
