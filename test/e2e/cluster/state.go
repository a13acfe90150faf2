package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// maxClusters bounds how many run at the same time.
const maxClusters = 8

// errTaken says that another process has a cluster of this number.
var errTaken = errors.New("taken by another process")

// claim is the right to a number: to the names of its namespaces and control groups, and to its directory.
//
// The lock is an abstract Unix socket: the kernel releases it with the process, however that ends, and it leaves no file.
type claim struct {
	number int
	dir    string
	lock   net.Listener
}

// baseDir holds a directory for each cluster.
func baseDir() (string, error) {
	dir := filepath.Join(os.TempDir(), "nsxt-e2e")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("directory of clusters: %w", err)
	}
	// Anybody may have made this name in a directory that is everybody's.
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return baseDir() // the end of another cluster has just removed it
	}
	if err != nil {
		return "", fmt.Errorf("directory of clusters: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("directory of clusters: %s is not a private directory of this user", dir)
	}
	return dir, nil
}

// take takes a number, or fails with errTaken.
func take(number int) (*claim, error) {
	lock, err := net.Listen("unix", fmt.Sprintf("@cloud-provider-nsxt-e2e/%d", number))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cluster %d: %w", number, errTaken)
	case err != nil:
		return nil, fmt.Errorf("lock of cluster %d: %w", number, err)
	}
	base, err := baseDir()
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &claim{number, filepath.Join(base, strconv.Itoa(number)), lock}, nil
}

// open makes the directory of the cluster. If Down may end it, it names this process.
func (c *claim) open(endable bool) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil || !endable {
		return err
	}
	return os.WriteFile(filepath.Join(c.dir, ownerFile), []byte(strconv.Itoa(os.Getpid())), 0o600)
}

// ownerFile has the id of the process that a cluster belongs to.
const ownerFile = "pid"

// takeAny takes the lowest number that is free, or fails with errTaken.
func takeAny() (*claim, error) {
	for number := 1; number <= maxClusters; number++ {
		c, err := take(number)
		if !errors.Is(err, errTaken) {
			return c, err
		}
	}
	return nil, fmt.Errorf("%w: %d clusters run already; \"make e2e-down\" ends those that were started by hand", errTaken, maxClusters)
}

// owner is the process whose cluster Down may end. Without one, the error is fs.ErrNotExist.
func owner(number int) (pid int, err error) {
	base, err := baseDir()
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(base, strconv.Itoa(number), ownerFile))
	if err != nil {
		return 0, fmt.Errorf("the process of cluster %d: %w", number, err)
	}
	return strconv.Atoi(string(text))
}

// release gives the number back.
func (c *claim) release() error {
	_ = os.Remove(filepath.Dir(c.dir)) // unless others are in there
	return c.lock.Close()
}

// clean removes what the cluster's number stands for and the kernel does not remove by itself: control groups, with the
// processes in them, network namespaces and files. Another process may have left them behind.
func (c *claim) clean(ctx context.Context) error {
	t := Topology{Number: c.number}
	var errs []error
	for _, name := range cgroups(t.prefix()) {
		errs = append(errs, removeCgroup(ctx, name))
	}
	errs = append(errs, t.disconnect(ctx), os.RemoveAll(c.dir))
	return errors.Join(errs...)
}

// exists says whether there is anything to clean.
func (c *claim) exists() bool {
	t := Topology{Number: c.number}
	_, err := os.Stat(c.dir)
	return err == nil || len(cgroups(t.prefix())) > 0 || len(namespaces(t.prefix())) > 0
}

// Down ends the clusters of other processes that may be ended so, and removes what killed ones have left: of these
// numbers, or all. It returns how many there were.
func Down(ctx context.Context, numbers ...int) (int, error) {
	if len(numbers) == 0 {
		for number := 1; number <= maxClusters; number++ {
			numbers = append(numbers, number)
		}
	}
	var errs []error
	count := 0
	for _, number := range numbers {
		found, err := down(ctx, number)
		if err != nil {
			errs = append(errs, fmt.Errorf("cluster %d: %w", number, err))
		}
		if found {
			count++
		}
	}
	return count, errors.Join(errs...)
}

// Clean removes what killed processes have left, and leaves clusters alone that run.
func Clean(ctx context.Context) error {
	var errs []error
	for number := 1; number <= maxClusters; number++ {
		c, err := take(number)
		if errors.Is(err, errTaken) {
			continue
		}
		if err == nil {
			err = errors.Join(c.clean(ctx), c.release())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// graceful is how long a process may take to end its cluster by itself.
const graceful = time.Minute

func down(ctx context.Context, number int) (found bool, err error) {
	c, err := take(number)
	if errors.Is(err, errTaken) {
		found = true
		c, err = evict(ctx, number)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // a test's own
		}
	}
	if err != nil {
		return found, err
	}
	found = found || c.exists()
	return found, errors.Join(c.clean(ctx), c.release())
}

// evict tells the process that has a number to end, and takes the number.
func evict(ctx context.Context, number int) (*claim, error) {
	pid, err := owner(number)
	if err != nil {
		return nil, err
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, fmt.Errorf("ending process %d: %w", pid, err)
		}
		var c *claim
		err := wait.PollUntilContextTimeout(ctx, poll, graceful, true, func(context.Context) (bool, error) {
			var err error
			c, err = take(number)
			if errors.Is(err, errTaken) {
				return false, nil
			}
			return err == nil, err
		})
		if err == nil {
			return c, nil
		}
		if !wait.Interrupted(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("waiting for the end of process %d: %w", pid, err)
		}
	}
	return nil, fmt.Errorf("process %d does not end", pid)
}
