package vcenter_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/vcsim"
)

const listTags = "POST /rest/com/vmware/cis/tagging/tag-association"

func locate(t *testing.T, client *vcenter.Client, id string) (vcenter.VM, error) {
	t.Helper()
	vm, err := client.ByUUID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return client.Locate(t.Context(), vm)
}

func TestLocateTakesTheNearestTag(t *testing.T) {
	client := clientOf(t, newFront(t, twoDatacenters(t)))
	got := map[string]string{}
	for _, id := range []string{node1, node2, node3} {
		vm, err := locate(t, client, id)
		if err != nil {
			t.Fatal(err)
		}
		got[vm.Name] = vm.Region + " " + vm.Zone
	}
	want := map[string]string{
		"node-1": "north north-a",        // zone of the cluster, region of the datacenter
		"node-2": "north north-a-rack-2", // zone of the host, before that of the cluster
		"node-3": "south south-1",        // both of the datacenter
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("region and zone (-want +got):\n%s", diff)
	}
}

func TestLocateOptions(t *testing.T) {
	untagged := vcsim.Inventory{Datacenters: []vcsim.Datacenter{{
		Name:     "dc",
		Tags:     map[string]string{"site": "here", "room": "cellar"},
		Clusters: []vcsim.Cluster{{Name: "c", Hosts: []vcsim.Host{{Name: "h", VMs: []vcsim.VM{{Name: "n", UUID: node1}}}}}},
	}}}
	f := newFront(t, untagged)
	for name, tc := range map[string]struct {
		change       func(*vcenter.Options)
		zone, region string
	}{
		"no tag of the default categories": {func(*vcenter.Options) {}, "", ""},
		"other categories":                 {func(o *vcenter.Options) { o.RegionCategory, o.ZoneCategory = "site", "room" }, "cellar", "here"},
		"no zones":                         {func(o *vcenter.Options) { o.RegionCategory, o.ZoneCategory, o.NoZones = "site", "room", true }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			opts := optionsOf(f)
			tc.change(&opts)
			before := f.count(listTags)
			vm, err := locate(t, newClient(t, opts), node1)
			if err != nil {
				t.Fatal(err)
			}
			if vm.Zone != tc.zone || vm.Region != tc.region {
				t.Errorf("zone %q, region %q, want %q and %q", vm.Zone, vm.Region, tc.zone, tc.region)
			}
			if asked := f.count(listTags) > before; asked == opts.NoZones {
				t.Errorf("tags were read: %v", asked)
			}
		})
	}
}

func TestZonesAreRememberedForAWhile(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	opts := optionsOf(f)
	now := clocktesting.NewFakePassiveClock(time.Unix(1_000_000, 0))
	opts.Clock, opts.ZoneTTL = now, time.Minute
	client := newClient(t, opts)
	for i, step := range []struct {
		pass time.Duration
		want int
	}{{0, 1}, {59 * time.Second, 1}, {time.Second, 2}, {30 * time.Second, 2}} {
		now.SetTime(now.Now().Add(step.pass))
		if vm, err := locate(t, client, node1); err != nil || vm.Zone != "north-a" {
			t.Fatalf("zone %q, %v", vm.Zone, err)
		}
		if got := f.count(listTags); got != step.want {
			t.Errorf("step %d: tags read %d times, want %d", i, got, step.want)
		}
	}
}

func TestTheTagSessionIsReplacedWhenItExpires(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	client := clientOf(t, f)
	expired := true
	f.setDisturb(func(call string, w http.ResponseWriter, _ *http.Request) bool {
		if call != listTags || !expired {
			return false
		}
		expired = false
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	if vm, err := locate(t, client, node1); err != nil || vm.Zone != "north-a" {
		t.Errorf("zone %q, %v", vm.Zone, err)
	}
	if got := f.count("POST /rest/com/vmware/cis/session"); got != 2 {
		t.Errorf("%d log-ins to the tag service, want 2", got)
	}
}

func TestTagsThatCannotBeReadAreAnError(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	f.setDisturb(func(call string, w http.ResponseWriter, _ *http.Request) bool {
		if !strings.HasPrefix(call, "GET /rest/com/vmware/cis/tagging/category") {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	client := clientOf(t, f)
	vm, err := locate(t, client, node1)
	if err == nil || vm.Zone != "" {
		t.Errorf("zone %q, error %v, want an error", vm.Zone, err)
	}
	f.setDisturb(nil)
	if vm, err := locate(t, client, node1); err != nil || vm.Zone != "north-a" {
		t.Errorf("later: zone %q, %v", vm.Zone, err)
	}
}
