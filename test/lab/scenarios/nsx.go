package scenarios

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// nsxState is a line for each object in NSX, each virtual server on a load balancer service and each address allocated.
type nsxState []string

func stateOf(sim *nsxsim.Sim) nsxState {
	var lines nsxState
	snapshot := sim.Snapshot()
	for _, o := range snapshot.Objects {
		kind := o.String("kind")
		lines = append(lines, fmt.Sprintf("%s %s %s", kind, o.String("display_name"), o.ID()))
		for _, vs := range o.Strings("virtual_server_ids") {
			lines = append(lines, fmt.Sprintf("%s %s has virtual server %s", kind, o.String("display_name"), vs))
		}
	}
	for _, a := range snapshot.Allocations {
		lines = append(lines, fmt.Sprintf("allocation %s of pool %s", a.Address, a.Pool))
	}
	slices.Sort(lines)
	return lines
}

// minus lists the lines that the other state lacks.
func (st nsxState) minus(other nsxState) []string {
	var lines []string
	for _, line := range st {
		if _, found := slices.BinarySearch(other, line); !found {
			lines = append(lines, line)
		}
	}
	return lines
}

func writesOf(sim *nsxsim.Sim) int {
	n := 0
	for _, count := range sim.Journal().Writes() {
		n += count
	}
	return n
}

// untouched checks that NSX has had no write since the scenario began, and gets none now.
func (s *Stage) untouched() {
	s.never("NSX is untouched", time.Second, func() error {
		if n := writesOf(s.NSX.Sim) - s.writes; n != 0 {
			return fmt.Errorf("%d writes: %v", n, s.NSX.Journal().Writes())
		}
		return nil
	})
	s.saw("NSX untouched")
}

// noTrace waits until NSX has what it had when the scenario began.
func (s *Stage) noTrace() {
	s.eventually("NSX is as it was before", 15*time.Second, func() error {
		now := stateOf(s.NSX.Sim)
		left, lost := now.minus(s.before), s.before.minus(now)
		if len(left)+len(lost) == 0 {
			return nil
		}
		return fmt.Errorf("left over: %s; lost: %s", strings.Join(left, ", "), strings.Join(lost, ", "))
	})
}

// virtualServers are those of an address.
func (s *Stage) virtualServers(ip string) []nsxsim.Object {
	var found []nsxsim.Object
	for _, vs := range s.NSX.List(nsxsim.KindVirtualServer) {
		if vs.String("ip_address") == ip {
			found = append(found, vs)
		}
	}
	return found
}

// allocated says whether an address is allocated from its pool.
func (s *Stage) allocated(ip string) bool {
	for _, pool := range s.NSX.List(nsxsim.KindIPPool) {
		if slices.Contains(s.NSX.Allocations(pool.ID()), ip) {
			return true
		}
	}
	return false
}

// member is what NSX tells of a pool member.
type member struct {
	Address    string `json:"ip_address"`
	Status     string `json:"status"`
	Statistics struct {
		Total   int `json:"total_sessions"`
		Current int `json:"current_sessions"`
		// Refused are the connections that the member did not take.
		Refused int `json:"dropped_connections"`
	} `json:"statistics"`
}

// members asks NSX for the members of the pool that serves an address: their status and how many connections they have
// and had.
func (s *Stage) members(ip string) map[string]member {
	servers := s.virtualServers(ip)
	if len(servers) != 1 {
		s.fail("%s has %d virtual servers, want 1", ip, len(servers))
	}
	all := map[string]member{}
	for _, what := range []string{"status", "statistics"} {
		var answer struct {
			Members []member `json:"members"`
		}
		s.askNSX(fmt.Sprintf("/loadbalancer/services/%s/pools/%s/%s?source=realtime", s.lbService(servers[0].ID()), servers[0].String("pool_id"), what), &answer)
		for _, m := range answer.Members {
			if what == "statistics" {
				m.Status = all[m.Address].Status
			}
			all[m.Address] = m
		}
	}
	return all
}

// lbService is the load balancer service that a virtual server is on.
func (s *Stage) lbService(virtualServer string) string {
	for _, o := range s.NSX.List(nsxsim.KindLBService) {
		if slices.Contains(o.Strings("virtual_server_ids"), virtualServer) {
			return o.ID()
		}
	}
	s.fail("virtual server %s is on no load balancer service", virtualServer)
	return ""
}

func (s *Stage) askNSX(path string, into any) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, s.NSX.URL+"/api/v1"+path, nil)
	s.need(err)
	client := s.NSX.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	s.need(err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	s.need(err)
	if resp.StatusCode != http.StatusOK {
		s.fail("NSX: GET %s: %s: %s", path, resp.Status, body)
	}
	s.need(json.Unmarshal(body, into))
}
