//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
)

// logged finds the time and the text in a line of a container's log, and whether it is klog's for an error.
var logged = regexp.MustCompile(`^(\S+) (?:stdout|stderr) [FP] (E\d{4} .*|panic: .*|fatal error: .*)$`)

// controllerErrors are the errors that the controllers have logged since a time, in their order: of all their Pods and
// containers, those that are gone included.
func controllerErrors(t *testing.T, c *cluster.Cluster, since time.Time) []string {
	t.Helper()
	var lines []string
	for _, n := range c.Nodes {
		files, err := filepath.Glob(filepath.Join(n.PodLogDir(), "kube-system_nsxt-cloud-controller-manager-*", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			found, err := errorsIn(file, since)
			if err != nil {
				t.Fatalf("the controller's log: %v", err)
			}
			for _, line := range found {
				lines = append(lines, fmt.Sprintf("%s on %s", line, n.Name))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func errorsIn(file string, since time.Time) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var lines []string
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		found := logged.FindStringSubmatch(scanner.Text())
		if found == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, found[1])
		if err != nil {
			return nil, err
		}
		if !at.Before(since) {
			lines = append(lines, at.UTC().Format("15:04:05.000")+" "+strings.TrimSpace(found[2]))
		}
	}
	return lines, scanner.Err()
}
