package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// NSX is the simulated NSX manager of a cluster, as its administrator sees it.
type NSX struct {
	URL    string
	client *http.Client
}

func newNSX(url string, client *http.Client) *NSX { return &NSX{url, client} }

// do asks the simulator itself and decodes its answer into out, unless that is nil.
func (n *NSX) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, n.URL+path, body)
	if err != nil {
		return err
	}
	r.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	r.Header.Set("Content-Type", "application/json")
	answer, err := n.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// Get reads a document of NSX's API, such as /api/v1/loadbalancer/services.
func (n *NSX) Get(ctx context.Context, path string, out any) error {
	return n.do(ctx, http.MethodGet, path, nil, out)
}

// Objects are all that NSX holds.
func (n *NSX) Objects(ctx context.Context) (nsxsim.Inventory, error) {
	var all nsxsim.Inventory
	err := n.do(ctx, http.MethodGet, "/_nsxsim/state", nil, &all)
	return all, err
}

// Faults are the fault rules in force.
func (n *NSX) Faults(ctx context.Context) ([]nsxsim.Rule, error) {
	var rules []nsxsim.Rule
	err := n.do(ctx, http.MethodGet, "/_nsxsim/faults", nil, &rules)
	return rules, err
}

// Break puts fault rules in force in place of those that are.
func (n *NSX) Break(ctx context.Context, rules ...nsxsim.Rule) error {
	return n.do(ctx, http.MethodPut, "/_nsxsim/faults", rules, nil)
}

// Down has every request to NSX's API refused, as when the managers are down. The edge goes on.
func (n *NSX) Down(ctx context.Context) error {
	return n.Break(ctx, nsxsim.Rule{Name: "managers down", Status: http.StatusServiceUnavailable})
}

// Up takes all fault rules away.
func (n *NSX) Up(ctx context.Context) error {
	return n.do(ctx, http.MethodDelete, "/_nsxsim/faults", nil, nil)
}
