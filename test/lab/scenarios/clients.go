package scenarios

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/visits"
)

const (
	// visitors is how many clients a crowd has, visitEvery how often each of them makes a request.
	visitors   = 4
	visitEvery = 40 * time.Millisecond
	// holdFor is how long a request that is held takes, and holdTimeout what bounds it.
	holdFor     = 5 * time.Second
	holdTimeout = 20 * time.Second
)

// visit makes a request as the i-th client. It may be called from any goroutine.
func (s *Stage) visit(ctx context.Context, i int, url string, timeout time.Duration) visits.Visit {
	client := s.HTTPClient(i)
	if timeout > 0 {
		client.Timeout = timeout
	}
	v := visits.Visit{Client: netip.AddrPortFrom(s.Block.Client(i), 0), Began: time.Now()}
	answer, err := lab.HTTPGetAs(ctx, client, url)
	v.Ended = time.Now()
	v.Pod, v.Node, v.Sees, v.Err = answer.Pod, answer.Node, answer.Client, err
	return v
}

// crowd has clients from outside the cluster, each at an address of its own, make short requests until the scenario ends or
// they go home.
func (s *Stage) crowd(url string) *visits.Crowd { return s.crowdOf(1, visitors, url) }

// crowdOf is a crowd of the clients from one to another, by number.
func (s *Stage) crowdOf(first, last int, url string) *visits.Crowd {
	number := last - first + 1
	c := visits.Gather(s.clients, visitEvery/time.Duration(number), func(ctx context.Context, i int) visits.Visit {
		return s.visit(ctx, first+i%number, url, 0)
	})
	s.running.Go(func() {
		<-s.clients.Done()
		c.GoHome()
	})
	return c
}

// passBy waits until a crowd has made n further requests, and returns these, which may be more.
func (s *Stage) passBy(c *visits.Crowd, n int) visits.Visits {
	began := time.Now()
	var made visits.Visits
	s.eventually(fmt.Sprintf("%d further requests", n), 20*time.Second, func() error {
		if made = c.Visits().Since(began); len(made) < n {
			return fmt.Errorf("%d were made", len(made))
		}
		return nil
	})
	return made
}

// wantAnswers checks that no request failed.
func (s *Stage) wantAnswers(during string, made visits.Visits) {
	if failed := made.Failed(); len(failed) > 0 {
		s.fail("%s: %d of %d requests failed, the first one with: %w", during, len(failed), len(made), failed[0].Err)
	}
}

// held is requests that take long.
type held struct {
	running sync.WaitGroup
	made    visits.Visits
}

// hold has n clients make a request each that takes its time, and returns when NSX has as many in flight, of which those
// of a crowd, which take a moment, may be a few.
func (s *Stage) hold(ip string, n int) *held {
	h := &held{made: make(visits.Visits, n)}
	ctx := s.clients
	url := url("http", ip, int(s.ports.HTTP)) + "/?delay=" + holdFor.String()
	h.running.Add(n)
	for i := range n {
		s.running.Go(func() {
			defer h.running.Done()
			h.made[i] = s.visit(ctx, visitors+1+i, url, holdTimeout)
		})
	}
	s.eventually(fmt.Sprintf("%d requests in flight", n), holdFor, func() error {
		got := 0
		for _, m := range s.members(ip) {
			got += m.Statistics.Current
		}
		if got < n {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
	return h
}

// end returns the requests when the last one has ended.
func (h *held) end() visits.Visits {
	h.running.Wait()
	return h.made
}
