// Command kube holds Kubernetes in one binary, for tests and for the lab: a whole control plane in one process, and kubectl.
// Called by the name kubectl, through a link, it is kubectl.
package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the credential plugins a kubeconfig may name
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" {
		runKubectl(os.Args)
		return
	}
	root := &cobra.Command{
		Use:           "kube",
		Short:         "Kubernetes in one binary",
		SilenceUsage:  true,
		SilenceErrors: false,
	}
	root.AddCommand(newControlPlaneCommand(), &cobra.Command{
		Use:                "kubectl",
		Short:              "The command line client",
		DisableFlagParsing: true, // its own flags
		Run:                func(_ *cobra.Command, args []string) { runKubectl(append([]string{"kubectl"}, args...)) },
	})
	if err := root.Execute(); err != nil {
		os.Exit(1)
	}
}

// runKubectl is the main function of kubectl.
func runKubectl(args []string) {
	os.Args = args // where kubectl looks for plugins and aliases
	// The verbosity counts before the flags are parsed.
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints and exits
	}
}
