//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/visits"
)

const (
	// visitEvery is how often each client of a crowd makes a visit.
	visitEvery = 100 * time.Millisecond
	// visitTimeout bounds a visit: much longer than any that succeeds, on a busy machine.
	visitTimeout = 5 * time.Second
)

// visit is a connection from the i-th client, from 1 to cluster.Clients, with two requests, so that the answers are one pod's.
// It may be called from any goroutine.
func (s *stage) visit(ctx context.Context, i int, to netip.Addr) (v visits.Visit) {
	ctx, cancel := context.WithTimeout(ctx, visitTimeout)
	defer cancel()
	v.Client, v.To = netip.AddrPortFrom(s.Topology.ClientAddress(i), s.port()), netip.AddrPortFrom(to, 80)
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(v.Client)}
	v.Began = time.Now()
	defer func() { v.Ended = time.Now() }()
	conn, err := s.Topology.Client().DialFrom(ctx, dialer, "tcp", v.To.String())
	if err != nil {
		v.Err = err
		return v
	}
	defer func() { _ = conn.Close() }()
	if v.Err = conn.SetDeadline(v.Began.Add(visitTimeout)); v.Err != nil {
		return v
	}
	answers := bufio.NewReader(conn)
	if v.Pod, v.Err = ask(conn, answers, "/hostname"); v.Err != nil {
		return v
	}
	sees, err := ask(conn, answers, "/clientip")
	if err == nil {
		v.Sees, err = netip.ParseAddrPort(sees)
	}
	v.Err = err
	return v
}

// ask makes a request on a connection, which is used for nothing else meanwhile.
func ask(conn net.Conn, answers *bufio.Reader, path string) (string, error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+conn.RemoteAddr().String()+path, nil)
	if err != nil {
		return "", err
	}
	if err := r.Write(conn); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(answers, r)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return string(body), err
}

// crowd is all clients visiting a floating IP at a steady pace.
type crowd struct {
	*visits.Crowd
	to netip.Addr
}

// crowd has all clients visit an address, until they go home or the test ends.
func (s *stage) crowd(to netip.Addr) crowd {
	c := visits.Gather(s.ctx, visitEvery/cluster.Clients, func(ctx context.Context, i int) visits.Visit {
		v := s.visit(ctx, 1+i%cluster.Clients, to)
		if v.Err != nil { // the edge forgets connections that were refused within seconds
			v.Err = fmt.Errorf("%w; %s", v.Err, s.whereabouts(ctx, v))
		}
		return v
	})
	s.Cleanup(func() { c.GoHome() })
	return crowd{c, to}
}

// pass waits until a crowd has made n further visits, and returns these, which may be more.
func (s *stage) pass(c crowd, n int) (made visits.Visits) {
	s.Helper()
	began := time.Now()
	s.eventually(fmt.Sprintf("%d further visits to %v", n, c.to), time.Minute, func() error {
		if made = c.Visits().Since(began); len(made) < n {
			return fmt.Errorf("%d were made", len(made))
		}
		return nil
	})
	return made
}

// answered checks that none of the visits failed.
func (s *stage) answered(during string, made visits.Visits) {
	s.Helper()
	failed := made.Failed()
	if len(failed) == 0 {
		return
	}
	s.Errorf("%s: %d of %d visits failed", during, len(failed), len(made))
	const most = 10
	for _, v := range failed[:min(len(failed), most)] {
		s.Logf("the visit of %v to %v began at %s and failed after %.2f s: %v",
			v.Client, v.To, v.Began.UTC().Format("15:04:05.000"), v.Ended.Sub(v.Began).Seconds(), v.Err)
	}
}

// whereabouts tells where the edge has sent a visit. It may be called from any goroutine.
func (s *stage) whereabouts(ctx context.Context, v visits.Visit) string {
	out, err := s.Topology.Edge().Command(ctx, "conntrack", "--dump", "--proto=tcp",
		"--orig-src="+v.Client.Addr().String(), fmt.Sprintf("--orig-port-src=%d", v.Client.Port())).Output()
	if err != nil {
		return fmt.Sprintf("where the edge sent it is not known: %v", err)
	}
	line := strings.TrimSpace(string(out))
	if line == "" {
		return "the edge has no record of it"
	}
	return "the edge's record: " + line
}

// served waits until an address answers ten visits in a row.
func (s *stage) served(to netip.Addr) {
	s.Helper()
	in := 0
	s.eventually(fmt.Sprintf("%v answers", to), time.Minute, func() error {
		v := s.visit(s.ctx, 1+in%cluster.Clients, to)
		if v.Err != nil {
			in = 0
			return v.Err
		}
		if in++; in < 10 {
			return fmt.Errorf("it answered %d times", in)
		}
		return nil
	})
}

// at tells who made a visit and when it began, in messages.
func at(v visits.Visit, since time.Time) string {
	return fmt.Sprintf("%v at %.1f s", v.Client, v.Began.Sub(since).Seconds())
}
