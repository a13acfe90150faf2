package nsxsim_test

import (
	"net/netip"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
	"github.com/google/go-cmp/cmp"
)

// bench is a rig with a load balancer service, ready for virtual servers.
type bench struct {
	*rig
	tier1, lb string
}

func newBench(t *testing.T, o nsxsim.Options) *bench {
	t.Helper()
	r := newRig(t, o)
	tier1 := nsxsim.Must(r.AddTier1("t1")).ID()
	return &bench{r, tier1, nsxsim.Must(r.AddLBService("lb", "SMALL", tier1)).ID()}
}

// attach sets the virtual servers of the service.
func (b *bench) attach(ids ...string) {
	b.t.Helper()
	service := b.ok("GET", services+"/"+b.lb, nil)
	service["virtual_server_ids"] = ids
	b.ok("PUT", services+"/"+b.lb, service)
}

// memberStates gives address[:port]=state of the pool's members.
func (b *bench) memberStates(pool string) []string {
	b.t.Helper()
	var states []string
	members, _ := b.ok("GET", services+"/"+b.lb+"/pools/"+pool+"/status", nil)["members"].([]any)
	for _, v := range members {
		m := nsxsim.Object(v.(doc))
		s := m.String("ip_address")
		if port := m.String("port"); port != "" {
			s += ":" + port
		}
		states = append(states, s+"="+m.String("status"))
	}
	return states
}

func TestStatesOfMembersAndPools(t *testing.T) {
	down, up := false, true
	member := func(ip string, more ...any) doc {
		d := doc{"ip_address": ip}
		for i := 0; i < len(more); i += 2 {
			d[more[i].(string)] = more[i+1]
		}
		return d
	}
	for _, c := range []struct {
		name      string
		quirks    nsxsim.Quirks
		monitored bool
		pool      doc
		health    map[string]bool
		members   []string
		state     string
	}{
		{name: "no monitor: always up", pool: doc{"members": []doc{member("10.0.0.1", "port", "80")}},
			health: map[string]bool{"10.0.0.1": down}, members: []string{"10.0.0.1:80=UP"}, state: "UP"},
		{name: "monitored, not checked yet", monitored: true, pool: doc{"members": []doc{member("10.0.0.1")}},
			members: []string{"10.0.0.1=UP"}, state: "UP"},
		{name: "monitored, not checked yet, the other way", monitored: true, pool: doc{"members": []doc{member("10.0.0.1")}},
			quirks: nsxsim.Quirks{UncheckedMembersDown: true}, members: []string{"10.0.0.1=DOWN"}, state: "DOWN"},
		{name: "some down", monitored: true, pool: doc{"members": []doc{member("10.0.0.1"), member("10.0.0.2")}},
			health: map[string]bool{"10.0.0.1": down, "10.0.0.2": up}, members: []string{"10.0.0.1=DOWN", "10.0.0.2=UP"}, state: "PARTIALLY_UP"},
		{name: "all down", monitored: true, pool: doc{"members": []doc{member("10.0.0.1")}},
			health: map[string]bool{"10.0.0.1": down}, members: []string{"10.0.0.1=DOWN"}, state: "DOWN"},
		{name: "backup serves", monitored: true, pool: doc{"members": []doc{member("10.0.0.1"), member("10.0.0.2", "backup_member", true)}},
			health: map[string]bool{"10.0.0.1": down}, members: []string{"10.0.0.1=DOWN", "10.0.0.2=UP"}, state: "PRIMARY_DOWN"},
		{name: "too few active for a pool with backup", monitored: true,
			pool:   doc{"min_active_members": 2, "members": []doc{member("10.0.0.1"), member("10.0.0.2"), member("10.0.0.3", "backup_member", true)}},
			health: map[string]bool{"10.0.0.1": down}, members: []string{"10.0.0.1=DOWN", "10.0.0.2=UP", "10.0.0.3=UP"}, state: "PRIMARY_DOWN"},
		{name: "admin states", pool: doc{"members": []doc{member("10.0.0.1", "admin_state", "DISABLED"),
			member("10.0.0.2", "admin_state", "GRACEFUL_DISABLED"), member("10.0.0.3")}},
			members: []string{"10.0.0.1=DISABLED", "10.0.0.2=GRACEFUL_DISABLED", "10.0.0.3=UP"}, state: "PARTIALLY_UP"},
		{name: "no members", pool: doc{}, state: "DOWN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nsxsim.Options{Quirks: c.quirks})
			if c.monitored {
				c.pool["active_monitor_ids"] = []string{b.named(nsxsim.KindMonitor, "default-tcp-lb-monitor")}
			}
			pool := b.create(pools, c.pool)
			vs := b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"pool_id": pool}))
			b.attach(vs)
			for ip, up := range c.health {
				b.SetMemberHealth(netip.MustParseAddr(ip), up)
			}
			if diff := cmp.Diff(c.members, b.memberStates(pool)); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
			for _, path := range []string{"/pools/" + pool, "/virtual-servers/" + vs} {
				if got := b.ok("GET", services+"/"+b.lb+path+"/status", nil).String("status"); got != c.state {
					t.Errorf("%s is %s, want %s", path, got, c.state)
				}
			}
		})
	}
}

func TestStatesByWhereAnObjectIsAttached(t *testing.T) {
	for _, c := range []struct {
		name                string
		service             doc // changes to the service
		server              doc // changes to the virtual server
		wantService, wantVS string
		wantPool            string
	}{
		{name: "live", wantService: "UP", wantVS: "UP", wantPool: "UP"},
		{name: "disabled virtual server", server: doc{"enabled": false}, wantService: "UP", wantVS: "DISABLED", wantPool: "UNKNOWN"},
		{name: "disabled service", service: doc{"enabled": false}, wantService: "DISABLED", wantVS: "UNKNOWN", wantPool: "UNKNOWN"},
		{name: "detached service", service: doc{"attachment": nil}, wantService: "DETACHED", wantVS: "DETACHED", wantPool: "UNKNOWN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nsxsim.Options{})
			pool := b.create(pools, doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
			more := doc{"pool_id": pool}
			for k, v := range c.server {
				more[k] = v
			}
			b.attach(b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, more)))
			service := b.ok("GET", services+"/"+b.lb, nil)
			for k, v := range c.service {
				service[k] = v
			}
			b.ok("PUT", services+"/"+b.lb, service)

			status := b.ok("GET", services+"/"+b.lb+"/status?source=realtime", nil)
			got := []string{status.String("service_status"),
				nsxsim.Object(status["virtual_servers"].([]any)[0].(doc)).String("status"),
				nsxsim.Object(status["pools"].([]any)[0].(doc)).String("status")}
			for i, path := range []string{"/virtual-servers/status", "/pools/status"} {
				list := b.do("GET", services+"/"+b.lb+path, nil).results()
				if len(list) != 1 || list[0].String("status") != got[i+1] {
					t.Errorf("%s: %v, want %s", path, list, got[i+1])
				}
			}
			if diff := cmp.Diff([]string{c.wantService, c.wantVS, c.wantPool}, got); diff != "" {
				t.Errorf("service, virtual server, pool (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusSource(t *testing.T) {
	b := newBench(t, nsxsim.Options{})
	for source, want := range map[string]int{"": 200, "realtime": 200, "cached": 200, "guessed": 400} {
		if a := b.do("GET", services+"/"+b.lb+"/status?source="+source, nil); a.status != want {
			t.Errorf("source=%s: %d, want %d", source, a.status, want)
		}
	}
}

func TestAServiceOnASingleEdgeNodeHasNoStandby(t *testing.T) {
	b := newBench(t, nsxsim.Options{})
	_, err := b.As("admin").Update(nsxsim.KindEdgeCluster, b.EdgeClusterID(), func(o nsxsim.Object) {
		o["members"] = o["members"].([]any)[:1]
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.ok("GET", services+"/"+b.lb+"/status", nil).String("service_status"); got != "NO_STANDBY" {
		t.Errorf("service is %s, want NO_STANDBY", got)
	}
}

func TestMembersOfAGroup(t *testing.T) {
	two := 2
	for _, c := range []struct {
		name      string
		options   nsxsim.Options
		addresses []string
		group     doc
		want      []string
	}{
		{name: "unset size: one serves", addresses: []string{"10.0.0.1", "10.0.0.2"}, want: []string{"10.0.0.1=UP", "10.0.0.2=DISABLED"}},
		{name: "unset size, the other way", options: nsxsim.Options{Quirks: nsxsim.Quirks{UnsizedGroupServes: true}},
			addresses: []string{"10.0.0.1", "10.0.0.2"}, want: []string{"10.0.0.1=UP", "10.0.0.2=UP"}},
		{name: "over the size", addresses: []string{"10.0.0.1-10.0.0.3"}, group: doc{"max_ip_list_size": two},
			want: []string{"10.0.0.1=UP", "10.0.0.2=UP", "10.0.0.3=UNUSED"}},
		{name: "port, ranges and CIDRs", addresses: []string{"10.0.0.1", "10.0.0.4/31"}, group: doc{"max_ip_list_size": 9, "port": 8080},
			want: []string{"10.0.0.1:8080=UP", "10.0.0.4:8080=UP", "10.0.0.5:8080=UP"}},
		{name: "loopback and link-local are dropped", addresses: []string{"127.0.0.1", "169.254.1.1", "10.0.0.1"}, group: doc{"max_ip_list_size": 9},
			want: []string{"10.0.0.1=UP"}},
		{name: "loopback in the lab", options: nsxsim.Options{AllowLoopbackMembers: true},
			addresses: []string{"127.0.0.1", "169.254.1.1"}, group: doc{"max_ip_list_size": 9}, want: []string{"127.0.0.1=UP"}},
		{name: "IPv4 by default", addresses: []string{"2001:db8::1", "10.0.0.1"}, group: doc{"max_ip_list_size": 9}, want: []string{"10.0.0.1=UP"}},
		{name: "IPv6", addresses: []string{"2001:db8::1", "10.0.0.1"}, group: doc{"max_ip_list_size": 9, "ip_revision_filter": "IPV6"},
			want: []string{"2001:db8::1=UP"}},
		{name: "both", addresses: []string{"2001:db8::1", "10.0.0.1"}, group: doc{"max_ip_list_size": 9, "ip_revision_filter": "IPV4_IPV6"},
			want: []string{"2001:db8::1=UP", "10.0.0.1=UP"}},
		{name: "customized", addresses: []string{"10.0.0.1", "10.0.0.2"},
			group: doc{"max_ip_list_size": 9, "customized_members": []doc{{"ip_address": "10.0.0.2", "admin_state": "GRACEFUL_DISABLED"}}},
			want:  []string{"10.0.0.1=UP", "10.0.0.2=GRACEFUL_DISABLED"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.options)
			set := b.create("/ip-sets", doc{"ip_addresses": c.addresses})
			group := b.create("/ns-groups", doc{"members": []doc{{"resource_type": "NSGroupSimpleExpression", "op": "EQUALS",
				"target_type": "IPSet", "target_property": "id", "value": set}}})
			members := doc{"grouping_object": doc{"target_type": "NSGroup", "target_id": group}}
			for k, v := range c.group {
				members[k] = v
			}
			pool := b.create(pools, doc{"member_group": members})
			b.attach(b.create(servers, b.tcpVS("10.1.0.1", []string{"80"}, doc{"pool_id": pool})))
			if diff := cmp.Diff(c.want, b.memberStates(pool)); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
		})
	}
}
