package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane/nftables"
)

// passwordEnv is the environment variable with the password, for when no flag gives one.
const passwordEnv = "NSXSIM_PASSWORD"

// Values of --dataplane.
const (
	dataPlaneOff       = "off"
	dataPlaneUserSpace = "userspace"
	dataPlaneNFTables  = "nftables"
)

// flags as they were given.
type flags struct {
	addr, username, password, passwordFile string
	users                                  string
	tlsCert, tlsKey, caOut                 string
	plain                                  bool
	inventory, faults                      string
	nsxVersion                             string
	quirks                                 []string
	empty, noAdmin, verbose                bool
	seed                                   uint64
	nodes                                  int
	rateLimit, maxConcurrent               int
	releaseDelay, sessionTimeout           time.Duration
	searchDelay, realizationDelay          time.Duration
	dataPlane, snatAddress                 string
	allowLoopback                          bool
	defects                                []string
	endpoints                              bool
}

func newCommand() *cobra.Command {
	var f flags
	command := &cobra.Command{
		Use:   "nsxsim",
		Short: "A simulated NSX-T manager",
		Long: `nsxsim simulates an NSX-T manager: the Manager API (/api/v1) and the Policy API (/policy/api/v1) as load balancer
controllers use them, what vcsim is for vCenter. It starts as a fresh NSX: an edge cluster, a tier-0 router and the
system's own profiles and monitors; an inventory adds to that. When it is ready it prints one line:

  nsxsim is ready: url=https://127.0.0.1:41367 ca=/tmp/nsxsim-1234/ca.crt username=admin

and it runs until SIGTERM or SIGINT. Its state is in memory only.

Beside the API of NSX, /_nsxsim/ steers the simulator, with the same credentials: GET, POST, PUT and DELETE faults;
POST pause and resume; GET and DELETE journal; GET state, a snapshot, which is an inventory, too; PUT state, which
restores a snapshot; POST state, which adds an inventory.`,
		Example: `  # A manager for a client under test
  nsxsim --addr 127.0.0.1:8443 --ca-out ca.crt --inventory inventory.yaml -v
  curl --cacert ca.crt -u 'admin:VMware1!VMware1!' https://127.0.0.1:8443/api/v1/loadbalancer/services

  # Virtual servers that really listen, for nodes on loopback addresses
  nsxsim --inventory inventory.yaml --dataplane=userspace --snat-address 127.9.0.1 --allow-loopback-members

  # One PUT of three is answered with 503, and the answer to each fifth allocation is lost
  cat > faults.yaml <<'END'
  - {method: PUT, every: 3, status: 503}
  - {action: ALLOCATE, every: 5, when: after, drop: true}
  END
  nsxsim --faults faults.yaml

  # An NSX that answers ALLOCATE with another address than asked for, and keeps released ones for two minutes
  nsxsim --quirk chosenAddress=ignored --release-delay 2m`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.endpoints {
				return listEndpoints(c.OutOrStdout(), f.nsxVersion)
			}
			return run(c.Context(), f, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	fs := command.Flags()
	fs.SortFlags = false
	fs.StringVar(&f.addr, "addr", "127.0.0.1:0", "address to listen on; port 0 is a free one")
	fs.IntVar(&f.nodes, "nodes", 1, "manager nodes: the further ones listen on free ports of the same address, and are told as nodes=URL,URL. All have the same objects; sessions and limits are each node's own")
	fs.StringVar(&f.username, "username", nsxsim.DefaultUsername, "the user that may log in")
	fs.StringVar(&f.password, "password", "", "the user's password (default: --password-file, $"+passwordEnv+", else "+nsxsim.DefaultPassword+")")
	fs.StringVar(&f.passwordFile, "password-file", "", "file with the user's password")
	fs.StringVar(&f.users, "users", "", "YAML file with a list of further users: [{name: ncp, principal: true, certificate: PEM}, {name: auditor, password: secret, readOnly: true}]; also token, and remote for those of an identity manager")
	fs.StringVar(&f.tlsCert, "tls-cert", "", "PEM file of the server's certificate; without it one is made, of an authority of its own")
	fs.StringVar(&f.tlsKey, "tls-key", "", "PEM file of the key of --tls-cert")
	fs.StringVar(&f.caOut, "ca-out", "", "where to write the made authority's certificate (default: a temporary file, deleted at the end)")
	fs.BoolVar(&f.plain, "plain", false, "HTTP instead of HTTPS")
	fs.StringVar(&f.inventory, "inventory", "", "YAML file of objects and allocations to start with: {objects: [{kind: LbPool, ...}], allocations: [{pool: NAME, address: IP}]}")
	fs.StringVar(&f.faults, "faults", "", "YAML file with a list of fault rules")
	fs.StringVar(&f.nsxVersion, "nsx-version", nsxsim.DefaultVersion, "NSX version to be: 2.5, 3.2, 4.1, 9.0 or a full one; decides some limits, and 9.0 has no Manager API for load balancing")
	fs.StringArrayVar(&f.quirks, "quirk", nil, "behaviour where managers differ, NAME or NAME=VALUE, repeatable: chosenAddress=refused|ignored, "+strings.Join(booleanQuirks(), ", "))
	fs.BoolVar(&f.empty, "empty", false, "start without edge cluster and tier-0 router")
	fs.IntVar(&f.rateLimit, "rate-limit", 0, fmt.Sprintf("requests a second of one user; over it 429. 0 is no limit, NSX's is %d", nsxsim.NSXRateLimit))
	fs.IntVar(&f.maxConcurrent, "max-concurrent", 0, fmt.Sprintf("requests of one user at once; over it 503. 0 is no limit, NSX's is %d", nsxsim.NSXMaxConcurrent))
	fs.DurationVar(&f.releaseDelay, "release-delay", 0, fmt.Sprintf("how long a released address cannot be had again, for IP pools that do not say; NSX's is %s", nsxsim.NSXReleaseDelay))
	fs.DurationVar(&f.searchDelay, "search-delay", 0, "time that a change takes to show up in searches")
	fs.DurationVar(&f.realizationDelay, "realization-delay", 0, "time that an intent of the Policy API takes to be realised")
	fs.DurationVar(&f.sessionTimeout, "session-timeout", 0, "idle time after which a session ends (default 30m)")
	fs.StringVar(&f.dataPlane, "dataplane", dataPlaneOff, "who checks members and carries traffic: off; userspace, by sockets of this process (also without a value); nftables, the kernel, where this process is on the router between clients and members and has CAP_NET_ADMIN")
	fs.Lookup("dataplane").NoOptDefVal = dataPlaneUserSpace
	fs.StringVar(&f.snatAddress, "snat-address", "", "source address of the data plane's connections to members")
	fs.StringArrayVar(&f.defects, "defect", nil, "what the data plane does wrong, to see whether tests notice, repeatable: "+strings.Join(defectNames(), ", "))
	fs.BoolVar(&f.allowLoopback, "allow-loopback-members", false, "let member groups have loopback addresses, which NSX drops")
	fs.Uint64Var(&f.seed, "seed", 0, "seed of the probabilities of fault rules")
	fs.BoolVar(&f.noAdmin, "no-admin", false, "do not serve /_nsxsim/")
	fs.BoolVar(&f.endpoints, "endpoints", false, "list what is served, and end")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "log each request on stderr")
	return command
}

// listEndpoints writes a table of what a release's simulator serves.
func listEndpoints(w io.Writer, version string) error {
	sim, err := nsxsim.New(nsxsim.Options{Version: version})
	if err != nil {
		return fmt.Errorf("--nsx-version: %w", err)
	}
	defer sim.Close()
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, e := range sim.Endpoints() {
		fmt.Fprintf(table, "%s\t%s\n", e.Path, strings.Join(e.Does, ", "))
	}
	return table.Flush()
}

// booleanQuirks gives the names of the quirks that are on or off.
func booleanQuirks() []string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeFor[nsxsim.Quirks]()) {
		if field.Type.Kind() == reflect.Bool {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	return names
}

// defectNames gives the names of all defects.
func defectNames() []string {
	var names []string
	for _, d := range nsxsim.Defects() {
		names = append(names, string(d))
	}
	return names
}

// options turns flags into a simulator's options.
func (f flags) options() (nsxsim.Options, error) {
	o := nsxsim.Options{
		Version:              f.nsxVersion,
		RateLimit:            f.rateLimit,
		MaxConcurrent:        f.maxConcurrent,
		ReleaseDelay:         f.releaseDelay,
		SessionTimeout:       f.sessionTimeout,
		SearchDelay:          f.searchDelay,
		RealizationDelay:     f.realizationDelay,
		AllowLoopbackMembers: f.allowLoopback,
		Empty:                f.empty,
		Admin:                !f.noAdmin,
		Seed:                 f.seed,
	}
	password, err := f.readPassword()
	if err != nil {
		return o, err
	}
	o.Users = []nsxsim.User{{Name: f.username, Password: password}}
	if f.users != "" {
		users, err := readUsers(f.users)
		if err != nil {
			return o, err
		}
		o.Users = append(o.Users, users...)
	}
	if o.Quirks, err = parseQuirks(f.quirks); err != nil {
		return o, err
	}
	for _, name := range f.defects {
		var d nsxsim.Defect
		if err := d.UnmarshalText([]byte(name)); err != nil {
			return o, fmt.Errorf("--defect: %w", err)
		}
		o.Defects = append(o.Defects, d)
	}
	return o, f.setDataPlane(&o)
}

func (f flags) setDataPlane(o *nsxsim.Options) error {
	switch f.dataPlane {
	case dataPlaneOff, "":
		if f.snatAddress != "" {
			return fmt.Errorf("--snat-address needs --dataplane")
		}
		return nil
	case dataPlaneUserSpace:
	case dataPlaneNFTables:
		o.NewDataPlane = func(o dataplane.Options) (nsxsim.DataPlane, error) { return nftables.New(o) }
	default:
		return fmt.Errorf("--dataplane is one of %s, %s, %s: got %q", dataPlaneOff, dataPlaneUserSpace, dataPlaneNFTables, f.dataPlane)
	}
	o.DataPlane = &dataplane.Options{}
	if f.snatAddress == "" {
		return nil
	}
	address, err := netip.ParseAddr(f.snatAddress)
	if err != nil {
		return fmt.Errorf("--snat-address: %w", err)
	}
	o.DataPlane.SNATAddress = address
	return nil
}

func (f flags) readPassword() (string, error) {
	switch {
	case f.password != "" && f.passwordFile != "":
		return "", fmt.Errorf("--password and --password-file exclude each other")
	case f.password != "":
		return f.password, nil
	case f.passwordFile != "":
		text, err := os.ReadFile(f.passwordFile)
		if err != nil {
			return "", fmt.Errorf("--password-file: %w", err)
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	}
	if p := os.Getenv(passwordEnv); p != "" {
		return p, nil
	}
	return nsxsim.DefaultPassword, nil
}

// parseQuirks reads NAME and NAME=VALUE by the JSON names of nsxsim.Quirks.
func parseQuirks(given []string) (nsxsim.Quirks, error) {
	var quirks nsxsim.Quirks
	values := map[string]any{}
	for _, q := range given {
		name, value, valued := strings.Cut(q, "=")
		switch {
		case !valued || value == "true":
			values[name] = true
		case value == "false":
			values[name] = false
		default:
			values[name] = value
		}
	}
	raw, err := json.Marshal(values)
	if err != nil {
		return quirks, fmt.Errorf("--quirk: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&quirks); err != nil {
		return quirks, fmt.Errorf("--quirk: %w", err)
	}
	return quirks, nil
}
