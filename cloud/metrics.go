package cloud

import (
	"go4.org/netipx"
	"k8s.io/component-base/metrics"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Collector tells, at each scrape, what the inventory knows of IP pools and load-balancer services. It makes no NSX call.
// While the process is not the leader there is nothing to tell.
func (c *Cloud) Collector() metrics.StableCollector {
	gauge := func(name, help string, labels ...string) *metrics.Desc {
		return metrics.NewDesc(metrics.BuildFQName("nsxt", "", name), help, labels, nil, metrics.ALPHA, "")
	}
	return &collector{
		inventory: func() *nsx.Inventory {
			if r := c.running.Load(); r != nil {
				return r.inventory
			}
			return nil
		},
		poolSize:       gauge("ip_pool_addresses", "Addresses in the allocation ranges of an IP pool of the cloud config.", "pool"),
		poolAllocated:  gauge("ip_pool_allocated_addresses", "Addresses of an IP pool that are allocated, by whomever.", "pool"),
		poolUnrecorded: gauge("ip_pool_unrecorded_addresses", "Allocated addresses of an IP pool that no virtual server carries: somebody else's, or leaked.", "pool"),
		capacity:       gauge("lb_service_capacity_virtual_servers", "Virtual servers that a load-balancer service takes; absent when NSX does not tell.", "lb_service"),
		attached:       gauge("lb_service_virtual_servers", "Virtual servers attached to a load-balancer service, anybody's.", "lb_service"),
		services:       gauge("services", "Services that have anything in NSX."),
	}
}

// collector implements metrics.StableCollector over the inventory.
type collector struct {
	metrics.BaseStableCollector
	inventory func() *nsx.Inventory

	poolSize, poolAllocated, poolUnrecorded, capacity, attached, services *metrics.Desc
}

// DescribeWithStability implements metrics.StableCollector.
func (c *collector) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{c.poolSize, c.poolAllocated, c.poolUnrecorded, c.capacity, c.attached, c.services} {
		ch <- d
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *collector) CollectWithStability(ch chan<- metrics.Metric) {
	inv := c.inventory()
	if inv == nil || !inv.Loaded() {
		return
	}
	tell := func(d *metrics.Desc, value int, labels ...string) {
		ch <- metrics.NewLazyConstMetric(d, metrics.GaugeValue, float64(value), labels...)
	}
	for _, p := range inv.IPPools() {
		if p.ID == "" || p.Name == "" {
			continue // not in NSX, or no longer in the config
		}
		tell(c.poolSize, size(p.Ranges), p.Name)
		tell(c.poolAllocated, len(inv.Allocations(p.ID)), p.Name)
		tell(c.poolUnrecorded, len(inv.Unrecorded(p.ID)), p.Name)
	}
	for _, r := range inv.LBServices() {
		if r.Capacity > 0 {
			tell(c.capacity, r.Capacity, r.ID)
		}
		tell(c.attached, len(r.VirtualServers), r.ID)
	}
	tell(c.services, len(inv.Owners()))
}

// size counts the addresses of ranges; a range of IPv6 may be too large to count, and counts as nsx.Unlimited.
func size(ranges []netipx.IPRange) int {
	n := 0
	for _, r := range ranges {
		from, to := r.From().As16(), r.To().As16()
		span := 0
		for i := range from {
			span = span<<8 + int(to[i]) - int(from[i])
			if span >= nsx.Unlimited {
				return nsx.Unlimited
			}
		}
		n += span + 1
	}
	return min(n, nsx.Unlimited)
}
