package vcsim_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

var compareAddr = cmpopts.EquateComparable(netip.Addr{})

func TestLoadFillsInDefaults(t *testing.T) {
	inv, err := vcsim.Load("testdata/two-datacenters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	vms := inv.VMs()
	if len(vms) != 4 {
		t.Fatalf("got %d VMs, want 4", len(vms))
	}
	want := []vcsim.VM{{
		Name:      "node-1",
		UUID:      "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a01",
		HostName:  "node-1.example.com",
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.11"), netip.MustParseAddr("2001:db8:1::11")},
		CPUs:      4,
		MemoryMB:  8192,
		GuestID:   "ubuntu64Guest",
	}, {
		Name:      "node-2",
		UUID:      "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a02",
		HostName:  "node-2",
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.12")},
		CPUs:      2,
		MemoryMB:  4096,
		GuestID:   "ubuntu64Guest",
	}}
	if diff := cmp.Diff(want, vms[:2], compareAddr); diff != "" {
		t.Errorf("VMs (-want +got):\n%s", diff)
	}
	first, again := vcsim.Generate(1, make([][]netip.Addr, 2)).VMs(), vcsim.Generate(1, make([][]netip.Addr, 2)).VMs()
	if first[0].UUID == "" || first[0].UUID != again[0].UUID || first[0].UUID == first[1].UUID {
		t.Errorf("VMs without UUIDs get %s and %s, then %s: want two, and the same again", first[0].UUID, first[1].UUID, again[0].UUID)
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "datacenters:\n- name: dc\n  clusters:\n  - name: c\n    hosts:\n    - name: h\n      vms:\n"
	for name, tc := range map[string]struct{ yaml, want string }{
		"an unknown key":    {head + "      - name: a\n        adresses: [10.0.0.1]\n", `unknown field "datacenters[0].clusters[0].hosts[0].vms[0].adresses"`},
		"a bad address":     {head + "      - name: a\n        addresses: [10.0.0.256]\n", "10.0.0.256"},
		"a bad UUID":        {head + "      - name: a\n        uuid: '4237'\n", `vms[0]: BIOS UUID "4237"`},
		"a VM without name": {head + "      - cpus: 2\n", "vms[0]: the VM name is empty"},
		"a repeated name":   {head + "      - name: a\n      - name: a\n        uuid: 4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a02\n", `vms[1]: VM name "a" is already used by datacenters[0].clusters[0].hosts[0].vms[0]`},
		"a repeated address": {
			head + "      - name: a\n        addresses: [10.0.0.1]\n      - name: b\n        addresses: [10.0.0.1]\n",
			`vms[1]: address "10.0.0.1" is already used`,
		},
		"a repeated UUID, in another case": {
			head + "      - name: a\n        uuid: 4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a02\n      - name: b\n        uuid: 4237A0C4-1F5E-4B7E-9A53-0D1C6F1B2A02\n",
			`vms[1]: BIOS UUID "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a02" is already used`,
		},
		"a repeated host": {"datacenters:\n- name: dc\n  clusters:\n  - name: c\n    hosts: [{name: h}, {name: h}]\n", `host name "h" is already used`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := vcsim.Parse([]byte(tc.yaml))
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
		})
	}
}

func TestGenerateDealsNodesToZones(t *testing.T) {
	var addresses [][]netip.Addr
	for _, a := range []string{"127.10.0.11", "127.10.0.12", "127.10.0.13"} {
		addresses = append(addresses, []netip.Addr{netip.MustParseAddr(a)})
	}
	got := map[string][]string{}
	inv := vcsim.Generate(2, addresses)
	for _, cluster := range inv.Datacenters[0].Clusters {
		for _, vm := range cluster.Hosts[0].VMs {
			zone := cluster.Tags["k8s-zone"]
			got[zone] = append(got[zone], vm.Name+" "+vm.Addresses[0].String())
		}
	}
	want := map[string][]string{
		"zone-1": {"node-1 127.10.0.11", "node-3 127.10.0.13"},
		"zone-2": {"node-2 127.10.0.12"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes by zone (-want +got):\n%s", diff)
	}
}
