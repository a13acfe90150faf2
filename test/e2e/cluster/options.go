package cluster

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/programs"
)

// Modes of kube-proxy.
const (
	NFTables = "nftables"
	IPTables = "iptables"
)

// Options of a cluster. The zero value is usable in a checkout where everything is built.
type Options struct {
	// Nodes is the number of nodes, at most MaxNodes; 0: 3.
	Nodes int
	// ProxyMode is kube-proxy's: NFTables or IPTables; empty: NFTables.
	ProxyMode string
	// BinDir has the programs; empty: the directory bin of the checkout that holds the working directory, or the directory
	// of this program.
	BinDir string
	// Defects are what the edge does wrong, whatever the controller says: for who wants to see tests fail.
	Defects []nsxsim.Defect
	// NSXArgs are further flags of nsxsim.
	NSXArgs []string
	// LogDir is where the logs go when the start fails; empty: a new directory for temporary files.
	LogDir string
	// Endable lets Down of another process end the cluster: for one that is played with, not for one under test.
	Endable bool
	// Report, if not nil, is told of each part once it is up. It is not called concurrently.
	Report func(Part)
}

// Part is a part of the cluster that is up.
type Part struct {
	Name string
	Took time.Duration // from the beginning of its own start
}

// controllerProgram is the program under test.
const controllerProgram = "nsxt-cloud-controller-manager"

func (o Options) withDefaults() (Options, error) {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.ProxyMode == "" {
		o.ProxyMode = NFTables
	}
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return o, fmt.Errorf("%d nodes: want 1 to %d", o.Nodes, MaxNodes)
	}
	if o.ProxyMode != NFTables && o.ProxyMode != IPTables {
		return o, fmt.Errorf("kube-proxy's mode is %q: want %s or %s", o.ProxyMode, NFTables, IPTables)
	}
	if o.BinDir == "" {
		dir, err := programs.Dir(controllerProgram)
		if err != nil {
			return o, err
		}
		o.BinDir = dir
	}
	// Programs run in other directories, and find each other by real paths.
	dir, err := filepath.Abs(o.BinDir)
	o.BinDir = dir
	return o, err
}
