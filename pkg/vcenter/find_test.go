package vcenter_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

var compareVM = cmp.Options{cmpopts.IgnoreUnexported(vcenter.VM{}), cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(vcenter.VM{}, "VCenter")}

func TestByUUID(t *testing.T) {
	client := clientOf(t, newFront(t, twoDatacenters(t)))
	want := vcenter.VM{
		UUID:      node1,
		Name:      "node-1",
		HostName:  "node-1.example.com",
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.11"), netip.MustParseAddr("2001:db8:1::11")},
		PoweredOn: true,
		CPUs:      4,
		MemoryMB:  8192,
		GuestID:   "ubuntu64Guest",
	}
	for name, id := range map[string]string{
		"as vCenter shows it":               node1,
		"in upper case":                     strings.ToUpper(node1),
		"with swapped bytes":                "c4a03742-5e1f-7e4b-9a53-0d1c6f1b2a01",
		"with swapped bytes, in upper case": "C4A03742-5E1F-7E4B-9A53-0D1C6F1B2A01",
	} {
		t.Run(name, func(t *testing.T) {
			vm, err := client.ByUUID(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, vm, compareVM); diff != "" {
				t.Errorf("VM (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := client.ByUUID(t.Context(), "node-1"); err == nil || errors.Is(err, vcenter.ErrNotFound) {
		t.Errorf("a UUID that is none: %v, want an error that is not ErrNotFound", err)
	}
}

func TestByName(t *testing.T) {
	client := clientOf(t, newFront(t, twoDatacenters(t)))
	vm, err := client.ByName(t.Context(), "node-1.example.com")
	if err != nil || vm.UUID != node1 {
		t.Errorf("got %s, %v, want node-1", vm.Name, err)
	}
	if _, err := client.ByName(t.Context(), "node-9"); !errors.Is(err, vcenter.ErrNotFound) {
		t.Errorf("a name that nobody has: %v, want ErrNotFound", err)
	}
}

func TestPowerAndAddressesAreRead(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	client := clientOf(t, f)
	if err := f.SetPower("node-1", false); err != nil {
		t.Fatal(err)
	}
	vm, err := client.ByUUID(t.Context(), node1)
	if err != nil || vm.PoweredOn || len(vm.Addresses) != 0 {
		t.Errorf("switched off: on is %v, addresses %v, error %v", vm.PoweredOn, vm.Addresses, err)
	}
	if err := f.SetPower("node-1", true); err != nil {
		t.Fatal(err)
	}
	if err := f.SetAddresses("node-1", netip.MustParseAddr("fe80::1"), netip.MustParseAddr("127.10.0.1"), netip.MustParseAddr("10.1.0.99")); err != nil {
		t.Fatal(err)
	}
	vm, err = client.ByUUID(t.Context(), node1)
	if err != nil || !vm.PoweredOn {
		t.Fatalf("switched on: on is %v, error %v", vm.PoweredOn, err)
	}
	if diff := cmp.Diff([]netip.Addr{netip.MustParseAddr("10.1.0.99")}, vm.Addresses, compareVM); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

// notProven fails the test if the error, which must be one, would be taken as the proof that a VM does not exist.
func notProven(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil || errors.Is(err, vcenter.ErrNotFound) {
		t.Fatalf("got %v, want an error that is not ErrNotFound", err)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

func TestAbsenceIsProven(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	other := newFront(t, otherVCenter())
	client := clientOf(t, f, other)

	_, err := client.ByUUID(t.Context(), unknown)
	if !errors.Is(err, vcenter.ErrNotFound) {
		t.Errorf("a UUID that no vCenter has: %v, want ErrNotFound", err)
	}
	if _, err := client.ByUUID(t.Context(), node1); err != nil {
		t.Fatal(err)
	}
	if err := f.RemoveVM("node-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ByUUID(t.Context(), node1); !errors.Is(err, vcenter.ErrNotFound) {
		t.Errorf("destroyed: %v, want ErrNotFound", err)
	}
}

func TestAVMThatVanishesBetweenTwoCallsIsAbsent(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	client := clientOf(t, f)
	searched := false
	f.setDisturb(func(call string, _ http.ResponseWriter, _ *http.Request) bool {
		switch {
		case call == "FindAllByUuid":
			searched = true
		case strings.HasPrefix(call, "RetrieveProperties") && searched:
			searched = false
			if err := f.RemoveVM("node-1"); err != nil {
				t.Error(err)
			}
		}
		return false
	})
	if _, err := client.ByUUID(t.Context(), node1); !errors.Is(err, vcenter.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestFailuresAreNoProofOfAbsence(t *testing.T) {
	answer := func(on string, respond func(w http.ResponseWriter)) func(*testing.T, *front) {
		return func(_ *testing.T, f *front) {
			f.setDisturb(func(call string, w http.ResponseWriter, _ *http.Request) bool {
				if !strings.HasPrefix(call, on) {
					return false
				}
				respond(w)
				return true
			})
		}
	}
	for name, disturb := range map[string]func(*testing.T, *front){
		"the server is down":      func(_ *testing.T, f *front) { f.proxy.Close() },
		"the password is wrong":   func(_ *testing.T, f *front) { f.SetCredentials("someone", "else") },
		"the log-in hangs":        func(t *testing.T, f *front) { f.setDisturb(hang(t, "Login")) },
		"the search hangs":        func(t *testing.T, f *front) { f.setDisturb(hang(t, "FindAllByUuid")) },
		"the service starts":      answer("", func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }),
		"the answer is not SOAP":  answer("FindAllByUuid", func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) }),
		"the answer is empty":     answer("FindAllByUuid", func(http.ResponseWriter) {}),
		"the search has no right": answer("FindAllByUuid", func(w http.ResponseWriter) { soapFault(w, "NoPermission", "<privilegeId>System.View</privilegeId>") }),
		"the session never lasts": answer("FindAllByUuid", func(w http.ResponseWriter) {
			soapFault(w, "NotAuthenticated", "<privilegeId>System.View</privilegeId>")
		}),
		"another object is gone": answer("FindAllByUuid", func(w http.ResponseWriter) {
			soapFault(w, "ManagedObjectNotFound", `<obj type="SearchIndex">SearchIndex</obj>`)
		}),
		"the property collector is gone": answer("RetrieveProperties", func(w http.ResponseWriter) {
			soapFault(w, "ManagedObjectNotFound", `<obj type="PropertyCollector">propertyCollector</obj>`)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, twoDatacenters(t))
			opts := optionsOf(f)
			opts.Timeout = 200 * time.Millisecond
			if !strings.HasSuffix(name, "hangs") {
				opts.Timeout = 10 * time.Second
			}
			client := newClient(t, opts)
			disturb(t, f)
			for _, id := range []string{node1, unknown} {
				_, err := client.ByUUID(t.Context(), id)
				notProven(t, err, "vCenter 127.0.0.1:")
			}
		})
	}
}

func TestAnAccountThatSeesNothingProvesNothing(t *testing.T) {
	t.Run("no inventory", func(t *testing.T) {
		_, err := clientOf(t, newFront(t, vcsim.Inventory{})).ByUUID(t.Context(), node1)
		notProven(t, err)
		if !errors.Is(err, vcenter.ErrNotVisible) {
			t.Errorf("got %v, want ErrNotVisible", err)
		}
	})
	t.Run("no such datacenter", func(t *testing.T) {
		opts := optionsOf(newFront(t, twoDatacenters(t)))
		opts.Servers[0].Datacenters = []string{"dc-north", "dc-east"}
		_, err := newClient(t, opts).ByUUID(t.Context(), unknown)
		notProven(t, err, "dc-east")
		if !errors.Is(err, vcenter.ErrNotVisible) {
			t.Errorf("got %v, want ErrNotVisible", err)
		}
	})
	t.Run("a path that is not of a datacenter", func(t *testing.T) {
		opts := optionsOf(newFront(t, twoDatacenters(t)))
		opts.Servers[0].Datacenters = []string{"dc-north/vm/node-1"}
		_, err := newClient(t, opts).ByUUID(t.Context(), unknown)
		notProven(t, err, "dc-north/vm/node-1")
	})
}

func TestOnlyTheConfiguredDatacentersAreSearched(t *testing.T) {
	opts := optionsOf(newFront(t, twoDatacenters(t)))
	opts.Servers[0].Datacenters = []string{"dc-south"}
	client := newClient(t, opts)
	if vm, err := client.ByUUID(t.Context(), node3); err != nil || vm.Name != "node-3" {
		t.Errorf("node-3 in its datacenter: %s, %v", vm.Name, err)
	}
	if _, err := client.ByUUID(t.Context(), node1); !errors.Is(err, vcenter.ErrNotFound) {
		t.Errorf("node-1, in another datacenter: %v, want ErrNotFound", err)
	}
}

func TestOneOfTwoVCentersIsDown(t *testing.T) {
	for name, disturb := range map[string]func(*testing.T, *front){
		"refuses connections": func(_ *testing.T, f *front) { f.proxy.Close() },
		"hangs":               func(t *testing.T, f *front) { f.setDisturb(hang(t, "Login")) },
		"refuses the log-in":  func(_ *testing.T, f *front) { f.SetCredentials("someone", "else") },
	} {
		for _, order := range []string{"before", "after"} {
			t.Run(name+", "+order+" the live one", func(t *testing.T) {
				t.Parallel()
				live, down := newFront(t, twoDatacenters(t)), newFront(t, otherVCenter())
				opts := optionsOf(down, live)
				if order == "after" {
					opts = optionsOf(live, down)
				}
				disturb(t, down)
				opts.Timeout = 10 * time.Second // of which the live one needs little, and the one that hangs all
				client := newClient(t, opts)
				if vm, err := client.ByUUID(t.Context(), node1); err != nil || vm.Name != "node-1" {
					t.Errorf("a VM in the live one: %s, %v", vm.Name, err)
				}
				_, err := client.ByUUID(t.Context(), unknown)
				notProven(t, err, strings.TrimPrefix(down.proxy.URL, "https://"))
				if strings.Contains(err.Error(), strings.TrimPrefix(live.proxy.URL, "https://")) {
					t.Errorf("error %q blames the live one", err)
				}
			})
		}
	}
}

func TestARunningVMIsNotHeldUpByAVCenterThatHangs(t *testing.T) {
	live, down := newFront(t, twoDatacenters(t)), newFront(t, otherVCenter())
	down.setDisturb(hang(t, "Login"))
	opts := optionsOf(down, live)
	opts.Timeout = time.Hour
	if vm, err := newClient(t, opts).ByUUID(t.Context(), node1); err != nil || vm.Name != "node-1" {
		t.Errorf("got %s, %v", vm.Name, err)
	}
}

func TestTheContextEndsACall(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	opts := optionsOf(f)
	opts.Timeout = time.Hour
	for _, call := range []string{"Login", "FindAllByUuid"} {
		ctx, cancel := context.WithCancel(t.Context())
		forever := hang(t, call)
		f.setDisturb(func(got string, w http.ResponseWriter, r *http.Request) bool {
			if got == call {
				cancel()
			}
			return forever(got, w, r)
		})
		_, err := newClient(t, opts).ByUUID(ctx, node1)
		cancel()
		notProven(t, err)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s hangs: got %v, want the context's error", call, err)
		}
		f.setDisturb(nil) // for the log-out
	}
}

func TestCopiesOfAVM(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	client := clientOf(t, f)
	if err := f.AddVM("esx-b1", vcsim.VM{Name: "node-1-replica", UUID: node1, HostName: "replica", PoweredOff: true}); err != nil {
		t.Fatal(err)
	}
	if vm, err := client.ByUUID(t.Context(), node1); err != nil || vm.Name != "node-1" {
		t.Errorf("one of two is on: got %s, %v, want node-1", vm.Name, err)
	}
	if err := f.SetPower("node-1-replica", true); err != nil {
		t.Fatal(err)
	}
	_, err := client.ByUUID(t.Context(), node1)
	notProven(t, err, "of which 2 are on: node-1, node-1-replica")
	if !errors.Is(err, vcenter.ErrAmbiguous) {
		t.Errorf("both are on: %v, want ErrAmbiguous", err)
	}
}

func TestTheCopyThatRunsIsFoundInAnyVCenter(t *testing.T) {
	main, backup := newFront(t, twoDatacenters(t)), newFront(t, otherVCenter())
	if err := backup.AddVM("esx-1", vcsim.VM{Name: "node-1-replica", UUID: node1, PoweredOff: true}); err != nil {
		t.Fatal(err)
	}
	for _, order := range [][]*front{{main, backup}, {backup, main}} {
		if vm, err := clientOf(t, order...).ByUUID(t.Context(), node1); err != nil || vm.Name != "node-1" {
			t.Errorf("got %s, %v, want node-1", vm.Name, err)
		}
	}
	if err := main.SetPower("node-1", false); err != nil {
		t.Fatal(err)
	}
	for i, order := range [][]*front{{main, backup}, {backup, main}} {
		want := []string{"node-1", "node-1-replica"}[i]
		if vm, err := clientOf(t, order...).ByUUID(t.Context(), node1); err != nil || vm.Name != want {
			t.Errorf("none runs: got %s, %v, want the first vCenter's, %s", vm.Name, err, want)
		}
	}
}
