package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/manifests"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Names of the manifests.
const (
	serviceAccount = "nsxt-cloud-controller-manager"
	nsxSecret      = "nsxt-credentials"
	vcenterSecret  = "vcenter-credentials"
)

// tokenLife is how long the controller's token is good for: longer than anybody keeps a lab.
const tokenLife = 30 * 24 * time.Hour

func (l *Lab) cloudConfigFile() string      { return filepath.Join(l.Dir, "cloud-config.yaml") }
func (l *Lab) controllerKubeconfig() string { return filepath.Join(l.Dir, "controller.kubeconfig") }

// install gives the controller all that an installation gives it: rights, credentials and a config.
func (l *Lab) install(ctx context.Context) error {
	rbac, err := manifests.FS.ReadFile("rbac.yaml")
	if err != nil {
		return err
	}
	if err := l.Apply(ctx, "", rbac); err != nil {
		return fmt.Errorf("rights of the controller: %w", err)
	}
	user, password := l.VCenter.Credentials()
	err = errors.Join(
		l.putCredentials(ctx, nsxSecret, nsxsim.DefaultUsername, nsxsim.DefaultPassword),
		l.putCredentials(ctx, vcenterSecret, user, password),
		l.writeControllerKubeconfig(ctx))
	if err != nil {
		return fmt.Errorf("credentials of the controller: %w", err)
	}
	return l.writeCloudConfig()
}

func (l *Lab) putCredentials(ctx context.Context, name, user, password string) error {
	_, err := l.Client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		StringData: map[string]string{"username": user, "password": password},
	}, metav1.CreateOptions{})
	return err
}

// writeControllerKubeconfig writes a kubeconfig for the controller's own ServiceAccount, so that it can do what the
// manifests allow and nothing else.
func (l *Lab) writeControllerKubeconfig(ctx context.Context) error {
	token, err := l.Client.CoreV1().ServiceAccounts(metav1.NamespaceSystem).CreateToken(ctx, serviceAccount,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(tokenLife.Seconds()))}},
		metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	const name = "lab"
	return clientcmd.WriteToFile(clientcmdapi.Config{ // for this user alone
		Clusters: map[string]*clientcmdapi.Cluster{name: {
			Server:                   l.Config.Host,
			CertificateAuthority:     l.Config.CAFile,
			CertificateAuthorityData: l.Config.CAData,
		}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: token.Status.Token}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}, l.controllerKubeconfig())
}

//go:embed cloud-config.yaml.tmpl
var cloudConfigText string

// writeCloudConfig writes the controller's config file.
func (l *Lab) writeCloudConfig() error {
	var text bytes.Buffer
	values := struct {
		*Lab
		VCenterAddress, NSXCAFile, VCenterCAFile string
	}{l, strings.TrimSuffix(l.VCenter.URL(), "/sdk"), l.nsxCAFile(), l.vcenterCAFile()}
	if err := template.Must(template.New("cloud-config.yaml").Parse(cloudConfigText)).Execute(&text, values); err != nil {
		return fmt.Errorf("cloud config: %w", err)
	}
	cfg, err := config.Parse("cloud-config.yaml", text.Bytes())
	if err != nil {
		return fmt.Errorf("cloud config: %w", err)
	}
	if l.options.EditConfig != nil {
		l.options.EditConfig(cfg)
	}
	l.CloudConfig = cfg
	if err := os.WriteFile(l.cloudConfigFile(), []byte(cfg.String()), 0o600); err != nil {
		return fmt.Errorf("cloud config: %w", err)
	}
	return nil
}

// Apply applies the objects of a YAML text, as kubectl apply --server-side does. Objects of a namespaced kind that name
// no namespace go to the one given.
func (l *Lab) Apply(ctx context.Context, namespace string, text []byte) error {
	client, err := dynamic.NewForConfig(l.Config)
	if err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(l.Client.Discovery()))
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		obj := &unstructured.Unstructured{}
		err := decoder.Decode(&obj.Object)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(obj.Object) == 0:
			continue
		}
		kind := obj.GroupVersionKind()
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind.Kind, obj.GetName(), err)
		}
		var resource dynamic.ResourceInterface = client.Resource(mapping.Resource)
		if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
			in := obj.GetNamespace()
			if in == "" {
				in = namespace
			}
			resource = client.Resource(mapping.Resource).Namespace(in)
		}
		if _, err := resource.Apply(ctx, obj.GetName(), obj, metav1.ApplyOptions{FieldManager: "lab", Force: true}); err != nil {
			return fmt.Errorf("%s %s: %w", kind.Kind, obj.GetName(), err)
		}
	}
}
