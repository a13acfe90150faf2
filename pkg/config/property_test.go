package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// Every config that can be written is read back as it was.
func TestPrintedConfigIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := configs().Draw(t, "config")
		got, err := Parse("printed.yaml", []byte(want.String()))
		if err != nil {
			t.Fatalf("%v\n%s", err, want)
		}
		if diff := cmp.Diff(want, got, equateConfigs); diff != "" {
			t.Fatalf("(-printed +read):\n%s\n%s", diff, want)
		}
	})
}

// configs generates valid configs in canonical form.
func configs() *rapid.Generator[*CloudConfig] {
	return rapid.Custom(func(t *rapid.T) *CloudConfig {
		c := &CloudConfig{
			APIVersion: APIVersion,
			Kind:       Kind,
			Cluster:    Cluster{Name: nameStrings().Draw(t, "cluster"), ID: rapid.OneOf(rapid.Just(""), nameStrings()).Draw(t, "id")},
			NSX: NSX{
				Managers:       rapid.SliceOfNDistinct(servers(), 1, 3, rapid.ID).Draw(t, "managers"),
				API:            APIManager,
				Credentials:    credentials(true).Draw(t, "credentials"),
				RateLimit:      RateLimit{count(t, 100), count(t, 100), count(t, 100), count(t, 100)},
				RequestTimeout: time.Second + time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "timeout")),
			},
			Nodes: Nodes{
				// In different networks, so that they never overlap.
				InternalNetworks: rapid.SliceOfNDistinct(networks(10), 0, 3, rapid.ID).Draw(t, "internal"),
				ExternalNetworks: rapid.SliceOfNDistinct(networks(198), 0, 3, rapid.ID).Draw(t, "external"),
			},
		}
		if c.NSX.Credentials.ClientCertificate == nil {
			c.NSX.Authentication = oneOf[Authentication](t)
		}
		for _, server := range rapid.SliceOfNDistinct(servers(), 0, 2, rapid.ID).Draw(t, "vcenters") {
			c.VCenters = append(c.VCenters, VCenter{
				Server: server, Credentials: credentials(false).Draw(t, "credentials"),
				Datacenters:     rapid.SliceOfNDistinct(objects(), 0, 2, rapid.ID).Draw(t, "datacenters"),
				ZoneTagCategory: "zone " + nameStrings().Draw(t, "zone"), RegionTagCategory: "region " + nameStrings().Draw(t, "region"),
			})
		}
		c.LoadBalancer = loadBalancers().Draw(t, "loadBalancer")
		return fixEmpty(c)
	})
}

// fixEmpty makes empty lists nil, as the loader does.
func fixEmpty(c *CloudConfig) *CloudConfig {
	c.Nodes.InternalNetworks = append([]netip.Prefix(nil), c.Nodes.InternalNetworks...)
	c.Nodes.ExternalNetworks = append([]netip.Prefix(nil), c.Nodes.ExternalNetworks...)
	for i := range c.VCenters {
		c.VCenters[i].Datacenters = append([]string(nil), c.VCenters[i].Datacenters...)
	}
	return c
}

func loadBalancers() *rapid.Generator[LoadBalancer] {
	return rapid.Custom(func(t *rapid.T) LoadBalancer {
		lb := LoadBalancer{
			NotReadyGrace: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "grace")),
			DrainTime:     time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "drain")),
			AuditInterval: time.Minute + time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "audit")),
			AuditMode:     oneOf[AuditMode](t),
		}
		var pools []string
		for i, name := range rapid.SliceOfNDistinct(nameStrings(), 0, 3, rapid.ID).Draw(t, "pools") {
			pools = append(pools, name)
			lb.IPPools = append(lb.IPPools, IPPool{
				Name: name, ID: fmt.Sprintf("%s %d", objects().Draw(t, "id"), i), Exclusive: rapid.Bool().Draw(t, "exclusive"),
			})
		}
		size := oneOf[Size](t) // the same for all, as classes may share gateways
		for _, name := range rapid.SliceOfNDistinct(nameStrings(), 1, 3, rapid.ID).Draw(t, "classes") {
			class := Class{
				Name:                name,
				IPPools:             append([]string(nil), rapid.Permutation(pools).Draw(t, "ipPools")...),
				ApplicationProfiles: ApplicationProfiles{objects().Draw(t, "tcp"), objects().Draw(t, "udp")},
				HealthCheck: rapid.OneOf(
					rapid.Just(HealthCheck{}), rapid.Just(kubeProxyHealthCheck),
					rapid.Just(HealthCheck{Port: 9879, Path: "/ready?full=1"}),
				).Draw(t, "healthCheck"),
				Monitor: Monitor{
					time.Duration(count(t, 3600)) * time.Second, time.Duration(count(t, 3600)) * time.Second, count(t, 10), count(t, 10),
				},
				MaxNodes:         count(t, 1<<31-1),
				PreserveClientIP: oneOf[PreserveClientIP](t),
				Algorithm:        oneOf[Algorithm](t),
			}
			places := rapid.SliceOfNDistinct(objects(), 1, 3, rapid.ID).Draw(t, "places")
			if rapid.Bool().Draw(t, "existing") {
				class.LoadBalancerServices = places
			} else {
				for _, id := range places {
					class.Tier1Gateways = append(class.Tier1Gateways, Tier1Gateway{id, size})
				}
			}
			lb.Classes = append(lb.Classes, class)
		}
		lb.DefaultClass = rapid.SampledFrom(lb.Classes).Draw(t, "defaultClass").Name
		return lb
	})
}

func nameStrings() *rapid.Generator[string] {
	return rapid.StringMatching(`[a-zA-Z0-9]([-_.a-zA-Z0-9]{0,9}[0-9a-z])?`)
}

// objects generates ids and display names, of which many are something else
// to YAML: "1e3", "null", "- a", "#x".
func objects() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[!-~]([ -~äß東]{0,20}[!-~])?`),
		rapid.SampledFrom([]string{"null", "~", "true", "1e3", "0x10", "2026-01-02", "- a", "#x", "*x", "&x", "a: b", "'", `"`, "<<", "!x"}),
	)
}

func servers() *rapid.Generator[string] {
	return rapid.StringMatching(`https://([a-z][a-z0-9]{0,9}\.example\.com|10\.0\.0\.[1-9]|\[2001:db8::[1-9]\])(:8[0-9]{3})?`)
}

func networks(first byte) *rapid.Generator[netip.Prefix] {
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		addr := netip.AddrFrom4([4]byte{first, rapid.Byte().Draw(t, "b"), rapid.Byte().Draw(t, "c"), rapid.Byte().Draw(t, "d")})
		prefix, err := addr.Prefix(rapid.IntRange(8, 32).Draw(t, "bits"))
		if err != nil {
			t.Fatal(err)
		}
		return prefix
	})
}

func credentials(nsx bool) *rapid.Generator[Credentials] {
	sources := []Credentials{
		{File: "/etc/nsxt/credentials.yaml"},
		{Env: &EnvCredentials{Username: "USERNAME", Password: "PASSWORD"}},
		{Secret: &SecretReference{Namespace: "kube-system", Name: "nsxt.credentials"}},
	}
	if nsx {
		sources = append(sources, Credentials{ClientCertificate: &ClientCertificate{CertFile: "/tls.crt", KeyFile: "/tls.key"}})
	}
	return rapid.SampledFrom(sources)
}

func count(t *rapid.T, most int) int { return rapid.IntRange(1, most).Draw(t, "count") }

func oneOf[E interface {
	~string
	Enum
}](t *rapid.T) E {
	return E(rapid.SampledFrom(E("").Values()).Draw(t, "enum"))
}

// keyAt is a key of a config file with its value.
type keyAt struct {
	path       string
	key, value *yaml.Node
}

// keysOf returns all keys of a file.
func keysOf(n *yaml.Node, path string) []keyAt {
	var keys []keyAt
	for i, item := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			keys = append(keys, keysOf(item, fmt.Sprintf("%s[%d]", path, i))...)
		case i%2 == 0:
			at := keyAt{join(path, item.Value), item, n.Content[i+1]}
			keys = append(append(keys, at), keysOf(at.value, at.path)...)
		}
	}
	return keys
}

// No key can be misspelt, repeated or given a value of the wrong type without
// an error that names it and its line.
func TestEveryKeyIsChecked(t *testing.T) {
	const file = "testdata/good/full.yaml"
	documents, err := decodeAll(read(t, file))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(read(t, file)), "\n")
	for _, at := range keysOf(documents[0].Content[0], "") {
		line := lines[at.key.Line-1]
		before, after := line[:at.key.Column-1], line[at.key.Column-1:]
		wrongType := "[x]"
		if at.value.Kind == yaml.SequenceNode {
			wrongType = "{x: y}"
		}
		end := len(at.key.Value) - 1 // of the key without its last letter
		for name, change := range map[string]struct{ line, path, reason string }{
			"misspelt": {
				before + after[:end] + after[end+1:], at.path[:len(at.path)-1], "unknown key; did you mean " + at.key.Value + "?",
			},
			"repeated": {
				before + at.key.Value + ": null\n" + strings.Repeat(" ", len(before)) + after, at.path, "duplicate key",
			},
			"wrong type": {
				before + at.key.Value + ": " + wrongType + "\n" + strings.Repeat(" ", len(before)) + "ignored" + after, at.path, "must be ",
			},
		} {
			t.Run(at.path+" "+name, func(t *testing.T) {
				changed := slices.Clone(lines)
				changed[at.key.Line-1] = change.line
				_, err := Parse("full.yaml", []byte(strings.Join(changed, "")))
				errs, _ := errors.AsType[Errors](err)
				wantLine := at.key.Line
				if name == "repeated" {
					wantLine++
				}
				if !slices.ContainsFunc(errs, func(e *Error) bool {
					return e.Key == change.path && e.Line == wantLine && strings.HasPrefix(e.Reason, change.reason)
				}) {
					t.Errorf("want line %d: %s: %s..., got:\n%v", wantLine, change.path, change.reason, err)
				}
			})
		}
	}
}

// full.yaml is the example of all there is.
func TestFullExampleIsFull(t *testing.T) {
	documents, err := decodeAll(read(t, "testdata/good/full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, at := range keysOf(documents[0].Content[0], "") {
		got[withoutIndexes(at.path)] = true
	}
	c, err := Load("testdata/good/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	printed, err := decodeAll([]byte(c.String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range keysOf(printed[0].Content[0], "") {
		if !got[withoutIndexes(at.path)] {
			t.Errorf("%s is not in full.yaml", at.path)
		}
	}
}

// withoutIndexes returns a key path of any item for one of a certain item.
func withoutIndexes(path string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, path)
}
