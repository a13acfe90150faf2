package nsxsim

import (
	"encoding/json"
	"net/netip"
)

// Editor changes the simulator's objects without HTTP, as a user of one's
// choice: for tests that need other users' edits, and for set-up. All rules of
// the API hold but those of requests: no authentication, no limits, no faults, no
// journal. Errors are *Error.
type Editor struct {
	sim *Sim
	by  author
}

// As gives an Editor for the user, which need not have an account.
func (s *Sim) As(user string) Editor {
	return Editor{s, author{user: user, principal: s.auth.isPrincipal(user)}}
}

// Overwrite gives an Editor that may change objects of other principal
// identities, as with X-Allow-Overwrite.
func (e Editor) Overwrite() Editor {
	e.by.overwrite = true
	return e
}

// Create makes an object. Its id is that in the object, if any.
func (e Editor) Create(k Kind, o Object) (Object, error) {
	e.sim.mu.Lock()
	defer e.sim.mu.Unlock()
	kd, err := e.kind(k)
	if err != nil {
		return nil, err
	}
	doc, err := documentOf(o)
	if err != nil {
		return nil, err
	}
	return e.result(e.sim.create(e.by, kd, doc, doc.str("id")))
}

// Update applies edit to the object as it is now and stores the outcome.
func (e Editor) Update(k Kind, id string, edit func(Object)) (Object, error) {
	e.sim.mu.Lock()
	defer e.sim.mu.Unlock()
	kd, err := e.kind(k)
	if err != nil {
		return nil, err
	}
	old := e.sim.store.get(k, id)
	if old == nil {
		return nil, e.sim.notFound(id)
	}
	o := decodeObject(old.raw)
	edit(o)
	doc, err := documentOf(o)
	if err != nil {
		return nil, err
	}
	return e.result(e.sim.update(e.by, kd, id, doc))
}

// Delete removes an object.
func (e Editor) Delete(k Kind, id string) error {
	e.sim.mu.Lock()
	defer e.sim.mu.Unlock()
	kd, err := e.kind(k)
	if err != nil {
		return err
	}
	if err := e.sim.remove(e.by, kd, id, false); err != nil {
		return err
	}
	return nil
}

// Allocate takes an address from an IP pool: addr, or any when it is empty.
func (e Editor) Allocate(poolID, addr string) (string, error) {
	e.sim.mu.Lock()
	defer e.sim.mu.Unlock()
	pool, want, err := e.poolAndAddress(poolID, addr)
	if err != nil {
		return "", err
	}
	got, refused := e.sim.allocateAddress(e.by.user, pool, want)
	if refused != nil {
		return "", refused
	}
	return got.String(), nil
}

// Release gives an address back to its IP pool.
func (e Editor) Release(poolID, addr string) error {
	e.sim.mu.Lock()
	defer e.sim.mu.Unlock()
	pool, want, err := e.poolAndAddress(poolID, addr)
	if err != nil {
		return err
	}
	if err := e.sim.releaseAddress(pool, want); err != nil {
		return err
	}
	return nil
}

func (e Editor) kind(k Kind) (*kind, error) {
	kd := e.sim.kinds[k]
	if kd == nil || e.sim.gone(kd) && !e.by.system {
		return nil, noSuchURI(string(k))
	}
	return kd, nil
}

func (e Editor) poolAndAddress(poolID, addr string) (*object, netip.Addr, error) {
	pool := e.sim.store.get(KindIPPool, poolID)
	if pool == nil {
		return nil, netip.Addr{}, e.sim.notFound(poolID)
	}
	if addr == "" {
		return pool, netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, a, invalid("allocation_id must be an IP address")
	}
	return pool, a, nil
}

// result turns a typed nil into a nil error.
func (e Editor) result(o *object, err *Error) (Object, error) {
	if err != nil {
		return nil, err
	}
	return decodeObject(e.sim.answer(e.by.user, o)), nil
}

func documentOf(o Object) (document, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return parseDocument(body)
}
