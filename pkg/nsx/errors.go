package nsx

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// The kinds of failure that callers tell apart, by errors.Is. What was tried, and on which object, is in the error that
// wraps one of them.
var (
	// ErrNotFound: the object is not there (404).
	ErrNotFound = errors.New("not found")
	// ErrStaleRevision: somebody else wrote the object since it was read (412, or 409 on some paths). Read again and merge.
	ErrStaleRevision = errors.New("changed by somebody else in the meantime")
	// ErrInUse: the object is referenced by another and cannot go yet.
	ErrInUse = errors.New("in use")
	// ErrThrottled: NSX refused the call for its rate (429, or 503 with a throttling code); nothing was done.
	ErrThrottled = errors.New("throttled by NSX")
	// ErrExhausted: a pool has no free address, or a load-balancer service no room.
	ErrExhausted = errors.New("exhausted")
	// ErrAlreadyAllocated: the address asked for is somebody else's; choose another.
	ErrAlreadyAllocated = errors.New("already allocated")
	// ErrUnauthorized: NSX did not accept the credentials or the role does not suffice (401, 403).
	ErrUnauthorized = errors.New("not authorized")
	// ErrInvalid: NSX refused what was sent (any other 4xx); the same again will be refused again.
	ErrInvalid = errors.New("refused by NSX")
	// ErrUnavailable: no NSX manager did the call; nothing was changed.
	ErrUnavailable = errors.New("NSX is unavailable")
	// ErrAmbiguous: a write was sent and its outcome is unknown; look before doing it again.
	ErrAmbiguous = errors.New("outcome unknown")
	// ErrStopping: the controller is stopping, or may no longer be the leader; no write was sent.
	ErrStopping = errors.New("not writing to NSX: the controller is stopping or may have lost its lease")
)

// APIError is an answer of NSX other than success. It unwraps to one of the sentinels above.
type APIError struct {
	// Method and Path of the request, without its query.
	Method, Path string
	// Status is the HTTP status.
	Status int
	// Code is NSX's error_code; 0 when the body had none.
	Code int
	// Message is NSX's error_message with those of its related errors, or the beginning of a body that is not NSX's.
	Message string
	// RetryAfter is what the Retry-After header asked for; 0 when it was absent.
	RetryAfter time.Duration
	// Kind is the sentinel that this answer means.
	Kind error
}

func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %v (%d %s", e.Method, e.Path, e.Kind, e.Status, http.StatusText(e.Status))
	if e.Code != 0 {
		fmt.Fprintf(&b, ", NSX error %d", e.Code)
	}
	b.WriteString(")")
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	return b.String()
}

func (e *APIError) Unwrap() error { return e.Kind }

// RetryAt is an error that knows when the next try makes sense, for instance when the outcome of a lost call can be
// looked up.
type RetryAt struct {
	Err error
	At  time.Time
}

func (e *RetryAt) Error() string { return e.Err.Error() }
func (e *RetryAt) Unwrap() error { return e.Err }
