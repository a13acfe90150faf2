package vcenter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/vim25/methods"
)

// Check is nil if the latest questions to every vCenter were answered, whatever the answer; else it says which were not, since
// when, and why. It asks nobody.
func (c *Client) Check() error {
	var errs []error
	for _, s := range c.servers {
		if err := s.reach.Check(); err != nil {
			errs = append(errs, fmt.Errorf("vCenter %s: %w", s.name, err))
		}
	}
	return errors.Join(errs...)
}

// Ping asks every vCenter that has answered nothing for so long what time it is, for Check to know. It logs in if need be.
func (c *Client) Ping(ctx context.Context, idle time.Duration) {
	var asking sync.WaitGroup
	for _, s := range c.servers {
		if s.reach.Idle() < idle {
			continue
		}
		asking.Go(func() {
			s.heard(ctx, s.call(ctx, func(ctx context.Context) error {
				return s.sdk.use(ctx, func(client *govmomi.Client) error {
					_, err := methods.GetCurrentTime(ctx, client)
					return err
				})
			}))
		})
	}
	asking.Wait()
}

// heard takes note of how a question went. That there is no such VM, or several, is an answer; what the caller broke off
// tells nothing.
func (s *server) heard(ctx context.Context, err error) {
	switch {
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrAmbiguous):
		s.reach.Done(nil)
	case ctx.Err() == nil:
		s.reach.Done(err)
	}
}
