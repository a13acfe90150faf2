package vcenter

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/vim25/types"
	"pgregory.net/rapid"
)

func nic(key int32, addresses ...string) types.GuestNicInfo {
	return types.GuestNicInfo{DeviceConfigId: key, Connected: true, IpAddress: addresses}
}

func TestAddresses(t *testing.T) {
	disconnected := nic(4000, "10.0.0.1")
	disconnected.Connected = false
	duplicate := nic(4000, "10.0.0.1", "10.0.0.2")
	duplicate.IpConfig = &types.NetIpConfigInfo{IpAddress: []types.NetIpConfigInfoIpAddress{
		{IpAddress: "10.0.0.1", State: "duplicate"}, {IpAddress: "10.0.0.2", State: "preferred"},
	}}
	for name, tc := range map[string]struct {
		guest    types.GuestInfo
		loopback bool
		want     []string
	}{
		"no report":                  {guest: types.GuestInfo{}},
		"several adapters":           {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4001, "192.168.0.1"), nic(4000, "10.0.0.1")}}, want: []string{"10.0.0.1", "192.168.0.1"}},
		"IPv4 before IPv6":           {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "2001:db8::1", "10.0.0.1")}}, want: []string{"10.0.0.1", "2001:db8::1"}},
		"the primary address first":  {guest: types.GuestInfo{IpAddress: "10.0.0.9", Net: []types.GuestNicInfo{nic(4000, "10.0.0.1", "10.0.0.9")}}, want: []string{"10.0.0.9", "10.0.0.1"}},
		"by number, not by text":     {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "10.0.0.10", "10.0.0.9")}}, want: []string{"10.0.0.9", "10.0.0.10"}},
		"link-local":                 {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "fe80::1", "169.254.1.1", "10.0.0.1")}}, want: []string{"10.0.0.1"}},
		"multicast and unspecified":  {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "224.0.0.1", "0.0.0.0", "::", "ff02::1")}}},
		"IPv4 mapped to IPv6":        {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "::ffff:10.0.0.1")}}, want: []string{"10.0.0.1"}},
		"loopback":                   {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "127.10.0.1", "::1")}}},
		"loopback, allowed":          {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "127.10.0.1", "::1")}}, loopback: true, want: []string{"127.10.0.1", "::1"}},
		"the guest's own interfaces": {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(-1, "172.17.0.1"), nic(4000, "10.0.0.1")}}, want: []string{"10.0.0.1"}},
		"a disconnected adapter":     {guest: types.GuestInfo{Net: []types.GuestNicInfo{disconnected}}},
		"an address that is in use":  {guest: types.GuestInfo{Net: []types.GuestNicInfo{duplicate}}, want: []string{"10.0.0.2"}},
		"the same on two adapters":   {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "10.0.0.1"), nic(4001, "10.0.0.1", "10.0.0.2")}}, want: []string{"10.0.0.1", "10.0.0.2"}},
		"no address at all":          {guest: types.GuestInfo{Net: []types.GuestNicInfo{nic(4000, "none", "")}}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, addr := range addresses(tc.guest, tc.loopback) {
				got = append(got, addr.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAddressesDoNotDependOnTheOrderOfTheReport(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nics := make([]types.GuestNicInfo, rapid.IntRange(0, 4).Draw(t, "nics"))
		for i := range nics {
			octets := rapid.SliceOfN(rapid.IntRange(1, 12), 0, 5).Draw(t, "addresses")
			nics[i] = nic(int32(4000 + i))
			for _, o := range octets {
				nics[i].IpAddress = append(nics[i].IpAddress, fmt.Sprintf([]string{"10.0.0.%d", "2001:db8::%d", "fe80::%d"}[o%3], o))
			}
		}
		guest := types.GuestInfo{Net: nics, IpAddress: "10.0.0.3"}
		want := addresses(guest, false)

		shuffled := types.GuestInfo{IpAddress: guest.IpAddress}
		for _, n := range rapid.Permutation(nics).Draw(t, "order of adapters") {
			n.IpAddress = rapid.Permutation(n.IpAddress).Draw(t, "order of addresses")
			shuffled.Net = append(shuffled.Net, n)
		}
		if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(addresses(shuffled, false))); diff != "" {
			t.Fatalf("addresses (-first +shuffled):\n%s", diff)
		}
		seen := map[netip.Addr]bool{}
		for _, addr := range want {
			if seen[addr] || addr.IsLinkLocalUnicast() {
				t.Fatalf("%v is listed twice or not usable", addr)
			}
			seen[addr] = true
		}
	})
}
