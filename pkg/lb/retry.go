package lb

import (
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// How long until the next try, at least, and by how much of that it is spread.
const (
	notLoadedRetry, notLoadedSpread   = 2 * time.Second, 0.5
	waitingRetry, waitingSpread       = 15 * time.Second, 1.0
	badServiceRetry, badServiceSpread = 5 * time.Minute, 0.2
)

// failed tells the user of a Service what is in the way, if there is something for a user to know, and says when to try
// again: for what others have to change, and for what passes by itself. The rest is left to the caller's back-off.
func (e *Engine) failed(svc *corev1.Service, err error) error {
	var given *nsx.RetryAt
	var answer *nsx.APIError
	waiting := errors.Is(err, nsx.ErrExhausted) || errors.Is(err, nsx.ErrAlreadyAllocated)
	switch {
	case errors.Is(err, ErrBadService):
		e.event(svc, ReasonBadService, err.Error())
	case errors.Is(err, errNoRoom):
		e.event(svc, ReasonNoRoom, err.Error())
	case waiting:
		e.event(svc, ReasonNoAddress, err.Error())
	}
	switch {
	case errors.As(err, &given):
		return err
	case errors.Is(err, ErrBadService):
		return e.retryIn(err, badServiceRetry, badServiceSpread)
	case errors.As(err, &answer) && answer.RetryAfter > 0:
		return e.retryIn(err, answer.RetryAfter, 0)
	case waiting, errors.Is(err, nsx.ErrThrottled), errors.Is(err, nsx.ErrUnavailable), errors.Is(err, nsx.ErrAmbiguous):
		return e.retryIn(err, waitingRetry, waitingSpread)
	}
	return err
}

// retryIn makes the next try come after d, or up to the spread's part of d later.
func (e *Engine) retryIn(err error, d time.Duration, spread float64) error {
	d += time.Duration(e.o.Random() * spread * float64(d))
	return &nsx.RetryAt{Err: err, At: e.o.Clock.Now().Add(d)}
}

// event tells the user of a Service something.
func (e *Engine) event(svc *corev1.Service, reason, message string) {
	e.o.Record(Event{
		Namespace: svc.Namespace, Name: svc.Name, UID: string(svc.UID),
		Type: corev1.EventTypeWarning, Reason: reason, Message: message,
	})
}
