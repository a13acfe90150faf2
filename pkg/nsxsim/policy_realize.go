package nsxsim

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// realizeRetry is after how long an intent that could not be realised is tried
// again: what stood in the way may be gone.
const realizeRetry = 5 * time.Second

// policy is the state of the Policy API beside the intents, which are in the
// store: what became of them in the Manager, and what is still to be done.
type policy struct {
	kinds     []*policyKind // by rank
	byName    map[Kind]*policyKind
	delay     time.Duration
	queue     []task // by time
	index     *searchIndex
	records   map[string]*realization
	made      map[objectRef]string // the path of the intent that the Manager's object is of
	edgeNodes map[string]int       // how many of an edge cluster are in the index
	// privateKeys are those of certificates, by path: no document has them.
	privateKeys map[string]string

	// The clock watcher runs while something waits to be realised.
	watching bool
	nudge    chan struct{} // holds one token: the queue's head changed
	running  sync.WaitGroup
	log      klog.Logger
}

// task is an intent to be realised, as it is when the time comes.
type task struct {
	due  time.Time
	path string
}

// The states of a realisation.
const (
	unrealized = "UNREALIZED"
	realized   = "REALIZED"
	inError    = "ERROR"
)

// realization is what became of one intent, by its path.
type realization struct {
	uid     string // unique_id of the intent: another of the same path is another
	state   string
	problem *Error // why it is in error
	at      int64  // when it was last realised
	objects []objectRef
	service string     // path of the LBService that a virtual server is on
	pool    string     // id of the Manager's IP pool that the address is from
	address netip.Addr // of an IpAddressAllocation
	want    netip.Addr // the address that it had when a snapshot was taken
	// before is what is left of another intent that had the path: something
	// realised still uses it, perhaps until this one is realised.
	before *realization
}

func newPolicy(o Options, rel release, log klog.Logger) *policy {
	p := &policy{
		kinds: policyKinds(), byName: map[Kind]*policyKind{}, index: newSearchIndex(o.SearchDelay),
		edgeNodes: map[string]int{}, records: map[string]*realization{}, made: map[objectRef]string{}, privateKeys: map[string]string{},
		nudge: make(chan struct{}, 1), log: log,
	}
	states := policyStateSubs()
	for _, k := range p.kinds {
		k.fields = knownTo(rel, k.fields)
		k.subs = append(k.subs[:len(k.subs):len(k.subs)], states[k.name]...)
		p.byName[k.name] = k
	}
	return p
}

// realizer is the author of all that is realised.
func realizer() author { return author{user: policyUser, principal: true, overwrite: true} }

// intentChanged has an intent realised, or what was realised of it removed, when
// the delay is over.
func (s *Sim) intentChanged(o *object) {
	if rec := s.policy.records[o.id]; rec == nil {
		s.policy.records[o.id] = &realization{uid: o.doc.str("unique_id"), state: unrealized}
	} else {
		rec.state, rec.problem = unrealized, nil
	}
	s.schedule(o.id, s.policy.delay)
}

func (s *Sim) schedule(path string, after time.Duration) {
	p := s.policy
	due := s.clock.Now().Add(after)
	i := len(p.queue)
	for i > 0 && p.queue[i-1].due.After(due) {
		i--
	}
	p.queue = slices.Insert(p.queue, i, task{due, path})
	if after > 0 {
		s.watch(i == 0)
	}
}

// realizeDue does what is due. Like all here it is called under the lock.
func (s *Sim) realizeDue() {
	p := s.policy
	if p == nil {
		return
	}
	for len(p.queue) > 0 && !p.queue[0].due.After(s.clock.Now()) {
		path := p.queue[0].path
		p.queue = p.queue[1:]
		s.realize(path)
	}
}

// realize brings the Manager's objects in line with the intent at a path.
func (s *Sim) realize(path string) {
	p := s.policy
	rec := p.records[path]
	if rec == nil {
		return // done with by an earlier task
	}
	o := s.intentAt(path)
	if o == nil || o.doc.str("unique_id") != rec.uid {
		if err := s.unrealize(rec); err == nil {
			delete(p.records, path)
			rec = nil
		} else if o == nil {
			s.failed(path, rec, err)
			return
		}
		if parent := parentPath(path); p.kindAt(path).part && s.intentAt(parent) != nil {
			s.schedule(parent, 0)
		}
		if o == nil {
			return
		}
		rec = &realization{uid: o.doc.str("unique_id"), state: unrealized, before: rec}
		p.records[path] = rec
	}
	if gone, ok := s.dangling(o); ok {
		s.failed(path, rec, invalidPath(gone))
		return
	}
	if k := p.byName[o.kind.name]; k.realize != nil {
		if err := k.realize(s, o, rec); err != nil {
			s.failed(path, rec, err)
			return
		}
	}
	rec.state, rec.problem, rec.at = realized, nil, s.now()
	s.wakeReferrers(o)
	if rec.before != nil {
		if err := s.unrealize(rec.before); err != nil {
			s.schedule(path, realizeRetry)
			return
		}
		rec.before = nil
	}
}

// wakeReferrers tries again at once what may have failed for want of o.
func (s *Sim) wakeReferrers(o *object) {
	for _, r := range s.store.referrersOf(objectRef{o.kind.name, o.id}) {
		if waiting := s.policy.records[r.id]; waiting != nil && waiting.state == inError {
			waiting.state = unrealized
			s.schedule(r.id, 0)
		}
	}
}

func (s *Sim) failed(path string, rec *realization, err *Error) {
	rec.state, rec.problem = inError, err
	s.policy.log.V(1).Info("An intent cannot be realised", "path", path, "err", err)
	s.schedule(path, realizeRetry)
}

// unrealize removes what was made of an intent, the last first.
func (s *Sim) unrealize(rec *realization) *Error {
	if rec.before != nil {
		if err := s.unrealize(rec.before); err != nil {
			return err
		}
		rec.before = nil
	}
	if rec.service != "" {
		if err := s.leaveService(rec); err != nil {
			return err
		}
	}
	if rec.address.IsValid() {
		if pool := s.store.get(KindIPPool, rec.pool); pool != nil && s.ipPoolState(pool.id).index(rec.address) >= 0 {
			if err := s.releaseAddress(pool, rec.address); err != nil {
				return err
			}
		}
		rec.address = netip.Addr{}
	}
	for i := len(rec.objects) - 1; i >= 0; i-- {
		if err := s.unmake(rec, rec.objects[i]); err != nil {
			return err
		}
	}
	return nil
}

// make creates an object of the Manager, or replaces the one made before.
func (s *Sim) make(rec *realization, path string, kind Kind, id string, doc document) *Error {
	k, ref := s.kinds[kind], objectRef{kind, id}
	var err *Error
	if old := s.store.get(kind, id); old != nil {
		if s.policy.made[ref] != path {
			return refuse(codeValidation, "An object with id %s exists already.", id)
		}
		doc.set("_revision", old.revision)
		_, err = s.update(realizer(), k, id, doc)
	} else {
		_, err = s.create(realizer(), k, doc, id)
	}
	if err != nil {
		return err
	}
	if !slices.Contains(rec.objects, ref) {
		rec.objects = append(rec.objects, ref)
	}
	s.policy.made[ref] = path
	return nil
}

// unmake removes an object of the Manager; one that is gone already is fine.
func (s *Sim) unmake(rec *realization, ref objectRef) *Error {
	if s.store.get(ref.kind, ref.id) != nil {
		if err := s.remove(realizer(), s.kinds[ref.kind], ref.id, true); err != nil {
			return err
		}
	}
	delete(s.policy.made, ref)
	rec.objects = slices.DeleteFunc(rec.objects, func(r objectRef) bool { return r == ref })
	return nil
}

// watch has the clock watched until the queue is empty, so that what is due is
// done even when nobody asks.
func (s *Sim) watch(sooner bool) {
	p := s.policy
	switch {
	case s.closed():
	case !p.watching:
		p.watching = true
		p.running.Go(s.watchClock)
	case sooner:
		select {
		case p.nudge <- struct{}{}:
		default:
		}
	}
}

func (s *Sim) watchClock() {
	p := s.policy
	for {
		s.mu.Lock()
		s.realizeDue()
		if len(p.queue) == 0 || s.closed() {
			p.watching = false
			s.mu.Unlock()
			return
		}
		timer := s.clock.NewTimer(p.queue[0].due.Sub(s.clock.Now()))
		s.mu.Unlock()
		select {
		case <-timer.C():
		case <-p.nudge:
		case <-s.done:
		}
		timer.Stop()
	}
}

func (s *Sim) closed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}
