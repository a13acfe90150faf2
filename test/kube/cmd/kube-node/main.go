// Command kube-node holds what runs on a Kubernetes node in one binary, for the end-to-end tests: kubelet and kube-proxy, each
// with its own flags, as "kube-node kubelet ..." or through a link of its name.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register" // JSON as a log format
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	name := filepath.Base(os.Args[0])
	command := component(name)
	if command == nil && len(os.Args) > 1 {
		os.Args = os.Args[1:] // the components parse them themselves
		name = os.Args[0]
		command = component(name)
	}
	if command == nil {
		fmt.Fprintln(os.Stderr, "usage: kube-node kubelet|kube-proxy [flags]")
		os.Exit(2)
	}
	os.Exit(cli.Run(command))
}

// component is the command of that name, nil when there is none. Only the one that runs is made: both register flags.
func component(name string) *cobra.Command {
	switch name {
	case "kubelet":
		return kubelet.NewKubeletCommand(context.Background())
	case "kube-proxy":
		return kubeproxy.NewProxyCommand()
	}
	return nil
}
