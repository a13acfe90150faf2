package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/reach"
)

const (
	// maxTries bounds how often one call is sent.
	maxTries = 4
	// minBackoff and maxBackoff bound the time between two tries, which doubles.
	minBackoff, maxBackoff = 250 * time.Millisecond, 5 * time.Second
)

// Transport sends calls to NSX; see the package's comment. It is safe for concurrent use.
type Transport struct {
	base      http.RoundTripper
	clock     clock.WithTicker
	rand      func() float64
	timeout   time.Duration
	userAgent string
	metrics   *Metrics

	queue    *queue
	gate     *gate
	managers *managers
	reach    *reach.Record
	auth     authenticator

	stop       context.CancelFunc
	background sync.WaitGroup
}

var _ http.RoundTripper = (*Transport)(nil)

// New makes a Transport, without calling NSX. Close ends it.
func New(o Options) (*Transport, error) {
	urls, err := o.complete()
	if err != nil {
		return nil, fmt.Errorf("NSX transport: %w", err)
	}
	base, err := o.newNetwork()
	if err != nil {
		return nil, fmt.Errorf("NSX transport: %w", err)
	}
	t := &Transport{
		base:      base,
		clock:     o.Clock,
		rand:      o.Rand,
		timeout:   o.Timeout,
		userAgent: o.UserAgent,
		metrics:   o.Metrics,
		queue:     newQueue(&o),
		gate:      newGate(&o),
		managers:  newManagers(urls, o.Clock),
		reach:     reach.New(o.Clock),
	}
	switch guard := (&guard{clock: o.Clock}); {
	case o.ClientCertificate != nil:
		t.auth = certificate{reconnect: t.closeIdleConnections}
	case o.Authentication == Basic:
		t.auth = &basic{read: o.Credentials, guard: guard, probe: make(chan struct{}, 1)}
	default:
		t.auth = &sessions{read: o.Credentials, guard: guard, send: t.send}
	}

	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	t.background.Go(func() { t.queue.run(ctx) })
	if o.MaxStall > 0 {
		t.background.Go(func() { t.gate.run(ctx) })
	}
	return t, nil
}

// CloseWrites lets no further write out, for good: they fail with nsx.ErrStopping. Reads go on.
func (t *Transport) CloseWrites() { t.gate.close() }

// ReopenWrites clears one stall, after which the caller has made sure that the lease is still its own. Writes go out again
// when all stalls are cleared: one that has come while the caller did so is not. It does not undo CloseWrites.
func (t *Transport) ReopenWrites() { t.gate.reopen() }

// WritesOpen is nil while writes go out, and else the error that they get: after CloseWrites, and during a stall.
func (t *Transport) WritesOpen() error { return t.gate.open() }

// Reach tells how the latest calls went: whether NSX answers us, and accepts who we are.
func (t *Transport) Reach() *reach.Record { return t.reach }

// Drain waits until every write that was sent has its answer, or the context ends. Reads are not waited for: they may
// come without end, and change nothing.
func (t *Transport) Drain(ctx context.Context) error { return t.gate.drain(ctx) }

// Close logs out, as far as that is possible before the context ends, and closes the idle connections. Calls that are
// not in flight yet fail with nsx.ErrUnavailable.
func (t *Transport) Close(ctx context.Context) {
	t.stop()
	t.background.Wait()
	t.auth.end(ctx, t.managers.all)
	t.closeIdleConnections()
}

func (t *Transport) closeIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip sends a call to a manager of the transport's own choice: scheme and host of the request's URL do not matter,
// nor do its headers Authorization, Cookie and X-XSRF-TOKEN. The response's body is in memory.
//
// GET, HEAD, PUT and DELETE are tried up to four times as long as their outcome is unknown, any method as long as nothing
// was done. The errors wrap nsx.ErrUnavailable (nothing was done), nsx.ErrAmbiguous (a write may have been done),
// nsx.ErrStopping (the write gate is closed) or nsx.ErrUnauthorized (no log-in), and what they came from: an
// *nsx.APIError, the error of the connection, or the context's.
//
// An answer other than success to a write of which an earlier try was lost is such an error too, wrapping the
// *nsx.APIError and nsx.ErrAmbiguous: for instance a stale revision, when it may have been the earlier try that made it so.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	start := t.clock.Now()
	c := call{Request: req}
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("%s %s: reading the body to send: %w", req.Method, req.URL.Path, err)
		}
		c.body = body
	}
	a := t.do(ctx, &c)
	resp, err := c.outcome(a)
	log := klog.FromContext(ctx).V(4)
	if log.Enabled() {
		status := 0
		if a.resp != nil {
			status = a.resp.StatusCode
		}
		log.Info("NSX call", "method", req.Method, "path", req.URL.Path, "status", status, "tries", c.tries, "duration", t.clock.Since(start))
	}
	return resp, err
}

// call is one RoundTrip.
type call struct {
	*http.Request
	body  []byte
	tries int
	// lost says that it is a write, and some try of it may have been done, although that is not known.
	lost bool
}

// do tries until there is nothing left to try, and returns the last try.
func (t *Transport) do(ctx context.Context, c *call) attempt {
	var before error // why the last try but one has failed
	reauthorized := false
	for {
		c.tries++
		a := t.try(ctx, c)
		t.remember(ctx, a)
		if !isRead(c.Method) && (a.fate == lost || a.fate == broken) {
			c.lost = true
		}
		if before != nil && a.resp == nil && ctx.Err() != nil {
			a.err = after(a.err, before)
		}
		if a.fate == throttled {
			// The queue holds this call back together with all others.
			t.queue.pause(t.clock.Now().Add(t.throttlePause(c.tries, a.err)))
		}
		if a.fate == answered || a.fate == broken || a.fate == barred || c.tries == maxTries || ctx.Err() != nil {
			return a
		}
		before = a.err
		switch a.fate {
		case refused:
			if !a.again || reauthorized {
				return a
			}
			reauthorized = true
			continue
		case throttled:
			continue
		case lost:
			if !isIdempotent(c.Method) {
				return a
			}
		}
		if !t.sleep(ctx, t.jitter(min(minBackoff<<(c.tries-1), maxBackoff))) {
			a.err = after(context.Cause(ctx), a.err)
			return a
		}
	}
}

// remember takes note of whether NSX was reached. What a caller broke off, what we may not send, what is throttled and an
// internal error, which may be about the one call, tell nothing.
func (t *Transport) remember(ctx context.Context, a attempt) {
	switch {
	case a.fate == answered:
		t.reach.Done(nil)
	case a.fate == barred, a.fate == throttled, a.fate == broken, ctx.Err() != nil:
	default:
		t.reach.Done(a.err)
	}
}

// after is the error of a call that was given up after a try that had failed.
func after(gaveUp, before error) error {
	return fmt.Errorf("%w; the try before: %w", gaveUp, before)
}

// try sends the call once, when its turn has come.
func (t *Transport) try(ctx context.Context, c *call) attempt {
	priority := priorityOf(ctx)
	if err := t.queue.acquire(ctx, priority); err != nil {
		if errors.Is(err, errClosed) {
			return attempt{fate: barred, err: err}
		}
		return attempt{fate: unsent, err: err}
	}
	defer t.queue.release(priority)
	ctx, stop := t.withTimeout(ctx)
	defer stop()

	m := t.managers.pick()
	req := c.bound(ctx, m)
	req.Header.Set("User-Agent", t.userAgent)
	settle, failed := t.auth.authorize(ctx, m, req)
	if failed != nil {
		return *failed
	}
	a := t.pass(ctx, m, req, c)
	a.again = settle(a.fate)
	return a
}

// pass sends the call, if it is a read or the write gate is open.
func (t *Transport) pass(ctx context.Context, m *manager, req *http.Request, c *call) attempt {
	if !isRead(c.Method) {
		if err := t.gate.enter(); err != nil {
			return attempt{fate: barred, err: err}
		}
		defer t.gate.leave()
	}
	if c.tries > 1 {
		t.metrics.retries.WithLabelValues(req.Method, kindOfPath(req.URL.Path)).Inc()
	}
	return t.send(ctx, m, req)
}

// bound is the call's request to a manager, with a body of its own.
func (c *call) bound(ctx context.Context, m *manager) *http.Request {
	req := c.Clone(ctx)
	req.URL.Scheme, req.URL.Host, req.URL.User, req.Host = m.url.Scheme, m.url.Host, nil, ""
	req.Header.Del("Authorization")
	req.Header.Del("Cookie")
	req.Header.Del("X-XSRF-TOKEN")
	req.Body, req.GetBody, req.ContentLength, req.TransferEncoding = nil, nil, 0, nil
	if len(c.body) > 0 {
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.body)), nil }
		req.Body, _ = req.GetBody()
		req.ContentLength = int64(len(c.body))
	}
	return req
}

// outcome makes of the last try what RoundTrip returns.
func (c *call) outcome(a attempt) (*http.Response, error) {
	switch {
	case a.err == nil:
		a.resp.Request = c.Request
		return a.resp, nil
	case a.fate == answered || a.fate == refused || a.fate == throttled:
		redirect := a.resp.StatusCode/100 == 3 // an http.Client would follow it
		if !c.lost && !redirect {
			a.resp.Request = c.Request
			return a.resp, nil
		}
		if !c.lost {
			return nil, fmt.Errorf("redirects are not followed: %w", a.err)
		}
		return nil, fmt.Errorf("%w (%w: there was no answer to an earlier try of this call)", a.err, nsx.ErrAmbiguous)
	case c.lost:
		return nil, c.failure(nsx.ErrAmbiguous, a.err)
	case a.fate == barred:
		return nil, fmt.Errorf("%s %s: %w", c.Method, c.URL.Path, a.err)
	}
	return nil, c.failure(nsx.ErrUnavailable, a.err)
}

// failure is the error of a call without a definite outcome.
func (c *call) failure(kind, err error) error {
	if answer := (*nsx.APIError)(nil); errors.As(err, &answer) && answer.Kind == kind && answer.Path == c.URL.Path {
		return fmt.Errorf("%w (try %d)", err, c.tries)
	}
	return fmt.Errorf("%s %s: %w (try %d): %w", c.Method, c.URL.Path, kind, c.tries, err)
}

// sleep reports whether the time has passed before the context ended.
func (t *Transport) sleep(ctx context.Context, d time.Duration) bool {
	timer := t.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}
