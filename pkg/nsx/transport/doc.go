// Package transport is the one http.RoundTripper through which every call to NSX goes. It owns what all calls share:
// authentication, TLS, rate and concurrency limits, priorities, retries, fail-over between managers, the write gate,
// metrics, and telling a definite answer from an unknown outcome.
//
// RoundTrip returns a response only for a definite answer of NSX (2xx, 4xx, and the throttling and certificate answers
// among the 5xx); Check turns those that are no success into an *nsx.APIError. Whatever is not definite is an error that
// wraps one of the sentinels of pkg/nsx. A write that NSX may have done, although nobody can say so, is
// nsx.ErrAmbiguous, whatever else the error is: callers look for that one first.
//
// It knows nothing of NSX's objects, and it never sends a POST again that may have reached a manager.
package transport
