package nsxsim

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// What a fresh simulator lets in, and the limits of a real NSX manager for those
// who want them.
const (
	DefaultUsername = "admin"
	DefaultPassword = "VMware1!VMware1!"
	DefaultVersion  = "3.2.3.0.0.21703641"

	NSXRateLimit          = 100 // requests a second of one user
	NSXMaxConcurrent      = 40  // requests of one user at once
	NSXMaxConcurrentTotal = 199 // requests at once
	NSXReleaseDelay       = 2 * time.Minute
	defaultSessionTimeout = 30 * time.Minute
	defaultJournalSize    = 10000
)

// Options configure a simulator. The zero value is a fresh NSX with one user,
// no rate limit and no release delay, on the real clock.
type Options struct {
	Users []User // default: admin, DefaultPassword
	// Version of NSX, as /node/version tells; decides some rules. "2.5", "3.2",
	// "4.1" and "9.0" stand for a build of that release. Default DefaultVersion.
	Version string

	Clock clock.Clock   // default: the real one
	NewID func() string // ids of objects and sessions; default random UUIDs, see SequentialIDs

	RateLimit          int           // requests a second of one user, over it 429; 0 is no limit
	MaxConcurrent      int           // requests of one user at once, over it 503; 0 is no limit
	MaxConcurrentTotal int           // requests at once, over it 503; 0 is no limit
	SessionTimeout     time.Duration // idle time after which a session ends; default 30 minutes

	JournalSize int // entries that the Journal remembers; default 10000

	// ReleaseDelay is that of IP pools that set no ip_release_delay. NSX's own
	// is NSXReleaseDelay; the default here is none.
	ReleaseDelay time.Duration

	// SearchDelay is how long a change takes to show up in searches, on the
	// Clock; by default they see it at once. Lists always do.
	SearchDelay time.Duration

	// RealizationDelay is how long it takes until what is written to the Policy
	// API is realised in the Manager's objects. Default: it is at once.
	RealizationDelay time.Duration

	// Capacity replaces that of some sizes of LbService.
	Capacity map[string]Capacity

	// AllowLoopbackMembers lets a pool's member group have loopback addresses,
	// which NSX drops: for labs whose nodes live on 127.0.0.0/8.
	AllowLoopbackMembers bool

	// DataPlane, when set, makes virtual servers on enabled, attached load
	// balancer services really listen on their addresses, check their members and
	// forward, if the tier-1 router advertises the addresses. New members are UP
	// before their first check unless Quirks.UncheckedMembersDown. Close the
	// simulator to free the addresses.
	DataPlane *dataplane.Options

	// Defects are what the DataPlane does wrong on purpose.
	Defects []Defect

	// NewDataPlane makes the data plane of these options: by default the one of
	// package dataplane, in user space. Package nftables has the kernel's.
	NewDataPlane func(dataplane.Options) (DataPlane, error)

	// Admin serves /_nsxsim/, by which faults, the journal and the state of the
	// simulator can be had over HTTP: GET, POST, PUT and DELETE faults; POST pause
	// and resume; GET and DELETE journal; GET state (Snapshot), POST state (Load)
	// and PUT state (Restore).
	Admin bool

	// Empty leaves out what a fresh NSX has: see Sim.EdgeClusterID and
	// Sim.Tier0ID. The system's own profiles and monitors are always there.
	Empty bool

	Quirks Quirks
	Seed   uint64      // of the probabilities of fault rules
	Logger klog.Logger // default: klog's background logger; requests are logged at V(2)
}

// User is an account of the manager.
type User struct {
	Name     string
	Password string // empty: no log-in by password

	// Certificate is the PEM of the client certificate that authenticates the
	// user.
	Certificate []byte

	// Token, when set, authenticates the user as a bearer token, as on VMware
	// Cloud: "Authorization: Bearer TOKEN".
	Token string

	// Remote users come from an identity manager (vIDM): their name and password
	// are taken from "Authorization: Remote BASE64" only.
	Remote bool

	// ReadOnly users (NSX's auditor role) get 403 on writes.
	ReadOnly bool

	// Principal marks a principal identity: others cannot change its objects
	// unless they send X-Allow-Overwrite: true.
	Principal bool
}

// ChosenAddress tells what ALLOCATE does with an address asked for.
type ChosenAddress string

const (
	ChosenAddressHonoured ChosenAddress = ""        // allocated, if it is free
	ChosenAddressRefused  ChosenAddress = "refused" // 400, error 5123
	ChosenAddressIgnored  ChosenAddress = "ignored" // answered with another address
)

// UnmarshalText reads one of the three.
func (c *ChosenAddress) UnmarshalText(text []byte) error {
	switch v := ChosenAddress(text); v {
	case ChosenAddressHonoured, ChosenAddressRefused, ChosenAddressIgnored:
		*c = v
		return nil
	}
	return fmt.Errorf("a chosen address is %s or %s, or honoured when it is empty: got %q", ChosenAddressRefused, ChosenAddressIgnored, text)
}

// Quirks choose between behaviours of real managers where they differ by release
// or where no reference settles them. A client should work with either.
type Quirks struct {
	ChosenAddress ChosenAddress `json:"chosenAddress,omitempty"`

	// ReleasedUnlisted: during the release delay, an address is not listed among
	// the allocations (by default it is). It cannot be allocated in either case.
	ReleasedUnlisted bool `json:"releasedUnlisted,omitempty"`

	// StaleIsConflict: a stale _revision is answered with 409 instead of 412.
	StaleIsConflict bool `json:"staleIsConflict,omitempty"`

	// ErrorCodeIsString: error_code is a string instead of a number.
	ErrorCodeIsString bool `json:"errorCodeIsString,omitempty"`

	// NotFoundCode202: error_code 202 instead of 600 for unknown objects.
	NotFoundCode202 bool `json:"notFoundCode202,omitempty"`

	// ForeignCode8327: error_code 8327 instead of 289 for writes to objects of other
	// principal identities.
	ForeignCode8327 bool `json:"foreignCode8327,omitempty"`

	// TooManyAtOnce429: over the limit of concurrent requests, 429 with error_code 98
	// instead of 503 with 604.
	TooManyAtOnce429 bool `json:"tooManyAtOnce429,omitempty"`

	// BadCredentials401: bad credentials get 401 instead of 403.
	BadCredentials401 bool `json:"badCredentials401,omitempty"`

	// PoolPerService: a pool cannot be used from two load balancer services.
	PoolPerService bool `json:"poolPerService,omitempty"`

	// UncheckedMembersDown: a member with an active monitor is DOWN until its
	// first check, instead of UP.
	UncheckedMembersDown bool `json:"uncheckedMembersDown,omitempty"`

	// UnsizedGroupServes: of a member group without max_ip_list_size all members
	// serve, instead of one with the surplus DISABLED.
	UnsizedGroupServes bool `json:"unsizedGroupServes,omitempty"`

	// SearchRefusesWhileIndexing: as long as a change has yet to show up in
	// searches (Options.SearchDelay) they get 400 and error 60508, instead of what
	// the index holds. (The time-out of a search, 60514, is a fault rule's to answer.)
	SearchRefusesWhileIndexing bool `json:"searchRefusesWhileIndexing,omitempty"`

	// PendingDelete: what was deleted in the Policy API keeps its path until that is
	// realised (Options.RealizationDelay); to make another there gets 400 and error
	// 500045, instead of doing so.
	PendingDelete bool `json:"pendingDelete,omitempty"`

	// FinalCursor: the last page of a list has a cursor starting with 0000
	// instead of none.
	FinalCursor bool `json:"finalCursor,omitempty"`
}

func (o Options) withDefaults() Options {
	if len(o.Users) == 0 {
		o.Users = []User{{Name: DefaultUsername, Password: DefaultPassword}}
	}
	if o.Version == "" {
		o.Version = DefaultVersion
	}
	if build, ok := builds[o.Version]; ok {
		o.Version = build
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.NewID == nil {
		o.NewID = uuid.NewString
	}
	if o.SessionTimeout == 0 {
		o.SessionTimeout = defaultSessionTimeout
	}
	if o.JournalSize == 0 {
		o.JournalSize = defaultJournalSize
	}
	if o.NewDataPlane == nil {
		o.NewDataPlane = func(o dataplane.Options) (DataPlane, error) { return dataplane.New(o), nil }
	}
	if o.Logger.GetSink() == nil {
		o.Logger = klog.Background()
	}
	return o
}

// SequentialIDs gives a source of UUIDs that counts from 1, for tests that
// compare ids.
func SequentialIDs() func() string {
	var last atomic.Uint64
	return func() string {
		var id uuid.UUID
		binary.BigEndian.PutUint64(id[8:], last.Add(1))
		return id.String()
	}
}

// builds are what /node/version tells of releases named in short.
var builds = map[string]string{
	"2.5": "2.5.1.0.0.15314288",
	"3.2": DefaultVersion,
	"4.1": "4.1.0.0.0.21332672",
	"9.0": "9.0.0.0.0.24733065",
}

// release is a release of NSX, major and minor.
type release struct{ major, minor int }

func parseRelease(version string) (release, error) {
	var r release
	if _, err := fmt.Sscanf(version, "%d.%d", &r.major, &r.minor); err != nil {
		return r, fmt.Errorf("NSX version %q: want something like 3.2.1: %w", version, err)
	}
	return r, nil
}

// knows tells whether a release has what came with another.
func (r release) knows(since release) bool { return !r.before(since.major, since.minor) }

func (r release) before(major, minor int) bool {
	return r.major < major || r.major == major && r.minor < minor
}
