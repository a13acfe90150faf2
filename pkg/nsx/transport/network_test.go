package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

// realServer serves TLS on loopback.
func realServer(t *testing.T, config *tls.Config, handler http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = config
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func realTransport(t *testing.T, o Options) *Transport {
	t.Helper()
	if o.Credentials == nil && o.ClientCertificate == nil {
		o.Credentials, o.Authentication = fixed, Basic
	}
	o.Rand = func() float64 { return 0 }
	tr, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close(context.Background()) })
	return tr
}

func rootsOf(s *httptest.Server) func() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return func() (*x509.CertPool, error) { return pool, nil }
}

func answerOK(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }

func TestTLSIsVerified(t *testing.T) {
	s := realServer(t, nil, answerOK)
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"unknown authority": {Options{}, "unavailable"},
		"known authority":   {Options{RootCAs: rootsOf(s)}, "ok"},
		"not verified":      {Options{InsecureSkipVerify: true}, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.Managers = []string{s.URL}
			tr := realTransport(t, tt.o)
			_, err := do(t.Context(), tr, "POST", aPool, "{}")
			if kinds(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			var unknown x509.UnknownAuthorityError
			if tt.want != "ok" && !errors.As(err, &unknown) {
				t.Errorf("%v does not say that the authority is unknown", err)
			}
		})
	}
}

// TestRenewedAuthority: a manager whose certificate comes from another authority is trusted as soon as the file says so.
func TestRenewedAuthority(t *testing.T) {
	s := realServer(t, nil, answerOK)
	var renewed, broken atomic.Bool
	reads := 0
	tr := realTransport(t, Options{Managers: []string{s.URL}, RootCAs: func() (*x509.CertPool, error) {
		reads++
		switch {
		case broken.Load():
			return nil, errors.New("half written")
		case renewed.Load():
			return rootsOf(s)()
		}
		return x509.NewCertPool(), nil
	}})
	if _, err := do(t.Context(), tr, "POST", aPool, "{}"); kinds(err) != "unavailable" {
		t.Errorf("before: %v, want unavailable", err)
	}
	broken.Store(true)
	if _, err := do(t.Context(), tr, "POST", aPool, "{}"); kinds(err) != "unavailable" {
		t.Errorf("while the file is being written: %v, want unavailable", err)
	}
	broken.Store(false)
	renewed.Store(true)
	if _, err := do(t.Context(), tr, "POST", aPool, "{}"); err != nil {
		t.Errorf("after: %v", err)
	}
	before := reads
	if _, err := do(t.Context(), tr, "POST", aPool, "{}"); err != nil || reads != before {
		t.Errorf("later: %v, and the file was read %d times more", err, reads-before)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	s := realServer(t, &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, answerOK)
	tr := realTransport(t, Options{Managers: []string{s.URL}, RootCAs: rootsOf(s)})
	if _, err := do(t.Context(), tr, "GET", aPool, ""); kinds(err) != "unavailable" {
		t.Errorf("got %v, want unavailable", err)
	}
}

func TestClientCertificate(t *testing.T) {
	first, second := selfSigned(t, "first"), selfSigned(t, "second")
	var accepted atomic.Pointer[x509.Certificate]
	accepted.Store(first.Leaf)
	s := realServer(t, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization")+r.Header.Get("Cookie") != "" {
			t.Error("another proof was sent")
		}
		if !r.TLS.PeerCertificates[0].Equal(accepted.Load()) {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	var current atomic.Pointer[tls.Certificate]
	current.Store(first)
	tr := realTransport(t, Options{Managers: []string{s.URL}, RootCAs: rootsOf(s), ClientCertificate: func() (*tls.Certificate, error) { return current.Load(), nil }})
	for range 2 {
		if _, err := do(t.Context(), tr, "PUT", aPool, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	// Rotated: the connection with the old one is refused, and the call goes out again with the new one.
	accepted.Store(second.Leaf)
	current.Store(second)
	if _, err := do(t.Context(), tr, "POST", aPool, "{}"); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	current.Store(first)
	tr.closeIdleConnections()
	if _, err := do(t.Context(), tr, "POST", aPool, "{}"); kinds(err) != "unauthorized" {
		t.Errorf("with the old one: %v, want unauthorized", err)
	}
}

func selfSigned(t *testing.T, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// pipes is a network in memory for connections: a listener, and the dialer for it.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, open := <-p; open {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p <- theirs
	return ours, nil
}

// TestConnectionIsReused makes calls with all kinds of answers, whose bodies are not all read by the caller. It does so in
// virtual time: net/http gives up a connection whose request it has not seen to be written 50 ms after the answer.
func TestConnectionIsReused(t *testing.T) {
	answers := []int{200, 404, 412, 400, 200, 500, 201}
	synctest.Test(t, func(t *testing.T) {
		n, connections, network := 0, 0, make(pipes)
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(answers[n%len(answers)])
			n++
			_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
		})}
		go func() { _ = s.Serve(network) }()
		defer s.Close()
		tr := realTransport(t, Options{Managers: []string{"http://localhost"}})
		tr.base.(*connector).current.Load().DialContext = func(ctx context.Context, kind, addr string) (net.Conn, error) {
			connections++
			return network.dial(ctx, kind, addr)
		}
		for range 2 * len(answers) {
			_, _ = tr.RoundTrip(request(t.Context(), "PUT", aPool, "{}"))
		}
		if n != 2*len(answers) || connections != 1 {
			t.Errorf("%d requests on %d connections, want %d on 1", n, connections, 2*len(answers))
		}
	})
}

// TestConnectionDies kills connections after the request has come, and before the answer.
func TestConnectionDies(t *testing.T) {
	for method, want := range map[string]struct {
		outcome string
		bodies  []string
	}{
		"GET":    {"ok", []string{"", ""}},
		"PUT":    {"ok", []string{"body", "body"}},
		"DELETE": {"ok", []string{"", ""}},
		"POST":   {"ambiguous", []string{"body"}},
	} {
		// On a fresh connection and on one that was used before, for which net/http has rules of its own.
		for _, used := range []bool{false, true} {
			t.Run(method, func(t *testing.T) {
				var mu sync.Mutex
				var bodies []string
				s := realServer(t, nil, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != aPool {
						return
					}
					b, _ := io.ReadAll(r.Body)
					mu.Lock()
					bodies = append(bodies, string(b))
					first := len(bodies) == 1
					mu.Unlock()
					if first {
						panic(http.ErrAbortHandler)
					}
				})
				tr := realTransport(t, Options{Managers: []string{s.URL}, RootCAs: rootsOf(s)})
				if used {
					if _, err := do(t.Context(), tr, "GET", "/warm-up", ""); err != nil {
						t.Fatal(err)
					}
				}
				body := want.bodies[0]
				if _, err := do(t.Context(), tr, method, aPool, body); kinds(err) != want.outcome {
					t.Errorf("got %v, want %s", err, want.outcome)
				}
				mu.Lock()
				defer mu.Unlock()
				if diff := cmp.Diff(want.bodies, bodies); diff != "" {
					t.Errorf("bodies that arrived (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestManagerIsDown fails over from a port where nobody listens, and which is given to nobody, with a POST too.
func TestManagerIsDown(t *testing.T) {
	s := realServer(t, nil, answerOK)
	tr := realTransport(t, Options{Managers: []string{"https://127.0.0.1:1", s.URL}, RootCAs: rootsOf(s)})
	if got, err := do(t.Context(), tr, "POST", aPool, "{}"); err != nil || got != "{}" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestRedirectIsNotFollowed goes through an http.Client, which follows redirects by itself when it gets to see one.
func TestRedirectIsNotFollowed(t *testing.T) {
	var followed atomic.Bool
	elsewhere := realServer(t, nil, func(http.ResponseWriter, *http.Request) { followed.Store(true) })
	var calls atomic.Int32
	s := realServer(t, nil, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		http.Redirect(w, r, elsewhere.URL+"/steal", http.StatusTemporaryRedirect)
	})
	tr := realTransport(t, Options{Managers: []string{s.URL}, RootCAs: rootsOf(s)})
	client := &http.Client{Transport: tr}
	for _, method := range []string{"GET", "PUT", "POST"} {
		resp, err := client.Do(request(t.Context(), method, aPool, "{}"))
		if err := Check(resp, err); kinds(err) != "unavailable" {
			t.Errorf("%s: got %v, want unavailable", method, err)
		}
	}
	if followed.Load() || calls.Load() != 3 {
		t.Errorf("followed: %v; %d calls, want 3", followed.Load(), calls.Load())
	}
}

// TestTimeoutOfATry lets the time be over when the manager has the request, however long the connection took.
func TestTimeoutOfATry(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	s := realServer(t, nil, func(_ http.ResponseWriter, r *http.Request) {
		clock.Step(time.Second)
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // an answer could still reach the client while it hangs up
	})
	tr := realTransport(t, Options{Managers: []string{s.URL}, RootCAs: rootsOf(s), Timeout: time.Second, Clock: clock})
	if _, err := do(t.Context(), tr, "POST", aPool, ""); kinds(err) != "ambiguous" || !errors.Is(err, errTimeout) {
		t.Errorf("got %v, want ambiguous for a time-out", err)
	}
}
