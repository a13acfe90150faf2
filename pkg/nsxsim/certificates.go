package nsxsim

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// Certificates that virtual servers and monitors refer to: imported as PEM, shown
// with their details, never changed. A private key is checked against its
// certificate and kept apart from the document, where
// nobody sees it but the data plane.

func parseCertificates(text string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("no certificate is in it")
	}
	return certs, nil
}

func checkCertificates(v any) string {
	if _, err := parseCertificates(v.(string)); err != nil {
		return "must be PEM-encoded certificates"
	}
	return ""
}

// certificateType derives the resource type from the certificate, whatever the
// client calls it.
func certificateType(doc document) {
	certs, err := parseCertificates(doc.str("pem_encoded"))
	resource := "certificate_signed"
	switch {
	case err != nil: // told by the checks
	case certs[0].IsCA:
		resource = "certificate_ca"
	case certs[0].Issuer.String() == certs[0].Subject.String():
		resource = "certificate_self_signed"
	}
	doc.set("resource_type", resource)
}

func checkCertificate(c *change) *Error {
	text := c.doc.str("pem_encoded")
	if key := c.doc.str("private_key"); key != "" {
		if _, err := tls.X509KeyPair([]byte(text), []byte(key)); err != nil {
			return invalid("private_key must be PEM and the certificate's")
		}
		c.certificateKeys[c.id] = dataplane.Secret(key)
	}
	delete(c.doc, "private_key")
	delete(c.doc, "passphrase")
	certs, err := parseCertificates(text)
	if err != nil {
		return invalid("pem_encoded must be PEM-encoded certificates")
	}
	var details []map[string]any
	now := c.clock.Now()
	for _, cert := range certs {
		algorithm, bits := publicKey(cert)
		details = append(details, map[string]any{
			"subject": cert.Subject.String(), "subject_cn": cert.Subject.CommonName,
			"issuer": cert.Issuer.String(), "issuer_cn": cert.Issuer.CommonName,
			"not_before": cert.NotBefore.UnixMilli(), "not_after": cert.NotAfter.UnixMilli(),
			"is_ca": cert.IsCA, "is_valid": !now.Before(cert.NotBefore) && !now.After(cert.NotAfter),
			"serial_number": cert.SerialNumber.Text(16), "version": fmt.Sprint(cert.Version),
			"signature_algorithm": cert.SignatureAlgorithm.String(),
			"public_key_algo":     algorithm, "public_key_length": bits,
		})
	}
	c.doc.set("details", details)
	c.doc.set("used_by", []any{})
	return nil
}

func publicKey(cert *x509.Certificate) (algorithm string, bits int) {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		bits = key.N.BitLen()
	case *ecdsa.PublicKey:
		bits = key.Curve.Params().BitSize
	}
	return strings.ToUpper(cert.PublicKeyAlgorithm.String()), bits
}

// importCertificate serves POST /trust-management/certificates?action=import: the
// certificates of the PEM become one object, answered in a list.
func importCertificate(r *request) (*response, *Error) {
	o, err := r.create()
	if err != nil {
		return nil, err
	}
	return &response{status: http.StatusCreated, body: encode(listDocument([]any{r.sim.answer(r.author.user, o)}))}, nil
}
