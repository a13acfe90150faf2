package cloud

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
)

// failing are the checks of readiness that fail, with why.
func failing(c *Cloud) map[string]string {
	out := map[string]string{}
	for _, check := range c.Readiness() {
		if err := check.Fails(); err != nil {
			out[check.Name] = err.Error()
		}
	}
	return out
}

func minimal(t *testing.T) *Cloud {
	t.Helper()
	t.Setenv("TEST_USER", "u")
	t.Setenv("TEST_PASSWORD", "p")
	cfg, err := config.Parse("test", []byte(`
apiVersion: nsxt.io/v1alpha1
kind: CloudConfig
cluster: {name: test}
nsx: {managers: ["https://127.0.0.1:1"], credentials: {env: {username: TEST_USER, password: TEST_PASSWORD}}}
loadBalancer: {classes: [{name: default, loadBalancerServices: [lb]}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Shutdown(t.Context()) })
	return c
}

// Who is not the leader has nothing to do: it is ready, alive, and cannot audit.
func TestStandbyIsReady(t *testing.T) {
	c := minimal(t)
	if got := failing(c); len(got) != 0 || c.Alive() != nil {
		t.Errorf("not ready: %v; alive: %v", got, c.Alive())
	}
	if _, err := c.Audit(t.Context(), ""); !errors.Is(err, lb.ErrNotLoaded) {
		t.Errorf("audit says %v", err)
	}
}

// A leader that does not know yet which cluster it is in is not ready, for no check, and alive.
func TestLeaderIsNotReadyBeforeItKnowsTheCluster(t *testing.T) {
	c := minimal(t)
	client := kubernetes.Interface(fake.NewClientset())
	c.client.Store(&client)
	got := failing(c)
	for _, name := range []string{"nsx", "inventory", "nodes", "writes"} {
		if !strings.Contains(got[name], "the cluster's identity has not been read") {
			t.Errorf("%s: %q", name, got[name])
		}
	}
	if err := c.Alive(); err != nil {
		t.Error(err)
	}
}

// NSX that is not there makes the leader not ready; it stays alive.
func TestLeaderWithoutNSXIsNotReadyAndAlive(t *testing.T) {
	c := minimal(t)
	c.o.Config.Cluster.ID = "the-cluster"
	stop := make(chan struct{})
	defer close(stop)
	c.Initialize(builder{fake.NewClientset()}, stop)
	poll(t, "the checks say what is wrong", func() bool {
		got := failing(c)
		return strings.Contains(got["nsx"], "connection refused") && strings.Contains(got["inventory"], "reading the inventory") &&
			strings.Contains(got["nodes"], "nodes are not known") && got["writes"] == ""
	})
	if err := c.Alive(); err != nil {
		t.Errorf("a restart would not help against NSX being down: %v", err)
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := failing(c); !strings.Contains(got["writes"], "stopping") {
		t.Errorf("after the end: %v", got)
	}
}

// Work that has ended by itself is what a restart helps against.
func TestEndedWorkIsNotAlive(t *testing.T) {
	c := minimal(t)
	gone := errors.New("nsx.caFile: no such file")
	c.ended.Store(&gone)
	if err := c.Alive(); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}
