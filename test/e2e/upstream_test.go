//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
)

// suite begins the names of the upstream tests that are run.
const suite = "[sig-network] LoadBalancers"

// unfit are upstream tests that this kind of load balancer cannot pass, with the reason, by a part of their names.
var unfit = map[string]string{
	"should be able to create LoadBalancer Service without NodePort and change it": "NSX forwards to node ports: a Service without them (allocateLoadBalancerNodePorts: false) cannot be reached",
}

// rolling is a part of the names of the upstream tests that take a quarter of an hour each.
const rolling = "should not have connectivity disruption during rolling update"

// specWithin bounds an upstream test: the longest takes a quarter of an hour.
const specWithin = 30 * time.Minute

// spec is an upstream test in a report of ginkgo's.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	Failure                 struct {
		Message  string
		Location struct {
			FileName   string
			LineNumber int
		}
	}
}

func (s spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

// TestLoadBalancers runs Kubernetes' own tests of load balancers, from the client outside. Each is a process of its own, several run at
// a time (-parallel).
func TestLoadBalancers(t *testing.T) {
	t.Parallel()
	w := inWorld(t)
	bin := filepath.Join(w.BinDir(), "e2e", "e2e.test")
	specs := runSpecs(t, w, bin, "--provider=skeleton", "--ginkgo.dry-run", "--ginkgo.focus="+regexp.QuoteMeta(suite))
	if len(specs) == 0 {
		t.Fatalf("%s has no tests named %q", bin, suite)
	}
	slices.SortFunc(specs, func(a, b spec) int { return strings.Compare(a.name(), b.name()) })

	calls := watchCalls(t)
	t.Cleanup(func() { calls.check(t) }) // when all have ended
	for _, s := range specs {
		t.Run(strings.TrimSpace(strings.TrimPrefix(s.name(), suite)), func(t *testing.T) {
			for part, reason := range unfit {
				if strings.Contains(s.name(), part) {
					t.Skip(reason)
				}
			}
			if strings.Contains(s.name(), rolling) && !*rollingUpdates {
				t.Skip("takes a quarter of an hour: \"make e2e-full\" runs it")
			}
			t.Parallel()
			runSpec(t, w, bin, s)
		})
	}
}

func runSpec(t *testing.T, w *world, bin string, s spec) {
	// The whole name, which ginkgo puts behind that of the suite.
	cmd := w.Topology.Client().Command(t.Context(), bin, "--provider=skeleton", "--ginkgo.focus= "+regexp.QuoteMeta(s.name())+"$",
		"--kubeconfig="+w.Kubeconfig(), "--kubectl-path="+filepath.Join(w.BinDir(), "kubectl"),
		fmt.Sprintf("--num-nodes=%d", len(w.Nodes)), "--node-os-distro=custom", "--dump-logs-on-failure=false",
		"--ginkgo.v", "--ginkgo.timeout="+specWithin.String())
	for _, done := range runSpecs(t, w, cmd.Args...) {
		if done.name() != s.name() {
			t.Errorf("%q ran as well", done.name())
			continue
		}
		switch done.State {
		case "passed":
		case "skipped":
			t.Errorf("the test skipped itself: %s", done.Failure.Message)
		default:
			t.Errorf("%s at %s:%d: %s", done.State, done.Failure.Location.FileName, done.Failure.Location.LineNumber, done.Failure.Message)
		}
	}
}

// runSpecs runs ginkgo's tests by a command line, and returns those that were not left out. When one fails, it shows what was
// printed. The process does not outlive this one.
func runSpecs(t *testing.T, w *world, args ...string) []spec {
	t.Helper()
	dir := t.TempDir()
	report, log := filepath.Join(dir, "report.json"), filepath.Join(dir, "output")
	args = append(args, "--ginkgo.json-report="+report, "--ginkgo.no-color", "--ginkgo.silence-skips")
	failed := programs.Command{
		Name: "ginkgo's tests", Log: log, Args: slices.Concat([]string{"env", "--chdir=" + dir, "KUBECACHEDIR=" + w.KubectlCache()}, args),
	}.Run(w.context(t))
	if failed != nil {
		out, _ := os.ReadFile(log) // else that it failed is all there is to say
		t.Logf("%s", out)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("no report of %v: %v: %v", args, failed, err)
	}
	var reports []struct{ SpecReports []spec }
	if err := json.Unmarshal(text, &reports); err != nil {
		t.Fatalf("the report of %v: %v", args, err)
	}
	var specs []spec
	for _, r := range reports {
		for _, s := range r.SpecReports {
			// Those that were left out have no failure that says why.
			if s.LeafNodeType == "It" && (s.State != "skipped" || s.Failure.Message != "") {
				specs = append(specs, s)
			}
		}
	}
	if failed != nil && len(specs) == 0 {
		t.Fatalf("%v: %v", args, failed)
	}
	return specs
}
