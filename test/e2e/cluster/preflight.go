package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/version"
)

// ErrMissing says that this machine, or what was built on it, lacks something that a cluster needs.
var ErrMissing = errors.New("a cluster cannot run here")

// tools are the programs that clusters run, with the Debian package of each.
var tools = []struct{ program, needs string }{
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
	{"mount", "mount"},
	{nft, "nftables"},
	{"iptables", "iptables"},
	{"conntrack", "conntrack"},
}

const nft = "nft"

// built are the programs in BinDir.
var built = []string{
	"kube", "kubectl", "nsxsim", controllerProgram,
	"e2e/kube-node", "e2e/containerd", "e2e/containerd-shim-runc-v2", "e2e/ctr", "e2e/runc", "e2e/coredns",
	"e2e/cni/bridge", "e2e/cni/host-local", "e2e/cni/loopback", "e2e/cni/portmap",
	"e2e/images/pause.tar", "e2e/images/agnhost.tar",
}

// kernel is what the kernel must have, with the module that brings it.
var kernel = []struct{ path, module string }{
	{"/proc/sys/net/bridge/bridge-nf-call-iptables", "br_netfilter"},
	{connectionsFile, "nf_conntrack"},
}

// Files of the kernel.
const (
	connectionsFile = "/proc/sys/net/netfilter/nf_conntrack_max"
	memoryFile      = "/proc/meminfo"
	messagesFile    = "/dev/kmsg"
)

// What is little enough to be missed.
var (
	// kube-proxy's mode nftables wants both.
	oldestKernel = version.MustParseGeneric("5.13")
	oldestNFT    = version.MustParseGeneric("1.0.1")
)

const (
	leastMemory      = 2 << 30 // a cluster takes 1.6 GB, and the tests some
	leastDisk        = 3 << 30
	leastConnections = 1 << 16 // that the kernel remembers: 250 visits a second for two minutes, and as many again
)

// machineState is what preflight looks at, apart from how it looks.
type machineState struct {
	uid         int
	find        func(program string) bool
	exists      func(path string) bool
	filesystems string   // /proc/filesystems
	release     string   // of the kernel
	nftVersion  string   // what nft says
	connections string   // that the kernel remembers at most
	memory      string   // /proc/meminfo
	disk        uint64   // free for a cluster's files, in bytes
	controllers []string // of control groups, that are missing
	rehearse    func() error
}

func thisMachine(ctx context.Context) machineState {
	read := func(path string) string {
		text, _ := os.ReadFile(path) // unreadable: says nothing
		return string(text)
	}
	m := machineState{
		uid:         os.Getuid(),
		find:        func(program string) bool { _, err := exec.LookPath(program); return err == nil },
		exists:      func(path string) bool { _, err := os.Stat(path); return err == nil },
		filesystems: read("/proc/filesystems"),
		release:     read("/proc/sys/kernel/osrelease"),
		connections: read(connectionsFile),
		memory:      read(memoryFile),
		controllers: missingControllers(),
		rehearse:    func() error { return rehearse(ctx) },
	}
	if out, err := exec.CommandContext(ctx, nft, "--version").Output(); err == nil {
		m.nftVersion = string(out)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &fs); err == nil {
		m.disk = fs.Bavail * uint64(fs.Bsize)
	}
	return m
}

// Preflight tells whether clusters can run on this machine, whatever is built already. It looks, and does in small what a
// cluster asks of the machine, which leaves nothing behind. The error is that of Start.
func Preflight(ctx context.Context) error { return check(ctx, "") }

// check is Preflight, and about what is built in a directory too.
func check(ctx context.Context, binDir string) error {
	loadModules(ctx)
	return preflight(thisMachine(ctx), binDir)
}

// loadModules loads what may be there and not loaded. What is built in, or really missing, is seen later.
func loadModules(ctx context.Context) {
	modules := []string{"overlay"}
	for _, k := range kernel {
		modules = append(modules, k.module)
	}
	_ = exec.CommandContext(ctx, "modprobe", append([]string{"--all", "--quiet"}, modules...)...).Run()
}

// preflight returns an error that lists all that is missing, and how it is had. Without a binDir it is about the machine alone.
func preflight(m machineState, binDir string) error {
	missing, packages := m.missing()
	if len(missing) == 0 {
		if err := m.rehearse(); err != nil {
			missing = strings.Split(err.Error(), "\n")
		}
	}
	if len(packages) > 0 {
		missing = append(missing, "to install on Debian or Ubuntu: apt-get install --no-install-recommends "+strings.Join(packages, " "))
	}
	var unbuilt []string
	for _, p := range built {
		if binDir != "" && !m.exists(filepath.Join(binDir, p)) {
			unbuilt = append(unbuilt, filepath.Join(binDir, p))
		}
	}
	if len(unbuilt) > 0 {
		missing = append(missing, fmt.Sprintf("built programs: %s; \"make build bin/kube bin/e2e\" builds them", strings.Join(unbuilt, ", ")))
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w; missing:\n  %s", ErrMissing, strings.Join(missing, "\n  "))
}

// missing is what can be seen without trying.
func (m machineState) missing() (missing, packages []string) {
	lacks := func(format string, args ...any) { missing = append(missing, fmt.Sprintf(format, args...)) }
	if m.uid != 0 {
		lacks("root: it makes network namespaces, mounts and control groups; run it with sudo")
	}
	for _, t := range tools {
		if !m.find(t.program) {
			lacks("the program %s", t.program)
			packages = append(packages, t.needs)
		}
	}
	if v := versionIn(m.nftVersion); m.find(nft) && v != nil && v.LessThan(oldestNFT) {
		lacks("nft %s or later, which kube-proxy wants: here is %s", oldestNFT, v)
	}
	if v := versionIn(m.release); v != nil && v.LessThan(oldestKernel) {
		lacks("Linux %s or later, which kube-proxy wants: here is %s", oldestKernel, v)
	}
	for _, k := range kernel {
		if !m.exists(k.path) {
			lacks("the kernel's %s: modprobe %[1]s", k.module)
		}
	}
	if n, err := strconv.Atoi(strings.TrimSpace(m.connections)); err == nil && n < leastConnections {
		lacks("memory for connections: sysctl net.netfilter.nf_conntrack_max=%d, it is %d", leastConnections, n)
	}
	if !slices.Contains(strings.Fields(m.filesystems), "overlay") {
		lacks("the kernel's overlay file system: modprobe overlay")
	}
	if !m.exists(messagesFile) {
		lacks("%s, which kubelets read", messagesFile)
	}
	if len(m.controllers) > 0 {
		lacks("control groups on %s, with the controllers %s", cgroupDir, strings.Join(m.controllers, ", "))
	}
	if n, ok := availableMemory(m.memory); ok && n < leastMemory {
		lacks("%d MB of memory: %d MB are available", leastMemory>>20, n>>20)
	}
	if m.disk < leastDisk {
		lacks("%d MB of disk in %s: %d MB are free; TMPDIR names another directory", leastDisk>>20, os.TempDir(), m.disk>>20)
	}
	return missing, packages
}

// versionPattern finds the first version in a text.
var versionPattern = regexp.MustCompile(`\d+(\.\d+)+`)

// versionIn is the first version in a text; nil without one.
func versionIn(text string) *version.Version {
	v, err := version.ParseGeneric(versionPattern.FindString(text))
	if err != nil {
		return nil
	}
	return v
}

// availablePattern finds how much memory can be had without swapping, in KiB.
var availablePattern = regexp.MustCompile(`(?m)^MemAvailable:\s+(\d+) kB$`)

// availableMemory reads /proc/meminfo, in bytes.
func availableMemory(text string) (bytes int64, ok bool) {
	found := availablePattern.FindStringSubmatch(text)
	if found == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(found[1], 10, 64)
	return n << 10, err == nil
}
