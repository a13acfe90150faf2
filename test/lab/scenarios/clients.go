package scenarios

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/echo"
)

const (
	// visitors is how many clients a crowd has, visitEvery how often each of them makes a request at most.
	visitors   = 4
	visitEvery = 40 * time.Millisecond
	// holdFor is how long a request that is held takes, and holdTimeout what bounds it.
	holdFor     = 5 * time.Second
	holdTimeout = 20 * time.Second
)

// visit is a request on a connection of its own.
type visit struct {
	client       netip.Addr
	began, ended time.Time
	answer       echo.Answer
	err          error
}

// visits are requests, possibly made by several clients.
type visits []visit

func (v visits) failed() visits {
	return slices.DeleteFunc(slices.Clone(v), func(v visit) bool { return v.err == nil })
}

// since are those that began at a time or later.
func (v visits) since(t time.Time) visits {
	return slices.DeleteFunc(slices.Clone(v), func(v visit) bool { return v.began.Before(t) })
}

// visit makes a request as the i-th client. It may be called from any goroutine.
func (s *Stage) visit(ctx context.Context, i int, url string, timeout time.Duration) visit {
	client := s.HTTPClient(i)
	if timeout > 0 {
		client.Timeout = timeout
	}
	v := visit{client: s.Block.Client(i), began: time.Now()}
	v.answer, v.err = lab.HTTPGetAs(ctx, client, url)
	v.ended = time.Now()
	return v
}

// crowd is clients from outside the cluster, each at an address of its own, that make short requests one after the other
// until the scenario ends or they are told to leave.
type crowd struct {
	leave   context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex
	made visits
}

// crowd has clients ask a URL.
func (s *Stage) crowd(url string) *crowd { return s.crowdOf(1, visitors, url) }

// crowdOf has the clients from one to another, by number, ask a URL.
func (s *Stage) crowdOf(first, last int, url string) *crowd {
	c := &crowd{}
	ctx := s.clients
	stay, leave := context.WithCancel(ctx)
	c.leave = leave
	for i := first; i <= last; i++ {
		one := func() {
			defer c.running.Done()
			ticker := time.NewTicker(visitEvery)
			defer ticker.Stop()
			for {
				select {
				case <-stay.Done():
					return
				case <-ticker.C:
				}
				v := s.visit(ctx, i, url, 0)
				c.mu.Lock()
				c.made = append(c.made, v)
				c.mu.Unlock()
			}
		}
		c.running.Add(1)
		s.running.Go(one)
	}
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

// passBy waits until a crowd has made n further requests, and returns these, which may be more.
func (s *Stage) passBy(c *crowd, n int) visits {
	began := time.Now()
	var made visits
	s.eventually(fmt.Sprintf("%d further requests", n), 20*time.Second, func() error {
		if made = c.visits().since(began); len(made) < n {
			return fmt.Errorf("%d were made", len(made))
		}
		return nil
	})
	return made
}

// wantAnswers checks that no request failed.
func (s *Stage) wantAnswers(during string, made visits) {
	if failed := made.failed(); len(failed) > 0 {
		s.fail("%s: %d of %d requests failed, the first one with: %w", during, len(failed), len(made), failed[0].err)
	}
}

// held is requests that take long.
type held struct {
	running sync.WaitGroup
	made    visits
}

// hold has n clients make a request each that takes its time, and returns when NSX has as many in flight, of which those
// of a crowd, which take a moment, may be a few.
func (s *Stage) hold(ip string, n int) *held {
	h := &held{made: make(visits, n)}
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
func (h *held) end() visits {
	h.running.Wait()
	return h.made
}
