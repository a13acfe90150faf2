package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// attempt is what became of sending a call once.
type attempt struct {
	fate fate
	// resp is the answer, its body in memory; nil if there is none, or not all of it.
	resp *http.Response
	// err is nil for a 2xx, an *nsx.APIError for any other answer, else why there is no answer.
	err error
	// again says that sending it again after a refusal may help.
	again bool
}

var errTimeout = errors.New("no answer in time")

// send sends a request that is complete to a manager, and reads the answer.
func (t *Transport) send(ctx context.Context, m *manager, req *http.Request) attempt {
	kind := kindOfPath(req.URL.Path)
	start := t.clock.Now()
	a := t.exchange(ctx, req)
	t.metrics.duration.WithLabelValues(req.Method, kind).Observe(t.clock.Since(start).Seconds())
	status := "none"
	if a.resp != nil {
		status = fmt.Sprintf("%dxx", a.resp.StatusCode/100)
	}
	t.metrics.requests.WithLabelValues(req.Method, kind, status).Inc()

	switch {
	case a.fate == throttled:
		t.metrics.throttled.Inc()
	case a.resp == nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout):
		// The caller has given up; that says nothing about the manager.
	case a.fate == unsent, a.fate == lost:
		t.managers.failed(m)
	}
	return a
}

// exchange does one HTTP exchange and tells its fate.
func (t *Transport) exchange(ctx context.Context, req *http.Request) attempt {
	// A call that got no connection was not sent. With a connection, some of it may have been, for all we know.
	var asked, got atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true); got.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	resp, err := t.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		a := attempt{fate: lost, err: why(ctx, err)}
		if asked.Load() && !got.Load() {
			a.fate = unsent
		}
		return a
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		return attempt{fate: broken, err: fmt.Errorf("the answer is larger than %d bytes", maxBody)}
	}
	resp.Request = req
	if resp.StatusCode/100 == 2 {
		if err != nil {
			return attempt{fate: lost, err: fmt.Errorf("the answer broke off: %w", why(ctx, err))}
		}
		return attempt{fate: answered, resp: inMemory(resp, body)}
	}
	// Of any other answer, what could be read is enough.
	secondsInRetryAfter(resp.Header, t.clock.Now())
	answer := decode(resp, body)
	return attempt{fate: fateOf(answer), resp: inMemory(resp, body), err: answer}
}

// why is the reason for a failed exchange: if the context has ended, that is it.
func why(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func inMemory(resp *http.Response, body []byte) *http.Response {
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	resp.TransferEncoding = nil
	return resp
}

// withTimeout ends the context after the time-out of a try, with errTimeout. stop must be called; it waits.
func (t *Transport) withTimeout(ctx context.Context) (limited context.Context, stop func()) {
	limited, cancel := context.WithCancelCause(ctx)
	timer := t.clock.NewTimer(t.timeout)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-timer.C():
			cancel(fmt.Errorf("%w: %v", errTimeout, t.timeout))
		case <-limited.Done():
		}
	}()
	return limited, func() {
		cancel(nil)
		timer.Stop()
		<-done
	}
}

// maxPause bounds the time for which a throttled call holds everything back: a longer Retry-After is taken for a mistake.
const maxPause = time.Minute

// throttlePause is how long nothing is sent after a throttled n-th try.
func (t *Transport) throttlePause(n int, err error) time.Duration {
	pause := t.jitter(time.Second << (n - 1))
	if answer := (*nsx.APIError)(nil); errors.As(err, &answer) {
		pause = max(pause, answer.RetryAfter)
	}
	return min(pause, maxPause)
}

// jitter is a random time from half of d to d.
func (t *Transport) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(t.rand()*float64(d/2))
}
