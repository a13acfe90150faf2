package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestNodeFiles(t *testing.T) {
	v := nodeValues{
		Name: "node-1", Dir: t.TempDir(), CAFile: "/ca.crt", Cgroup: "nsxt-e2e-1-node-1",
		Pods: netip.MustParsePrefix("10.244.1.0/24"), AllPods: pods, ClusterDNS: clusterDNS, ProxyMode: IPTables,
		PauseImage: pauseImage, CNIBinDir: "/bin/cni", Runc: "/bin/runc",
	}
	if err := v.write(); err != nil {
		t.Fatal(err)
	}
	for name := range nodeFiles {
		text := must(os.ReadFile(filepath.Join(v.Dir, name)))(t)
		golden(t, filepath.Base(name), strings.ReplaceAll(string(text), v.Dir, "DIR"))
		if ext := filepath.Ext(name); ext == ".yaml" || ext == ".conflist" {
			var document map[string]any
			if err := yaml.UnmarshalStrict(text, &document); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestCloudConfig: the controller takes the config, and secrets need no quoting by hand.
func TestCloudConfig(t *testing.T) {
	a := must(newAuthority())(t)
	text := must(render("cloud-config.yaml", map[string]any{
		"NSX": "https://10.200.0.1", "NSXUser": "admin", "NSXPassword": `it's "secret": yes`,
		"VCenter": "https://10.200.0.2", "VCenterUser": "user@vsphere.local", "VCenterPassword": "# no comment",
		"CA": a.pem(), "LAN": lan, "Pool": ipPool, "LBService": lbService,
	}))(t)
	documents := bytes.Split(text, []byte("\n---\n"))
	var c corev1.ConfigMap
	if err := yaml.UnmarshalStrict(documents[0], &c); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Parse("cloud-config.yaml", []byte(c.Data["cloud-config.yaml"])); err != nil {
		t.Error(err)
	}
	if roots := x509.NewCertPool(); !roots.AppendCertsFromPEM([]byte(c.Data["nsx-ca.pem"])) {
		t.Errorf("no certificate: %s", c.Data["nsx-ca.pem"])
	}
	var nsx, vcenter corev1.Secret
	for i, s := range []*corev1.Secret{&nsx, &vcenter} {
		if err := yaml.UnmarshalStrict(documents[i+1], s); err != nil {
			t.Fatal(err)
		}
	}
	if got := nsx.StringData["password"]; got != `it's "secret": yes` {
		t.Errorf("NSX password %q", got)
	}
	if got := vcenter.StringData["password"]; got != "# no comment" {
		t.Errorf("vCenter password %q", got)
	}
}

func TestNSXInventory(t *testing.T) {
	text := must(render("nsx.yaml", map[string]any{
		"LBService": lbService, "Pool": ipPool, "FloatingIPs": floatingIPs, "First": firstFloatingIP, "Last": lastFloatingIP,
	}))(t)
	sim := must(nsxsim.New(nsxsim.Options{}))(t)
	defer sim.Close()
	if err := sim.Load(must(nsxsim.ParseInventory(text))(t)); err != nil {
		t.Error(err)
	}
}

func TestTemplateWithoutItsValues(t *testing.T) {
	if _, err := render("Corefile", map[string]any{"Kubeconfig": "x"}); err == nil {
		t.Error("rendered, with a value missing")
	}
}

func TestCertificates(t *testing.T) {
	a := must(newAuthority())(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.pem())

	t.Run("of a server", func(t *testing.T) {
		pair := must(a.issue(identity{name: "nsx", addresses: []netip.Addr{edgeOnLAN}, hosts: []string{"nsx"}}))(t)
		leaf := must(x509.ParseCertificate(must(pair.tls())(t).Certificate[0]))(t)
		for _, host := range []string{edgeOnLAN.String(), "nsx"} {
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
				t.Errorf("%s: %v", host, err)
			}
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: controlPlane.String()}); err == nil {
			t.Error("good for somebody else's address")
		}
	})
	t.Run("of a client, in a kubeconfig", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		if err := a.writeKubeconfig(file, identity{name: "system:node:node-1", groups: []string{"system:nodes"}}); err != nil {
			t.Fatal(err)
		}
		c := must(clientcmd.BuildConfigFromFlags("", file))(t)
		if !bytes.Equal(c.CAData, a.pem()) || c.Host != "https://10.200.0.2:6443" {
			t.Errorf("server %s", c.Host)
		}
		pair := must(tls.X509KeyPair(c.CertData, c.KeyData))(t)
		leaf := must(x509.ParseCertificate(pair.Certificate[0]))(t)
		if leaf.Subject.CommonName != "system:node:node-1" || leaf.Subject.Organization[0] != "system:nodes" {
			t.Errorf("subject %s", leaf.Subject)
		}
		usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: usage}); err != nil {
			t.Error(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
			t.Error("a client's certificate is good for a server")
		}
	})
	t.Run("keys are this user's alone", func(t *testing.T) {
		dir := t.TempDir()
		if err := a.writeForControlPlane(dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"ca.key", "sa.key"} {
			if info := must(os.Stat(filepath.Join(dir, name)))(t); info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
		}
	})
}
