package vcenter

import (
	"context"
	"sync"
)

// sessions holds at most one session of type T with a vCenter. It is opened when first needed, by one caller while
// the others wait, and opened anew when vCenter says that it has expired.
type sessions[T comparable] struct {
	open    func(context.Context) (T, error)
	expired func(error) bool
	// turn holds a token while nobody opens a session. A channel, because a caller waits no longer than its context.
	turn chan struct{}

	mu      sync.Mutex
	current T // the zero value while there is none
	closed  bool
}

func newSessions[T comparable](open func(context.Context) (T, error), expired func(error) bool) *sessions[T] {
	s := &sessions[T]{open: open, expired: expired, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// use calls f with the session, and once more with a new one if the session had expired.
func (s *sessions[T]) use(ctx context.Context, f func(T) error) error {
	session, err := s.get(ctx)
	if err != nil {
		return err
	}
	if err = f(session); err == nil || !s.expired(err) {
		return err
	}
	s.drop(session)
	if session, err = s.get(ctx); err != nil {
		return err
	}
	return f(session)
}

func (s *sessions[T]) get(ctx context.Context) (T, error) {
	var none T
	if session, err := s.peek(); err != nil || session != none {
		return session, err
	}
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	if session, err := s.peek(); err != nil || session != none {
		return session, err
	}
	session, err := s.open(ctx)
	if err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = session
	return session, nil
}

func (s *sessions[T]) peek() (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.current, ErrClosed
	}
	return s.current, nil
}

// drop forgets the session, unless another caller has already replaced it.
func (s *sessions[T]) drop(session T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == session {
		var none T
		s.current = none
	}
}

// close makes later uses fail. It returns the session to log out of, the zero value if there is none.
func (s *sessions[T]) close(ctx context.Context) (T, error) {
	var none T
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.current
	s.current, s.closed = none, true
	return session, nil
}
