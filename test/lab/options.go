package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab/block"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
)

// Options of a lab. The zero value is usable in a checkout where everything is built.
type Options struct {
	// Nodes is the number of nodes, at most block.MaxNodes; 0: 3.
	Nodes int
	// Zones is the number of zones that the nodes are dealt to; 0: 2.
	Zones int
	// PoolSize is the number of floating IPs in the pool "floating", at most block.MaxFloatingIPs; 0: 50.
	PoolSize int
	// BinDir has the programs kube and nsxt-cloud-controller-manager; empty: the directory bin of the checkout that
	// holds the working directory, or the directory of this program.
	BinDir string
	// EditConfig changes the cloud config before it is written.
	EditConfig func(*config.CloudConfig)
	// EditNSX changes the options of the NSX simulator before it starts.
	EditNSX func(*nsxsim.Options)
	// ControllerArgs are further flags of the controller; they win over the lab's own.
	ControllerArgs []string
	// WithoutController leaves the start of the controller to the caller. The nodes stay uninitialized until then.
	WithoutController bool
	// KeepFiles leaves the lab's directory, with the logs, in place after Close; the next lab removes it.
	KeepFiles bool
	// Report, if not nil, is told of each part once it is up. It is not called concurrently.
	Report func(Part)
}

// Part is a part of the lab that is up.
type Part struct {
	Name string
	Took time.Duration // from the beginning of its own start
	// Memory is what its process holds, in bytes; 0 for a part that lives in this process.
	Memory int64
}

func (o Options) withDefaults() (Options, error) {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Zones == 0 {
		o.Zones = 2
	}
	if o.PoolSize == 0 {
		o.PoolSize = 50
	}
	switch {
	case o.Nodes < 1 || o.Nodes > block.MaxNodes:
		return o, fmt.Errorf("%d nodes: want 1 to %d", o.Nodes, block.MaxNodes)
	case o.PoolSize < 1 || o.PoolSize > block.MaxFloatingIPs:
		return o, fmt.Errorf("a pool of %d floating IPs: want 1 to %d", o.PoolSize, block.MaxFloatingIPs)
	}
	if o.BinDir == "" {
		dir, err := programs.Dir(kubeProgram)
		if err != nil {
			return o, err
		}
		o.BinDir = dir
	}
	var err error
	if o.BinDir, err = filepath.Abs(o.BinDir); err != nil { // programs run in other directories, too
		return o, err
	}
	for _, name := range []string{kubeProgram, controllerProgram} {
		if _, err := os.Stat(filepath.Join(o.BinDir, name)); err != nil {
			return o, fmt.Errorf("%s is not built, run \"make build bin/kube\": %w", name, err)
		}
	}
	return o, nil
}

// The programs that a lab runs.
const (
	kubeProgram       = "kube"
	controllerProgram = "nsxt-cloud-controller-manager"
)
