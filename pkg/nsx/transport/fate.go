package transport

import (
	"net/http"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// fate is what became of sending a call once.
type fate int

const (
	// answered: NSX did it, or said for good that it will not.
	answered fate = iota
	// refused: NSX did not accept who we are; nothing was done.
	refused
	// throttled: NSX has too much to do; nothing was done.
	throttled
	// unsent: the call did not reach a manager; nothing was done.
	unsent
	// lost: there is no answer, or one that may change when the call is sent again; whether it was done is unknown.
	lost
	// broken: an answer that sending again does not change, and that leaves open whether it was done.
	broken
	// barred: we may not send it ourselves, now or in a moment; nothing was done.
	barred
)

// fateOf reads the fate from an answer other than success.
func fateOf(e *nsx.APIError) fate {
	switch e.Status {
	case http.StatusTooManyRequests:
		return throttled
	case http.StatusUnauthorized:
		return refused
	case http.StatusForbidden:
		if e.Code == codeTooManyRequests || e.Code == codeCredentials {
			return refused
		}
	case http.StatusInternalServerError:
		switch e.Code {
		case codeCertificate:
			return answered
		case codeReconfiguring:
			return lost
		}
		return broken
	case http.StatusServiceUnavailable:
		if e.Code == codeTooManyRequests || e.Code == codeOverloaded || e.RetryAfter > 0 {
			return throttled
		}
		return lost
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return lost
	}
	if e.Status >= 500 {
		return broken
	}
	return answered
}
