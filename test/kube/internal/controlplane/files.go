package controlplane

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app/apis/kubeadm"
	"k8s.io/kubernetes/cmd/kubeadm/app/constants"
	kubeconfigutil "k8s.io/kubernetes/cmd/kubeadm/app/util/kubeconfig"
	"k8s.io/kubernetes/cmd/kubeadm/app/util/pkiutil"
)

// What lies in the state directory, which is the working directory. The key pairs are named as kubeadm names them.
const (
	caName             = "ca"
	servingName        = "apiserver"
	serviceAccountName = "sa"
	tokenFile          = "tokens.csv"

	kubeconfigFile              = "kubeconfig" // the user's; there once the API server is ready
	controllerManagerKubeconfig = "controller-manager.kubeconfig"
	schedulerKubeconfig         = "scheduler.kubeconfig"
)

// The users who have a token.
const (
	adminUser             = "kubernetes-admin"
	controllerManagerUser = "system:kube-controller-manager"
	schedulerUser         = "system:kube-scheduler"
)

func certFile(name string) string { return name + ".crt" }
func keyFile(name string) string  { return name + ".key" }

// files are the credentials of one control plane.
type files struct {
	server string // URL of the API server
	ca     []byte // PEM
	tokens map[string]string
}

// prepareFiles makes what the components need to find in the working directory, for an API server at address. The
// certificate authority, the tokens and the key that signs ServiceAccount tokens are kept when they exist.
func prepareFiles(address *net.TCPAddr, serviceRange string) (*files, error) {
	if err := os.Remove(kubeconfigFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ca, err := prepareKeys(address.IP, serviceRange)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	tokens, err := prepareTokens()
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	f := &files{server: "https://" + address.String(), ca: ca, tokens: tokens}
	if err := f.writeKubeconfig(controllerManagerKubeconfig, controllerManagerUser); err != nil {
		return nil, err
	}
	if err := f.writeKubeconfig(schedulerKubeconfig, schedulerUser); err != nil {
		return nil, err
	}
	return f, nil
}

// prepareKeys makes the certificate authority, whose certificate it returns, the serving certificate of an API server at ip,
// and the ServiceAccount key.
func prepareKeys(ip net.IP, serviceRange string) (ca []byte, err error) {
	const algorithm = kubeadm.EncryptionAlgorithmECDSAP256 // RSA keys take a second to make
	caCert, caKey, err := pkiutil.TryLoadCertAndKeyFromDisk(".", caName)
	if errors.Is(err, fs.ErrNotExist) {
		caCert, caKey, err = pkiutil.NewCertificateAuthority(&pkiutil.CertConfig{
			Config: certutil.Config{CommonName: "kubernetes"}, EncryptionAlgorithm: algorithm,
		})
		if err != nil {
			return nil, err
		}
		if err := pkiutil.WriteCertAndKey(".", caName, caCert, caKey); err != nil {
			return nil, err
		}
		key, err := pkiutil.GeneratePrivateKey(algorithm)
		if err != nil {
			return nil, err
		}
		if err := pkiutil.WriteKey(".", serviceAccountName, key); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}

	serviceIP, err := constants.GetAPIServerVirtualIP(serviceRange)
	if err != nil {
		return nil, err
	}
	cert, key, err := pkiutil.NewCertAndKey(caCert, caKey, &pkiutil.CertConfig{
		Config: certutil.Config{
			CommonName: "kube-apiserver",
			Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			AltNames: certutil.AltNames{
				IPs:      []net.IP{ip, serviceIP},
				DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			},
		},
		EncryptionAlgorithm: algorithm,
	})
	if err != nil {
		return nil, err
	}
	if err := pkiutil.WriteCertAndKey(".", servingName, cert, key); err != nil {
		return nil, err
	}
	return pkiutil.EncodeCertPEM(caCert), nil
}

// prepareTokens makes kube-apiserver's token file, unless it exists, and returns the token of each user in it.
func prepareTokens() (map[string]string, error) {
	content, err := os.ReadFile(tokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		for _, user := range []string{adminUser, controllerManagerUser, schedulerUser} {
			group := ""
			if user == adminUser {
				group = "system:masters"
			}
			content = fmt.Appendf(content, "%s,%s,%s,%s\n", rand.Text(), user, user, group)
		}
		err = os.WriteFile(tokenFile, content, 0o600)
	}
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(bytes.NewReader(content)).ReadAll()
	if err != nil {
		return nil, err
	}
	tokens := map[string]string{}
	for _, row := range rows {
		tokens[row[1]] = row[0]
	}
	return tokens, nil
}

// writeKubeconfig writes a kubeconfig for user, so that a reader finds either none or a complete one.
func (f *files) writeKubeconfig(name, user string) error {
	config := kubeconfigutil.CreateWithToken(f.server, "kubernetes", user, f.ca, f.tokens[user])
	tmp := name + ".tmp"
	if err := clientcmd.WriteToFile(*config, tmp); err != nil { // 0600
		return fmt.Errorf("kubeconfig: %w", err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return nil
}

// restConfig lets this process talk to the API server as user.
func (f *files) restConfig(user string) *rest.Config {
	return &rest.Config{Host: f.server, BearerToken: f.tokens[user], TLSClientConfig: rest.TLSClientConfig{CAData: f.ca}}
}
