package nsxsim

import (
	"context"
	"fmt"
	"sync"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// DataPlane carries the traffic of virtual servers. Those of packages dataplane, in
// user space, and nftables, in the kernel, are ones; both document the methods.
type DataPlane interface {
	Apply(context.Context, dataplane.Config) error
	Status() dataplane.Status
	Close()
}

// planeDriver keeps a data plane in step with the documents: after a change it
// applies the whole of the traffic, once for all changes made meanwhile.
type planeDriver struct {
	plane   DataPlane
	changed chan struct{} // holds one token: something changed since the last look
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// drive starts the data plane; s.Close ends it.
func (s *Sim) drive(o dataplane.Options, start func(dataplane.Options) (DataPlane, error), defects []Defect) error {
	if o.Logger.GetSink() == nil {
		o.Logger = s.logger.WithName("dataplane")
	}
	o.InitiallyUp = o.InitiallyUp || !s.quirks.UncheckedMembersDown
	plane, err := start(o)
	if err != nil {
		return fmt.Errorf("starting the data plane: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &planeDriver{plane: plane, changed: make(chan struct{}, 1), cancel: cancel}
	s.plane = d
	spoiler := newSpoiler(defects)
	d.running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-d.changed:
			}
			s.mu.Lock()
			cfg := s.traffic()
			s.mu.Unlock()
			spoiler.spoil(cfg)
			if err := d.plane.Apply(ctx, cfg); err != nil && ctx.Err() == nil {
				s.logger.Error(err, "Applying the traffic to the data plane")
			}
		}
	})
	return nil
}

func (d *planeDriver) mark() {
	select {
	case d.changed <- struct{}{}:
	default: // somebody marked it already
	}
}

func (d *planeDriver) close() {
	d.cancel()
	d.running.Wait()
	d.plane.Close()
}

// committed is called under the lock after each change of an object: put in the
// store, or removed.
func (s *Sim) committed(o *object) {
	ref := objectRef{o.kind.name, o.id}
	index := s.index
	if s.policy != nil && s.policy.byName[ref.kind] != nil {
		index = s.policy.index
	}
	index.learn(s.clock.Now(), ref, s.store.get(ref.kind, ref.id))
	s.indexReflection(o)
	if o.kind.name == KindPrincipalIdentity {
		s.learnPrincipals()
	}
	if s.plane != nil && o.kind.traffic {
		s.plane.mark()
	}
}
