package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/utils/clock"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sent is one request as a network has seen it.
type sent struct {
	method, host, path, body string
	header                   http.Header
	at                       time.Time
}

// network is a network in memory: a function answers each request, which is noted down.
type network struct {
	clock  clock.PassiveClock
	answer func(n int, req *http.Request) (*http.Response, error)

	mu   sync.Mutex
	sent []sent
}

func (n *network) RoundTrip(req *http.Request) (*http.Response, error) {
	s := sent{method: req.Method, host: req.URL.Host, path: req.URL.Path, header: req.Header, at: n.clock.Now()}
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		s.body = string(b)
	}
	n.mu.Lock()
	n.sent = append(n.sent, s)
	count := len(n.sent)
	n.mu.Unlock()
	return n.answer(count, req)
}

func (n *network) all() []sent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]sent(nil), n.sent...)
}

// connect goes through the motions of getting a connection.
func connect(req *http.Request, ok bool) {
	trace := httptrace.ContextClientTrace(req.Context())
	if trace == nil {
		return
	}
	trace.GetConn(req.URL.Host)
	if ok {
		trace.GotConn(httptrace.GotConnInfo{})
	}
}

// The ways in which a network can answer.

func status(code int, body string, header ...string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		connect(req, true)
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Add(header[i], header[i+1])
		}
		return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
}

func nsxError(code, nsxCode int, header ...string) func(*http.Request) (*http.Response, error) {
	return status(code, fmt.Sprintf(`{"error_code":%d,"error_message":"why"}`, nsxCode), header...)
}

var errNetwork = errors.New("the network failed")

func dialFails(req *http.Request) (*http.Response, error) {
	connect(req, false)
	return nil, errNetwork
}

func answerLost(req *http.Request) (*http.Response, error) {
	connect(req, true)
	return nil, errNetwork
}

// staleThenNone is what net/http does with a connection found closed before a byte was written: it dials anew.
func staleThenNone(req *http.Request) (*http.Response, error) {
	connect(req, true)
	return dialFails(req)
}

func answerBreaksOff(req *http.Request) (*http.Response, error) {
	resp, _ := status(200, "")(req)
	resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"id":`), failingReader{}))
	return resp, nil
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errNetwork }

func hangs(req *http.Request) (*http.Response, error) {
	connect(req, true)
	<-req.Context().Done()
	return nil, context.Cause(req.Context())
}

func hangsDialling(req *http.Request) (*http.Response, error) {
	connect(req, false)
	<-req.Context().Done()
	return nil, context.Cause(req.Context())
}

// fixed are credentials that do not change.
func fixed(context.Context) (Credentials, error) {
	return Credentials{"admin", "pa&ss=wörd"}, nil
}

// newTransport makes a transport over a network in memory, with Basic authentication and limits that are not felt,
// unless the options say otherwise. The test's end closes it.
func newTransport(t *testing.T, o Options, answer func(n int, req *http.Request) (*http.Response, error)) (*Transport, *network) {
	t.Helper()
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Managers == nil {
		o.Managers = []string{"https://a.example"}
	}
	if o.Credentials == nil && o.ClientCertificate == nil {
		o.Credentials = fixed
	}
	if o.Authentication == "" {
		o.Authentication = Basic
	}
	if o.RequestsPerSecond == 0 {
		o.RequestsPerSecond = 1e6
	}
	if o.Rand == nil {
		o.Rand = func() float64 { return 1 }
	}
	n := &network{clock: o.Clock, answer: answer}
	if o.Base == nil {
		o.Base = n
	}
	tr, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close(context.Background()) })
	return tr, n
}

func always(f func(*http.Request) (*http.Response, error)) func(int, *http.Request) (*http.Response, error) {
	return func(_ int, req *http.Request) (*http.Response, error) { return f(req) }
}

// request makes a request as the SDK does: with a host that means nothing.
func request(ctx context.Context, method, path, body string) *http.Request {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://nsx"+path, r)
	if err != nil {
		panic(err)
	}
	return req
}

const aPool = "/api/v1/loadbalancer/pools/p-1"

// do makes a call and returns the body and the error of Check.
func do(ctx context.Context, tr *Transport, method, path, body string) (string, error) {
	resp, err := tr.RoundTrip(request(ctx, method, path, body))
	if err := Check(resp, err); err != nil {
		return "", err
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	return string(b), err
}

// kinds names the sentinels that an error wraps.
func kinds(err error) string {
	if err == nil {
		return "ok"
	}
	var names []string
	for _, k := range []struct {
		err  error
		name string
	}{
		{nsx.ErrNotFound, "not-found"},
		{nsx.ErrStaleRevision, "stale"},
		{nsx.ErrThrottled, "throttled"},
		{nsx.ErrUnauthorized, "unauthorized"},
		{nsx.ErrInvalid, "invalid"},
		{nsx.ErrUnavailable, "unavailable"},
		{nsx.ErrAmbiguous, "ambiguous"},
		{nsx.ErrStopping, "stopping"},
		{context.Canceled, "canceled"},
		{context.DeadlineExceeded, "deadline"},
	} {
		if errors.Is(err, k.err) {
			names = append(names, k.name)
		}
	}
	return strings.Join(names, "+")
}

// someCertificate has the transport authenticate by the connection, which a network in memory does not need.
func someCertificate() (*tls.Certificate, error) { return &tls.Certificate{}, nil }
