package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/wait"
)

// cgroupDir is where control groups are mounted: version 2 itself, or a directory for each hierarchy of version 1.
const cgroupDir = "/sys/fs/cgroup"

// controllersFile lists the controllers of a group of version 2.
const controllersFile = "cgroup.controllers"

// kubeletControllers are those of version 2 that a kubelet wants in its group, if the machine has them.
var kubeletControllers = []string{"cpu", "cpuset", "memory", "hugetlb", "pids"}

// cgroupControllers are those of version 1 that the kubelet wants; unified is version 2 beside it, where runc makes groups
// as well.
var cgroupControllers = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "systemd", "unified"}

// neededControllers are those without which a kubelet or runc does not work; version 1 counts processor time in one of its own.
var neededControllers = map[bool][]string{
	true:  {"cpu", "cpuset", "memory", "pids"},
	false: {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids"},
}

// missingControllers are the needed ones that this machine does not offer.
func missingControllers() []string {
	unified := unifiedCgroups()
	text, _ := os.ReadFile(filepath.Join(cgroupDir, controllersFile)) // none: offers none
	return slices.DeleteFunc(slices.Clone(neededControllers[unified]), func(name string) bool {
		if unified {
			return slices.Contains(strings.Fields(string(text)), name)
		}
		_, err := os.Stat(filepath.Join(cgroupDir, name))
		return err == nil
	})
}

// unifiedCgroups says whether the machine has version 2 alone.
func unifiedCgroups() bool {
	var s unix.Statfs_t
	return unix.Statfs(cgroupDir, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}

// cgroupRoots are the directories that hold the control groups of nodes.
func cgroupRoots() []string {
	if unifiedCgroups() {
		return []string{cgroupDir}
	}
	var roots []string
	seen := map[string]bool{} // one hierarchy may have several names
	for _, c := range cgroupControllers {
		root, err := filepath.EvalSymlinks(filepath.Join(cgroupDir, c))
		if err == nil && !seen[root] {
			seen[root] = true
			roots = append(roots, root)
		}
	}
	return roots
}

// makeCgroup makes the control group that holds all pods of a node.
func makeCgroup(name string) error {
	if unifiedCgroups() {
		if err := delegateControllers(); err != nil {
			return err
		}
	}
	for _, root := range cgroupRoots() {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("control group: %w", err)
		}
		// In version 1 a group has neither processors nor memory until it is given some.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			all, err := os.ReadFile(filepath.Join(root, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), bytes.TrimSpace(all), 0)
			}
			if err != nil {
				return fmt.Errorf("control group: %w", err)
			}
		}
	}
	return nil
}

// delegateControllers has the groups below the root of version 2 have what a kubelet asks of its own.
func delegateControllers() error {
	available, err := os.ReadFile(filepath.Join(cgroupDir, controllersFile))
	if err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	for _, c := range strings.Fields(string(available)) {
		if !slices.Contains(kubeletControllers, c) {
			continue
		}
		err := os.WriteFile(filepath.Join(cgroupDir, "cgroup.subtree_control"), []byte("+"+c), 0)
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("control group controller %s: %w: %s has processes, as in a container that does not have the host's groups", c, err, cgroupDir)
		}
		if err != nil {
			return fmt.Errorf("control group controller %s: %w", c, err)
		}
	}
	return nil
}

// removeCgroup kills what is left in a node's control group and removes it.
func removeCgroup(ctx context.Context, name string) error {
	var errs []error
	for _, root := range cgroupRoots() {
		dir := filepath.Join(root, name)
		var last error
		err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
			last = emptyCgroup(dir)
			return last == nil, nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("control group %s: %w", dir, errors.Join(err, last)))
		}
	}
	return errors.Join(errs...)
}

// emptyCgroup kills the processes of a group and of those below it, and removes the groups. A process that has been
// killed may still be there: then it fails, and is tried again.
func emptyCgroup(dir string) error {
	var groups []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for i := len(groups) - 1; i >= 0; i-- { // the innermost first
		text, _ := os.ReadFile(filepath.Join(groups[i], "cgroup.procs")) // gone: nothing to kill
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL) // gone by now, or seen at rmdir
			}
		}
		if err := unix.Rmdir(groups[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s: %w", groups[i], err))
		}
	}
	return errors.Join(errs...)
}

// cgroups lists the nodes' control groups whose names begin with a prefix.
func cgroups(prefix string) []string {
	seen := map[string]bool{}
	var names []string
	for _, root := range cgroupRoots() {
		paths, err := filepath.Glob(filepath.Join(root, prefix+"*"))
		if err != nil {
			panic(err) // the pattern is ours
		}
		for _, path := range paths {
			if name := filepath.Base(path); !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}
