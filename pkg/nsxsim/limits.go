package nsxsim

import (
	"fmt"
	"net/http"
	"sync"

	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
)

// limiter refuses requests that come too fast or too many at once.
type limiter struct {
	clock               clock.PassiveClock
	rate                int
	perUser, concurrent int
	as429               bool // see Quirks.TooManyAtOnce429

	mu      sync.Mutex
	buckets map[nodeUser]*rate.Limiter
	running map[nodeUser]int
	total   map[int]int // by node
}

// nodeUser is who is limited: a user on one node.
type nodeUser struct {
	node int
	name string
}

func newLimiter(o Options) *limiter {
	return &limiter{
		clock: o.Clock, rate: o.RateLimit, perUser: o.MaxConcurrent, concurrent: o.MaxConcurrentTotal, as429: o.Quirks.TooManyAtOnce429,
		buckets: map[nodeUser]*rate.Limiter{}, running: map[nodeUser]int{}, total: map[int]int{},
	}
}

// enter admits a request of the user to a node, who calls leave when it is done.
func (l *limiter) enter(node int, name string) (leave func(), err *Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	user := nodeUser{node, name}
	if l.rate > 0 {
		bucket := l.buckets[user]
		if bucket == nil {
			bucket = rate.NewLimiter(rate.Limit(l.rate), l.rate)
			l.buckets[user] = bucket
		}
		if !bucket.AllowN(l.clock.Now(), 1) {
			return nil, &Error{Status: http.StatusTooManyRequests, Code: codeTooManyRequests, Module: "common-services",
				Message: fmt.Sprintf("Client '%s' exceeded request rate of %d per second.", name, l.rate)}
		}
	}
	if l.perUser > 0 && l.running[user] >= l.perUser {
		return nil, l.tooManyAtOnce(fmt.Sprintf("Client '%s' exceeded concurrent request limit of %d.", name, l.perUser))
	}
	if l.concurrent > 0 && l.total[node] >= l.concurrent {
		return nil, l.tooManyAtOnce(fmt.Sprintf("The manager exceeded its concurrent request limit of %d.", l.concurrent))
	}
	l.running[user]++
	l.total[node]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.total[node]--
		if l.running[user]--; l.running[user] == 0 {
			delete(l.running, user)
		}
	}, nil
}

func (l *limiter) tooManyAtOnce(text string) *Error {
	e := &Error{Status: http.StatusServiceUnavailable, Code: codeTooManyConcurrent, Module: "common-services", Message: text}
	if l.as429 {
		e.Status, e.Code = http.StatusTooManyRequests, codeTooManyAs429
	}
	return e
}
