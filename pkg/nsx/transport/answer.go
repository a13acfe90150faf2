package transport

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

const (
	// maxBody bounds what is read of an answer: a page of 1000 objects takes a few MiB.
	maxBody = 64 << 20
	// maxMessage bounds the text taken from an NSX error, maxForeign that from a body that is not NSX's.
	maxMessage, maxForeign = 2000, 200
)

// NSX error codes that decide what an answer means; the HTTP status decides otherwise.
const (
	codeTooManyRequests = 98 // with 503: more than 40 requests at once; with 403: bad XSRF token
	codeCertificate     = 99 // with 500: the client certificate is not trusted
	codeStaleRevision   = 206
	codeCredentials     = 403 // bad credentials, a locked account, or a session that has ended
	codeOverloaded      = 604
	codeReconfiguring   = 607 // with 500: the manager cluster is being reconfigured
)

// Check makes one error of what RoundTrip, or an http.Client over it, has returned: err if there is one; an
// *nsx.APIError for an answer other than 2xx, whose body it reads and closes; nil for success, whose body is left to the
// caller to read and close.
func Check(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	if resp.StatusCode/100 == 2 {
		return nil
	}
	defer resp.Body.Close()
	// What can be read is enough: the status alone decides nearly everything.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return decode(resp, body)
}

// errorBody is NSX's own: {"httpStatus":"...","error_code":N,"module_name":"...","error_message":"...","related_errors":[]}.
type errorBody struct {
	Code    errorCode   `json:"error_code"`
	Message string      `json:"error_message"`
	Related []errorBody `json:"related_errors"`
}

// errorCode is a number, which some calls write as a string.
type errorCode int

func (c *errorCode) UnmarshalJSON(b []byte) error {
	// Anything else counts as no code: the status still says enough.
	if n, err := strconv.Atoi(strings.Trim(string(b), `"`)); err == nil {
		*c = errorCode(n)
	}
	return nil
}

func (b errorBody) messages() []string {
	var all []string
	if m := strings.TrimSpace(b.Message); m != "" {
		all = append(all, m)
	}
	for _, r := range b.Related {
		all = append(all, r.messages()...)
	}
	return all
}

// decode reads an answer other than success.
func decode(resp *http.Response, body []byte) *nsx.APIError {
	e := &nsx.APIError{Status: resp.StatusCode}
	if resp.Request != nil {
		e.Method, e.Path = resp.Request.Method, resp.Request.URL.Path
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, 1<<30)) * time.Second
	}
	// A field of a wrong type is an error that leaves the others decoded.
	var nsxBody errorBody
	_ = json.Unmarshal(body, &nsxBody)
	e.Code = int(nsxBody.Code)
	e.Message = cut(strings.Join(nsxBody.messages(), "; "), maxMessage)
	if e.Code == 0 && e.Message == "" {
		e.Message = cut(strings.TrimSpace(string(body[:min(len(body), 2*maxForeign)])), maxForeign)
	}
	e.Kind = kindOf(e)
	return e
}

// cut shortens a text to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// kindOf maps an answer other than success to its sentinel, by status and code alone.
func kindOf(e *nsx.APIError) error {
	switch fate := fateOf(e); {
	case fate == throttled:
		return nsx.ErrThrottled
	case (fate == lost || fate == broken) && isRead(e.Method):
		return nsx.ErrUnavailable
	case fate == lost || fate == broken:
		return nsx.ErrAmbiguous
	}
	switch {
	case e.Status/100 == 3:
		return nsx.ErrUnavailable
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden, e.Code == codeCertificate && e.Status == http.StatusInternalServerError:
		return nsx.ErrUnauthorized
	case e.Status == http.StatusNotFound:
		return nsx.ErrNotFound
	case e.Status == http.StatusPreconditionFailed, e.Status == http.StatusConflict && e.Code == codeStaleRevision:
		return nsx.ErrStaleRevision
	}
	return nsx.ErrInvalid
}

// isRead tells calls that change nothing: they may be sent as often as one likes, and pass the write gate.
func isRead(method string) bool {
	return method == "" || method == http.MethodGet || method == http.MethodHead
}

// isIdempotent tells calls that may be sent again although an earlier try may have been done.
func isIdempotent(method string) bool {
	return isRead(method) || method == http.MethodPut || method == http.MethodDelete
}

// secondsInRetryAfter rewrites a Retry-After that is a date into seconds from now, so that later readers need no clock.
func secondsInRetryAfter(h http.Header, now time.Time) {
	at, err := http.ParseTime(h.Get("Retry-After"))
	if err != nil {
		return
	}
	h.Set("Retry-After", fmt.Sprint(max(0, int64((at.Sub(now)+time.Second-1)/time.Second))))
}
