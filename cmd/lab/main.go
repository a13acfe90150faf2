// Command lab runs a whole cluster on loopback: a real Kubernetes control plane, simulated vCenter and NSX, the
// controller, and nodes whose node ports really answer.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

func main() {
	// What the libraries have to say is for developers, unless it is an error.
	klog.LogToStderr(false)
	klog.SetOutputBySeverity("INFO", io.Discard)
	klog.SetOutputBySeverity("WARNING", io.Discard)
	klog.SetOutputBySeverity("ERROR", os.Stderr)

	// The first signal ends everything in order, a second one the process at once, and with it its children.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)

	root := &cobra.Command{
		Use:   "lab",
		Short: "A whole cluster on loopback, to try and to test the controller with",
		Long: `A whole cluster on loopback: a real Kubernetes control plane, simulated vCenter and NSX, the controller, and nodes
whose node ports really answer. It needs Linux, and neither root nor a container runtime.`,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(newUpCommand(), newCheckCommand(), newCleanCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		os.Exit(1) // cobra has printed it
	}
}

func newCleanCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove the files of labs that were killed, as the start of a lab does, too",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := lab.Clean()
			for _, dir := range removed {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), "removed", dir)
			}
			return err
		},
	}
}
