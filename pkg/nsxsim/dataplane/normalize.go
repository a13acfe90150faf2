package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// ErrInvalid is in the error that Apply returns for a virtual server that cannot be served as configured.
var ErrInvalid = errors.New("invalid")

// desired is a virtual server of a Config: a copy of our own with the defaults filled in, or why it cannot be served.
type desired struct {
	VirtualServer
	layer7 *layer7 // nil: layer 4, or at fault
	fault  error
}

// Valid returns a copy with the defaults filled in and without the virtual servers that cannot be served as configured.
// The error, which wraps ErrInvalid, names these. Equal pools become one *Pool.
func (c Config) Valid() (Config, error) {
	all, err := normalize(c)
	var valid Config
	for _, d := range all {
		if d.fault == nil {
			valid.VirtualServers = append(valid.VirtualServers, d.VirtualServer)
		}
	}
	return valid, err
}

// normalize copies cfg, fills in defaults and checks it. What is wrong with one virtual server is its fault
// alone; the error joins them all. Equal pools become one *Pool.
func normalize(cfg Config) ([]desired, error) {
	var (
		all  []desired
		errs []error
	)
	seen := map[string]bool{}
	pools := sharedPools{byID: map[string]*Pool{}, checked: map[*Pool]checkedPool{}}
	for _, vs := range cfg.VirtualServers {
		if vs.ID == "" || seen[vs.ID] {
			errs = append(errs, fmt.Errorf("virtual server id %q is empty or given twice: %w", vs.ID, ErrInvalid))
			continue
		}
		seen[vs.ID] = true
		d := desired{VirtualServer: vs.withDefaults()}
		var faults [5]error
		faults[0] = d.VirtualServer.check()
		if d.HTTP != nil {
			faults[3] = pools.shareOfRules(d.HTTP.Rules)
			d.layer7, faults[4] = d.HTTP.ready()
		}
		d.Pool, faults[1] = pools.share(vs.Pool)
		d.SorryPool, faults[2] = pools.share(vs.SorryPool)
		d.fault = cmp.Or(faults[:]...)
		if d.fault != nil {
			errs = append(errs, fmt.Errorf("virtual server %s: %w", d.ID, d.fault))
		}
		all = append(all, d)
	}
	return all, errors.Join(errs...)
}

// sharedPools are the pools of a Config. One *Pool given for many virtual servers is copied and checked once.
type sharedPools struct {
	byID    map[string]*Pool
	checked map[*Pool]checkedPool
}

type checkedPool struct {
	pool  *Pool // nil with a fault
	fault error
}

// share returns our copy of a pool: the same one for all pools of an id, which must be equal.
func (s *sharedPools) share(given *Pool) (*Pool, error) {
	if given == nil {
		return nil, nil
	}
	if known, ok := s.checked[given]; ok {
		return known.pool, known.fault
	}
	pool, fault := s.add(given.withDefaults())
	s.checked[given] = checkedPool{pool, fault}
	return pool, fault
}

// shareOfRules does so for the pools that rules select.
func (s *sharedPools) shareOfRules(rules []Rule) error {
	for i := range rules {
		rules[i].Actions = slices.Clone(rules[i].Actions)
		for j := range rules[i].Actions {
			a := &rules[i].Actions[j]
			pool, err := s.share(a.Pool)
			if err != nil {
				return fmt.Errorf("rule %s: %w", rules[i].Name, err)
			}
			if a.Pool = pool; a.Persistence != nil {
				a.Persistence = a.Persistence.withDefaults()
			}
		}
	}
	return nil
}

func (s *sharedPools) add(p Pool) (*Pool, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("pool %s: %w", p.ID, err)
	}
	known, ok := s.byID[p.ID]
	if ok && !reflect.DeepEqual(known, &p) {
		return nil, fmt.Errorf("pool %s is given twice with different contents: %w", p.ID, ErrInvalid)
	}
	if !ok {
		known = &p
		s.byID[p.ID] = known
	}
	return known, nil
}

// withDefaults returns a copy, but for the pool.
func (vs VirtualServer) withDefaults() VirtualServer {
	vs.Address = vs.Address.Unmap()
	vs.Ports = slices.Clone(vs.Ports)
	for i := range vs.Ports {
		vs.Ports[i].Member = cmp.Or(vs.Ports[i].Member, vs.Ports[i].Listen)
	}
	if vs.Persistence != nil {
		vs.Persistence = vs.Persistence.withDefaults()
	}
	if vs.HTTP != nil {
		vs.HTTP = vs.HTTP.withDefaults()
	}
	if vs.Access != nil {
		vs.Access = &Access{Action: vs.Access.Action, Prefixes: slices.Clone(vs.Access.Prefixes)}
	}
	if vs.IdleTimeout == 0 && vs.Protocol == TCP {
		vs.IdleTimeout = 1800 * time.Second
	}
	vs.IdleTimeout = cmp.Or(vs.IdleTimeout, 300*time.Second)
	return vs
}

func (p Persistence) withDefaults() *Persistence {
	p.Timeout = cmp.Or(p.Timeout, 300*time.Second)
	return &p
}

func (p Pool) withDefaults() Pool {
	p.Algorithm = cmp.Or(p.Algorithm, RoundRobin)
	p.SNAT = cmp.Or(p.SNAT, AutoMap)
	p.MinActiveMembers = cmp.Or(p.MinActiveMembers, 1)
	p.SNATAddresses = slices.Clone(p.SNATAddresses)
	p.Members = slices.Clone(p.Members)
	for i := range p.Members {
		m := &p.Members[i]
		m.Address = m.Address.Unmap()
		m.Weight = cmp.Or(m.Weight, 1)
		m.AdminState = cmp.Or(m.AdminState, Enabled)
	}
	if p.Passive != nil {
		p.Passive = &Passive{MaxFails: cmp.Or(p.Passive.MaxFails, 5), Timeout: cmp.Or(p.Passive.Timeout, 5*time.Second)}
	}
	p.Monitors = slices.Clone(p.Monitors)
	for i := range p.Monitors {
		m := &p.Monitors[i]
		m.Interval = cmp.Or(m.Interval, 5*time.Second)
		m.Timeout = cmp.Or(m.Timeout, 15*time.Second)
		m.Fall = cmp.Or(m.Fall, 3)
		m.Rise = cmp.Or(m.Rise, 3)
		m.Method = cmp.Or(m.Method, "GET")
		m.URL = cmp.Or(m.URL, "/")
		m.Headers, m.TLS = maps.Clone(m.Headers), m.TLS.clone()
		if m.StatusCodes = slices.Clone(m.StatusCodes); len(m.StatusCodes) == 0 {
			m.StatusCodes = []int{200}
		}
	}
	return p
}

func (vs *VirtualServer) check() error {
	switch {
	case !vs.Address.IsValid() || vs.Address.IsUnspecified() || vs.Address.IsMulticast():
		return fmt.Errorf("address %v: %w", vs.Address, ErrInvalid)
	case vs.Protocol != TCP && vs.Protocol != UDP:
		return fmt.Errorf("protocol %q: %w", vs.Protocol, ErrInvalid)
	case vs.HTTP != nil && vs.Protocol != TCP:
		return fmt.Errorf("HTTP over %s: %w", vs.Protocol, ErrInvalid)
	case len(vs.Ports) == 0:
		return fmt.Errorf("no ports: %w", ErrInvalid)
	case vs.MaxConnections < 0 || vs.MaxConnectionRate < 0 || vs.IdleTimeout < 0:
		return fmt.Errorf("negative limit or timeout: %w", ErrInvalid)
	case vs.Persistence != nil && vs.Persistence.Timeout < 0:
		return fmt.Errorf("negative persistence timeout: %w", ErrInvalid)
	case vs.Access != nil && vs.Access.Action != Allow && vs.Access.Action != Drop:
		return fmt.Errorf("access action %q: %w", vs.Access.Action, ErrInvalid)
	}
	ports := map[uint16]bool{}
	for _, p := range vs.Ports {
		if p.Listen == 0 || ports[p.Listen] {
			return fmt.Errorf("port %d is zero or given twice: %w", p.Listen, ErrInvalid)
		}
		ports[p.Listen] = true
	}
	return nil
}

func (p *Pool) check() error {
	switch {
	case p.ID == "":
		return fmt.Errorf("no id: %w", ErrInvalid)
	case !slices.Contains([]Algorithm{RoundRobin, WeightedRoundRobin, LeastConnection, WeightedLeastConnection, IPHash}, p.Algorithm):
		return fmt.Errorf("algorithm %q: %w", p.Algorithm, ErrInvalid)
	case p.SNAT != AutoMap && p.SNAT != Transparent:
		return fmt.Errorf("SNAT %q: %w", p.SNAT, ErrInvalid)
	case slices.ContainsFunc(p.SNATAddresses, func(a netip.Prefix) bool { return !a.IsValid() }):
		return fmt.Errorf("SNAT addresses %v: %w", p.SNATAddresses, ErrInvalid)
	case p.Passive != nil && (p.Passive.MaxFails < 0 || p.Passive.Timeout < 0):
		return fmt.Errorf("passive monitor: negative count or timeout: %w", ErrInvalid)
	case p.MinActiveMembers < 0:
		return fmt.Errorf("negative number of active members: %w", ErrInvalid)
	}
	members := map[netip.AddrPort]bool{}
	for _, m := range p.Members {
		key := netip.AddrPortFrom(m.Address, m.Port)
		switch {
		case !m.Address.IsValid() || m.Address.IsUnspecified() || m.Address.IsMulticast():
			return fmt.Errorf("member address %v: %w", m.Address, ErrInvalid)
		case members[key]:
			return fmt.Errorf("member %v is given twice: %w", key, ErrInvalid)
		case m.Weight < 0 || m.MaxConnections < 0:
			return fmt.Errorf("member %v: negative weight or limit: %w", key, ErrInvalid)
		case !slices.Contains([]AdminState{Enabled, Disabled, GracefulDisabled}, m.AdminState):
			return fmt.Errorf("member %v: admin state %q: %w", key, m.AdminState, ErrInvalid)
		}
		members[key] = true
	}
	monitors := map[string]bool{}
	for _, m := range p.Monitors {
		switch {
		case monitors[m.ID]:
			return fmt.Errorf("monitor %q is given twice: %w", m.ID, ErrInvalid)
		case !slices.Contains([]MonitorType{MonitorHTTP, MonitorHTTPS, MonitorTCP, MonitorUDP, MonitorICMP}, m.Type):
			return fmt.Errorf("monitor %q: type %q: %w", m.ID, m.Type, ErrInvalid)
		case m.Type == MonitorUDP && (m.Send == "" || m.Receive == ""):
			return fmt.Errorf("monitor %q: UDP needs something to send and to receive: %w", m.ID, ErrInvalid)
		case m.Interval < 0 || m.Timeout < 0 || m.Fall < 0 || m.Rise < 0 || m.DataLength < 0:
			return fmt.Errorf("monitor %q: negative interval, timeout, count or length: %w", m.ID, ErrInvalid)
		case m.Version != "" && m.Version != HTTP10 && m.Version != HTTP11:
			return fmt.Errorf("monitor %q: HTTP version %q: %w", m.ID, m.Version, ErrInvalid)
		}
		if m.TLS != nil {
			if _, err := m.TLS.toServer(); err != nil {
				return fmt.Errorf("monitor %q: %w", m.ID, err)
			}
		}
		monitors[m.ID] = true
	}
	return nil
}

// pools are all that the virtual server uses, each once or more.
func (vs *VirtualServer) pools() []*Pool {
	all := []*Pool{vs.Pool, vs.SorryPool}
	for _, a := range vs.actions() {
		all = append(all, a.Pool)
	}
	return slices.DeleteFunc(all, func(p *Pool) bool { return p == nil })
}

// tables are all that the virtual server ties clients by.
func (vs *VirtualServer) tables() []*Persistence {
	all := []*Persistence{vs.Persistence}
	for _, a := range vs.actions() {
		all = append(all, a.Persistence)
	}
	return slices.DeleteFunc(all, func(p *Persistence) bool { return p == nil })
}

func (vs *VirtualServer) actions() []Action {
	if vs.HTTP == nil {
		return nil
	}
	var all []Action
	for _, r := range vs.HTTP.Rules {
		all = append(all, r.Actions...)
	}
	return all
}

// memberPort of a listening port: the pair's other half.
func (vs *VirtualServer) memberPort(listen uint16) uint16 {
	for _, p := range vs.Ports {
		if p.Listen == listen {
			return p.Member
		}
	}
	return listen
}

// permits tells whether a client may connect. A nil Access permits everybody.
func (a *Access) permits(client netip.Addr) bool {
	if a == nil {
		return true
	}
	named := slices.ContainsFunc(a.Prefixes, func(p netip.Prefix) bool { return p.Contains(client) })
	return named == (a.Action == Allow)
}
