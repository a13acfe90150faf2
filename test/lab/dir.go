package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
)

// baseDir holds a directory for each block of addresses in use: whoever holds the block owns its directory. Users and
// network namespaces, which have blocks of their own, have base directories of their own.
func baseDir() (string, error) {
	name := "nsxt-lab-" + strconv.Itoa(os.Getuid())
	if ns, err := os.Readlink("/proc/self/ns/net"); err == nil {
		name += "-" + regexp.MustCompile(`\d+`).FindString(ns)
	}
	dir := filepath.Join(os.TempDir(), name)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("directory of labs: %w", err)
	}
	// Anybody may have made this name in a directory that is everybody's.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("directory of labs: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("directory of labs: %s is not a private directory of this user", dir)
	}
	return dir, nil
}

// dirOf is the directory of a block.
func dirOf(base string, number int) string { return filepath.Join(base, fmt.Sprintf("127.%d", number)) }

// makeDir makes a fresh directory for a block that the caller holds.
func makeDir(b *block.Block) (string, error) {
	base, err := baseDir()
	if err != nil {
		return "", err
	}
	dir := dirOf(base, b.Number())
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("leftovers of a lab: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("directory of the lab: %w", err)
	}
	return dir, nil
}

// Clean removes the directories of labs that were killed or that kept their files, and returns their paths.
func Clean() ([]string, error) {
	base, err := baseDir()
	if err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for n := block.First; n <= block.Last; n++ {
		dir := dirOf(base, n)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		b, err := block.TakeNumber(n)
		if errors.Is(err, block.ErrTaken) {
			continue // in use
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		err = os.RemoveAll(dir)
		errs = append(errs, err, b.Release())
		if err == nil {
			removed = append(removed, dir)
		}
	}
	return removed, errors.Join(errs...)
}
