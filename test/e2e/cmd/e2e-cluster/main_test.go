package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func TestCopyUntil(t *testing.T) {
	for name, tc := range map[string]struct {
		in, out string
		came    bool
	}{
		"it comes":       {"one\ntwo\n" + theEnd + "\nnever read\n", "one\ntwo\n" + theEnd + "\n", true},
		"it never comes": {"one\n", "one\n", false},
		"silence":        {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if came := copyUntil(&out, strings.NewReader(tc.in), theEnd); came != tc.came || out.String() != tc.out {
				t.Errorf("%v, %q", came, out.String())
			}
		})
	}
}

func TestOptions(t *testing.T) {
	flags := pflag.NewFlagSet("up", pflag.ContinueOnError)
	o := bindOptions(flags)
	if err := flags.Parse([]string{"--break=snat", "--break=health-checks", "--proxy-mode=iptables", "--nsxsim-arg=--nsx-version=4.1"}); err != nil {
		t.Fatal(err)
	}
	if len(o.Defects) != 2 || o.Defects[1] != nsxsim.DefectNoHealthChecks || o.NSXArgs[0] != "--nsx-version=4.1" || o.Nodes != 3 {
		t.Errorf("%+v", o)
	}
	if err := flags.Parse([]string{"--break=everything"}); err == nil || !strings.Contains(err.Error(), "old-members") {
		t.Errorf("error %v, want the names that there are", err)
	}
}

func TestDownWantsNumbers(t *testing.T) {
	down := newDownCommand()
	down.SetArgs([]string{"one"})
	down.SilenceErrors, down.SilenceUsage = true, true
	if err := down.Execute(); err == nil {
		t.Error("took a word for a number")
	}
}
