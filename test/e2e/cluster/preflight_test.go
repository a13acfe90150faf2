package cluster

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPreflight(t *testing.T) {
	all := func(string) bool { return true }
	but := func(names ...string) func(string) bool {
		return func(name string) bool { return !slices.Contains(names, name) }
	}
	good := machineState{find: all, exists: all, filesystems: "nodev\toverlay\n\text4\n", namespaces: func() error { return nil }}
	for name, tc := range map[string]struct {
		edit func(*machineState)
		want []string // none: it passes
	}{
		"all there": {func(*machineState) {}, nil},
		"not root":  {func(m *machineState) { m.uid = 1000 }, []string{"root", "sudo"}},
		"two tools": {func(m *machineState) { m.find = but("nft", "ip") }, []string{
			"the program ip", "the program nft", "apt-get install --no-install-recommends iproute2 nftables",
		}},
		"nothing is built": {func(m *machineState) {
			m.exists = func(path string) bool { return !strings.HasPrefix(path, "/bin") }
		}, []string{filepath.Join("/bin", "kube"), filepath.Join("/bin", "e2e/runc"), "make build bin/kube bin/e2e"}},
		"no overlay":          {func(m *machineState) { m.filesystems = "ext4\n" }, []string{"overlay file system"}},
		"no bridge netfilter": {func(m *machineState) { m.exists = but("/proc/sys/net/bridge/bridge-nf-call-iptables") }, []string{"modprobe br_netfilter"}},
		"no control groups":   {func(m *machineState) { m.exists = but(cgroupDir+"/cgroup.controllers", cgroupDir+"/memory") }, []string{"control groups"}},
		"a container's root": {func(m *machineState) {
			m.namespaces = func() error { return errors.New("unshare failed: Operation not permitted") }
		}, []string{"network namespaces", "not permitted"}},
		"everything at once": {func(m *machineState) {
			*m = machineState{uid: 1, find: but("nft", "ip"), exists: func(string) bool { return false }}
		}, []string{"root", "the program ip", "apt-get", "control groups", "make build"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			tc.edit(&m)
			err := preflight(m, "/bin")
			if len(tc.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrMissing) {
				t.Fatalf("error %v, want ErrMissing", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"too many nodes": {Nodes: MaxNodes + 1},
		"no such mode":   {ProxyMode: "ipvs"},
	} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	o, err := Options{}.withDefaults()
	if err != nil || o.Nodes != 3 || o.ProxyMode != NFTables || !filepath.IsAbs(o.BinDir) {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestNumbersAreTakenOnce(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	const number = maxClusters + 1 // of no cluster
	c := must(take(number))(t)
	if _, err := take(number); !errors.Is(err, errTaken) {
		t.Errorf("taken twice: %v", err)
	}
	if err := c.open(false); err != nil {
		t.Fatal(err)
	}
	if _, err := owner(number); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a cluster that nobody else may end is of process: %v", err)
	}
	if err := c.open(true); err != nil {
		t.Fatal(err)
	}
	if pid := must(owner(number))(t); pid <= 0 || !c.exists() {
		t.Errorf("process %d", pid)
	}
	if err := errors.Join(c.clean(t.Context()), c.release()); err != nil {
		t.Fatal(err)
	}
	c = must(take(number))(t)
	if c.exists() {
		t.Error("something is left")
	}
	if err := c.release(); err != nil {
		t.Error(err)
	}
}
