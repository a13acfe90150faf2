//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// flow is a connection that crossed the edge, as the edge's kernel tracks it: who asked for which address, and where the edge
// sent it under which name.
type flow struct {
	state  string         // of TCP
	client netip.AddrPort // who asked
	vip    netip.AddrPort // for what
	member netip.AddrPort // the node and node port that it went to
	source netip.AddrPort // the client, as the node sees it
}

// tuples finds the two directions of a connection in what conntrack prints: the client's, and that of the answers.
var tuples = regexp.MustCompile(`src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)`)

// flows are the TCP connections to a floating IP that the edge remembers, by client. It remembers them for two minutes after
// they ended, and when they got no answer.
func (s *stage) flows(vip netip.Addr) map[netip.AddrPort]flow {
	s.Helper()
	cmd := s.Topology.Edge().Command(s.ctx, "conntrack", "--dump", "--proto=tcp", "--orig-dst="+vip.String())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("%v: %v: %s", cmd.Args, err, stderr.String())
	}
	flows := map[netip.AddrPort]flow{}
	for line := range strings.Lines(string(out)) {
		f, err := parseFlow(line)
		if err != nil {
			s.Fatal(err)
		}
		flows[f.client] = f
	}
	return flows
}

// parseFlow reads a line such as
//
//	tcp 6 117 TIME_WAIT src=198.51.100.10 dst=203.0.113.10 sport=4242 dport=80 src=10.200.0.13 dst=10.200.0.3 sport=30080 dport=1027 [ASSURED] use=1
func parseFlow(line string) (flow, error) {
	fields := strings.Fields(line)
	found := tuples.FindAllStringSubmatch(line, -1)
	if len(found) != 2 || len(fields) < 4 {
		return flow{}, fmt.Errorf("conntrack: %q is no TCP connection", line)
	}
	var ends [4]netip.AddrPort // source and destination of the client's direction, then of the answers'
	for i, t := range found {
		for j := range 2 {
			a, err := netip.ParseAddrPort(t[1+j] + ":" + t[3+j])
			if err != nil {
				return flow{}, fmt.Errorf("conntrack: %q: %w", line, err)
			}
			ends[2*i+j] = a
		}
	}
	return flow{state: fields[3], client: ends[0], vip: ends[1], member: ends[2], source: ends[3]}, nil
}
