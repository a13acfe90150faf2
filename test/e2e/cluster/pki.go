package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// certificateLife is longer than anybody keeps a cluster; clocks may differ by an hour.
const certificateLife = 30 * 24 * time.Hour

// authority signs all certificates of a cluster: those of Kubernetes' parts, of NSX and of vCenter.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	certificate, err := certutil.NewSelfSignedCACert(certutil.Config{CommonName: "nsxt-e2e"}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return &authority{certificate, key}, nil
}

// pem is the certificate that others trust.
func (a *authority) pem() []byte { return encodeCertificate(a.certificate.Raw) }

// identity says whom a certificate is for.
type identity struct {
	name   string
	groups []string
	// addresses and names that it serves; without any, it is for clients only.
	addresses []netip.Addr
	hosts     []string
}

// keyPair is a certificate and its key, in PEM.
type keyPair struct{ certificate, key []byte }

// tls is the pair for a server in this process.
func (k keyPair) tls() (tls.Certificate, error) { return tls.X509KeyPair(k.certificate, k.key) }

// write writes the pair to DIR/NAME.crt and DIR/NAME.key.
func (k keyPair) write(dir, name string) error {
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), k.certificate, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), k.key, 0o600)
}

// issue makes a key and a certificate for it.
func (a *authority) issue(id identity) (keyPair, error) {
	pair, err := a.sign(id)
	if err != nil {
		return keyPair{}, fmt.Errorf("certificate of %s: %w", id.name, err)
	}
	return pair, nil
}

func (a *authority) sign(id identity) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return keyPair{}, err
	}
	template := x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: id.name, Organization: id.groups},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(certificateLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:     id.hosts,
	}
	for _, address := range id.addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	if len(id.addresses)+len(id.hosts) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, a.certificate, key.Public(), a.key)
	if err != nil {
		return keyPair{}, err
	}
	keyPEM, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{encodeCertificate(der), keyPEM}, nil
}

// writeForControlPlane writes what the control plane finds in its directory and then keeps: the authority, and the key
// that signs the tokens of ServiceAccounts.
func (a *authority) writeForControlPlane(dir string) error {
	key, err := keyutil.MarshalPrivateKeyToPEM(a.key)
	if err != nil {
		return err
	}
	if err := (keyPair{a.pem(), key}).write(dir, "ca"); err != nil {
		return err
	}
	tokens, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err = keyutil.MarshalPrivateKeyToPEM(tokens)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "sa.key"), key, 0o600)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: der})
}
