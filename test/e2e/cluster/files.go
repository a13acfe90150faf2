package cluster

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

//go:embed templates
var templates embed.FS

// render fills a template in. A value that it names and does not get is an error.
func render(name string, values any) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{
		"indent": func(text []byte) string {
			return "    " + strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "\n    ")
		},
		"json": func(v any) (string, error) {
			text, err := json.Marshal(v)
			return string(text), err
		},
	}).ParseFS(templates, "templates/"+name)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, values); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// nodeValues are what the templates of a node's files name.
type nodeValues struct {
	Name, Dir, CAFile, Cgroup   string
	Pods, AllPods               netip.Prefix
	ClusterDNS                  netip.Addr
	ProxyMode                   string
	PauseImage, CNIBinDir, Runc string
}

// nodeFiles are the templates of a node, by the names that their results have in the node's directory.
var nodeFiles = map[string]string{
	"containerd.toml":     "containerd.toml",
	"cni/10-e2e.conflist": "cni.conflist",
	"kubelet.yaml":        "kubelet.yaml",
	"kube-proxy.yaml":     "kube-proxy.yaml",
}

func (v nodeValues) write() error {
	for name, source := range nodeFiles {
		text, err := render(source, v)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(v.Dir, name), text); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes a file for this user alone, in a directory made when missing.
func writeFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// contextName is the name of the context, cluster and user in all kubeconfigs.
const contextName = "nsxt-e2e"

// kubeconfig is a kubeconfig for the owner of a certificate.
func kubeconfig(ca []byte, owner keyPair) ([]byte, error) {
	return clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{contextName: {
			Server: fmt.Sprintf("https://%s:%d", controlPlane, apiServerPort), CertificateAuthorityData: ca,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{contextName: {
			ClientCertificateData: owner.certificate, ClientKeyData: owner.key,
		}},
		Contexts:       map[string]*clientcmdapi.Context{contextName: {Cluster: contextName, AuthInfo: contextName}},
		CurrentContext: contextName,
	})
}

// writeKubeconfig makes a kubeconfig for somebody new.
func (a *authority) writeKubeconfig(path string, id identity) error {
	pair, err := a.issue(id)
	if err != nil {
		return err
	}
	text, err := kubeconfig(a.pem(), pair)
	if err != nil {
		return err
	}
	return writeFile(path, text)
}
