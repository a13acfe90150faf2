package lb

import (
	"context"
	"fmt"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// lookAgainAfter is how long after a first look at a pool whose members are all DOWN the second comes, which makes it an
// event: checks of a new pool take some seconds to find anything up.
const lookAgainAfter = time.Minute

// pools tells of pools all of whose members are DOWN, although there are nodes that should answer: a firewall or a wrong
// health check blacks out every Service behind them.
func (r *round) pools(ctx context.Context) error {
	health, err := r.e.o.Backend.PoolHealth(r.reading(ctx))
	if err != nil {
		return err
	}
	now, nodes := r.e.o.Clock.Now(), r.e.nodesEnabled()
	before := r.down
	r.down = map[string]time.Time{}
	shared, own := 0, 0
	for _, h := range health {
		pool, known := r.e.inv().Pool(h.Pool)
		if !known || !h.AllDown() || nodes == 0 {
			continue
		}
		if pool.Owner.UID == "" {
			shared++
		} else {
			own++
		}
		first, again := before[h.Pool]
		if !again {
			first = now
		}
		r.down[h.Pool] = first
		f := nsx.Finding{Kind: nsx.KindPool, ID: h.Pool, What: fmt.Sprintf("all %d members are DOWN", h.Down)}
		if h.Cause != "" {
			f.What += ": " + h.Cause
		}
		if now.Sub(first) < sightingGap {
			r.note(ctx, pool.Owner.Name, ActionSight, f)
			continue
		}
		r.tellDown(ctx, pool, f, nodes)
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	r.e.auditState.SharedDown, r.e.auditState.OwnDown = shared, own
	return nil
}

func (r *round) tellDown(ctx context.Context, pool nsx.PoolRecord, f nsx.Finding, nodes int) {
	check := "no monitor"
	if pool.Pool.Monitor != nil {
		check = pool.Pool.Monitor.String()
	}
	if pool.Owner.UID == "" {
		r.tell(ctx, nil, ReasonAllMembersDown, fmt.Sprintf(
			"no Service behind the node pool %s is reached: %s, although %d nodes are Ready; the health check is %s", pool.ID, f.What, nodes, check), ActionReport, f)
		return
	}
	services, _ := r.services()
	for _, svc := range services {
		if string(svc.UID) == pool.Owner.UID {
			r.tell(ctx, svc, ReasonAllMembersDown, fmt.Sprintf(
				"no node says that it has a ready pod of this Service: %s; the health check is %s", f.What, check), ActionReport, f)
		}
	}
}

// lookAgain is when to look at pools again that were found all DOWN for the first time; the zero Time for never.
func (a *auditor) lookAgain(ctx context.Context) time.Time {
	leave, err := a.enter(ctx)
	if err != nil {
		return time.Time{}
	}
	defer leave()
	var at time.Time
	now := a.e.o.Clock.Now()
	for _, first := range a.down {
		if look := first.Add(lookAgainAfter); look.After(now) {
			at = earlier(at, look)
		}
	}
	return at
}

// lookAtPools is the part of an audit that looks at pools.
func (a *auditor) lookAtPools(ctx context.Context) error {
	leave, err := a.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	r := &round{auditor: a, report: AuditReport{Mode: config.AuditModeReport}}
	return r.pools(ctx)
}

// nodesEnabled counts the nodes that should get connections.
func (e *Engine) nodesEnabled() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.enabled
}
