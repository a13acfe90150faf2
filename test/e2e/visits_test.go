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
	"slices"
	"sync"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/e2e/cluster"
)

const (
	// visitEvery is how often each client of a crowd makes a visit.
	visitEvery = 100 * time.Millisecond
	// visitTimeout bounds a visit: much longer than any that succeeds, on a busy machine.
	visitTimeout = 5 * time.Second
)

// visit is a connection of its own from the client outside to a floating IP, with two requests, so that the answers are one pod's.
type visit struct {
	from         netip.AddrPort // the client's
	to           netip.Addr
	began, ended time.Time
	pod          string         // its name
	sees         netip.AddrPort // the client, as the pod sees it
	err          error
}

// visits are in the order in which they ended.
type visits []visit

func (v visits) failed() visits {
	return slices.DeleteFunc(slices.Clone(v), func(v visit) bool { return v.err == nil })
}

// since are those that began at a time or later.
func (v visits) since(t time.Time) visits {
	return slices.DeleteFunc(slices.Clone(v), func(v visit) bool { return v.began.Before(t) })
}

// pods are the names of the pods that answered, each once.
func (v visits) pods() []string {
	var names []string
	for _, v := range v {
		if v.err == nil {
			names = append(names, v.pod)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// visit makes one, as the i-th client, from 1 to cluster.Clients. It may be called from any goroutine.
func (s *stage) visit(ctx context.Context, i int, to netip.Addr) (v visit) {
	ctx, cancel := context.WithTimeout(ctx, visitTimeout)
	defer cancel()
	v.from, v.to = netip.AddrPortFrom(s.Topology.ClientAddress(i), s.port()), to
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(v.from)}
	v.began = time.Now()
	defer func() { v.ended = time.Now() }()
	conn, err := s.Topology.Client().DialFrom(ctx, dialer, "tcp", netip.AddrPortFrom(to, 80).String())
	if err != nil {
		v.err = err
		return v
	}
	defer func() { _ = conn.Close() }()
	if v.err = conn.SetDeadline(v.began.Add(visitTimeout)); v.err != nil {
		return v
	}
	answers := bufio.NewReader(conn)
	if v.pod, v.err = ask(conn, answers, "/hostname"); v.err != nil {
		return v
	}
	sees, err := ask(conn, answers, "/clientip")
	if err == nil {
		v.sees, err = netip.ParseAddrPort(sees)
	}
	v.err = err
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

// crowd is all clients visiting a floating IP at a steady pace, until they are told to leave or the test ends.
type crowd struct {
	to      netip.Addr
	leave   context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex
	made    visits
}

// crowd has all clients visit an address.
func (s *stage) crowd(to netip.Addr) *crowd {
	stay, leave := context.WithCancel(s.ctx)
	c := &crowd{to: to, leave: leave}
	s.Cleanup(func() { c.goHome() })
	c.running.Go(func() {
		ticker := time.NewTicker(visitEvery / cluster.Clients)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-stay.Done():
				return
			case <-ticker.C:
			}
			// Those that wait for an answer keep nobody else from asking. What is in flight when the crowd leaves is seen to its end.
			c.running.Go(func() {
				v := s.visit(context.WithoutCancel(stay), 1+i%cluster.Clients, to)
				c.mu.Lock()
				c.made = append(c.made, v)
				c.mu.Unlock()
			})
		}
	})
	return c
}

// visits are those that have ended.
func (c *crowd) visits() visits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.made)
}

// goHome returns all visits, when the last one has ended.
func (c *crowd) goHome() visits {
	c.leave()
	c.running.Wait()
	return c.visits()
}

// pass waits until a crowd has made n further visits, and returns these, which may be more.
func (s *stage) pass(c *crowd, n int) (made visits) {
	s.Helper()
	began := time.Now()
	s.eventually(fmt.Sprintf("%d further visits to %v", n, c.to), time.Minute, func() error {
		if made = c.visits().since(began); len(made) < n {
			return fmt.Errorf("%d were made", len(made))
		}
		return nil
	})
	return made
}

// answered checks that none of the visits failed. Of those that did, it tells where the edge had sent them.
func (s *stage) answered(during string, made visits) {
	s.Helper()
	failed := made.failed()
	if len(failed) == 0 {
		return
	}
	s.Errorf("%s: %d of %d visits failed", during, len(failed), len(made))
	const most = 10
	for _, v := range failed[:min(len(failed), most)] {
		where := "which the edge has no record of"
		if f, known := s.flows(v.to)[v.from]; known {
			where = fmt.Sprintf("sent to %v, %s", f.member, f.state)
		}
		s.Logf("the visit of %v to %v, %s, began at %s and failed after %.2f s: %v",
			v.from, v.to, where, v.began.UTC().Format("15:04:05.000"), v.ended.Sub(v.began).Seconds(), v.err)
	}
}

// served waits until an address answers ten visits in a row.
func (s *stage) served(to netip.Addr) {
	s.Helper()
	in := 0
	s.eventually(fmt.Sprintf("%v answers", to), time.Minute, func() error {
		v := s.visit(s.ctx, 1+in%cluster.Clients, to)
		if v.err != nil {
			in = 0
			return v.err
		}
		if in++; in < 10 {
			return fmt.Errorf("it answered %d times", in)
		}
		return nil
	})
}
