package bench

import (
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// servicesPerLBService is how many Services of one virtual server fit into a load-balancer service of the largest size,
// as the simulator has it.
const servicesPerLBService = 2000

// NSX is a simulated NSX with an IP pool and load-balancer services for so many Services.
type NSX struct {
	*nsxsim.Sim
	// IPPool and LBServices are ids; LBNames are what the cloud config calls the load-balancer services.
	IPPool              string
	LBServices, LBNames []string
}

// NewNSX makes an NSX with room for that many Services of one virtual server each.
func NewNSX(services int, o nsxsim.Options) (*NSX, error) {
	o.NewID = nsxsim.SequentialIDs()
	sim, err := nsxsim.New(o)
	if err != nil {
		return nil, err
	}
	n := &NSX{Sim: sim}
	pool, err := sim.AddIPPool("floating", "10.128.0.0/16", "10.128.0.1-10.128.255.250")
	if err != nil {
		return nil, err
	}
	n.IPPool = pool.ID()
	for i := range services/servicesPerLBService + 1 {
		name := fmt.Sprintf("lb-%d", i)
		tier1, err := sim.AddTier1("t1-" + name)
		if err != nil {
			return nil, err
		}
		lb, err := sim.AddLBService(name, "XLARGE", tier1.ID())
		if err != nil {
			return nil, err
		}
		n.LBServices, n.LBNames = append(n.LBServices, lb.ID()), append(n.LBNames, name)
	}
	return n, nil
}

// owned are the cluster's kinds of object that serve one Service alone, in the order in which they can be made.
var owned = []nsxsim.Kind{nsxsim.KindMonitor, nsxsim.KindPool, nsxsim.KindVirtualServer}

// Copy gives Services what a Service of the same shape has, and their status with it, without a call: so that a large
// cluster need not be made one by one.
func (n *NSX) Copy(like *corev1.Service, services []*corev1.Service) error {
	admin := n.As(nsxsim.DefaultUsername)
	var templates []nsxsim.Object
	var kinds []nsxsim.Kind
	for _, k := range owned {
		for _, o := range n.List(k) {
			if o.Tags()[nsx.TagServiceUID] == string(like.UID) {
				templates, kinds = append(templates, o), append(kinds, k)
			}
		}
	}
	if len(templates) == 0 || len(like.Status.LoadBalancer.Ingress) != 1 {
		return errors.New("there is no Service with one address to copy")
	}
	attach := map[int][]string{}
	room := make([]int, len(n.LBServices))
	for i, id := range n.LBServices {
		room[i] = servicesPerLBService - len(n.Get(nsxsim.KindLBService, id).Strings("virtual_server_ids"))
	}
	at := 0
	for _, svc := range services {
		given, err := admin.Allocate(n.IPPool, "")
		if err != nil {
			return fmt.Errorf("allocating for %s: %w", svc.Name, err)
		}
		addr := netip.MustParseAddr(given)
		vip := corev1.LoadBalancerIPModeVIP
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: given, IPMode: &vip}}
		ids := map[string]string{} // of the copy by that of the template
		for i, t := range templates {
			o, err := admin.Create(kinds[i], copyOf(t, svc, addr, ids))
			if err != nil {
				return fmt.Errorf("copying a %s for %s: %w", kinds[i], svc.Name, err)
			}
			ids[t.ID()] = o.ID()
			if kinds[i] == nsxsim.KindVirtualServer {
				for at < len(room) && room[at] == 0 {
					at++
				}
				if at == len(room) {
					return fmt.Errorf("attaching for %s: every load-balancer service is full", svc.Name)
				}
				attach[at] = append(attach[at], o.ID())
				room[at]--
			}
		}
	}
	for i, ids := range attach {
		_, err := admin.Update(nsxsim.KindLBService, n.LBServices[i], func(o nsxsim.Object) {
			o["virtual_server_ids"] = append(o.Strings("virtual_server_ids"), ids...)
		})
		if err != nil {
			return fmt.Errorf("attaching to load-balancer service %s: %w", n.LBNames[i], err)
		}
	}
	return nil
}

// copyOf is a template's document for another Service.
func copyOf(t nsxsim.Object, svc *corev1.Service, addr netip.Addr, ids map[string]string) nsxsim.Object {
	o := nsxsim.Object{}
	for key, v := range t {
		if key != "id" && key[0] != '_' {
			o[key] = v
		}
	}
	var tags []any
	for scope, tag := range t.Tags() {
		switch scope {
		case nsx.TagServiceUID:
			tag = string(svc.UID)
		case nsx.TagService:
			tag = svc.Namespace + "/" + svc.Name
		}
		tags = append(tags, map[string]any{"scope": scope, "tag": tag})
	}
	o["tags"] = tags
	if _, ok := o["ip_address"]; ok {
		o["ip_address"] = addr.String()
	}
	if _, ok := o["monitor_port"]; ok {
		o["monitor_port"] = fmt.Sprint(svc.Spec.HealthCheckNodePort)
	}
	if id := ids[t.String("pool_id")]; id != "" {
		o["pool_id"] = id
	}
	if monitors := t.Strings("active_monitor_ids"); len(monitors) == 1 && ids[monitors[0]] != "" {
		o["active_monitor_ids"] = []any{ids[monitors[0]]}
	}
	return o
}

// Members are the admin states of the members of all pools, by address.
func (n *NSX) Members() map[string]string {
	out := map[string]string{}
	for _, p := range n.List(nsxsim.KindPool) {
		members, _ := p["members"].([]any)
		for _, m := range members {
			if m, ok := m.(map[string]any); ok {
				o := nsxsim.Object(m)
				out[o.String("ip_address")] = o.String("admin_state")
			}
		}
	}
	return out
}
