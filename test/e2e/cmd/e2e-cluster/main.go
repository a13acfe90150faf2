// Command e2e-cluster starts a cluster of real nodes in network namespaces, to play with by hand, and ends it: package
// cluster behind a command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
)

// name of the program, in messages.
const name = "e2e-cluster"

// startWithin bounds the start of a cluster.
const startWithin = 5 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           name,
		Short:         "A cluster of real Kubernetes nodes in network namespaces",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newUpCommand(), newRunCommand(), newDownCommand(), newCleanCommand(), newCheckCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

func bindOptions(flags *pflag.FlagSet) *cluster.Options {
	var o cluster.Options
	flags.Var((*defects)(&o.Defects), "break", "what NSX's edge does wrong, repeatable: "+defectNames())
	flags.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	flags.StringVar(&o.ProxyMode, "proxy-mode", cluster.NFTables, "kube-proxy's mode: "+cluster.NFTables+" or "+cluster.IPTables)
	flags.StringVar(&o.BinDir, "bin", "", "directory of the programs (default: that of this one)")
	flags.StringVar(&o.LogDir, "logs", "", "where the logs go when the start fails (default: a temporary directory)")
	flags.StringArrayVar(&o.NSXArgs, "nsxsim-arg", nil, "flag for nsxsim, --name=value; may be repeated")
	return &o
}

func newRunCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Start a cluster and keep it until Ctrl-C or SIGTERM",
		Args:  cobra.NoArgs,
	}
	o := bindOptions(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), cmd.OutOrStdout(), *o) }
	return cmd
}

// run keeps a cluster until the context ends, which is no error.
func run(ctx context.Context, out io.Writer, o cluster.Options) error {
	o.Endable = true
	o.Report = func(p cluster.Part) { say(out, "%-22s %5.1f s", p.Name, p.Took.Seconds()) }
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	began := time.Now()
	c, err := cluster.Start(starting, o)
	if err != nil {
		return err
	}
	say(out, "%-22s %5.1f s\n", "ready", time.Since(began).Seconds())
	introduce(out, c)
	err = watch(ctx, c)
	return errors.Join(err, c.Close(ctx))
}

// watch looks after the cluster until the context ends.
func watch(ctx context.Context, c *cluster.Cluster) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := c.Err(); err != nil {
				return err
			}
		}
	}
}

// theEnd is the last line that a starting cluster prints.
const theEnd = name + " down ends it."

func introduce(out io.Writer, c *cluster.Cluster) {
	t := c.Topology
	say(out, `The cluster lives in network namespaces of its own (ip netns): nothing of it is seen from here but through them.

  %[1]s/kubectl            kubectl of an administrator
  %[1]s/client COMMAND     run a command on the client outside, %[2]s
  ip netns exec %[3]s   a shell command on NSX's edge; %[4]s is a node
  %[1]s                    logs, kubeconfigs, the nodes' disks
  %[5]s       the NSX manager; floating IPs are in %[6]s. Its objects, and what it was asked:
      %[1]s/client curl --cacert %[8]s -u '%[9]s:%[10]s' %[5]s/_nsxsim/state
      %[1]s/client curl --cacert %[8]s -u '%[9]s:%[10]s' %[5]s/_nsxsim/journal

To try:
  %[1]s/kubectl get nodes -o wide
  %[1]s/kubectl create deployment web --image=%[7]s --replicas=2 -- /agnhost netexec --http-port=8080
  %[1]s/kubectl expose deployment web --type=LoadBalancer --port=80 --target-port=8080
  %[1]s/kubectl get service web
  %[1]s/client curl http://EXTERNAL-IP/clientip
`, c.Dir, t.ClientAddress(1), t.Edge(), t.Node(1), c.NSX.URL, t.FloatingIPs(), cluster.AgnhostImage,
		c.CAFile(), nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	say(out, theEnd)
}

func newDownCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down [NUMBER...]",
		Short: "End the clusters that were started so, or these of them, and remove what killed ones have left",
		RunE: func(cmd *cobra.Command, args []string) error {
			var numbers []int
			for _, arg := range args {
				number, err := strconv.Atoi(arg)
				if err != nil {
					return fmt.Errorf("%q is no number of a cluster: %w", arg, err)
				}
				numbers = append(numbers, number)
			}
			count, err := cluster.Down(cmd.Context(), numbers...)
			if err != nil {
				return err
			}
			say(cmd.OutOrStdout(), "clusters ended: %d", count)
			return nil
		},
	}
}

func newCleanCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove what clusters of killed processes have left",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cluster.Clean(cmd.Context()) },
	}
}

func newCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Tell whether clusters can run on this machine, and else what is missing",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cluster.Preflight(cmd.Context()) },
	}
}

func newUpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster in the background, until down",
		Args:  cobra.NoArgs,
	}
	bindOptions(cmd.Flags()) // parsed here to be refused at once, and again by run
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return up(cmd.Context(), cmd.OutOrStdout(), append([]string{"run"}, os.Args[2:]...))
	}
	return cmd
}

func say(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }

// up runs this program in the background, and returns when it has said that the cluster is ready.
func up(ctx context.Context, out io.Writer, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	background := exec.Command(self, args...)
	background.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives this process and its terminal
	lines, err := background.StdoutPipe()
	if err != nil {
		return err
	}
	// A file, so that nobody waits for its end; without a name, so that it goes by itself.
	failure, err := os.CreateTemp("", "e2e-cluster-")
	if err != nil {
		return err
	}
	defer func() { _ = failure.Close() }()
	if err := os.Remove(failure.Name()); err != nil {
		return err
	}
	background.Stderr = failure
	if err := background.Start(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = background.Process.Signal(syscall.SIGTERM) })()
	if ready := copyUntil(out, lines, theEnd); ready && ctx.Err() == nil {
		return background.Process.Release()
	}
	err = background.Wait()
	// It has said why, under the same name.
	text, readErr := io.ReadAll(io.NewSectionReader(failure, 0, 1<<20))
	if why := strings.TrimPrefix(strings.TrimSpace(string(text)), name+": "); why != "" {
		return errors.New(why)
	}
	return errors.Join(err, readErr, context.Cause(ctx))
}
