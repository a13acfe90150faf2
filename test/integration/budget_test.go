package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// row is a line of the budget table.
type row struct {
	operation    string
	calls        int
	budget, peer string
}

// TestBudget counts NSX calls of operations by the simulator's journal, with the cluster's shared objects in place, and
// prints the table. The peer's figures are those of the incumbent's NSX-T load balancer, counted the same way.
func TestBudget(t *testing.T) {
	w := newWorld(t, nsxsim.Options{})
	w.start()
	w.ensure(service("cluster-0", cluster, "80"))
	w.ensure(service("local-0", local, "80"))

	var table []row
	count := func(operation string, budget int, peer string, f func()) {
		t.Helper()
		w.sim.Journal().Reset()
		f()
		calls := w.sim.Journal().Count()
		table = append(table, row{operation, calls, fmt.Sprint(budget), peer})
		if calls != budget {
			t.Errorf("%s took %d calls, want %d: %v", operation, calls, budget, w.sim.Journal().Counts())
		}
	}

	twenty := make([]string, 20)
	for i := range twenty {
		twenty[i] = fmt.Sprint(8000 + i)
	}
	for _, c := range []struct {
		name   string
		budget int
		peer   string
		svc    *corev1.Service
	}{
		{"1 port", 3, "12", service("one", cluster, "80")},
		{"3 ports", 3, "22", service("three", cluster, "80", "443", "8080")},
		{"TCP + UDP", 4, "-", service("both", cluster, "53", "53/UDP")},
		{"20 ports", 4, "-", service("twenty", cluster, twenty...)},
		{"1 port, policy Local", 5, "-", service("local", local, "80")},
	} {
		count("create, "+c.name, c.budget, c.peer, func() { w.ensure(c.svc) })
		count("no-op, "+c.name, 0, "5 + ports, each a full list", func() { w.ensure(c.svc) })
		count("delete, "+c.name, c.budget, map[string]string{"3 ports": "21"}[c.name], func() { w.remove(c.svc) })
	}

	changed := service("changed", cluster, "80", "443")
	w.ensure(changed)
	changed.Spec.Ports[1].Port = 8443
	count("port change", 1, "-", func() { w.ensure(changed) })
	changed.Spec.ExternalTrafficPolicy, changed.Spec.HealthCheckNodePort = local, 32001
	count("policy Cluster -> Local", 3, "-", func() { w.ensure(changed) })
	changed.Spec.ExternalTrafficPolicy, changed.Spec.HealthCheckNodePort = cluster, 0
	count("policy Local -> Cluster", 3, "-", func() { w.ensure(changed) })
	w.remove(changed)

	all := []*corev1.Service{}
	for i := 1; i < 50; i++ {
		all = append(all, service(fmt.Sprintf("cluster-%d", i), cluster, "80"), service(fmt.Sprintf("local-%d", i), local, "80"))
	}
	for _, svc := range all {
		w.ensure(svc)
	}
	count("node added, 50 Cluster and 50 Local Services", 2, "100 lists + 100 PUTs", func() {
		w.nodes = append(w.nodes, node(3))
		w.engine.NodesChanged(w.nodes)
		w.eventually("the node is in NSX", func() bool { return w.sim.Journal().Count() >= 2 })
	})

	w.sim.Journal().Reset()
	w.restart()
	for _, svc := range all {
		w.ensure(svc)
	}
	for op, n := range w.sim.Journal().Writes() {
		t.Errorf("restart wrote: %s, %d times", op, n)
	}
	const lists = 12 // a list of each kind, the pool's allocations, and the load-balancer service's usage
	calls := w.sim.Journal().Count()
	table = append(table, row{"restart, 100 Services", calls, fmt.Sprintf("%d reads", lists), "100 x (5 + ports) full lists"})
	if calls > lists {
		t.Errorf("restart took %d calls, want at most %d: %v", calls, lists, w.sim.Journal().Counts())
	}
	print(table)
}

func print(table []row) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "operation\tNSX calls\tbudget\tthe incumbent")
	for _, r := range table {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", r.operation, r.calls, r.budget, r.peer)
	}
	w.Flush()
	fmt.Fprint(os.Stdout, b.String())
}
