package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	nsxt "github.com/vmware/go-vmware-nsxt"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/transport"
)

// client makes the calls: raw documents for what is shared or must survive byte for byte, the SDK for the rest.
type client struct {
	rt http.RoundTripper
	// own are the users as which NSX knows us.
	own *users
}

// users are names of NSX users.
type users struct {
	mu    sync.Mutex
	names map[string]bool
}

// learn takes the user from the answer to a write of ours, which has made it the object's last.
func (u *users) learn(answer []byte) {
	var h header
	if json.Unmarshal(answer, &h) != nil || h.ModifiedUser == "" {
		return // no object
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names == nil {
		u.names = map[string]bool{}
	}
	u.names[h.ModifiedUser] = true
}

func (u *users) is(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.names[name]
}

// anyManager stands for whichever manager node the transport picks.
const anyManager = "https://nsx"

// do sends one request below /api/v1 and gives back the body of a successful answer. body may be nil, raw JSON, or
// anything that marshals.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body any) ([]byte, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding the body of %s %s: %w", method, path, err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, anyManager+"/api/v1"+path, payload)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.URL.RawQuery = query.Encode()
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.rt.RoundTrip(req)
	answer, err := read(req, resp, err)
	if err == nil && method != http.MethodGet {
		c.own.learn(answer)
	}
	return answer, err
}

// read takes the body of a successful answer; any other becomes an error.
func read(req *http.Request, resp *http.Response, err error) ([]byte, error) {
	if err := transport.Check(resp, err); err != nil {
		return nil, err // says itself which call it was
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		kind := nsx.ErrUnavailable
		if req.Method != http.MethodGet {
			kind = nsx.ErrAmbiguous
		}
		return nil, fmt.Errorf("reading the answer: %w: %w", kind, err)
	}
	return b, nil
}

// get reads one object.
func (c *client) get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, nil, nil)
}

// remove deletes one object. One that is gone already is no error: somebody, perhaps an earlier try of ours, did it.
func (c *client) remove(ctx context.Context, path string, query url.Values) error {
	_, err := c.do(ctx, http.MethodDelete, path, query, nil)
	if errors.Is(err, nsx.ErrNotFound) {
		return nil
	}
	return err
}

// page is one page of a list.
type page struct {
	Cursor  string            `json:"cursor"`
	Results []json.RawMessage `json:"results"`
}

// list reads all pages of a list. A page that fails fails the whole: a part of a list is never taken for all of it.
func (c *client) list(ctx context.Context, path string, query url.Values) ([]json.RawMessage, error) {
	var all []json.RawMessage
	q := url.Values{"page_size": {"1000"}}
	for k, v := range query {
		q[k] = v
	}
	seen := map[string]bool{}
	for {
		b, err := c.do(ctx, http.MethodGet, path, q, nil)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", path, err)
		}
		var p page
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, fmt.Errorf("listing %s: decoding a page: %w: %w", path, nsx.ErrUnavailable, err)
		}
		all = append(all, p.Results...)
		// The last page has no cursor, or one that starts with 0000.
		if p.Cursor == "" || strings.HasPrefix(p.Cursor, "0000") {
			return all, nil
		}
		if seen[p.Cursor] {
			return nil, fmt.Errorf("listing %s: %w: the cursor %q comes again", path, nsx.ErrUnavailable, p.Cursor)
		}
		seen[p.Cursor] = true
		q.Set("cursor", p.Cursor)
	}
}

// sdk runs one SDK call and gives back the body of its answer. What the call means is judged by the answer itself: the
// SDK drops bodies, ignores contexts and sends again what it got no answer to, so it gets a client of its own, with a
// round tripper that carries ctx, records the answer and never leaves the SDK without one.
func (c *client) sdk(ctx context.Context, call func(ctx context.Context, api *nsxt.APIClient) error) ([]byte, error) {
	rec := &recorder{ctx: ctx, rt: c.rt}
	api, err := nsxt.NewAPIClient(&nsxt.Configuration{
		BasePath:        anyManager + "/api/v1",
		Host:            "nsx",
		Scheme:          "https",
		SkipSessionAuth: true,
		DefaultHeader:   map[string]string{},
		UserAgent:       "cloud-provider-nsxt",
		HTTPClient:      &http.Client{Transport: rec, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	})
	if err != nil {
		return nil, fmt.Errorf("making an NSX client: %w", err)
	}
	err = call(ctx, api)
	if !rec.done {
		return nil, fmt.Errorf("preparing the call: %w", err)
	}
	if rec.err == nil && rec.method != http.MethodGet {
		c.own.learn(rec.body)
	}
	return rec.body, rec.err
}

// recorder is the round tripper of one SDK call.
type recorder struct {
	ctx  context.Context
	rt   http.RoundTripper
	done bool
	// method of the request, and what became of it.
	method string
	body   []byte
	err    error
}

// RoundTrip sends the request once. The SDK sees a copy of the answer, or a 500 in place of none.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.done {
		return stub(req, http.StatusInternalServerError, nil), nil
	}
	r.done, r.method = true, req.Method
	req = req.WithContext(r.ctx)
	req.Header.Del("Authorization")
	resp, err := r.rt.RoundTrip(req)
	status := http.StatusInternalServerError
	if err == nil {
		status = resp.StatusCode
	}
	r.body, r.err = read(req, resp, err)
	return stub(req, status, r.body), nil
}

func stub(req *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: req,
	}
}
