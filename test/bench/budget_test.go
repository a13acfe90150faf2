package bench

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

var update = flag.Bool("update", false, "write the budgets into docs/performance.md")

// budgetSizes are the numbers of Services with which everything is counted; as many of them as localsOf says are of
// policy Local besides.
var budgetSizes = []int{1, 100, 1000}

func localsOf(services int) int { return min(services, 50) }

// budgetRow is a line of the table.
type budgetRow struct {
	operation string
	// calls and budgets by size.
	calls, budgets []int
	// incumbent is what the NSX-T load balancer of cloud-provider-vsphere takes, counted against a local NSX API.
	incumbent string
}

// budget is the table, which each size adds a column to.
type budget struct {
	rows []*budgetRow
	next int
}

// count does something and holds the calls that it took against the budget.
func (b *budget) count(w *world, operation string, limit int, incumbent string, f func()) {
	w.t.Helper()
	w.nsx.Journal().Reset()
	f()
	calls := w.nsx.Journal().Count()
	if b.next == len(b.rows) {
		b.rows = append(b.rows, &budgetRow{operation: operation, incumbent: incumbent})
	}
	r := b.rows[b.next]
	b.next++
	r.calls, r.budgets = append(r.calls, calls), append(r.budgets, limit)
	if calls > limit || (calls == 0 && limit > 0) {
		w.t.Errorf("%s took %d calls, the budget is %d: %v", operation, calls, limit, w.nsx.Journal().Counts())
	}
}

// TestBudget counts the NSX calls of operations by the simulator's journal, with the cluster's shared objects in place,
// and prints the table.
func TestBudget(t *testing.T) {
	var b budget
	for _, size := range budgetSizes {
		b.next = 0
		inWorld(t, size+200, 100, func(t *testing.T, w *world) { b.operations(t, w, size) })
	}
	b.print()
	b.checkDocs(t)
}

// TestBudgetOfEverySize holds the same operations to the same budgets with other numbers of nodes, and with 5,000 Services.
func TestBudgetOfEverySize(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute or two")
	}
	for _, services := range []int{100, 1000, 5000} {
		for _, nodes := range []int{10, 1000} {
			t.Run(fmt.Sprintf("%d Services, %d nodes", services, nodes), func(t *testing.T) {
				var b budget
				inWorld(t, services+200, nodes, func(t *testing.T, w *world) { b.operations(t, w, services) })
			})
		}
	}
}

func (b *budget) operations(t *testing.T, w *world, size int) {
	w.start(unlimited, nil)
	ensure := func(services ...*corev1.Service) func() {
		return func() { w.must(w.EnsureAll(t.Context(), workers, services)) }
	}
	remove := func(services ...*corev1.Service) func() {
		return func() { w.must(w.DeleteAll(t.Context(), workers, services)) }
	}
	first, firstLocal := w.prime()
	clusters := Services("cluster", size, cluster, "80")
	locals := Services("local", localsOf(size), local, "80")
	b.count(w, "create all S at once, 64 workers", max(3, 22*size/10), "12 x S", ensure(clusters...))
	ensure(locals...)()

	twenty := make([]string, 20)
	for i := range twenty {
		twenty[i] = fmt.Sprint(8000 + i)
	}
	for _, c := range []struct {
		name                 string
		budget               int
		create, noop, delete string // the incumbent's
		svc                  *corev1.Service
	}{
		{"1 port", 3, "12", "6 full lists", "-", Service("one", cluster, "80")},
		{"3 ports", 3, "22", "8 full lists", "21", Service("three", cluster, "80", "443", "8080")},
		{"20 ports", 4, "-", "25 full lists", "-", Service("twenty", cluster, twenty...)}, // two virtual servers, of at most 14 ports
		{"TCP + UDP", 4, "-", "-", "-", Service("both", cluster, "53", "53/UDP")},
		{"1 port, policy Local", 5, "not honoured", "-", "-", Service("own", local, "80")},
	} {
		b.count(w, "create, "+c.name, c.budget, c.create, ensure(c.svc))
		b.count(w, "no-op, "+c.name, 0, c.noop, ensure(c.svc))
		b.count(w, "delete, "+c.name, c.budget, c.delete, remove(c.svc))
	}

	// Source ranges: a group and an IP set the first time, which Services with the same ranges share and which are deleted, apart,
	// once nobody has them.
	settled := func(f func()) func() {
		return func() {
			f()
			time.Sleep(10 * time.Second)
		}
	}
	listed, same := Service("listed", cluster, "80"), Service("same", cluster, "80")
	listed.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24", "198.51.100.0/24"}
	same.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24", "192.0.2.128/25", "192.0.2.0/25"}
	b.count(w, "create, 1 port, source ranges", 5, "not honoured", ensure(listed))
	b.count(w, "create, 1 port, source ranges that another Service has", 3, "-", ensure(same))
	b.count(w, "no-op, 1 port, source ranges", 0, "-", ensure(listed, same))
	listed.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24"}
	b.count(w, "source ranges changed, and another Service has the old ones", 3, "-", settled(ensure(listed)))
	listed.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
	b.count(w, "source ranges changed, and nobody has the old ones", 5, "-", settled(ensure(listed)))
	listed.Spec.LoadBalancerSourceRanges = nil
	b.count(w, "source ranges removed", 3, "-", settled(ensure(listed)))
	b.count(w, "delete, 1 port, source ranges", 5, "-", settled(remove(same)))
	remove(listed)()

	svc := Service("changed", cluster, "80", "443")
	ensure(svc)()
	svc.Spec.Ports[1].Port = 8443
	b.count(w, "port change", 1, "-", ensure(svc))
	svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = local, 32001
	b.count(w, "policy Cluster -> Local", 3, "-", ensure(svc))
	svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = cluster, 0
	b.count(w, "policy Local -> Cluster", 3, "-", ensure(svc))
	remove(svc)()

	n := len(w.nodes)
	perNode := "S full lists + a PUT a port"
	for _, c := range []struct {
		name      string
		incumbent string
		budget    int
		nodes     []*corev1.Node
	}{
		{"node added", perNode, 2, Nodes(n + 1)},
		{"node removed", perNode, 2, Nodes(n)},
		{"node NotReady for 30 s, and back", "-", 0, slices.Concat(Nodes(n-1), []*corev1.Node{notReady(Node(n - 1))})},
		{"all nodes replaced", perNode, 2, replaced(w.nodes, 500)},
	} {
		time.Sleep(10 * time.Second) // after the write before
		b.count(w, c.name+", S Services", c.budget, c.incumbent, func() {
			w.NodesChanged(c.nodes)
			time.Sleep(30 * time.Second)
			if c.budget == 0 {
				w.NodesChanged(w.nodes)
				time.Sleep(30 * time.Second)
			}
		})
		w.nodes = c.nodes
	}

	all := slices.Concat(clusters, locals, []*corev1.Service{first, firstLocal})
	b.count(w, "restart, S Services", w.lists(len(all)), "S x (5 + ports) full lists", func() {
		w.start(unlimited, nil)
		ensure(all...)()
	})
	if writes := w.nsx.Journal().Writes(); len(writes) > 0 {
		t.Errorf("restart wrote: %v", writes)
	}
	// Each its own calls, a shared one for every five, and the pool, the monitor, and the node group with its addresses.
	limit := 2*(len(clusters)+1) + 4*(len(locals)+1) + max(4, len(all)/5) + 4
	b.count(w, "delete all S", limit, "21 x S (3 ports)", func() {
		remove(all...)()
		time.Sleep(10 * time.Second)
	})
}

// lists are the calls that read everything of that many Services of one virtual server: a list of each of nine kinds, of
// which virtual servers and allocations alone may have more than a page here, the allocations of the one IP pool, the usage
// of each load-balancer service, and the version of NSX.
func (w *world) lists(services int) int {
	pages := (services + 999) / 1000
	return 9 + 2*pages + len(w.nsx.LBNames)
}

// columns are the numbers by size, one for all if they are the same.
func columns(numbers []int) string {
	var texts []string
	for _, n := range numbers {
		texts = append(texts, fmt.Sprint(n))
	}
	if len(slices.Compact(slices.Clone(numbers))) == 1 {
		return texts[0]
	}
	return strings.Join(texts, " / ")
}

func (b *budget) print() {
	var text strings.Builder
	tab := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "NSX calls, S = %s\tcalls\tbudget\tthe incumbent\n", columns(budgetSizes))
	for _, r := range b.rows {
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\n", r.operation, columns(r.calls), columns(r.budgets), r.incumbent)
	}
	tab.Flush()
	fmt.Fprint(os.Stdout, text.String())
}

// checkDocs holds the page for users against the budgets, or writes them there with -update.
func (b *budget) checkDocs(t *testing.T) {
	const page, begin, end = "../../docs/performance.md", "<!-- budgets: begin -->\n", "<!-- budgets: end -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the budgets", page)
	}
	var want strings.Builder
	fmt.Fprintf(&want, "| operation, with S = %s Services there | NSX calls at most | the incumbent |\n|---|---:|---|\n", columns(budgetSizes))
	for _, r := range b.rows {
		fmt.Fprintf(&want, "| %s | %s | %s |\n", r.operation, columns(r.budgets), r.incumbent)
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want.String(), have); d != "" {
		t.Errorf("%s (-want +got); run the test with -update:\n%s", page, d)
	}
}
