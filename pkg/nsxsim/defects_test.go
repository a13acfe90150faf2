package nsxsim

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

func TestDefects(t *testing.T) {
	member := func(last byte, state dataplane.AdminState) dataplane.Member {
		return dataplane.Member{Address: netip.AddrFrom4([4]byte{10, 0, 0, last}), AdminState: state}
	}
	config := func(members ...dataplane.Member) dataplane.Config {
		pool := &dataplane.Pool{
			ID: "pool", SNAT: dataplane.Transparent, Members: members,
			Monitors: []dataplane.Monitor{{ID: "monitor"}}, Passive: &dataplane.Passive{MaxFails: 1},
		}
		access := &dataplane.Access{Action: dataplane.Allow}
		return dataplane.Config{VirtualServers: []dataplane.VirtualServer{
			{ID: "tcp", Pool: pool, Access: access}, {ID: "udp", Pool: pool, Access: access}, {ID: "none", Access: access},
		}}
	}
	edit := func(cfg dataplane.Config, f func(*dataplane.VirtualServer)) dataplane.Config {
		for i := range cfg.VirtualServers {
			f(&cfg.VirtualServers[i])
		}
		return cfg
	}
	editPool := func(f func(*dataplane.Pool)) func(*dataplane.VirtualServer) {
		return func(vs *dataplane.VirtualServer) {
			if vs.Pool != nil {
				f(vs.Pool)
			}
		}
	}
	before := []dataplane.Member{member(1, dataplane.Enabled), member(2, dataplane.Enabled)}
	after := []dataplane.Member{member(2, dataplane.GracefulDisabled), member(3, dataplane.Enabled)}
	for name, tc := range map[string]struct {
		defects []Defect
		want    dataplane.Config
	}{
		"none": {nil, config(after...)},
		"health checks": {[]Defect{DefectNoHealthChecks},
			edit(config(after...), editPool(func(p *dataplane.Pool) { p.Monitors, p.Passive = nil, nil }))},
		"snat": {[]Defect{DefectSNATEverywhere},
			edit(config(after...), editPool(func(p *dataplane.Pool) { p.SNAT = dataplane.AutoMap }))},
		"source ranges": {[]Defect{DefectNoAccessLists},
			edit(config(after...), func(vs *dataplane.VirtualServer) { vs.Access = nil })},
		"old members": {[]Defect{DefectOldMembers},
			config(member(1, dataplane.Enabled), member(2, dataplane.Enabled), member(3, dataplane.Enabled))},
		"two": {[]Defect{DefectNoHealthChecks, DefectSNATEverywhere},
			edit(config(after...), editPool(func(p *dataplane.Pool) { p.Monitors, p.Passive, p.SNAT = nil, nil, dataplane.AutoMap }))},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpoiler(tc.defects)
			s.spoil(config(before...))
			got := config(after...)
			s.spoil(got)
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefectNames(t *testing.T) {
	for _, want := range Defects() {
		var d Defect
		if err := d.UnmarshalText([]byte(want)); err != nil || d != want {
			t.Errorf("%s reads as %q, %v", want, d, err)
		}
	}
	if err := new(Defect).UnmarshalText([]byte("health")); err == nil {
		t.Error("an unknown defect is taken")
	}
}
