package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
)

const (
	// poll is how often a condition is looked at.
	poll = 50 * time.Millisecond
	// partWithin and readyWithin bound the start of a part and that of everything: many times what they take, a second and ten,
	// for machines that are slow or have other work.
	partWithin  = 90 * time.Second
	readyWithin = 3 * time.Minute
)

// await waits until a check succeeds, as long as all is well. The error says what was awaited and what is not well, or else what
// failed last, with the ends of logs.
func await(ctx context.Context, what string, within time.Duration, well func() error, check func(context.Context) error, logs ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %v", within))
	defer cancel()
	var ended, last error
	err := wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		if ended = well(); ended != nil {
			return false, ended
		}
		err := check(ctx)
		if err != nil && ctx.Err() == nil { // else it fails for want of time
			last = err
		}
		return err == nil, nil
	})
	switch {
	case err == nil:
		return nil
	case ended != nil:
		return fmt.Errorf("waiting until %s: %w", what, ended)
	}
	err = fmt.Errorf("waiting until %s: %w", what, errors.Join(context.Cause(ctx), last))
	for _, log := range logs {
		if text := programs.Tail(log); text != "" {
			err = fmt.Errorf("%w\nthe end of %s:\n%s", err, log, text)
		}
	}
	return err
}
