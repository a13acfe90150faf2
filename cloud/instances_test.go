package cloud

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

const (
	nodeUUID    = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a01"
	swappedUUID = "C4A03742-5E1F-7E4B-9A53-0D1C6F1B2A01" // as some guests report it
	otherUUID   = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2aff"
)

// fakeVMs is a vmFinder that has one VM, or gives an error.
type fakeVMs struct {
	vm        vcenter.VM
	err       error // of ByUUID and ByName
	locateErr error
}

func (f fakeVMs) ByUUID(_ context.Context, id string) (vcenter.VM, error) {
	if f.err == nil && !strings.EqualFold(id, f.vm.UUID) {
		return vcenter.VM{}, vcenter.ErrNotFound
	}
	return f.vm, f.err
}

func (f fakeVMs) ByName(_ context.Context, name string) (vcenter.VM, error) {
	if f.err == nil && name != f.vm.HostName {
		return vcenter.VM{}, vcenter.ErrNotFound
	}
	return f.vm, f.err
}

func (f fakeVMs) Locate(_ context.Context, vm vcenter.VM) (vcenter.VM, error) { return vm, f.locateErr }

func node(change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}
	for _, c := range change {
		c(n)
	}
	return n
}

func providerID(id string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.ProviderID = id }
}

func systemUUID(id string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Status.NodeInfo.SystemUUID = id }
}

func nodeIP(ip string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Annotations = map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: ip}
	}
}

func tainted(n *corev1.Node) {
	n.Spec.Taints = []corev1.Taint{{Key: cloudproviderapi.TaintExternalCloudProvider, Effect: corev1.TaintEffectNoSchedule}}
}

func aVM(addresses ...string) vcenter.VM {
	vm := vcenter.VM{
		UUID: nodeUUID, Name: "vm-of-node-1", HostName: "node-1", PoweredOn: true,
		CPUs: 4, MemoryMB: 8192, GuestID: "ubuntu64Guest", Zone: "zone-a", Region: "north",
	}
	for _, a := range addresses {
		vm.Addresses = append(vm.Addresses, netip.MustParseAddr(a))
	}
	return vm
}

func TestInstanceExists(t *testing.T) {
	for name, tc := range map[string]struct {
		node   *corev1.Node
		exists bool
		err    string // part of the error, empty for none
	}{
		"by provider id":           {node: node(providerID("nsxt://" + nodeUUID)), exists: true},
		"by another provider's id": {node: node(providerID("vsphere://" + strings.ToUpper(nodeUUID))), exists: true},
		"by systemUUID":            {node: node(systemUUID(nodeUUID)), exists: true},
		"by name":                  {node: node(), exists: true},
		"the provider id, not systemUUID, counts": {node: node(providerID("nsxt://"+otherUUID), systemUUID(nodeUUID))},
		"the systemUUID, not the name, counts":    {node: node(tainted, systemUUID(otherUUID))},

		"provider id of no VM":                             {node: node(providerID("nsxt://" + otherUUID))},
		"systemUUID of no VM, not yet initialised":         {node: node(tainted, systemUUID(otherUUID))},
		"systemUUID of no VM, not meant for us":            {node: node(systemUUID(otherUUID)), err: "not started for a cloud provider"},
		"a name that no VM has":                            {node: node(tainted, func(n *corev1.Node) { n.Name = "node-9" }), err: "cannot tell whether its VM exists"},
		"a provider id of another cloud":                   {node: node(providerID("aws:///zone/i-1")), err: "aws:///zone/i-1"},
		"a provider id that is cut":                        {node: node(providerID("nsxt://4237a0c4")), err: "not a UUID"},
		"a provider id of another cloud, and a systemUUID": {node: node(providerID("gce://x/y/z"), systemUUID(nodeUUID)), err: "gce://x/y/z"},
	} {
		t.Run(name, func(t *testing.T) {
			exists, err := newInstances(fakeVMs{vm: aVM()}, config.Nodes{}).InstanceExists(t.Context(), tc.node)
			if exists != tc.exists || (err == nil) != (tc.err == "") {
				t.Fatalf("got %v, %v, want %v and an error with %q", exists, err, tc.exists, tc.err)
			}
			if err != nil && (!strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), tc.node.Name)) {
				t.Errorf("error %q does not say %q and the node's name", err, tc.err)
			}
		})
	}
}

func TestAFailureIsNeverAbsence(t *testing.T) {
	failure := errors.New("vCenter is down")
	i := newInstances(fakeVMs{err: failure}, config.Nodes{})
	for name, n := range map[string]*corev1.Node{
		"by provider id": node(providerID("nsxt://" + nodeUUID)),
		"by systemUUID":  node(tainted, systemUUID(nodeUUID)),
		"by name":        node(tainted),
	} {
		if exists, err := i.InstanceExists(t.Context(), n); exists || !errors.Is(err, failure) {
			t.Errorf("exists, %s: %v, %v", name, exists, err)
		}
		if off, err := i.InstanceShutdown(t.Context(), n); off || !errors.Is(err, failure) {
			t.Errorf("shutdown, %s: %v, %v", name, off, err)
		}
		if metadata, err := i.InstanceMetadata(t.Context(), n); metadata != nil || !errors.Is(err, failure) {
			t.Errorf("metadata, %s: %v, %v", name, metadata, err)
		}
	}
}

func TestInstanceShutdown(t *testing.T) {
	n := node(providerID("nsxt://" + nodeUUID))
	for _, on := range []bool{true, false} {
		vm := aVM()
		vm.PoweredOn = on
		if off, err := newInstances(fakeVMs{vm: vm}, config.Nodes{}).InstanceShutdown(t.Context(), n); err != nil || off == on {
			t.Errorf("powered on %v: shutdown %v, %v", on, off, err)
		}
	}
	if off, err := newInstances(fakeVMs{vm: aVM()}, config.Nodes{}).InstanceShutdown(t.Context(), node(providerID("nsxt://"+otherUUID))); off || err == nil {
		t.Errorf("a VM that does not exist: shutdown %v, %v, want an error", off, err)
	}
}

func TestInstanceMetadata(t *testing.T) {
	got, err := newInstances(fakeVMs{vm: aVM("10.1.0.11", "2001:db8:1::11")}, config.Nodes{}).InstanceMetadata(t.Context(), node(tainted, systemUUID(nodeUUID)))
	if err != nil {
		t.Fatal(err)
	}
	want := &cloudprovider.InstanceMetadata{
		ProviderID:   "nsxt://" + nodeUUID,
		InstanceType: "vsphere-vm.cpu-4.mem-8gb.os-ubuntu",
		NodeAddresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "10.1.0.11"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8:1::11"},
			{Type: corev1.NodeHostName, Address: "node-1"},
		},
		Zone:   "zone-a",
		Region: "north",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	migrated := node(providerID("vsphere://" + nodeUUID))
	if got, err := newInstances(fakeVMs{vm: aVM("10.1.0.11")}, config.Nodes{}).InstanceMetadata(t.Context(), migrated); err != nil || got.ProviderID != "vsphere://"+nodeUUID {
		t.Errorf("the provider id of a node that has one: %v, %v", got, err)
	}
}

func TestInstanceMetadataRefuses(t *testing.T) {
	noUUID, space := aVM("10.1.0.11"), aVM("10.1.0.11")
	noUUID.UUID = ""
	space.Zone = "zone a"
	tags := errors.New("tag service is down")
	for name, tc := range map[string]struct {
		vms  fakeVMs
		node *corev1.Node
		want string
	}{
		"a VM that does not exist":       {fakeVMs{vm: aVM("10.1.0.11")}, node(providerID("nsxt://" + otherUUID)), "no such VM"},
		"a VM without addresses":         {fakeVMs{vm: aVM()}, node(providerID("nsxt://" + nodeUUID)), "VMware Tools"},
		"a VM without UUID":              {fakeVMs{vm: noUUID}, node(), "not a UUID"},
		"a zone that cannot be a label":  {fakeVMs{vm: space}, node(), `"zone a"`},
		"a zone that cannot be read":     {fakeVMs{vm: aVM("10.1.0.11"), locateErr: tags}, node(), tags.Error()},
		"a node IP that is not the VM's": {fakeVMs{vm: aVM("10.1.0.11")}, node(nodeIP("10.1.0.12")), "node IP 10.1.0.12, which VM vm-of-node-1 does not report: it has [10.1.0.11]"},
		"a node IP that is none":         {fakeVMs{vm: aVM("10.1.0.11")}, node(nodeIP("node-1")), cloudproviderapi.AnnotationAlphaProvidedIPAddr},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newInstances(tc.vms, config.Nodes{}).InstanceMetadata(t.Context(), tc.node)
			if got != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, %v, want an error with %q", got, err, tc.want)
			}
		})
	}
}

func TestNodeAddresses(t *testing.T) {
	prefixes := func(texts ...string) []netip.Prefix {
		var out []netip.Prefix
		for _, text := range texts {
			out = append(out, netip.MustParsePrefix(text))
		}
		return out
	}
	all := []string{"10.1.0.11", "192.0.2.11", "2001:db8:1::11"}
	for name, tc := range map[string]struct {
		nodes  config.Nodes
		nodeIP string
		want   []string // the host name apart; empty for an error
	}{
		"no networks": {want: []string{"InternalIP 10.1.0.11", "InternalIP 192.0.2.11", "InternalIP 2001:db8:1::11"}},
		"internal networks": {
			nodes: config.Nodes{InternalNetworks: prefixes("10.0.0.0/8", "2001:db8::/32")},
			want:  []string{"InternalIP 10.1.0.11", "InternalIP 2001:db8:1::11"},
		},
		"external network": {
			nodes: config.Nodes{ExternalNetworks: prefixes("192.0.2.0/24")},
			want:  []string{"InternalIP 10.1.0.11", "ExternalIP 192.0.2.11", "InternalIP 2001:db8:1::11"},
		},
		"both": {
			nodes: config.Nodes{InternalNetworks: prefixes("10.0.0.0/8"), ExternalNetworks: prefixes("0.0.0.0/0")},
			want:  []string{"InternalIP 10.1.0.11", "ExternalIP 192.0.2.11"},
		},
		"a network that the VM is not in": {nodes: config.Nodes{InternalNetworks: prefixes("172.16.0.0/12")}},
		"a node IP, the only one of its type": {
			nodeIP: "192.0.2.11",
			want:   []string{"InternalIP 192.0.2.11"},
		},
		"two node IPs, in their order": {
			nodeIP: "2001:db8:1::11,10.1.0.11",
			want:   []string{"InternalIP 2001:db8:1::11", "InternalIP 10.1.0.11"},
		},
		"a node IP and an external network": {
			nodeIP: "10.1.0.11", nodes: config.Nodes{ExternalNetworks: prefixes("192.0.2.0/24")},
			want: []string{"InternalIP 10.1.0.11", "ExternalIP 192.0.2.11"},
		},
		"a node IP outside of the networks is internal": {
			nodeIP: "192.0.2.11", nodes: config.Nodes{InternalNetworks: prefixes("10.0.0.0/8")},
			want: []string{"InternalIP 192.0.2.11"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := node()
			if tc.nodeIP != "" {
				nodeIP(tc.nodeIP)(n)
			}
			metadata, err := newInstances(fakeVMs{vm: aVM(all...)}, tc.nodes).InstanceMetadata(t.Context(), n)
			if (err == nil) != (len(tc.want) > 0) {
				t.Fatalf("error %v, want addresses %v", err, tc.want)
			}
			if err != nil {
				return
			}
			var got []string
			for _, a := range metadata.NodeAddresses {
				got = append(got, string(a.Type)+" "+a.Address)
			}
			if diff := cmp.Diff(append(tc.want, "Hostname node-1"), got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInstanceType(t *testing.T) {
	for guest, want := range map[string]string{
		"ubuntu64Guest":          "vsphere-vm.cpu-2.mem-4gb.os-ubuntu",
		"rhel9_64Guest":          "vsphere-vm.cpu-2.mem-4gb.os-rhel9",
		"windows2019srv_64Guest": "vsphere-vm.cpu-2.mem-4gb.os-windows2019srv",
		"vmwarePhoton64Guest":    "vsphere-vm.cpu-2.mem-4gb.os-vmwarephoton",
		"":                       "vsphere-vm.cpu-2.mem-4gb.os-unknown",
		"???":                    "vsphere-vm.cpu-2.mem-4gb.os-unknown",
	} {
		if got := instanceType(vcenter.VM{CPUs: 2, MemoryMB: 4096, GuestID: guest}); got != want {
			t.Errorf("guest %q: %s, want %s", guest, got, want)
		}
	}
	if got := instanceType(vcenter.VM{CPUs: 1, MemoryMB: 1536}); got != "vsphere-vm.cpu-1.mem-1536mb.os-unknown" {
		t.Errorf("1536 MB: %s", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		label := instanceType(vcenter.VM{
			CPUs:     rapid.IntRange(0, 1000).Draw(t, "cpus"),
			MemoryMB: rapid.IntRange(0, 1<<30).Draw(t, "memory"),
			GuestID:  rapid.String().Draw(t, "guest"),
		})
		if problems := validation.IsValidLabelValue(label); len(problems) > 0 {
			t.Fatalf("%q is not the value of a label: %v", label, problems)
		}
	})
}

// TestInstancesOfAVCenter goes through a node's life against a vCenter.
func TestInstancesOfAVCenter(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	inv, err := vcsim.Load("../vcsim/testdata/two-datacenters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	server, err := vcsim.Start(t.Context(), inv, vcsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	user, password := server.Credentials()
	client, err := vcenter.New(vcenter.Options{Timeout: 10 * time.Second, Servers: []vcenter.Server{{
		Address:     server.URL(),
		CA:          server.CA(),
		Credentials: func(context.Context) (string, string, error) { return user, password, nil },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close(context.Background()) }() // the vCenter no longer answers by then
	i := newInstances(client, config.Nodes{})

	n := node(tainted, systemUUID(swappedUUID), nodeIP("10.1.0.11"))
	metadata, err := i.InstanceMetadata(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	want := &cloudprovider.InstanceMetadata{
		ProviderID:   "nsxt://" + nodeUUID,
		InstanceType: "vsphere-vm.cpu-4.mem-8gb.os-ubuntu",
		NodeAddresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "10.1.0.11"},
			{Type: corev1.NodeHostName, Address: "node-1.example.com"},
		},
		Zone:   "north-a",
		Region: "north",
	}
	if diff := cmp.Diff(want, metadata); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	n = node(providerID(metadata.ProviderID))

	state := func(step string, exists, shutdown bool) {
		t.Helper()
		if got, err := i.InstanceExists(t.Context(), n); err != nil || got != exists {
			t.Errorf("%s: exists %v, %v, want %v", step, got, err, exists)
		}
		if got, err := i.InstanceShutdown(t.Context(), n); got != shutdown || (err == nil) != exists {
			t.Errorf("%s: shutdown %v, %v, want %v", step, got, err, shutdown)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state("running", true, false)
	do(server.SetPower("node-1", false))
	state("off", true, true)
	if _, err := i.InstanceMetadata(t.Context(), n); err == nil {
		t.Error("off: metadata without addresses, want an error")
	}
	do(server.SetPower("node-1", true))
	state("on again", true, false)

	// vCenter refuses to say anything: the node must live.
	do(server.TerminateSessions())
	server.SetCredentials(user, "changed")
	if exists, err := i.InstanceExists(t.Context(), n); exists || !errors.Is(err, vcenter.ErrLoginRefused) {
		t.Errorf("refused: exists %v, %v, want ErrLoginRefused", exists, err)
	}
	password = "changed"
	state("with the new password", true, false)

	do(server.RemoveVM("node-1"))
	state("destroyed", false, false)
	do(server.Close())
	if exists, err := i.InstanceExists(t.Context(), n); exists || err == nil {
		t.Errorf("vCenter down: exists %v, %v, want an error", exists, err)
	}
}
