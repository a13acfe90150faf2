package nsxsim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// Defect is something that a data plane does wrong on purpose, whatever the API says: a test of traffic that stays green
// with it sees nothing.
type Defect string

// Defects.
const (
	DefectNoHealthChecks Defect = "health-checks" // members are never checked: all are UP
	DefectSNATEverywhere Defect = "snat"          // pools that keep the client's address hide it
	DefectNoAccessLists  Defect = "source-ranges" // everybody is let in
	DefectOldMembers     Defect = "old-members"   // who was a member of a pool once goes on being one, ENABLED
)

// Defects are all of them.
func Defects() []Defect {
	return []Defect{DefectNoHealthChecks, DefectSNATEverywhere, DefectNoAccessLists, DefectOldMembers}
}

// UnmarshalText reads the name of a defect.
func (d *Defect) UnmarshalText(text []byte) error {
	if *d = Defect(text); slices.Contains(Defects(), *d) {
		return nil
	}
	var names []string
	for _, known := range Defects() {
		names = append(names, string(known))
	}
	return fmt.Errorf("%q is no defect: want one of %s", text, strings.Join(names, ", "))
}

// spoiler makes a data plane defective. It serves one goroutine.
type spoiler struct {
	defects []Defect
	members map[string][]dataplane.Member // ever seen, by pool
}

func newSpoiler(defects []Defect) *spoiler {
	return &spoiler{defects, map[string][]dataplane.Member{}}
}

// spoil changes what a data plane is about to be told. Pools are shared by virtual servers, and the same ones in each.
func (s *spoiler) spoil(cfg dataplane.Config) {
	if len(s.defects) == 0 {
		return
	}
	seen := map[*dataplane.Pool]bool{nil: true}
	for i := range cfg.VirtualServers {
		vs := &cfg.VirtualServers[i]
		if slices.Contains(s.defects, DefectNoAccessLists) {
			vs.Access = nil
		}
		if !seen[vs.Pool] {
			seen[vs.Pool] = true
			s.spoilPool(vs.Pool)
		}
	}
}

func (s *spoiler) spoilPool(p *dataplane.Pool) {
	for _, d := range s.defects {
		switch d {
		case DefectNoHealthChecks:
			p.Monitors, p.Passive = nil, nil
		case DefectSNATEverywhere:
			p.SNAT = dataplane.AutoMap
		case DefectOldMembers:
			for _, m := range p.Members {
				m.AdminState = dataplane.Enabled
				same := func(o dataplane.Member) bool { return o.Address == m.Address && o.Port == m.Port }
				if !slices.ContainsFunc(s.members[p.ID], same) {
					s.members[p.ID] = append(s.members[p.ID], m)
				}
			}
			p.Members = slices.Clone(s.members[p.ID])
		}
	}
}
