package lb

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

var update = flag.Bool("update", false, "write the golden files anew")

const testCluster = "cluster-uid"

// scenario is a testdata/*.yaml file: a Service and what happens to it and in NSX, step by step. After each step the
// Service is synced, and what that decides and leads to is printed into the golden file.
type scenario struct {
	// About says what the scenario shows.
	About string
	// IPPools and LBServices of NSX; one of each by default.
	IPPools []struct {
		Name      string
		Exclusive bool
		Ranges    []string
		Problem   string
	}
	LBServices []struct {
		ID       string
		Capacity int
	}
	// Version of NSX; 3.2 by default.
	Version string
	// Tier1Gateways in which NSX lets load-balancer services be made.
	Tier1Gateways []string
	Service       map[string]any
	Steps         []scenarioStep
}

type scenarioStep struct {
	Name string
	// Service is a JSON merge patch; a new status is what the sync before answered.
	Service map[string]any
	// Class edits the class of the Service.
	Class *classEdit
	NSX   []mishap
	// Fail names the call at which applying the plan ends, as by a crash.
	Fail string
}

type classEdit struct {
	Name                                              string
	IPPools, LoadBalancerServices, Tier1Gateways      []string
	TCPProfile, Algorithm, PreserveClientIP, NoChecks string
	MaxNodes                                          int
	Interval                                          string
}

// mishap is something that happens in NSX without the controller.
type mishap struct {
	// Restart the controller.
	Restart bool
	// Release, Allocate or Carry (by a virtual server) an address as somebody else. Hidden allocations are not seen.
	Release, Allocate, Carry, Hidden string
	// NoChoice is an IP pool of which NSX turns out to give no address of one's choice.
	NoChoice string
	// Detach a virtual server of ours.
	Detach string
	// Copy makes a virtual server of ours again As another id, at the address, in the load-balancer service.
	Copy, As, At, In string
	// Full load-balancer service: without room from now on.
	Full string
	// Open a virtual server of ours: its access list is gone.
	Open string
	// Admit a range of clients: all groups of clients hold it besides.
	Admit string
	// Version that NSX is upgraded to.
	Version string
}

func testClass() config.Class {
	return config.Class{
		Name:                 "default",
		IPPools:              []string{"floating"},
		LoadBalancerServices: []string{"lb-1"},
		ApplicationProfiles:  config.ApplicationProfiles{TCP: "default-tcp-lb-app-profile", UDP: "default-udp-lb-app-profile"},
		HealthCheck:          config.HealthCheck{Port: 10256, Path: "/healthz"},
		Monitor:              config.Monitor{Interval: 5 * time.Second, Timeout: 5 * time.Second, FallCount: 3, RiseCount: 3},
		MaxNodes:             128,
		PreserveClientIP:     config.PreserveClientIPAuto,
		Algorithm:            config.AlgorithmRoundRobin,
	}
}

func (e *classEdit) apply(c *config.Class) {
	set := func(s string, to *string) {
		if s != "" {
			*to = s
		}
	}
	set(e.Name, &c.Name)
	set(e.TCPProfile, &c.ApplicationProfiles.TCP)
	set(e.Algorithm, (*string)(&c.Algorithm))
	set(e.PreserveClientIP, (*string)(&c.PreserveClientIP))
	if e.NoChecks != "" {
		c.HealthCheck = config.HealthCheck{}
	}
	if e.IPPools != nil {
		c.IPPools = e.IPPools
	}
	if e.LoadBalancerServices != nil {
		c.LoadBalancerServices = e.LoadBalancerServices
	}
	for _, id := range e.Tier1Gateways {
		c.Tier1Gateways = append(c.Tier1Gateways, config.Tier1Gateway{ID: id, Size: config.SizeSmall})
	}
	if e.MaxNodes != 0 {
		c.MaxNodes = e.MaxNodes
	}
	if d, err := time.ParseDuration(e.Interval); err == nil {
		c.Monitor.Interval = d
	}
}

func (n *fakeNSX) mishap(o nsx.Owner, m mishap) {
	poolOf := func(a netip.Addr) string {
		for _, p := range n.inv.IPPools() {
			for _, r := range p.Ranges {
				if r.Contains(a) {
					return p.ID
				}
			}
		}
		n.t.Fatalf("no pool has %v", a)
		return ""
	}
	detach := func(id string) {
		r, _ := n.inv.LBService(n.attachedTo(o, id))
		r.VirtualServers = slices.DeleteFunc(slices.Clone(r.VirtualServers), func(v string) bool { return v == id })
		n.inv.PutLBService(r)
	}
	switch {
	case m.Restart:
		n.restart()
	case m.Release != "":
		a := netip.MustParseAddr(m.Release)
		delete(n.foreign, a)
		n.inv.SetReleased(poolOf(a), a)
	case m.Allocate != "":
		a := netip.MustParseAddr(m.Allocate)
		n.foreign[a] = true
		n.inv.SetAllocated(poolOf(a), a, false)
	case m.NoChoice != "":
		p, _ := n.inv.IPPool(m.NoChoice)
		n.inv.SetNoChoice(p.ID, true)
	case m.Hidden != "":
		n.foreign[netip.MustParseAddr(m.Hidden)] = true
	case m.Carry != "":
		v := nsx.VirtualServer{ID: n.newID("foreign"), Protocol: nsx.UDP, Address: netip.MustParseAddr(m.Carry)}
		n.inv.PutVirtualServer(nsx.VirtualServerRecord{VirtualServer: v})
	case m.Detach != "":
		detach(m.Detach)
	case m.Copy != "":
		r, ok := n.inv.VirtualServer(m.Copy)
		if !ok {
			n.t.Fatalf("no virtual server %q to copy", m.Copy)
		}
		r.VirtualServer.ID, r.VirtualServer.Address = m.As, netip.MustParseAddr(m.At)
		n.inv.PutVirtualServer(r)
		n.inv.SetAllocated(r.VirtualServer.IPPool, r.VirtualServer.Address, false)
		if m.In != "" {
			s, _ := n.inv.LBService(m.In)
			s.VirtualServers = append(slices.Clone(s.VirtualServers), m.As)
			n.inv.PutLBService(s)
		}
	case m.Open != "":
		r, _ := n.inv.VirtualServer(m.Open)
		r.AccessGroup = ""
		n.inv.PutVirtualServer(r)
	case m.Admit != "":
		for _, set := range n.inv.SourceSets() {
			set.Sources.Ranges = append(slices.Clone(set.Sources.Ranges), netip.MustParsePrefix(m.Admit))
			n.inv.PutSourceSet(set)
		}
	case m.Version != "":
		n.setVersion(m.Version)
	case m.Full != "":
		s, _ := n.inv.LBService(m.Full)
		s.VirtualServers = slices.Clone(s.VirtualServers)
		for len(s.VirtualServers) < s.Capacity {
			s.VirtualServers = append(s.VirtualServers, n.newID("foreign"))
		}
		n.inv.PutLBService(s)
	}
}

func (n *fakeNSX) setVersion(text string) {
	v, err := nsx.ParseVersion(text)
	if err != nil {
		n.t.Fatalf("%v", err)
	}
	n.inv.SetVersion(v)
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var s scenario
			if err := yaml.UnmarshalStrict(raw, &s); err != nil {
				t.Fatal(err)
			}
			got := s.play(t)
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("%v (run with -update to write it)", err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("differs from %s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func (s scenario) play(t *testing.T) string {
	n := newFakeNSX(t)
	pools := []nsx.IPPool{ipPool("floating", false, "10.0.0.1-10.0.0.9")}
	if s.IPPools != nil {
		pools = nil
		for _, p := range s.IPPools {
			pool := ipPool(p.Name, p.Exclusive, p.Ranges...)
			pool.Problem = p.Problem
			pools = append(pools, pool)
		}
	}
	n.setPools(pools...)
	for _, l := range s.LBServices {
		n.addLBService(l.ID, l.Capacity)
	}
	if s.LBServices == nil {
		n.addLBService("lb-1", 0)
	}
	if s.Version != "" {
		n.setVersion(s.Version)
	}
	for _, id := range s.Tier1Gateways {
		n.inv.SetRoom(nsx.LBServiceRoom{Key: nsx.TierKey(id, "SMALL"), Free: 2})
	}
	class := testClass()
	service := s.Service
	setDefaults(service)
	var out strings.Builder
	var status *corev1.LoadBalancerStatus
	var shown string
	for _, step := range s.Steps {
		fmt.Fprintf(&out, "== %s\n", step.Name)
		if status != nil {
			service = merge(service, map[string]any{"status": map[string]any{"loadBalancer": toMap(t, status)}})
		}
		service = merge(service, step.Service)
		if step.Class != nil {
			step.Class.apply(&class)
		}
		svc := toService(t, service)
		for _, m := range step.NSX {
			n.mishap(OwnerOf(svc), m)
		}
		n.fault = func(call, on string) error {
			if call == step.Fail {
				return errFault
			}
			return nil
		}
		status = n.sync(t, svc, class, &out, &shown)
	}
	return out.String()
}

// sync does what a sync of the Service does, and prints it. shown is the Frontend that was printed last.
func (n *fakeNSX) sync(t *testing.T, svc *corev1.Service, class config.Class, out *strings.Builder, shown *string) *corev1.LoadBalancerStatus {
	decide := func() (Frontend, Plan, error) {
		have := n.inv.Observe(OwnerOf(svc))
		if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
			return Frontend{}, Plan{Intents: DiffGone(have, published(svc))}, nil
		}
		want, err := Desired(svc, class)
		if err != nil {
			return want, Plan{}, err
		}
		plan, err := Diff(want, have, n.inv, testCluster)
		return want, plan, err
	}
	for {
		want, plan, err := decide()
		if f := want.String(); want.Owner.UID != "" && f != *shown {
			out.WriteString(f)
			*shown = f
		}
		out.WriteString(plan.String())
		if err != nil {
			fmt.Fprintf(out, "error: %v\n", err)
		}
		if err == nil && len(plan.Intents) == 0 {
			out.WriteString("nothing to do\n")
		}
		failed := n.apply(plan, out)
		n.inv.Unreserve(OwnerOf(svc))
		if errors.Is(failed, nsx.ErrAlreadyAllocated) {
			continue
		}
		if _, again, _ := decide(); failed == nil && len(again.Intents) > 0 {
			t.Errorf("not done after one round; left:\n%v", again)
		}
		n.inv.Unreserve(OwnerOf(svc))
		if err != nil || failed != nil {
			return nil
		}
		status := statusOf(svc, n.inv.Observe(OwnerOf(svc)))
		for _, in := range status.Ingress {
			fmt.Fprintf(out, "status %s %s\n", in.IP, *in.IPMode)
		}
		return status
	}
}

func (n *fakeNSX) apply(p Plan, out *strings.Builder) error {
	for _, i := range p.Intents {
		if err := n.Apply(context.Background(), i); err != nil {
			fmt.Fprintf(out, "failed: %v\n", err)
			return err
		}
	}
	return nil
}

// setDefaults fills in what the API server would, in as far as the scenario leaves it out.
func setDefaults(service map[string]any) {
	meta := map[string]any{"namespace": "default", "name": "web", "uid": "service-uid"}
	spec := map[string]any{"type": "LoadBalancer", "ipFamilies": []any{"IPv4"}, "ipFamilyPolicy": "SingleStack"}
	for key, defaults := range map[string]map[string]any{"metadata": meta, "spec": spec} {
		given, _ := service[key].(map[string]any)
		service[key] = merge(defaults, given)
	}
}

// merge applies a JSON merge patch (RFC 7396).
func merge(doc, patch map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range doc {
		out[k] = v
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			old, _ := out[k].(map[string]any)
			out[k] = merge(old, v)
		default:
			out[k] = v
		}
	}
	return out
}

func toMap(t testing.TB, v any) map[string]any {
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func toService(t testing.TB, m map[string]any) *corev1.Service {
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	svc := &corev1.Service{}
	if err := yaml.UnmarshalStrict(raw, svc); err != nil {
		t.Fatal(err)
	}
	return svc
}
