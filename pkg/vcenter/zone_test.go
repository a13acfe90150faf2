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
	for _, id := range []string{node1, node2, node3, node4} {
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
		"node-4": "south south-special",  // zone of the VM itself
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("region and zone (-want +got):\n%s", diff)
	}
}

func TestTagCategories(t *testing.T) {
	f := newFront(t, vcsim.Inventory{Datacenters: []vcsim.Datacenter{{
		Name:     "dc",
		Tags:     map[string]string{"site": "here", "room": "cellar"},
		Clusters: []vcsim.Cluster{{Name: "c", Hosts: []vcsim.Host{{Name: "h", VMs: []vcsim.VM{{Name: "n", UUID: node1}}}}}},
	}}})
	for name, tc := range map[string]struct{ zoneCategory, regionCategory, zone, region string }{
		"the default ones": {},
		"others":           {"room", "site", "cellar", "here"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := optionsOf(f)
			opts.Servers[0].ZoneCategory, opts.Servers[0].RegionCategory = tc.zoneCategory, tc.regionCategory
			vm, err := locate(t, newClient(t, opts), node1)
			if err != nil || vm.Zone != tc.zone || vm.Region != tc.region {
				t.Errorf("zone %q, region %q, %v, want %q and %q", vm.Zone, vm.Region, err, tc.zone, tc.region)
			}
		})
	}
}

func TestTwoZonesOnOneObjectAreAnError(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	opts := optionsOf(f)
	// vCenter allows several tags of a category on an object unless the category forbids it.
	f.setDisturb(func(call string, w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(call, "GET /rest/com/vmware/cis/tagging/category/") {
			return false
		}
		_, _ = w.Write([]byte(`{"value": {"name": "k8s-zone"}}`)) // so that the region is a second zone
		return true
	})
	if vm, err := locate(t, newClient(t, opts), node3); err == nil || !strings.Contains(err.Error(), "has 2 tags of the category k8s-zone") {
		t.Errorf("zone %q, %v, want an error", vm.Zone, err)
	}
}

func TestTagsAreRememberedForAWhile(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	opts := optionsOf(f)
	now := clocktesting.NewFakePassiveClock(time.Unix(1_000_000, 0))
	opts.Clock, opts.ZoneTTL = now, time.Minute
	client := newClient(t, opts)
	for i, step := range []struct {
		pass time.Duration
		id   string
		want int
	}{
		{0, node3, 2}, // the VM's tags, and those of its host and above
		{0, node4, 3}, // the VM's tags: it is on the same host
		{59 * time.Second, node3, 3},
		{time.Second, node3, 5},
		{30 * time.Second, node3, 5},
	} {
		now.SetTime(now.Now().Add(step.pass))
		if _, err := locate(t, client, step.id); err != nil {
			t.Fatal(err)
		}
		if got := f.count(listTags); got != step.want {
			t.Errorf("step %d: tags listed %d times, want %d", i, got, step.want)
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
