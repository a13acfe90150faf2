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
	good := machineState{
		find: all, exists: all, filesystems: "nodev\toverlay\n\text4\n", release: "5.15.0-91-generic\n", nftVersion: "nftables v1.0.2 (Lester Gooch)\n",
		connections: "262144\n", memory: "MemTotal: 8192000 kB\nMemAvailable:    6144000 kB\n", disk: 1 << 40, rehearse: func() error { return nil },
	}
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
		"no control groups":   {func(m *machineState) { m.controllers = []string{"cpuset", "pids"} }, []string{"control groups", "cpuset, pids"}},
		"an old kernel":       {func(m *machineState) { m.release = "5.10.0-28-amd64" }, []string{"Linux 5.13", "5.10.0"}},
		"an old nft":          {func(m *machineState) { m.nftVersion = "nftables v0.9.8 (E.D.S.)" }, []string{"nft 1.0.1", "0.9.8"}},
		"few connections":     {func(m *machineState) { m.connections = "8192\n" }, []string{"nf_conntrack_max=65536", "8192"}},
		"little memory":       {func(m *machineState) { m.memory = "MemAvailable:    1024000 kB\n" }, []string{"2048 MB of memory", "1000 MB"}},
		"a full disk":         {func(m *machineState) { m.disk = 1 << 30 }, []string{"3072 MB of disk", "1024 MB"}},
		"a small container":   {func(m *machineState) { m.exists = but("/dev/kmsg") }, []string{"/dev/kmsg"}},
		"a container's root": {func(m *machineState) {
			m.rehearse = func() error {
				return errors.Join(errors.New("control groups: read-only file system"), errors.New("network namespaces: not permitted"))
			}
		}, []string{"\n  control groups: read-only", "\n  network namespaces: not permitted"}},
		"nothing is tried that must fail": {func(m *machineState) {
			m.uid, m.rehearse = 1, func() error { return errors.New("tried") }
		}, []string{"root"}},
		"everything at once": {func(m *machineState) {
			*m = machineState{uid: 1, find: but("nft", "ip"), exists: func(string) bool { return false }, controllers: []string{"cpu"}}
		}, []string{"root", "the program ip", "apt-get", "control groups", "disk", "make build"}},
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
			if !errors.Is(err, ErrMissing) || strings.Contains(err.Error(), "tried") {
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

// TestThisMachineIsSeen: what preflight reads is there to be read, and can be told from nothing.
func TestThisMachineIsSeen(t *testing.T) {
	m := thisMachine(t.Context())
	if v := versionIn(m.release); v == nil {
		t.Errorf("the kernel's release is %q", m.release)
	}
	if n, ok := availableMemory(m.memory); !ok || n <= 0 {
		t.Errorf("available memory %d in %q", n, m.memory)
	}
	if m.disk == 0 {
		t.Error("no room on the disk")
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
