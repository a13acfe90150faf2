package transport

import (
	"context"
	"sync/atomic"
)

// Priority says by which limits a call goes.
type Priority int

const (
	// Foreground calls, the default, serve a Service that somebody waits for.
	Foreground Priority = iota
	// Background calls, such as audits, have limits of their own, on top: they never delay a Foreground call.
	Background
	// prepaid calls have waited for the limits of Background already: see Prepay.
	prepaid

	priorities
)

func (p Priority) String() string {
	switch p {
	case Background:
		return "background"
	case prepaid:
		return "prepaid"
	}
	return "foreground"
}

type (
	priorityKey struct{}
	creditKey   struct{}
)

// WithPriority gives the calls made with the context a priority.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// Prepay waits until the limits of Background have room for n requests, and gives a context whose next n requests go at
// once, and are counted there. So what is done in the background, but under locks that Foreground calls may wait for, does
// its waiting before it takes them. Further requests with the context are Foreground's.
func (t *Transport) Prepay(ctx context.Context, n int) (context.Context, error) {
	for range n {
		if err := t.queue.acquire(ctx, Background); err != nil {
			return nil, err
		}
		t.queue.release(Background)
	}
	credit := &atomic.Int64{}
	credit.Store(int64(n))
	return context.WithValue(WithPriority(ctx, Foreground), creditKey{}, credit), nil
}

// priorityOf is the priority of the next request with the context, which takes it from what was paid for.
func priorityOf(ctx context.Context) Priority {
	if credit, ok := ctx.Value(creditKey{}).(*atomic.Int64); ok && credit.Add(-1) >= 0 {
		return prepaid
	}
	if p, _ := ctx.Value(priorityKey{}).(Priority); p == Background {
		return Background
	}
	return Foreground
}
