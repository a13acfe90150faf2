package dataplane

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// TLS is one side of TLS, as an SSL profile and its binding have it.
type TLS struct {
	// Certificates shown to the peer: to clients the one that fits the name they ask for, else the first; to members
	// the first, if they ask for one.
	Certificates []Certificate
	// VerifyPeer: the peer must show a certificate that one of CAs has signed. Its names are not looked at: members
	// are addresses.
	VerifyPeer bool
	CAs        string // PEM
	ChainDepth int    // intermediate certificates at most; 0: 3
	// Ciphers by their IANA names; empty: what the host thinks right. Those that it does not know are left out.
	Ciphers []string
	// Protocols in NSX's words; empty: TLS_V1_1 and TLS_V1_2. SSL is left out, as nobody should speak it.
	Protocols []string
}

// Certificate is a certificate with those that lead to its authority, and its key.
type Certificate struct {
	Chain string // PEM
	Key   Secret // PEM
}

// Secret is never printed.
type Secret string

func (Secret) String() string   { return "(secret)" }
func (Secret) GoString() string { return `"(secret)"` }

// toClient is the side that clients talk to.
func (t *TLS) toClient() (*tls.Config, error) {
	config, authorities, err := t.config()
	if err != nil {
		return nil, err
	}
	if len(config.Certificates) == 0 {
		return nil, fmt.Errorf("no certificate with a key: %w", ErrInvalid)
	}
	if t.VerifyPeer {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, authorities
		config.VerifyConnection = func(s tls.ConnectionState) error { return t.checkDepth(s.VerifiedChains) }
	}
	return config, nil
}

// toServer is the side that talks to members.
func (t *TLS) toServer() (*tls.Config, error) {
	config, authorities, err := t.config()
	if err != nil {
		return nil, err
	}
	config.InsecureSkipVerify = true // what is to be verified, VerifyConnection does: without names
	if t.VerifyPeer {
		config.VerifyConnection = func(s tls.ConnectionState) error {
			others := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				others.AddCert(c)
			}
			chains, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: authorities, Intermediates: others})
			if err != nil {
				return err
			}
			return t.checkDepth(chains)
		}
	}
	return config, nil
}

func (t *TLS) config() (*tls.Config, *x509.CertPool, error) {
	config := &tls.Config{}
	for _, c := range t.Certificates {
		pair, err := tls.X509KeyPair([]byte(c.Chain), []byte(c.Key))
		if err != nil {
			return nil, nil, fmt.Errorf("certificate: %w: %w", err, ErrInvalid)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	if config.MinVersion, config.MaxVersion = versions(t.Protocols); config.MinVersion == 0 {
		return nil, nil, fmt.Errorf("protocols %v: none is TLS: %w", t.Protocols, ErrInvalid)
	}
	for _, suite := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if slices.Contains(t.Ciphers, suite.Name) {
			config.CipherSuites = append(config.CipherSuites, suite.ID)
		}
	}
	if len(t.Ciphers) > 0 && len(config.CipherSuites) == 0 {
		return nil, nil, fmt.Errorf("ciphers %v: none is known here: %w", t.Ciphers, ErrInvalid)
	}
	authorities := x509.NewCertPool()
	if t.VerifyPeer && !authorities.AppendCertsFromPEM([]byte(t.CAs)) {
		return nil, nil, fmt.Errorf("no certificate authority to verify with: %w", ErrInvalid)
	}
	return config, authorities, nil
}

// protocolNames are those of NSX, from TLS 1.0 on.
var protocolNames = [...]string{"TLS_V1", "TLS_V1_1", "TLS_V1_2"}

// protocolName is NSX's name of a TLS version; "": it has none.
func protocolName(version uint16) string {
	if i := int(version) - tls.VersionTLS10; i >= 0 && i < len(protocolNames) {
		return protocolNames[i]
	}
	return ""
}

// versions gives the lowest and highest TLS version of NSX's protocols; zero: there is none.
func versions(protocols []string) (lowest, highest uint16) {
	if len(protocols) == 0 {
		return tls.VersionTLS11, tls.VersionTLS12
	}
	for i, name := range protocolNames {
		if slices.Contains(protocols, name) {
			highest = tls.VersionTLS10 + uint16(i)
			if lowest == 0 {
				lowest = highest
			}
		}
	}
	return lowest, highest
}

// checkDepth refuses a peer all of whose chains are too long.
func (t *TLS) checkDepth(chains [][]*x509.Certificate) error {
	depth := t.ChainDepth
	if depth == 0 {
		depth = 3
	}
	for _, chain := range chains {
		if len(chain)-2 <= depth {
			return nil
		}
	}
	return errors.New("the certificate chain is too long")
}

func (t *TLS) clone() *TLS {
	if t == nil {
		return nil
	}
	c := *t
	c.Certificates, c.Ciphers, c.Protocols = slices.Clone(t.Certificates), slices.Clone(t.Ciphers), slices.Clone(t.Protocols)
	return &c
}
