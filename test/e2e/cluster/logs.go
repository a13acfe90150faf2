package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// collectWithin bounds the questions to a cluster that may not answer.
const collectWithin = time.Minute

// CollectLogs copies into a directory, made when missing, what tells how a cluster came to be as it is: the logs of all
// parts and pods, the objects and events of Kubernetes, the objects of NSX and its journal, and what the edge and the
// nodes have in their kernels. What cannot be had is left out.
func (c *Cluster) CollectLogs(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, collectWithin)
	defer cancel()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err := c.copyLogs(dir)
	if c.Client != nil {
		for file, args := range map[string][]string{
			"objects.yaml": {"get", "nodes,services,endpointslices,deployments,pods,leases", "--all-namespaces", "--output=yaml"},
			"events.txt":   {"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
		} {
			out, _ := c.Kubectl(ctx, args...).CombinedOutput() // says why it failed, if so
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), out, 0o600))
		}
	}
	if c.NSX != nil {
		for file, path := range map[string]string{"nsx-objects.json": "/_nsxsim/state", "nsx-journal.json": "/_nsxsim/journal"} {
			var text json.RawMessage
			if failed := c.NSX.do(ctx, "GET", path, nil, &text); failed != nil {
				text = []byte(failed.Error())
			}
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, file), text, 0o600))
		}
	}
	for _, p := range c.Topology.Places() {
		for file, command := range map[string][]string{
			"nft": {"nft", "list", "ruleset"}, "addresses": {"ip", "address"}, "routes": {"ip", "route"}, "connections": {"conntrack", "-L"},
		} {
			out, _ := p.Command(ctx, command[0], command[1:]...).CombinedOutput() // says why it failed, if so
			name := strings.TrimPrefix(string(p), c.Topology.prefix()) + "-" + file + ".txt"
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), out, 0o600))
		}
	}
	return err
}

// copyLogs copies all files named *.log, with their paths below the cluster's directory.
func (c *Cluster) copyLogs(dir string) error {
	return filepath.WalkDir(c.Dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // pods come and go
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "var-lib":
			return filepath.SkipDir
		case !entry.Type().IsRegular() || filepath.Ext(path) != ".log":
			return nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		name, relErr := filepath.Rel(c.Dir, path)
		if err := errors.Join(err, relErr); err != nil {
			return err
		}
		return writeFile(filepath.Join(dir, name), text)
	})
}
