package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// IPPool is an IP pool of the cloud config.
type IPPool struct {
	// Name in the config, and ID: NSX's id or display name.
	Name, ID string
	// Exclusive: only controllers of this kind allocate from it.
	Exclusive bool
}

// Options of a Backend.
type Options struct {
	// Transport does the calls: see pkg/nsx/transport for what it has to take care of.
	Transport http.RoundTripper
	// ClusterName is for people, ClusterUID is what ownership goes by.
	ClusterName, ClusterUID string
	// IPPools of the cloud config.
	IPPools []IPPool
	// LBServices are the keys of the load-balancer services that classes name: an id or display name, or an nsx.TierKey.
	LBServices []string
	// User is the NSX user that the calls are made as; nil or empty while that is not known, as with a certificate.
	User  func() string
	Clock clock.PassiveClock
	// SettleTime is how long after a lost answer its outcome can be looked up. Default 3s.
	SettleTime time.Duration
}

// Backend is the nsx.Backend over the Manager API.
type Backend struct {
	opts   Options
	api    client
	inv    *nsx.Inventory
	shared shared

	// life is held for reading while a Service takes shared objects into use, and for writing to delete unused ones.
	life rwLock
	// making serialises what creates or rewrites shared objects, so that there is one of each and all have the same nodes.
	making rwLock

	// sourceMaking makes one pair of group and IP set at a time for each list of clients.
	sourceMaking singleflight.Group

	// reloading holds one token while the inventory is read anew after a lost answer.
	reloading   chan struct{}
	memberships memberships

	mu sync.Mutex
	// nodes as last set; nil until then. nodesWritten says that all of that has been written.
	nodes        []nsx.Node
	nodesWritten bool
	// unsettled Services, by UID: a write of unknown outcome, and when it can be looked up.
	unsettled map[string]time.Time
	// sharedLost is when a create of a shared object can be looked up whose outcome is unknown; zero when there is none.
	sharedLost time.Time
	// lost are RELEASEs of unknown outcome.
	lost map[netip.Addr]*lostRelease
	// refusals in a row of addresses that are in nobody's hands, by IP pool.
	refusals map[string]int
	// spare addresses, by IP pool: allocated by us and not yet recorded by a virtual server.
	spare map[string][]spareAddress
	// unwanted addresses, with their IP pools: allocated by us, and to be given back.
	unwanted map[netip.Addr]string
}

var _ nsx.Backend = (*Backend)(nil)

// New makes a Backend. It does no call.
func New(o Options) *Backend {
	if o.SettleTime == 0 {
		o.SettleTime = 3 * time.Second
	}
	b := &Backend{
		opts:      o,
		api:       client{rt: o.Transport, own: &users{}},
		inv:       nsx.NewInventory(),
		life:      newRWLock(),
		making:    newRWLock(),
		unsettled: map[string]time.Time{},
		lost:      map[netip.Addr]*lostRelease{},
		refusals:  map[string]int{},
		spare:     map[string][]spareAddress{},
		unwanted:  map[netip.Addr]string{},
		reloading: make(chan struct{}, 1),
	}
	b.memberships.commit = b.commitMembership
	return b
}

// Inventory implements nsx.Backend.
func (b *Backend) Inventory() *nsx.Inventory { return b.inv }

// errNotLoaded is what every write gets before the first Load.
var errNotLoaded = fmt.Errorf("%w: the inventory has not been read yet", nsx.ErrUnavailable)

// Apply implements nsx.Backend.
func (b *Backend) Apply(ctx context.Context, i nsx.Intent) error {
	if !b.inv.Loaded() {
		return errNotLoaded
	}
	var err error
	switch i := i.(type) {
	case nsx.Publish:
		err = b.publish(ctx, i)
	case nsx.Update:
		err = b.update(ctx, i)
	case nsx.Withdraw:
		err = b.withdraw(ctx, i)
	case nsx.Collect:
		err = b.collect(ctx, i)
	default:
		return fmt.Errorf("manager: unknown intent %T", i)
	}
	return b.unsettle(i.Service(), err)
}

// unsettle marks a Service whose write has an unknown outcome, or met an object that changed under us: nothing more is
// done for it before Settle has looked.
func (b *Backend) unsettle(o nsx.Owner, err error) error {
	var at time.Time
	var early *nsx.RetryAt
	switch {
	case errors.As(err, &early), errors.Is(err, nsx.ErrAlreadyAllocated):
		return err
	case errors.Is(err, nsx.ErrAmbiguous):
		at = b.opts.Clock.Now().Add(b.opts.SettleTime)
	case errors.Is(err, nsx.ErrNotFound), errors.Is(err, nsx.ErrStaleRevision), errors.Is(err, nsx.ErrInvalid),
		errors.Is(err, nsx.ErrInUse):
		// Somebody else changed what we thought we knew: look at once, next time.
		at = b.opts.Clock.Now()
	default:
		return err
	}
	b.mu.Lock()
	b.unsettled[o.UID] = at
	b.mu.Unlock()
	if at.After(b.opts.Clock.Now()) {
		return &nsx.RetryAt{Err: err, At: at}
	}
	return err
}

// Settle implements nsx.Backend.
func (b *Backend) Settle(ctx context.Context, o nsx.Owner) error {
	b.mu.Lock()
	at, ok := b.unsettled[o.UID]
	b.mu.Unlock()
	if !ok {
		return nil
	}
	if now := b.opts.Clock.Now(); now.Before(at) {
		return &nsx.RetryAt{Err: fmt.Errorf("%s: %w, looking it up shortly", o, nsx.ErrAmbiguous), At: at}
	}
	if err := b.reload(ctx, o); err != nil {
		return fmt.Errorf("looking up what became of a write for %s: %w", o, err)
	}
	return nil
}

// reload is Load for a Service that is to be settled. Everything that was due when it began is settled by it, so that of
// many that wait only the first reads.
func (b *Backend) reload(ctx context.Context, o nsx.Owner) error {
	select {
	case b.reloading <- struct{}{}:
		defer func() { <-b.reloading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	now := b.opts.Clock.Now()
	_, still := b.unsettled[o.UID]
	b.mu.Unlock()
	if !still {
		return nil
	}
	if err := b.Load(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for uid, at := range b.unsettled {
		if !now.Before(at) {
			delete(b.unsettled, uid)
		}
	}
	return nil
}
