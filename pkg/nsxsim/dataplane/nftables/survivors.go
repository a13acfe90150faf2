//go:build linux

package nftables

import (
	"cmp"
	"maps"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// connection is one that carries a mark of ours.
type connection struct {
	service service
	mark    uint32
	port    uint16 // of the member
	open    bool   // not TCP's TIME_WAIT or CLOSE, of which only traces are left

	family       uint8
	original, id []byte // by which the kernel knows it
}

// survivors tells which connections live on. Those of TCP do with members that are not gone or DISABLED, also with those of
// pools that the virtual server had when they began; those of UDP only where new ones might go, too.
type survivors struct {
	services map[service]stay
	tcp, udp map[string]map[uint32]bool // by pool: marks of members
	former   map[string]map[uint32]bool // by virtual server: marks of members of pools that it had
	poolOf   map[string]string          // by virtual server
	marks    *marks
}

// stay is what lives on of a service's connections: those with members of pools.
type stay struct {
	virtualServer string
	protocol      dataplane.Protocol
	pools         [2]string // ids; "": none
	port          uint16    // that UDP flows go to of members that have none of their own
}

// surviving tells which connections live on when virtual servers, of which some are disabled, are served by pools, given
// those that did before. Of two virtual servers with the same service, the last one counts.
func surviving(before survivors, all []served, pools map[string]choice, marks *marks) survivors {
	s := survivors{
		services: map[service]stay{}, tcp: map[string]map[uint32]bool{}, udp: map[string]map[uint32]bool{},
		former: map[string]map[uint32]bool{}, poolOf: map[string]string{}, marks: marks,
	}
	anywhere := map[uint32]bool{}
	for id, c := range pools {
		s.tcp[id], s.udp[id] = marksOf(c.all), marksOf(c.up)
		maps.Copy(anywhere, s.tcp[id])
	}
	for _, vs := range all {
		if vs.userSpace || vs.Disabled && vs.Protocol == dataplane.UDP {
			continue
		}
		is := stay{virtualServer: vs.ID, protocol: vs.Protocol}
		for i, pool := range poolsOf(vs.VirtualServer) {
			is.pools[i] = pool.ID
		}
		for _, port := range vs.Ports {
			if vs.Protocol == dataplane.UDP {
				is.port = port.Member
			}
			s.services[serviceOf(vs.VirtualServer, port)] = is
		}
		s.poolOf[vs.ID] = is.pools[0]
		former := maps.Clone(before.former[vs.ID])
		if had := before.poolOf[vs.ID]; had != is.pools[0] && had != "" {
			former = maps.Clone(before.tcp[had])
			maps.Copy(former, before.former[vs.ID])
		}
		maps.DeleteFunc(former, func(mark uint32, _ bool) bool { return !anywhere[mark] })
		if len(former) > 0 {
			s.former[vs.ID] = former
		}
	}
	return s
}

func marksOf(targets []target) map[uint32]bool {
	marks := make(map[uint32]bool, len(targets))
	for _, t := range targets {
		marks[t.mark] = true
	}
	return marks
}

// has tells whether a connection lives on.
func (s survivors) has(c connection) bool {
	is, ok := s.services[c.service]
	switch {
	case !ok:
		return false
	case is.protocol == dataplane.UDP:
		return (s.udp[is.pools[0]][c.mark] || s.udp[is.pools[1]][c.mark]) && c.port == cmp.Or(s.marks.byMark[c.mark].Port(), is.port)
	}
	return s.tcp[is.pools[0]][c.mark] || s.tcp[is.pools[1]][c.mark] || s.former[is.virtualServer][c.mark]
}

// include tells whether all connections that lived on before do now, without a look at each. It errs on the side of no.
func (s survivors) include(before survivors) bool {
	return within(before.tcp, s.tcp) && within(before.udp, s.udp) && within(before.former, s.former) &&
		!containsFunc(before.services, func(key service, was stay) bool { return s.services[key] != was })
}

// within tells whether each of some sets is part of another one.
func within(sets, others map[string]map[uint32]bool) bool {
	return !containsFunc(sets, func(id string, marks map[uint32]bool) bool {
		return containsFunc(marks, func(mark uint32, _ bool) bool { return !others[id][mark] })
	})
}

func containsFunc[K comparable, V any](m map[K]V, f func(K, V) bool) bool {
	for k, v := range m {
		if f(k, v) {
			return true
		}
	}
	return false
}
