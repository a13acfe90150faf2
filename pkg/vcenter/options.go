package vcenter

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
	"k8s.io/utils/clock"
)

// The tag categories that hold a node's zone and region unless others are configured.
const (
	DefaultZoneCategory   = "k8s-zone"
	DefaultRegionCategory = "k8s-region"
)

// Options are the settings of a Client.
type Options struct {
	// Servers are the vCenters that may hold the cluster's nodes.
	Servers []Server
	// AllowLoopback keeps loopback addresses among the VMs' addresses.
	AllowLoopback bool
	// Timeout is the time for one question to one vCenter, log-in included. The default is 30 s.
	Timeout time.Duration
	// ZoneTTL is how long the tags of a host and of a VM are remembered. The default is one minute.
	ZoneTTL time.Duration
	// Clock is the time source for what is remembered. The default is the system's clock.
	Clock clock.PassiveClock
}

// Server is a vCenter.
type Server struct {
	// Address is a host, a host and port, or a URL such as https://vcenter.example.com/sdk.
	Address string
	// Credentials is asked at each log-in, so that a changed password is used without a restart.
	Credentials func(ctx context.Context) (user, password string, err error)
	// CA holds the certificates, in PEM, of the authorities to trust. The default is the system's authorities.
	CA []byte
	// Thumbprint, if set, is the SHA-256 or SHA-1 fingerprint of the server's certificate, in hexadecimal with or
	// without colons. A certificate that has it is trusted, no other is.
	Thumbprint string
	// Insecure accepts any certificate.
	Insecure bool
	// Datacenters are the inventory paths of the datacenters to search, such as dc-1 or folder/dc-1. The default
	// is the whole inventory.
	Datacenters []string
	// ZoneCategory and RegionCategory are the names of the tag categories of zones and regions. The defaults are
	// k8s-zone and k8s-region.
	ZoneCategory, RegionCategory string
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.ZoneTTL <= 0 {
		o.ZoneTTL = time.Minute
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

// endpoint is the URL of the server's SDK, without credentials. Its errors do not show an address that may hold
// some.
func (s Server) endpoint() (*url.URL, error) {
	u, err := soap.ParseURL(s.Address)
	switch {
	case err != nil:
		return nil, errors.New("the address is not a host or a URL")
	case u == nil || u.Hostname() == "":
		return nil, errors.New("the address names no host")
	case u.User.String() != ":":
		return nil, errors.New("the address holds credentials, which belong elsewhere")
	}
	u.User = nil
	if u.Scheme != "https" {
		return nil, fmt.Errorf("the address %s is not https, and a password must not go over an open connection", u)
	}
	return u, nil
}

// tlsConfig says which certificates of the server are trusted.
func (s Server) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.Insecure}
	if s.Thumbprint != "" {
		want := strings.ToUpper(strings.ReplaceAll(s.Thumbprint, ":", ""))
		if len(want) != 40 && len(want) != 64 {
			return nil, errors.New("the thumbprint is neither SHA-256 nor SHA-1: it has not 64 or 40 digits")
		}
		config.InsecureSkipVerify = true // the thumbprint is verified in place of the chain
		config.VerifyConnection = func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			for _, got := range []string{soap.ThumbprintSHA256(leaf), soap.ThumbprintSHA1(leaf)} {
				if strings.ReplaceAll(got, ":", "") == want {
					return nil
				}
			}
			return fmt.Errorf("the server's certificate has the thumbprint %s, not the configured one", soap.ThumbprintSHA256(leaf))
		}
	}
	if len(s.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(s.CA) {
			return nil, errors.New("the CA holds no certificate in PEM")
		}
	}
	return config, nil
}
