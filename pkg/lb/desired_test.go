package lb

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
)

// A Service that can't be served says all that is wrong with it, and what to change.
func TestBadServices(t *testing.T) {
	const good = `{"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "nodePort": 30080}]}`
	tests := []struct {
		name string
		// annotations and spec are merged into a good Service.
		annotations, spec string
		want              string
	}{
		{name: "SCTP", spec: `{"ports": [{"port": 80, "nodePort": 30080}, {"port": 9, "nodePort": 30009, "protocol": "SCTP"}]}`,
			want: "port 9/SCTP: NSX balances TCP and UDP only; use one of these, or remove the port"},
		{name: "no node ports", spec: `{"allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}`,
			want: "port 80/TCP has no node port to forward to: set spec.allocateLoadBalancerNodePorts to true, or give the port a nodePort; " +
				"port 53/UDP has no node port to forward to: set spec.allocateLoadBalancerNodePorts to true, or give the port a nodePort"},
		{name: "no ports", spec: `{"ports": null}`, want: "it has no ports"},
		{name: "impossible ports", spec: `{"ports": [{"port": 0, "nodePort": 1}, {"port": 70000, "nodePort": 1}, {"port": 5, "nodePort": 70000}]}`,
			want: "port 0/TCP: a port is a number from 1 to 65535; port 70000/TCP: a port is a number from 1 to 65535; " +
				"port 5/TCP: its nodePort 70000 is not a number from 1 to 65535"},
		{name: "the same port twice", spec: `{"ports": [{"port": 80, "nodePort": 30080}, {"port": 80, "nodePort": 30081}]}`,
			want: "port 80/TCP is there twice"},
		{name: "not of our type", spec: `{"type": "ClusterIP"}`, want: "it is of type ClusterIP, not LoadBalancer"},
		{name: "an unknown class", annotations: `{"loadbalancer.nsxt.io/class": "gold"}`,
			want: `there is no load-balancer class "gold": name another in the annotation loadbalancer.nsxt.io/class (there are: default, silver)`},
		{name: "an unknown class by its field", spec: `{"loadBalancerClass": "nsxt.io/gold"}`,
			want: `there is no load-balancer class "gold": name another in the annotation loadbalancer.nsxt.io/class (there are: default, silver)`},
		{name: "another controller's class", spec: `{"loadBalancerClass": "example.com/x"}`, annotations: `{"loadbalancer.nsxt.io/class": "silver"}`,
			want: `spec.loadBalancerClass "example.com/x" is another controller's`},
		{name: "no address", annotations: `{"loadbalancer.nsxt.io/ip-addresses": "10.0.0.1, ten"}`,
			want: `annotation loadbalancer.nsxt.io/ip-addresses: "ten" is no IP address; give one, or one of each family separated by a comma`},
		{name: "an address with a zone", spec: `{"loadBalancerIP": "fe80::1%eth0", "ipFamilies": ["IPv6"]}`,
			want: `spec.loadBalancerIP: "fe80::1%eth0" is no IP address; give one, or one of each family separated by a comma`},
		{name: "an address of another family", spec: `{"loadBalancerIP": "2001:db8::1"}`,
			want: "spec.loadBalancerIP: 2001:db8::1 is an IPv6 address, and spec.ipFamilies has no IPv6"},
		{name: "two addresses of a family", annotations: `{"loadbalancer.nsxt.io/ip-addresses": "10.0.0.1,10.0.0.2"}`,
			want: "annotation loadbalancer.nsxt.io/ip-addresses: 10.0.0.2 is a second IPv4 address; a Service gets one of each family"},
		{name: "Local without a health check", spec: `{"externalTrafficPolicy": "Local"}`,
			want: "externalTrafficPolicy: Local without a healthCheckNodePort, so that no node could be asked for its endpoints: " +
				"set spec.externalTrafficPolicy to Cluster and back to Local to get one"},
		{name: "an unknown policy", spec: `{"externalTrafficPolicy": "Nearby"}`, want: `spec.externalTrafficPolicy: "Nearby" is neither Cluster nor Local`},
		{name: "an unknown affinity", spec: `{"sessionAffinity": "Cookie"}`, want: `spec.sessionAffinity: "Cookie" is neither None nor ClientIP`},
		{name: "an affinity of no time", spec: `{"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}`,
			want: "spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 is not a number above 0"},
		{name: "an unknown family", spec: `{"ipFamilies": ["IPv5", "IPv4"]}`, want: `spec.ipFamilies: "IPv5" is no IP family`},
		{name: "source ranges that are none", spec: `{"loadBalancerSourceRanges": ["192.0.2.0/24", "192.0.2.1", ""]}`,
			want: `spec.loadBalancerSourceRanges: "192.0.2.1" is no IP range such as 192.0.2.0/24; ` +
				`spec.loadBalancerSourceRanges: "" is no IP range such as 192.0.2.0/24`},
		{name: "source ranges in the annotation of old that are none", annotations: `{"service.beta.kubernetes.io/load-balancer-source-ranges": "192.0.2.0/24, here"}`,
			want: `annotation service.beta.kubernetes.io/load-balancer-source-ranges: " here" is no IP range such as 192.0.2.0/24`},
		{name: "too many source ranges", spec: `{"loadBalancerSourceRanges": [` + everyOther(4001) + `]}`,
			want: "spec.loadBalancerSourceRanges has 4001 IPv4 ranges that cannot be merged, and NSX takes 4000: name larger ones"},
		{name: "several faults", annotations: `{"loadbalancer.nsxt.io/ip-addresses": "x"}`, spec: `{"ports": null, "sessionAffinity": "x"}`,
			want: `it has no ports; spec.sessionAffinity: "x" is neither None nor ClientIP; annotation loadbalancer.nsxt.io/ip-addresses: "x" is no ` +
				"IP address; give one, or one of each family separated by a comma"},
	}
	silver := testClass()
	silver.Name = "silver"
	lb := config.LoadBalancer{DefaultClass: "default", Classes: []config.Class{silver, testClass()}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parse := func(s string) map[string]any {
				m := map[string]any{}
				if err := json.Unmarshal([]byte(s), &m); s != "" && err != nil {
					t.Fatal(err)
				}
				return m
			}
			svc := toService(t, map[string]any{
				"metadata": map[string]any{"namespace": "default", "name": "web", "uid": "u", "annotations": parse(tt.annotations)},
				"spec":     merge(parse(good), parse(tt.spec)),
			})
			class, err := ClassOf(svc, lb)
			if err == nil {
				_, err = Desired(svc, class)
			}
			if !errors.Is(err, ErrBadService) || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestClassOf(t *testing.T) {
	classes := map[string]config.Class{}
	lb := config.LoadBalancer{DefaultClass: "default"}
	for _, name := range []string{"default", "silver", "gold"} {
		c := testClass()
		c.Name = name
		classes[name] = c
		lb.Classes = append(lb.Classes, c)
	}
	tests := []struct{ annotation, field, want string }{
		{"", "", "default"},
		{"silver", "", "silver"},
		{" silver ", "", "silver"},
		{"", "nsxt.io/gold", "gold"},
		{"silver", "nsxt.io/gold", "silver"},
	}
	for _, tt := range tests {
		svc := &corev1.Service{}
		if tt.annotation != "" {
			svc.Annotations = map[string]string{"loadbalancer.nsxt.io/class": tt.annotation}
		}
		if tt.field != "" {
			svc.Spec.LoadBalancerClass = &tt.field
		}
		if c, err := ClassOf(svc, lb); err != nil || c.Name != tt.want {
			t.Errorf("annotation %q, field %q: got %q, %v, want %q", tt.annotation, tt.field, c.Name, err, tt.want)
		}
	}
}

// Whatever a Service says, it is served or refused with a reason, and what is served is sane.
func FuzzDesired(f *testing.F) {
	f.Add([]byte(`{"metadata": {"uid": "u"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}]}}`))
	f.Add([]byte(`{"metadata": {"uid": "u", "annotations": {"loadbalancer.nsxt.io/ip-addresses": "::1,1.2.3.4", "loadbalancer.nsxt.io/x": ""}},
		"spec": {"type": "LoadBalancer", "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack", "externalTrafficPolicy": "Local",
		"healthCheckNodePort": 32000, "sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["10.0.0.0/08", "10.1.2.3/9", "2001:db8::/32"],
		"ports": [{"port": 80, "nodePort": 30080, "protocol": "UDP"}, {"port": -1, "nodePort": 99999}]},
		"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "x"}]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		svc := &corev1.Service{}
		if err := json.Unmarshal(raw, svc); err != nil {
			t.Skip()
		}
		class, err := ClassOf(svc, config.LoadBalancer{DefaultClass: "default", Classes: []config.Class{testClass()}})
		if err != nil {
			return
		}
		want, err := Desired(svc, class)
		if err != nil {
			if !errors.Is(err, ErrBadService) || strings.TrimSpace(err.Error()) == "" {
				t.Errorf("refused with %#v", err)
			}
			return
		}
		if len(want.Listeners) == 0 || len(want.Families) == 0 || want.Owner.UID == "" {
			t.Errorf("served with nothing to serve: %v", want)
		}
		n := newFakeNSX(t)
		n.setPools(ipPool("floating", false, "10.0.0.1-10.0.0.9", "2001:db8::1-2001:db8::9"))
		n.addLBService("lb-1", 0)
		plan, err := Diff(want, n.inv.Observe(want.Owner), n.inv, testCluster)
		if err == nil {
			err = n.apply(plan, new(strings.Builder))
		}
		for _, v := range n.inv.Observe(want.Owner).VirtualServers {
			if !v.Sources.Equal(want.Sources[v.Family()]) {
				t.Errorf("%v lets in %v", v, v.Sources)
			}
		}
		if again, _ := Diff(want, n.inv.Observe(want.Owner), n.inv, testCluster); err == nil && len(again.Intents) > 0 {
			t.Errorf("%v\nnot done by\n%v\nleft:\n%v", want, plan, again)
		}
	})
}
