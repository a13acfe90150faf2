package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"k8s.io/utils/clock"
)

// Authentication is a way to present user name and password to NSX.
type Authentication string

const (
	// Session logs in once per manager and sends the session's cookie and token from then on.
	Session Authentication = "Session"
	// Basic sends user name and password with every call.
	Basic Authentication = "Basic"
)

// Credentials are a user name and a password. They print without the password.
type Credentials struct{ Username, Password string }

func (c Credentials) String() string { return c.Username + ":***" }

// GoString keeps the password out of %#v too.
func (c Credentials) GoString() string { return c.String() }

// Options are the settings of a Transport. Managers and either Credentials or ClientCertificate are required; the zero
// value of everything else is its default.
type Options struct {
	// Managers are the base URLs, https://host[:port], of the nodes of one NSX manager cluster. Plain http is for
	// loopback addresses only.
	Managers []string

	// Credentials reads user name and password. It is called again at every log-in, and with Basic whenever they were
	// refused, so that a rotated password is taken up.
	Credentials func(context.Context) (Credentials, error)
	// Authentication with these credentials; Session by default.
	Authentication Authentication
	// ClientCertificate authenticates in place of credentials. It is called for every new connection.
	ClientCertificate func() (*tls.Certificate, error)

	// RootCAs reads the authorities that verify the managers' certificates: at the start, and again whenever a
	// certificate is not trusted, so that a renewed authority is taken up. Nil for the system's. InsecureSkipVerify turns
	// verification off.
	RootCAs            func() (*x509.CertPool, error)
	InsecureSkipVerify bool

	// RequestsPerSecond is the rate in the long run, 60 by default; Burst how many may go out at once after a quiet
	// time, by default half of that. NSX refuses a user's calls above 100 in one second, in which both can fall.
	RequestsPerSecond float64
	Burst             int
	// MaxConcurrent calls wait for their answer at once; 20 by default. NSX allows a user 40.
	MaxConcurrent int
	// BackgroundPerSecond is the rate of Background calls, which come on top; by default a tenth of RequestsPerSecond. They
	// have no burst, and at most 2 are under way at once.
	BackgroundPerSecond float64
	// Timeout of one try, from sending to the last byte of the answer; 30 s by default.
	Timeout time.Duration

	// MaxStall is how long the process may have stood still (stopped, suspended) and still write; 0 for any time. With
	// leader election it is the lease's renew deadline: after that somebody else may be the leader.
	MaxStall time.Duration
	// OnStall, if set, is told of each such gap; writes are refused until ReopenWrites has been called for each. It must
	// not block.
	OnStall func(gap time.Duration)

	// Metrics count the calls; nil for none.
	Metrics *Metrics
	// UserAgent of every call.
	UserAgent string

	// Clock and Rand, which yields numbers in [0, 1) and is safe for concurrent use, are for tests. Base is the network
	// below, for tests too: with it, RootCAs, InsecureSkipVerify and ClientCertificate's connections are its own business.
	Clock clock.WithTicker
	Rand  func() float64
	Base  http.RoundTripper
}

// complete checks the options, fills in the defaults and parses the managers' URLs.
func (o *Options) complete() ([]*url.URL, error) {
	if o.Authentication == "" {
		o.Authentication = Session
	}
	if o.RequestsPerSecond == 0 {
		o.RequestsPerSecond = 60
	}
	if o.Burst == 0 {
		o.Burst = max(1, int(o.RequestsPerSecond/2))
	}
	if o.MaxConcurrent == 0 {
		o.MaxConcurrent = 20
	}
	if o.BackgroundPerSecond == 0 {
		o.BackgroundPerSecond = o.RequestsPerSecond / 10
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.UserAgent == "" {
		o.UserAgent = "cloud-provider-nsxt"
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.OnStall == nil {
		o.OnStall = func(time.Duration) {}
	}

	var errs []error
	if (o.Credentials == nil) == (o.ClientCertificate == nil) {
		errs = append(errs, errors.New("exactly one of Credentials and ClientCertificate is needed"))
	}
	if o.Authentication != Session && o.Authentication != Basic {
		errs = append(errs, fmt.Errorf("unknown authentication %q", o.Authentication))
	}
	if o.RequestsPerSecond < 0 || o.BackgroundPerSecond < 0 || o.Burst < 0 || o.MaxConcurrent < 0 || o.Timeout < 0 || o.MaxStall < 0 {
		errs = append(errs, errors.New("limits and time-outs cannot be negative"))
	}
	if len(o.Managers) == 0 {
		errs = append(errs, errors.New("no NSX manager given"))
	}
	var urls []*url.URL
	for _, m := range o.Managers {
		u, err := parseManager(m)
		if err != nil {
			errs = append(errs, fmt.Errorf("NSX manager %q: %w", m, err))
			continue
		}
		urls = append(urls, u)
	}
	return urls, errors.Join(errs...)
}

func parseManager(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("not an https URL")
	case u.Host == "":
		return nil, errors.New("no host")
	case u.User != nil:
		return nil, errors.New("credentials do not belong in a URL")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("more than a scheme, a host and a port")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, errors.New("plain http is for loopback addresses only")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
