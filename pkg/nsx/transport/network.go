package transport

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// connector is the http.RoundTripper below: connections, TLS and their reuse. It makes new connections by other
// authorities when those that it knows do not vouch for a manager.
type connector struct {
	make    func() (*http.Transport, error)
	current atomic.Pointer[http.Transport]
}

// newNetwork reads the authorities for the first time.
func (o *Options) newNetwork() (http.RoundTripper, error) {
	if o.Base != nil {
		return o.Base, nil
	}
	n := &connector{make: o.connections}
	first, err := n.make()
	if err != nil {
		return nil, err
	}
	n.current.Store(first)
	return n, nil
}

// connections to the managers, by the authorities as they are now.
func (o *Options) connections() (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.InsecureSkipVerify}
	if o.RootCAs != nil {
		var err error
		if config.RootCAs, err = o.RootCAs(); err != nil {
			return nil, err
		}
	}
	if o.ClientCertificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return o.ClientCertificate()
		}
	}
	// HTTP/1.1 alone: with it, and a body that can be rewound, net/http sends a write again only if not a byte of it had
	// been written.
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: o.MaxConcurrent,
		IdleConnTimeout:     90 * time.Second,
	}, nil
}

// RoundTrip implements http.RoundTripper.
func (n *connector) RoundTrip(req *http.Request) (*http.Response, error) {
	t := n.current.Load()
	resp, err := t.RoundTrip(req)
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		// The authority may have been renewed. The next try, for this one sent nothing, goes by what is known then; a file
		// that cannot be read, perhaps because it is being written, changes nothing.
		if fresh, err := n.make(); err == nil && n.current.CompareAndSwap(t, fresh) {
			t.CloseIdleConnections()
		}
	}
	return resp, err
}

// CloseIdleConnections is what http.Client calls it.
func (n *connector) CloseIdleConnections() { n.current.Load().CloseIdleConnections() }
