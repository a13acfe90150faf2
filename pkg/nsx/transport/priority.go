package transport

import "context"

// Priority says which calls go first when there are more than NSX takes.
type Priority int

const (
	// Foreground calls, the default, serve a Service that somebody waits for.
	Foreground Priority = iota
	// Background calls, such as audits, go when no Foreground call waits.
	Background

	priorities
)

func (p Priority) String() string {
	if p == Background {
		return "background"
	}
	return "foreground"
}

type priorityKey struct{}

// WithPriority gives the calls made with the context a priority.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

func priorityOf(ctx context.Context) Priority {
	if p, _ := ctx.Value(priorityKey{}).(Priority); p == Background {
		return Background
	}
	return Foreground
}
