package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ErrMissing says that this machine, or what was built on it, lacks something that a cluster needs.
var ErrMissing = errors.New("a cluster cannot run here")

// tools are the programs that clusters run, with the Debian package of each.
var tools = []struct{ program, needs string }{
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
	{"mount", "mount"},
	{"nft", "nftables"},
	{"iptables", "iptables"},
	{"conntrack", "conntrack"},
}

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
	{"/proc/sys/net/netfilter/nf_conntrack_max", "nf_conntrack"},
}

// machineState is what preflight looks at, apart from how it looks.
type machineState struct {
	uid         int
	find        func(program string) bool
	exists      func(path string) bool
	filesystems string // /proc/filesystems
	// namespaces tries nftables in a new network namespace.
	namespaces func() error
}

func thisMachine() machineState {
	loadModules()
	filesystems, _ := os.ReadFile("/proc/filesystems") // unreadable: has none
	return machineState{
		uid:         os.Getuid(),
		find:        func(program string) bool { _, err := exec.LookPath(program); return err == nil },
		exists:      func(path string) bool { _, err := os.Stat(path); return err == nil },
		filesystems: string(filesystems),
		namespaces:  tryNamespaces,
	}
}

// Preflight tells whether clusters can run on this machine, whatever is built already. The error is that of Start.
func Preflight() error { return preflight(thisMachine(), "") }

// tryNamespaces fails where root may not do everything, as in containers, or the kernel lacks nftables.
func tryNamespaces() error {
	if out, err := exec.Command("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "nft", "list", "tables").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// loadModules loads what may be there and not loaded. What is built in, or really missing, is seen later.
func loadModules() {
	modules := []string{"overlay"}
	for _, k := range kernel {
		modules = append(modules, k.module)
	}
	_ = exec.Command("modprobe", append([]string{"--all", "--quiet"}, modules...)...).Run()
}

// preflight returns an error that lists all that is missing, and how it is had. Without a binDir it is about the machine alone.
func preflight(m machineState, binDir string) error {
	var missing, packages, unbuilt []string
	if m.uid != 0 {
		missing = append(missing, "root: it makes network namespaces, mounts and control groups; run it with sudo")
	}
	for _, t := range tools {
		if !m.find(t.program) {
			missing = append(missing, "the program "+t.program)
			packages = append(packages, t.needs)
		}
	}
	for _, p := range built {
		if binDir != "" && !m.exists(filepath.Join(binDir, p)) {
			unbuilt = append(unbuilt, filepath.Join(binDir, p))
		}
	}
	for _, k := range kernel {
		if !m.exists(k.path) {
			missing = append(missing, fmt.Sprintf("the kernel's %s: modprobe %[1]s", k.module))
		}
	}
	if !slices.Contains(strings.Fields(m.filesystems), "overlay") {
		missing = append(missing, "the kernel's overlay file system: modprobe overlay")
	}
	if !m.exists(cgroupDir+"/cgroup.controllers") && !m.exists(cgroupDir+"/memory") {
		missing = append(missing, "control groups, mounted on "+cgroupDir)
	}
	if len(missing) == 0 {
		if err := m.namespaces(); err != nil {
			missing = append(missing, fmt.Sprintf("network namespaces with nftables: %v", err))
		}
	}
	if len(packages) > 0 {
		missing = append(missing, "to install on Debian or Ubuntu: apt-get install --no-install-recommends "+strings.Join(packages, " "))
	}
	if len(unbuilt) > 0 {
		missing = append(missing, fmt.Sprintf("built programs: %s; \"make build bin/kube bin/e2e\" builds them", strings.Join(unbuilt, ", ")))
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%w; missing:\n  %s", ErrMissing, strings.Join(missing, "\n  "))
}
