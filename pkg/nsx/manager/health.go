package manager

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// PoolHealth implements nsx.Backend. A pool on several load-balancer services is up if one of them finds it so.
func (b *Backend) PoolHealth(ctx context.Context) ([]nsx.PoolHealth, error) {
	found := map[string]nsx.PoolHealth{}
	for _, r := range b.inv.LBServices() {
		if !slices.ContainsFunc(r.VirtualServers, func(id string) bool { v, _ := b.inv.VirtualServer(id); return v.Owner.UID != "" }) {
			continue // nothing of ours
		}
		raw, err := b.api.get(ctx, "/loadbalancer/services/"+url.PathEscape(r.ID)+"/pools/status")
		if isNotFound(err) {
			continue // gone, or a release that does not tell
		}
		if err != nil {
			return nil, fmt.Errorf("reading the state of the pools of load-balancer service %s: %w", r.ID, err)
		}
		var d struct {
			Results []struct {
				PoolID  string `json:"pool_id"`
				Members []struct {
					Status       string `json:"status"`
					FailureCause string `json:"failure_cause"`
				} `json:"members"`
			} `json:"results"`
		}
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, fmt.Errorf("decoding the state of the pools of load-balancer service %s: %w: %w", r.ID, nsx.ErrUnavailable, err)
		}
		for _, p := range d.Results {
			if _, ours := b.inv.Pool(p.PoolID); !ours {
				continue
			}
			h := nsx.PoolHealth{Pool: p.PoolID}
			for _, m := range p.Members {
				switch m.Status {
				case "UP":
					h.Up++
				case "DOWN":
					h.Down++
					h.Cause = cmp.Or(h.Cause, m.FailureCause)
				}
			}
			if known, ok := found[h.Pool]; !ok || h.Up > known.Up {
				found[h.Pool] = h
			}
		}
	}
	return sortedValues(found), nil
}

// Ping is the smallest call that NSX answers with the rights that the controller has anyway, for the transport to know whether
// NSX is reached.
func (b *Backend) Ping(ctx context.Context) error {
	_, err := b.api.do(ctx, http.MethodGet, "/loadbalancer/services", url.Values{"page_size": {"1"}}, nil)
	return err
}
