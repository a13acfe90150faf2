package manifests_test

import (
	"bytes"
	"io/fs"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/manifests"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
)

const name, namespace = "nsxt-cloud-controller-manager", "kube-system"

// parse reads every object of a file. A key that the API does not know is an error.
func parse(t *testing.T, file string) []runtime.Object {
	t.Helper()
	content, err := fs.ReadFile(manifests.FS, file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var objects []runtime.Object
	for _, doc := range bytes.Split(content, []byte("\n---\n")) {
		obj, _, err := decoder.Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		objects = append(objects, obj)
	}
	return objects
}

// only returns the objects of one type.
func only[T runtime.Object](objects []runtime.Object) []T {
	var found []T
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

func TestAllFilesAreObjectsOfTheAPI(t *testing.T) {
	files := 0
	err := fs.WalkDir(manifests.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		if len(parse(t, path)) == 0 {
			t.Errorf("%s is empty", path)
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Fatalf("%d files, %v", files, err)
	}
}

// TestSecretsAreThoseThatTheControllerMayRead: what the config names, the Secrets are called and the Role allows is one
// list.
func TestSecretsAreThoseThatTheControllerMayRead(t *testing.T) {
	configMap := only[*corev1.ConfigMap](parse(t, "cloud-config.yaml"))[0]
	cfg, err := config.Parse("cloud-config.yaml", []byte(configMap.Data["cloud-config.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	add := func(c config.Credentials) {
		if c.Secret == nil || c.Secret.Namespace != namespace {
			t.Fatalf("credentials %+v are not in a Secret of %s", c, namespace)
		}
		named = append(named, c.Secret.Name)
	}
	add(cfg.NSX.Credentials)
	for _, v := range cfg.VCenters {
		add(v.Credentials)
	}
	slices.Sort(named)

	var made []string
	for _, s := range only[*corev1.Secret](parse(t, "credentials.yaml")) {
		if s.Namespace != namespace || s.StringData["username"] == "" || s.StringData["password"] != "CHANGE-ME" {
			t.Errorf("Secret %s/%s is no example of credentials", s.Namespace, s.Name)
		}
		made = append(made, s.Name)
	}
	if !slices.Equal(made, named) {
		t.Errorf("Secrets %v, the config names %v", made, named)
	}

	var allowed []string
	for _, role := range only[*rbacv1.Role](parse(t, "rbac.yaml")) {
		for _, rule := range role.Rules {
			if slices.Contains(rule.Resources, "secrets") {
				allowed = append(allowed, rule.ResourceNames...)
				if !slices.Equal(rule.Verbs, []string{"get"}) {
					t.Errorf("Secrets: verbs %v", rule.Verbs)
				}
			}
		}
	}
	if !slices.Equal(allowed, named) {
		t.Errorf("the Role allows Secrets %v, the config names %v", allowed, named)
	}

	// Every file that the config names is in the directory that the ConfigMap is mounted at.
	for _, file := range []string{cfg.NSX.CAFile, cfg.VCenters[0].CAFile} {
		key, ok := strings.CutPrefix(file, "/etc/nsxt/")
		if _, there := configMap.Data[key]; !ok || !there {
			t.Errorf("%s is not in the ConfigMap", file)
		}
	}
}

func TestNoRightIsAWildcard(t *testing.T) {
	objects := parse(t, "rbac.yaml")
	var rules []rbacv1.PolicyRule
	for _, r := range only[*rbacv1.ClusterRole](objects) {
		rules = append(rules, r.Rules...)
		for _, rule := range r.Rules {
			if slices.Contains(rule.Resources, "secrets") {
				t.Error("Secrets of all namespaces")
			}
		}
	}
	for _, r := range only[*rbacv1.Role](objects) {
		rules = append(rules, r.Rules...)
	}
	for _, rule := range rules {
		for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs) {
			if strings.Contains(word, "*") {
				t.Errorf("rule %+v", rule)
			}
		}
	}
	var subjects []rbacv1.Subject
	for _, b := range only[*rbacv1.ClusterRoleBinding](objects) {
		subjects = append(subjects, b.Subjects...)
	}
	for _, b := range only[*rbacv1.RoleBinding](objects) {
		subjects = append(subjects, b.Subjects...)
	}
	for _, s := range subjects {
		if s != (rbacv1.Subject{Kind: "ServiceAccount", Name: name, Namespace: namespace}) {
			t.Errorf("subject %+v", s)
		}
	}
}

func TestDeploymentRunsRestricted(t *testing.T) {
	objects := parse(t, "deployment.yaml")
	d := only[*appsv1.Deployment](objects)[0]
	pod := d.Spec.Template
	if pod.Spec.ServiceAccountName != name || d.Namespace != namespace {
		t.Errorf("runs as %s/%s", d.Namespace, pod.Spec.ServiceAccountName)
	}
	if c := pod.Spec.SecurityContext; !*c.RunAsNonRoot || c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("pod security context %+v", c)
	}
	for _, c := range pod.Spec.Containers {
		s := c.SecurityContext
		if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("container security context %+v", s)
		}
		if c.LivenessProbe == nil || c.ReadinessProbe == nil {
			t.Error("no probes")
		}
	}
	// It is what makes nodes usable: it must run on unusable ones.
	for _, key := range []string{"node.cloudprovider.kubernetes.io/uninitialized", "node-role.kubernetes.io/control-plane"} {
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == key }) {
			t.Errorf("does not tolerate %s", key)
		}
	}
	for labels, selector := range map[string]map[string]string{
		"Deployment":          d.Spec.Selector.MatchLabels,
		"PodDisruptionBudget": only[*policyv1.PodDisruptionBudget](objects)[0].Spec.Selector.MatchLabels,
	} {
		for k, v := range selector {
			if pod.Labels[k] != v {
				t.Errorf("the %s does not select its pods", labels)
			}
		}
	}
}
