package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/kube/internal/controlplane"
)

// logFile is the name of the log in the state directory.
const logFile = "control-plane.log"

func newControlPlaneCommand() *cobra.Command {
	var o controlplane.Options
	logging := logsapi.NewLoggingConfiguration()
	cmd := &cobra.Command{
		Use:   "control-plane --dir DIR",
		Short: "etcd, kube-apiserver, kube-controller-manager and kube-scheduler in one process",
		Long: `Runs a Kubernetes control plane in the foreground until SIGTERM or SIGINT.

Everything it needs and makes is in the directory: kubeconfig, an administrator's, is there as soon as the API server
is ready; ` + logFile + ` is the log. A directory used before is continued. Standard output has one line for each
part that begins to act, with the time since the start, and control-plane for the whole:

  ready apiserver 1.93s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			started := time.Now()
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(50) // a tenth less memory; processor time is spent elsewhere
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // a second signal ends the process at once
			dir, err := filepath.Abs(o.Dir)
			if err != nil {
				return err
			}
			o.Dir, o.Log = dir, filepath.Join(dir, logFile)
			if err := openLog(o.Log, logging); err != nil {
				return err
			}
			defer logs.FlushLogs()
			o.Ready = readinessLines(cmd.OutOrStdout(), started)
			return controlplane.Run(ctx, o)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.Dir, "dir", "", "state directory, made when missing")
	if err := cmd.MarkFlagRequired("dir"); err != nil {
		panic(err) // the flag is defined above
	}
	fs.StringVar(&o.Listen, "listen", "127.0.0.1:0", "IP address and port of the API server; port 0 is a free one")
	fs.StringVar(&o.ServiceClusterIPRange, "service-cluster-ip-range", "10.96.0.0/16", "where cluster IPs come from")
	fs.StringSliceVar(&o.Controllers, "controllers", []string{"*"}, "controllers to run, as in kube-controller-manager")
	fs.StringArrayVar(&o.APIServerArgs, "apiserver-arg", nil, "flag for kube-apiserver, --name=value; may be repeated")
	fs.StringArrayVar(&o.ControllerManagerArgs, "controller-manager-arg", nil, "flag for kube-controller-manager, likewise")
	fs.StringArrayVar(&o.SchedulerArgs, "scheduler-arg", nil, "flag for kube-scheduler, likewise")
	logsapi.AddFlags(logging, fs)
	return cmd
}

// openLog sends the log of all components, from here on, to the end of a file.
func openLog(name string, c *logsapi.LoggingConfiguration) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return logsapi.ValidateAndApplyWithOptions(c, &logsapi.LoggingOptions{ErrorStream: f, InfoStream: f}, nil)
}

// readinessLines returns a function that writes a line for a component, with the seconds since start.
func readinessLines(w io.Writer, start time.Time) func(name string) {
	var mu sync.Mutex
	return func(name string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(w, "ready %s %.2fs\n", name, time.Since(start).Seconds())
	}
}
