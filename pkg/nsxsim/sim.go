package nsxsim

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// Sim is a simulated NSX manager. It is an http.Handler, and safe for concurrent
// use.
type Sim struct {
	version             string
	release             release
	clock               clock.Clock
	quirks              Quirks
	capacity            map[string]Capacity
	defaultReleaseDelay time.Duration
	allowLoopback       bool
	admin               bool
	logger              klog.Logger
	kinds               map[Kind]*kind
	paths               map[string]*kind // by path below /api/v1
	platform            []about
	started             time.Time

	auth    *authenticator
	limits  *limiter
	journal *Journal
	faults  *Faults
	done    chan struct{} // closed by Close
	close   func()
	plane   *planeDriver // nil without a data plane
	policy  *policy      // nil before NSX 2.4; guarded by mu

	mu      sync.Mutex // guards all below, and newID
	newID   func() string
	store   *store
	index   *searchIndex
	ipPools map[string]*ipPool
	// certificateKeys are the private keys of certificates, by id.
	certificateKeys map[string]dataplane.Secret
	health          map[netip.Addr]bool // see SetMemberHealth

	edgeClusterID, tier0ID string
}

// New makes a simulator as fresh as a fresh NSX.
func New(o Options) (*Sim, error) {
	o = o.withDefaults()
	rel, err := parseRelease(o.Version)
	if err != nil {
		return nil, err
	}
	s := &Sim{
		version:             o.Version,
		release:             rel,
		clock:               o.Clock,
		quirks:              o.Quirks,
		capacity:            defaultCapacity(),
		defaultReleaseDelay: o.ReleaseDelay,
		allowLoopback:       o.AllowLoopbackMembers,
		admin:               o.Admin,
		logger:              o.Logger.WithName("nsxsim"),
		kinds:               map[Kind]*kind{},
		paths:               map[string]*kind{},
		platform:            platform(),
		started:             o.Clock.Now(),
		journal:             newJournal(o.JournalSize),
		faults:              newFaults(o.Seed),
		limits:              newLimiter(o),
		store:               newStore(),
		index:               newSearchIndex(o.SearchDelay),
		ipPools:             map[string]*ipPool{},
		certificateKeys:     map[string]dataplane.Secret{},
		health:              map[netip.Addr]bool{},
	}
	s.done = make(chan struct{})
	if !rel.before(2, 4) {
		s.policy = newPolicy(o, rel, s.logger)
	}
	s.close = sync.OnceFunc(func() {
		s.mu.Lock() // nothing starts after done
		close(s.done)
		s.mu.Unlock()
		if s.policy != nil {
			s.policy.running.Wait()
		}
		if s.plane != nil {
			s.plane.close()
		}
	})
	var ids sync.Mutex
	s.newID = func() string {
		ids.Lock()
		defer ids.Unlock()
		return o.NewID()
	}
	if s.auth, err = newAuthenticator(o, s.newID); err != nil {
		return nil, err
	}
	for size, c := range o.Capacity {
		s.capacity[size] = c
	}
	states := stateSubs()
	for _, k := range manager() {
		k.fields = knownTo(rel, k.fields)
		k.subs = append(k.subs[:len(k.subs):len(k.subs)], states[k.name]...)
		s.kinds[k.name] = k
		if k.path != "" && !s.gone(k) {
			s.paths[k.path] = k
		}
	}
	if err := s.populate(o.Empty); err != nil {
		return nil, fmt.Errorf("making a fresh NSX: %w", err)
	}
	if s.policy != nil {
		s.policy.delay = o.RealizationDelay // what is there from the start is realised from the start
	}
	if o.DataPlane != nil {
		if err := s.drive(*o.DataPlane, o.NewDataPlane, o.Defects); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Close ends what requests wait for, delays and pauses (requests held by them
// are dropped undone), and the data plane.
func (s *Sim) Close() { s.close() }

// Journal tells the requests served.
func (s *Sim) Journal() *Journal { return s.journal }

// Faults holds the rules by which requests fail.
func (s *Sim) Faults() *Faults { return s.faults }

// EdgeClusterID is the id of the edge cluster that a fresh NSX has; empty with
// Options.Empty.
func (s *Sim) EdgeClusterID() string { return s.edgeClusterID }

// Tier0ID is the id of the tier-0 router that a fresh NSX has; empty with
// Options.Empty.
func (s *Sim) Tier0ID() string { return s.tier0ID }

// gone tells whether the release no longer has the kind. It is still there
// within: the Policy API is realised in it.
func (s *Sim) gone(k *kind) bool { return k.removed != "" && !s.release.before(9, 0) }

// now is the time in milliseconds, as NSX writes timestamps.
func (s *Sim) now() int64 { return s.clock.Now().UnixMilli() }

// Get gives an object, or nil when there is none.
func (s *Sim) Get(k Kind, id string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.realizeDue()
	o := s.store.get(k, id)
	if o == nil {
		return nil
	}
	return decodeObject(s.answer(o.owner, o))
}

// List gives the objects of a kind in order of creation.
func (s *Sim) List(k Kind) []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.realizeDue()
	var objects []Object
	for _, o := range s.store.list(k) {
		objects = append(objects, decodeObject(s.answer(o.owner, o)))
	}
	return objects
}

// Allocations gives the addresses that an IP pool lists as allocated.
func (s *Sim) Allocations(poolID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.realizeDue()
	pool := s.store.get(KindIPPool, poolID)
	if pool == nil {
		return nil
	}
	var addrs []string
	for _, a := range s.listedAllocations(pool) {
		addrs = append(addrs, a.String())
	}
	return addrs
}
