package cloud

import (
	"maps"
	"sync"

	"go4.org/netipx"
	"k8s.io/component-base/metrics"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/lb"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// Collector tells, at each scrape, what the inventory knows of IP pools and load-balancer services, and what audits have
// found. It makes no NSX call. While the process is not the leader there is nothing to tell.
func (c *Cloud) Collector() metrics.StableCollector {
	desc := func(name, help string, labels ...string) *metrics.Desc {
		return metrics.NewDesc(metrics.BuildFQName("nsxt", "", name), help, labels, nil, metrics.ALPHA, "")
	}
	return &collector{
		cloud:          c,
		poolSize:       desc("ip_pool_addresses", "Addresses in the allocation ranges of an IP pool of the cloud config.", "pool"),
		poolAllocated:  desc("ip_pool_allocated_addresses", "Addresses of an IP pool that are allocated, by whomever.", "pool"),
		poolUnrecorded: desc("ip_pool_unrecorded_addresses", "Allocated addresses of an IP pool that no virtual server carries: somebody else's, or leaked.", "pool"),
		poolLost:       desc("ip_pool_lost_addresses", "Addresses of an IP pool on which Services have traffic although their allocation is gone, or somebody else's.", "pool"),
		capacity:       desc("lb_service_capacity_virtual_servers", "Virtual servers that a load-balancer service takes; absent when NSX does not tell.", "lb_service"),
		attached:       desc("lb_service_virtual_servers", "Virtual servers attached to a load-balancer service, anybody's.", "lb_service"),
		services:       desc("services", "Services that have anything in NSX."),
		ready:          desc("ready", "1 if a check of readiness passes, else 0.", "check"),
		lastSuccess:    desc("api_last_success_timestamp_seconds", "When NSX last answered a call; absent while it never has."),
		audits:         desc("audit_actions_total", "What audits did about what they found.", "kind", "action"),
		lastAudit:      desc("audit_last_success_timestamp_seconds", "When the last complete audit ended; absent while there was none."),
		auditTook:      desc("audit_duration_seconds", "How long the last complete audit took; absent while there was none."),
		allDown:        desc("pools_all_members_down", "Pools whose members all fail their health check although there are Ready nodes: shared ones, of policy Cluster, and those of one Service, of policy Local.", "policy"),
	}
}

// collector implements metrics.StableCollector over what a Cloud has in memory.
type collector struct {
	metrics.BaseStableCollector
	cloud *Cloud

	poolSize, poolAllocated, poolUnrecorded, poolLost, capacity, attached, services *metrics.Desc
	ready, lastSuccess, audits, lastAudit, auditTook, allDown                       *metrics.Desc
}

// DescribeWithStability implements metrics.StableCollector.
func (c *collector) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{
		c.poolSize, c.poolAllocated, c.poolUnrecorded, c.poolLost, c.capacity, c.attached, c.services,
		c.ready, c.lastSuccess, c.audits, c.lastAudit, c.auditTook, c.allDown,
	} {
		ch <- d
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *collector) CollectWithStability(ch chan<- metrics.Metric) {
	tell := func(d *metrics.Desc, value float64, labels ...string) {
		ch <- metrics.NewLazyConstMetric(d, metrics.GaugeValue, value, labels...)
	}
	if c.cloud.client.Load() == nil {
		return
	}
	for _, check := range c.cloud.Readiness() {
		passes := 1.0
		if check.Fails() != nil {
			passes = 0
		}
		tell(c.ready, passes, check.Name)
	}
	r := c.cloud.running.Load()
	if r == nil {
		return
	}
	if last := r.transport.Reach().Last(); !last.IsZero() {
		tell(c.lastSuccess, float64(last.UnixMilli())/1000)
	}
	if !r.inventory.Loaded() {
		return
	}
	for _, p := range r.inventory.IPPools() {
		if p.ID == "" || p.Name == "" {
			continue // not in NSX, or no longer in the config
		}
		tell(c.poolSize, float64(size(p.Ranges)), p.Name)
		tell(c.poolAllocated, float64(len(r.inventory.Allocations(p.ID))), p.Name)
		tell(c.poolUnrecorded, float64(len(r.inventory.Unrecorded(p.ID))), p.Name)
		tell(c.poolLost, float64(len(r.inventory.Lost(p.ID))), p.Name)
	}
	for _, s := range r.inventory.LBServices() {
		if s.Capacity > 0 {
			tell(c.capacity, float64(s.Capacity), s.ID)
		}
		tell(c.attached, float64(len(s.VirtualServers)), s.ID)
	}
	tell(c.services, float64(len(r.inventory.Owners())))

	audit := r.engine.AuditState()
	if !audit.Last.IsZero() {
		tell(c.lastAudit, float64(audit.Last.UnixMilli())/1000)
		tell(c.auditTook, audit.Took.Seconds())
	}
	tell(c.allDown, float64(audit.SharedDown), "Cluster")
	tell(c.allDown, float64(audit.OwnDown), "Local")
	for did, n := range c.cloud.audited.all() {
		ch <- metrics.NewLazyConstMetric(c.audits, metrics.CounterValue, float64(n), string(did.kind), string(did.action))
	}
}

// auditCounts counts what audits did. The zero value is ready for use.
type auditCounts struct {
	mu sync.Mutex
	n  map[auditDone]int
}

type auditDone struct {
	kind   nsx.Kind
	action lb.AuditAction
}

func (c *auditCounts) add(e lb.AuditEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[auditDone]int{}
	}
	c.n[auditDone{e.Kind, e.Action}]++
}

func (c *auditCounts) all() map[auditDone]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
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
