package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

// closeWithin is how long a lab may take to end in order.
const closeWithin = 30 * time.Second

// bindOptions adds the flags of all commands that start a lab.
func bindOptions(fs *pflag.FlagSet) *lab.Options {
	o := &lab.Options{}
	fs.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	fs.IntVar(&o.PoolSize, "pool-size", 50, "number of floating IPs")
	fs.StringVar(&o.BinDir, "bin-dir", "", "where the programs kube and nsxt-cloud-controller-manager are (default: beside this one)")
	fs.BoolVar(&o.KeepFiles, "keep-files", false, "leave logs and config in place at the end, until the next lab starts")
	return o
}

// startLab starts a lab and prints what it does meanwhile.
func startLab(ctx context.Context, out io.Writer, o lab.Options) (*lab.Lab, error) {
	say(out, "Starting a cluster of %d nodes", o.Nodes)
	o.Report = func(p lab.Part) {
		line := fmt.Sprintf("  %-18s %5.1f s", p.Name, p.Took.Seconds())
		if p.Memory > 0 {
			line += fmt.Sprintf(" %5d MiB", mib(p.Memory))
		}
		say(out, "%s", line)
	}
	began := time.Now()
	l, err := lab.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	say(out, "Ready after %.1f s, with %d MiB of memory in all, on %s", time.Since(began).Seconds(), mib(l.Memory()), l.Block)
	return l, nil
}

// closeLab ends a lab, even when the context has ended.
func closeLab(ctx context.Context, out io.Writer, l *lab.Lab) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	say(out, "Stopping everything")
	began := time.Now()
	if err := l.Close(ctx); err != nil {
		return err
	}
	say(out, "Stopped after %.1f s: no process and no address of the lab is left in use", time.Since(began).Seconds())
	return nil
}

func mib(bytes int64) int64 { return bytes >> 20 }

// say prints a line. Nobody may be listening.
func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format+"\n", args...)
}
