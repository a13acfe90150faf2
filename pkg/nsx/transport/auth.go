package transport

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// authenticator proves to a manager who we are.
type authenticator interface {
	// authorize puts the proof on a request, logging in first if need be. settle, if not nil, must be called with what
	// became of the request; it tells whether one that was refused is worth sending again. If the request cannot go out,
	// failed says why.
	authorize(ctx context.Context, m *manager, req *http.Request) (settle func(fate) (again bool), failed *attempt)
	// end gives up what the proofs hold at the managers.
	end(ctx context.Context, ms []*manager)
}

// certificate is the authenticator for client certificates: the connection is the proof.
type certificate struct{ reconnect func() }

func (c certificate) authorize(context.Context, *manager, *http.Request) (func(fate) bool, *attempt) {
	return func(f fate) bool {
		if f == refused {
			c.reconnect() // with a certificate that was rotated meanwhile
		}
		return true
	}, nil
}

func (certificate) end(context.Context, []*manager) {}

// basic is the authenticator that sends user name and password with every call.
type basic struct {
	read  func(context.Context) (Credentials, error)
	guard *guard
	// probe is held by the one call that tries credentials which NSX has not accepted yet: with wrong ones, a few calls
	// at once lock the account.
	probe chan struct{}

	mu     sync.Mutex
	proven Credentials // zero if none
}

func (b *basic) authorize(ctx context.Context, _ *manager, req *http.Request) (func(fate) bool, *attempt) {
	if c := b.get(); c != (Credentials{}) {
		req.SetBasicAuth(c.Username, c.Password)
		return func(f fate) bool { return b.settleProven(c, f) }, nil
	}
	select {
	case b.probe <- struct{}{}:
	case <-ctx.Done():
		return nil, &attempt{fate: unsent, err: context.Cause(ctx)}
	}
	c := b.get() // somebody else's probe may have proven them meanwhile
	if c != (Credentials{}) {
		<-b.probe
		req.SetBasicAuth(c.Username, c.Password)
		return func(f fate) bool { return b.settleProven(c, f) }, nil
	}
	c, err := b.guard.read(ctx, b.read)
	if err != nil {
		<-b.probe
		return nil, &attempt{fate: barred, err: err}
	}
	req.SetBasicAuth(c.Username, c.Password)
	return func(f fate) bool {
		defer func() { <-b.probe }()
		switch f {
		case answered:
			b.guard.accepted()
			b.set(c)
		case refused:
			b.guard.refused(c)
		}
		return false
	}, nil
}

// settleProven forgets credentials that have worked and work no more; they are read again, and tried once by one call.
func (b *basic) settleProven(c Credentials, f fate) bool {
	if f != refused {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.proven == c {
		b.proven = Credentials{}
	}
	return true
}

func (b *basic) get() Credentials {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.proven
}

func (b *basic) set(c Credentials) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proven = c
}

func (*basic) end(context.Context, []*manager) {}

// guard keeps us from trying refused credentials again and again, on whatever manager: NSX locks the account after a few
// failures.
type guard struct {
	clock clock.PassiveClock

	mu    sync.Mutex
	bad   Credentials
	wait  time.Duration // 0 when no credentials are known to be bad
	until time.Time
}

const minLoginWait, maxLoginWait = 5 * time.Second, 60 * time.Second

// read reads the credentials, and refuses to hand out those that were refused a moment ago.
func (g *guard) read(ctx context.Context, read func(context.Context) (Credentials, error)) (Credentials, error) {
	c, err := read(ctx)
	if err != nil {
		return c, fmt.Errorf("%w: cannot read the credentials: %w", nsx.ErrUnauthorized, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wait > 0 && c == g.bad && g.clock.Now().Before(g.until) {
		return c, &nsx.RetryAt{At: g.until, Err: fmt.Errorf("%w: the credentials of user %q were refused, and are not tried again before %v",
			nsx.ErrUnauthorized, c.Username, g.until.Format(time.RFC3339))}
	}
	return c, nil
}

// refused notes that NSX did not accept the credentials, and returns when they may be tried again.
func (g *guard) refused(c Credentials) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock.Now()
	switch {
	case g.wait == 0 || c != g.bad:
		g.wait = minLoginWait
	case !now.Before(g.until): // not one of several log-ins at once
		g.wait = min(2*g.wait, maxLoginWait)
	}
	g.bad, g.until = c, now.Add(g.wait)
	return g.until
}

// accepted notes that NSX accepted some.
func (g *guard) accepted() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wait = 0
}
