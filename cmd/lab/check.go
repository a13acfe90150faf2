package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/scenarios"
)

func newCheckCommand() *cobra.Command {
	var pattern string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Play the scenarios of the tutorials in a fresh cluster",
		Args:  cobra.NoArgs,
	}
	o := bindOptions(cmd.Flags())
	cmd.Flags().StringVar(&pattern, "run", "", "only the scenarios whose number, or whose name, matches this regular expression")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the commands typed and their output, also of scenarios that went well")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		chosen, err := scenarios.Matching(pattern)
		if err != nil {
			return err
		}
		return check(cmd.Context(), cmd.OutOrStdout(), *o, chosen, verbose)
	}
	return cmd
}

// check plays the scenarios one after the other. The error says how many failed.
func check(ctx context.Context, out io.Writer, o lab.Options, chosen []scenarios.Scenario, verbose bool) (err error) {
	began := time.Now()
	l, err := startLab(ctx, out, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLab(ctx, out, l)) }()

	const row = "%4v  %-58s  %-6s  %7s  %s"
	say(out, "\n"+row, "row", "scenario", "result", "seconds", "seen")
	failed := 0
	for _, sc := range chosen {
		r := sc.Play(ctx, l)
		result, seen := "ok", r.Seen
		if r.Err != nil {
			failed++
			result, seen = "FAILED", r.Err.Error()
		}
		say(out, row, sc.Row, sc.Name, result, fmt.Sprintf("%.1f", r.Took.Seconds()), seen)
		if r.Err != nil || verbose {
			say(out, "%s", r.Transcript)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.Err(); err != nil {
			return err
		}
	}
	say(out, "\n%d of %d scenarios went well, in %.1f s", len(chosen)-failed, len(chosen), time.Since(began).Seconds())
	if failed > 0 {
		l.KeepFiles()
		say(out, "The logs are left in %s until the next lab starts", l.Dir)
		return fmt.Errorf("%d scenarios failed", failed)
	}
	return nil
}
