package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
)

//go:embed rehearsal.nft
var rehearsalRules []byte

const (
	// rehearsalWithin is many times what a rehearsal takes.
	rehearsalWithin = time.Minute
	// inotifyInstances is how many a cluster of three nodes has, and some more: the parts of Kubernetes watch files.
	inotifyInstances = 48
)

// rehearse does in small what the start of a cluster asks of the machine, with none of what is built: an edge, a node and
// what is between them. It leaves nothing behind. The error has a line for each thing that cannot be done.
func rehearse(ctx context.Context) error {
	claim, err := takeAny()
	if errors.Is(err, errTaken) {
		return nil // that many clusters run
	}
	if err != nil {
		return err
	}
	return errors.Join(rehearseAs(ctx, claim), claim.release())
}

// rehearseAs is rehearse with a number of the caller's.
func rehearseAs(ctx context.Context, claim *claim) (err error) {
	ctx, cancel := context.WithTimeout(ctx, rehearsalWithin)
	defer cancel()
	t := Topology{Number: claim.number, Nodes: 1}
	n := t.newNode(1, claim.dir)
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
		defer cancel()
		err = errors.Join(err, n.die(), claim.clean(ending))
	}()
	if err := errors.Join(claim.clean(ctx), os.MkdirAll(n.logDir(), 0o700)); err != nil {
		return err
	}
	var errs []error
	try := func(what string, step func() error) bool {
		err := step()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
		return err == nil
	}
	try("files that report changes, fs.inotify.max_user_instances", func() error { return tryInotify(inotifyInstances) })
	try("control groups", func() error { return makeCgroup(n.cgroup) })
	if !try("network namespaces with bridges, cables and settings of their own", func() error { return t.connect(ctx) }) {
		return errors.Join(errs...) // the others live in there
	}
	try("nftables", func() error { return runIn(ctx, t.Edge(), rehearsalRules, "nft", "--file", "-") })
	try("connection tracking", func() error { return runIn(ctx, t.Edge(), nil, "conntrack", "--dump", "--proto=tcp") })
	try("iptables", func() error { return runIn(ctx, n.Place, nil, "iptables", "--wait", "--table=nat", "--list-rules") })
	overlays := fmt.Sprintf("overlays over files in %s, which must be none itself and is named by TMPDIR", os.TempDir())
	if try(overlays, func() error { return tryOverlay(ctx, n) }) {
		try("machines with mounts, process ids and a host name of their own", func() error { return n.powerUp(ctx) })
	}
	return errors.Join(errs...)
}

// tryOverlay has the file system of a container on the disk of a node, which is off.
func tryOverlay(ctx context.Context, n *Node) error {
	return programs.Command{
		Name: "mount", Log: n.logFile("overlay"), Args: []string{"/bin/sh", "-c", rehearsalOverlay, "sh", n.dir},
		Prepare: func(attributes *syscall.SysProcAttr) error {
			attributes.Cloneflags = unix.CLONE_NEWNS
			return nil
		},
	}.Run(ctx)
}

// rehearsalOverlay lays a directory over another one, as containerd does, and takes a file away.
const rehearsalOverlay = `set -e
mount --make-rprivate /
cd "$1"
mkdir lower upper work merged
touch lower/file
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
rm merged/file`

// runIn runs a program in a place, with a text to read.
func runIn(ctx context.Context, p Place, in []byte, args ...string) error {
	cmd := p.Command(ctx, args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// tryInotify has a number of inotify instances for a moment: how many this user has already, nobody tells.
func tryInotify(number int) error {
	for i := range number {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("only %d of %d can be had: sysctl fs.inotify.max_user_instances=1024: %w", i, number, err)
		}
		defer func() { _ = unix.Close(fd) }()
	}
	return nil
}
