package vcsim_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"go.uber.org/goleak"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	node1 = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a01"
	node3 = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a03"
)

func start(t *testing.T) *vcsim.Server {
	t.Helper()
	inv, err := vcsim.Load("testdata/two-datacenters.yaml")
	if err != nil {
		t.Fatal(err)
	}
	server, err := vcsim.Start(t.Context(), inv, vcsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// connect logs in as a client does that verifies the server's certificate.
func connect(t *testing.T, server *vcsim.Server) (*govmomi.Client, error) {
	t.Helper()
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	sdk := soap.NewClient(u, false)
	t.Cleanup(sdk.CloseIdleConnections)
	sdk.DefaultTransport().TLSClientConfig.RootCAs = x509.NewCertPool()
	sdk.DefaultTransport().TLSClientConfig.RootCAs.AppendCertsFromPEM(server.CA())
	client, err := vim25.NewClient(t.Context(), sdk)
	if err != nil {
		t.Fatal(err)
	}
	manager := session.NewManager(client)
	return &govmomi.Client{Client: client, SessionManager: manager}, manager.Login(t.Context(), url.UserPassword(server.Credentials()))
}

func mustConnect(t *testing.T, server *vcsim.Server) *govmomi.Client {
	t.Helper()
	client, err := connect(t, server)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func findUUID(ctx context.Context, client *govmomi.Client, dc *object.Datacenter, uuid string) ([]object.Reference, error) {
	return object.NewSearchIndex(client.Client).FindAllByUuid(ctx, dc, uuid, true, nil)
}

func properties(t *testing.T, client *govmomi.Client, ref mo.Reference) mo.VirtualMachine {
	t.Helper()
	var vm mo.VirtualMachine
	if err := client.RetrieveOne(t.Context(), ref.Reference(), []string{"name", "summary", "guest", "runtime"}, &vm); err != nil {
		t.Fatal(err)
	}
	return vm
}

func reported(vm mo.VirtualMachine) []string {
	var addresses []string
	for _, nic := range vm.Guest.Net {
		addresses = append(addresses, fmt.Sprint(nic.DeviceConfigId, nic.IpAddress))
	}
	return addresses
}

func TestVMsAreFoundWithTheirProperties(t *testing.T) {
	server := start(t)
	client := mustConnect(t, server)
	for _, uuid := range []string{node1, "4237A0C4-1F5E-4B7E-9A53-0D1C6F1B2A01"} {
		refs, err := findUUID(t.Context(), client, nil, uuid)
		if err != nil || len(refs) != 1 {
			t.Fatalf("find %s: %v, %v", uuid, refs, err)
		}
		vm := properties(t, client, refs[0])
		if vm.Name != "node-1" || vm.Summary.Config.NumCpu != 4 || vm.Summary.Config.MemorySizeMB != 8192 {
			t.Errorf("got VM %s with %d CPUs and %d MB", vm.Name, vm.Summary.Config.NumCpu, vm.Summary.Config.MemorySizeMB)
		}
		if diff := cmp.Diff([]string{"4000 [10.1.0.11]", "4001 [2001:db8:1::11]"}, reported(vm)); diff != "" {
			t.Errorf("addresses (-want +got):\n%s", diff)
		}
		if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
			t.Errorf("power state %s", vm.Runtime.PowerState)
		}
	}
	refs, err := object.NewSearchIndex(client.Client).FindAllByDnsName(t.Context(), nil, "node-1.example.com", true)
	if err != nil || len(refs) != 1 {
		t.Errorf("find by DNS name: %v, %v", refs, err)
	}
}

func TestSearchStaysInItsDatacenter(t *testing.T) {
	server := start(t)
	client := mustConnect(t, server)
	finder := find.NewFinder(client.Client)
	for name, want := range map[string]int{"dc-north": 1, "dc-south": 0} {
		dc, err := finder.Datacenter(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		refs, err := findUUID(t.Context(), client, dc, node1)
		if err != nil || len(refs) != want {
			t.Errorf("node-1 in %s: %v, %v, want %d", name, refs, err, want)
		}
	}
	gone := object.NewDatacenter(client.Client, types.ManagedObjectReference{Type: "Datacenter", Value: "datacenter-0"})
	if _, err := findUUID(t.Context(), client, gone, node1); !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("search in a datacenter that is gone: %v", err)
	}
}

func TestTagsAreServed(t *testing.T) {
	server := start(t)
	client := mustConnect(t, server)
	service := rest.NewClient(client.Client)
	if err := service.Login(t.Context(), url.UserPassword(server.Credentials())); err != nil {
		t.Fatal(err)
	}
	finder := find.NewFinder(client.Client)
	dc, err := finder.Datacenter(t.Context(), "dc-north")
	if err != nil {
		t.Fatal(err)
	}
	host, err := finder.HostSystem(t.Context(), "/dc-north/host/cluster-a/esx-a2")
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[mo.Reference]string{dc: "north", host: "north-a-rack-2"} {
		attached, err := tags.NewManager(service).GetAttachedTags(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if len(attached) != 1 || attached[0].Name != want {
			t.Errorf("tags of %s: %v, want %s", ref, attached, want)
		}
	}
}

func TestChanges(t *testing.T) {
	server := start(t)
	client := mustConnect(t, server)
	refs, err := findUUID(t.Context(), client, nil, node3)
	if err != nil || len(refs) != 1 {
		t.Fatal(refs, err)
	}
	off := func() {
		t.Helper()
		vm := properties(t, client, refs[0])
		if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff || len(vm.Guest.Net) != 0 || vm.Guest.IpAddress != "" {
			t.Errorf("switched off: %s, %v, %q", vm.Runtime.PowerState, reported(vm), vm.Guest.IpAddress)
		}
		if vm.Guest.HostName != "node-3" {
			t.Errorf("switched off, the host name is %q", vm.Guest.HostName)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	do(server.SetPower("node-3", false))
	off()
	do(server.SetAddresses("node-3", netip.MustParseAddr("10.2.0.33")))
	off()
	do(server.SetPower("node-3", true))
	vm := properties(t, client, refs[0])
	if diff := cmp.Diff([]string{"4000 [10.2.0.33]"}, reported(vm)); diff != "" || vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		t.Errorf("switched on: %s, addresses (-want +got):\n%s", vm.Runtime.PowerState, diff)
	}

	do(server.RemoveVM("node-3"))
	if gone, err := findUUID(t.Context(), client, nil, node3); err != nil || len(gone) != 0 {
		t.Errorf("removed, the search finds %v, %v", gone, err)
	}
	if err := client.RetrieveOne(t.Context(), refs[0].Reference(), []string{"name"}, &vm); !fault.Is(err, &types.ManagedObjectNotFound{}) {
		t.Errorf("removed, its properties: %v", err)
	}
	if err := server.RemoveVM("node-3"); err == nil {
		t.Error("removed twice: no error")
	}

	do(server.AddVM("esx-b1", vcsim.VM{Name: "node-3", UUID: node3}))
	if back, err := findUUID(t.Context(), client, nil, node3); err != nil || len(back) != 1 || slices.Contains(back, refs[0]) {
		t.Errorf("added again, the search finds %v, %v", back, err)
	}
	if err := server.AddVM("esx-b1", vcsim.VM{Name: "node-3"}); err == nil {
		t.Error("added twice: no error")
	}
	if err := server.AddVM("esx-9", vcsim.VM{Name: "node-9"}); err == nil {
		t.Error("added to a host that does not exist: no error")
	}
}

func TestAClientDestroysAVM(t *testing.T) {
	server := start(t)
	client := mustConnect(t, server)
	refs, err := findUUID(t.Context(), client, nil, node1)
	if err != nil || len(refs) != 1 {
		t.Fatal(refs, err)
	}
	vm := object.NewVirtualMachine(client.Client, refs[0].Reference())
	for _, step := range []func(context.Context) (*object.Task, error){vm.PowerOff, vm.Destroy} {
		task, err := step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := task.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if gone, err := findUUID(t.Context(), client, nil, node1); err != nil || len(gone) != 0 {
		t.Errorf("destroyed, the search finds %v, %v", gone, err)
	}
}

func TestCredentialsAndSessions(t *testing.T) {
	server := start(t)
	client := mustConnect(t, server)
	user, _ := server.Credentials()

	if err := client.SessionManager.Login(t.Context(), url.UserPassword(user, "wrong")); !fault.Is(err, &types.InvalidLogin{}) {
		t.Errorf("log-in with a wrong password: %v", err)
	}
	server.SetCredentials("other", "secret")
	if _, err := findUUID(t.Context(), client, nil, node1); err != nil {
		t.Errorf("the session did not survive a change of the password: %v", err)
	}
	if err := server.TerminateSessions(); err != nil {
		t.Fatal(err)
	}
	if _, err := findUUID(t.Context(), client, nil, node1); !fault.Is(err, &types.NotAuthenticated{}) {
		t.Errorf("search after the session was ended: %v", err)
	}
	if _, err := connect(t, server); err != nil {
		t.Errorf("log-in with the new password: %v", err)
	}
}

func TestTwoVCentersInOneProcess(t *testing.T) {
	var starters sync.WaitGroup
	for range 2 {
		starters.Go(func() {
			server, err := vcsim.Start(t.Context(), vcsim.Generate(1, make([][]netip.Addr, 1)), vcsim.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := server.AddVM("esx-1", vcsim.VM{Name: "another"}); err != nil {
				t.Error(err)
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	starters.Wait()
}

func TestSearchesWhileVMsComeAndGo(t *testing.T) {
	server := start(t)
	client := mustConnect(t, server)
	var workers sync.WaitGroup
	for w := range 3 {
		workers.Go(func() {
			name := fmt.Sprintf("extra-%d", w)
			for range 5 {
				if err := server.AddVM("esx-a1", vcsim.VM{Name: name}); err != nil {
					t.Error(err)
				}
				if err := server.SetPower(name, false); err != nil {
					t.Error(err)
				}
				if refs, err := findUUID(t.Context(), client, nil, node1); err != nil || len(refs) != 1 {
					t.Error(refs, err)
				}
				if err := server.RemoveVM(name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
}
