package architecture

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cloud-provider-nsxt/cloud-provider-nsxt/"

// pkg is what `go list` tells of a package.
type pkg struct {
	ImportPath, Doc string
	Deps            []string // all, however deep
	Imports         []string
}

func list(t *testing.T) map[string]pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Doc,Deps,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		if name, ours := strings.CutPrefix(p.ImportPath, module); ours {
			packages[name] = p
		}
	}
}

// TestArrows: each row says what no package of a folder may depend on, directly or not, but for the packages excepted.
func TestArrows(t *testing.T) {
	const ours = module
	rows := []struct {
		folder string
		except []string
		never  []string
		why    string
	}{
		{"pkg/nsx", []string{"pkg/nsx/manager", "pkg/nsx/transport"}, []string{ours + "pkg/lb", ours + "pkg/ipam", ours + "pkg/nsx/manager", ours + "pkg/nsx/transport", "net/http/httptest", "github.com/vmware/"}, "the seam knows no SDK and nobody above it"},
		{"pkg/nsx/manager", nil, []string{ours + "pkg/lb", ours + "pkg/ipam", ours + "cloud", "k8s.io/client-go"}, "a backend knows nobody above the seam"},
		{"pkg/nsx/transport", nil, []string{ours + "pkg/lb", ours + "pkg/nsx/manager", ours + "cloud", "github.com/vmware/"}, "the transport knows no objects"},
		{"pkg/lb", nil, []string{ours + "pkg/nsx/manager", ours + "pkg/nsx/transport", ours + "cloud", "github.com/vmware/", "k8s.io/client-go"}, "the heart does no I/O"},
		{"pkg/ipam", nil, []string{ours + "pkg/lb", ours + "cloud", "github.com/vmware/", "k8s.io/"}, "choosing an address is pure"},
		{"pkg/config", nil, []string{ours + "pkg/lb", ours + "cloud", "github.com/vmware/", "k8s.io/client-go"}, "the config is data"},
		{"pkg/vcenter", nil, []string{ours + "pkg/nsx", ours + "pkg/lb", ours + "cloud"}, "vCenter has nothing to do with NSX"},
		{"cloud", nil, []string{ours + "pkg/nsxsim", ours + "vcsim", ours + "test"}, "the product never imports a simulator"},
		{"cmd/nsxt-cloud-controller-manager", nil, []string{ours + "pkg/nsxsim", ours + "vcsim", ours + "test", "k8s.io/kubernetes"}, "the product never imports a simulator, nor Kubernetes itself"},
		{"pkg/nsxsim", nil, []string{ours + "pkg/nsx/", ours + "pkg/lb", ours + "cloud", "k8s.io/client-go"}, "the simulator is a product of its own"},
	}
	packages := list(t)
	for _, r := range rows {
		if _, there := packages[r.folder]; !there {
			t.Errorf("there is no package %s", r.folder)
		}
		for name, p := range packages {
			if !within(name, r.folder) || slices.ContainsFunc(r.except, func(e string) bool { return within(name, e) }) {
				continue
			}
			for _, dep := range p.Deps {
				i := slices.IndexFunc(r.never, func(n string) bool { return matches(dep, n) })
				if i >= 0 {
					t.Errorf("%s depends on %s: %s", name, dep, r.why)
				}
			}
		}
	}
}

// TestOnlyTheManagerBackendImportsTheSDK holds for the controller; the simulator's tests drive the SDK too.
func TestOnlyTheManagerBackendImportsTheSDK(t *testing.T) {
	for name, p := range list(t) {
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "github.com/vmware/go-vmware-nsxt") && name != "pkg/nsx/manager" && !within(name, "hack") {
				t.Errorf("%s imports %s", name, i)
			}
		}
	}
}

// TestEveryPackageSaysWhatItIs wants a package comment everywhere, also of packages that are tests alone.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for name, p := range list(t) {
		if p.Doc == "" {
			t.Errorf("package %s has no package comment", name)
		}
	}
}

func within(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }

// matches tells whether a dependency is what a row forbids: a package with all below it, or with a trailing / what is below.
func matches(dep, never string) bool {
	if strings.HasSuffix(never, "/") {
		return strings.HasPrefix(dep, never)
	}
	return within(dep, never)
}
