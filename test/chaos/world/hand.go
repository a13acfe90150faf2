package world

import (
	"reflect"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// operator is the NSX user of somebody who changes by hand what is a cluster's.
const operator = "operator"

// ByHand lets somebody change what is a cluster's, which the audits put right. What is wrong by that is nobody's fault
// until it has been right again.
func (w *World) ByHand(what string, act func(nsxsim.Editor) error) error {
	before := w.records()
	err := act(w.Sim.As(operator))
	w.Say("%s: %s: %v", operator, what, err)
	after := w.records()
	w.watch.byHand(func(cluster, addr string) bool { return before[cluster+" "+addr] && !after[cluster+" "+addr] })
	return err
}

// ReleaseByHand gives back an address that a cluster uses. Only in exclusive IP pools does a cluster surely get it again, and
// only from an NSX that gives addresses of one's choice: from another one, it goes on to use it as long as it has traffic there.
func (w *World) ReleaseByHand(pool, addr string) error {
	return w.ByHand("release "+addr, func(as nsxsim.Editor) error {
		if err := as.Release(w.pools[pool], addr); err != nil {
			return err
		}
		w.watch.foreignLets(w.pools[pool], addr)
		w.watch.forget(w.pools[pool], addr)
		w.watch.loses(addr)
		return nil
	})
}

// records are the addresses that virtual servers of clusters have, each as the cluster's name and the address.
func (w *World) records() map[string]bool {
	out := map[string]bool{}
	for _, vs := range w.Sim.List(nsxsim.KindVirtualServer) {
		for _, c := range w.clusters {
			if c.Owns(vs) {
				out[c.Name+" "+vs.String("ip_address")] = true
			}
		}
	}
	return out
}

// byHand takes what is wrong now for somebody's doing. lost tells of whose addresses the record was deleted.
func (t *watch) byHand(lost func(cluster, addr string) bool) {
	v := t.w.look(kinds...)
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.seen
	t.seen = t.takeAll(v)
	for sent, key := range t.made {
		for _, c := range t.w.clusters {
			if o := was[key.kind][c.UID][key]; o != nil && !reflect.DeepEqual(o, t.seen[key.kind][c.UID][key]) {
				delete(t.made, sent) // it is not what was made any more
			}
		}
	}
	for key, h := range t.held {
		if _, addr, _ := strings.Cut(key, " "); lost(h.by, addr) {
			h.unrecorded = true
			t.held[key] = h
			if !t.w.o.Exclusive {
				t.w.Cluster(h.by).kube.mayLose(addr)
			}
		}
	}
	t.mayLoseLost(v)
	t.excusing = true
	for _, c := range t.w.clusters {
		t.members(c, v)
	}
	t.traffic(v)
	t.excusing = false
}

// loses: nobody can have a released address again where NSX gives none of one's choice.
func (t *watch) loses(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.w.o.ChosenAddress != nsxsim.ChosenAddressHonoured {
		t.lost[addr] = true
	}
}

// isLost tells whether an address was released by hand and is not allocated since.
func (t *watch) isLost(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost[addr]
}

// mayLoseLost: a Service may get another address when it has no traffic on the lost one either.
func (t *watch) mayLoseLost(v view) {
	in := v.attached()
	live := map[string]bool{}
	for _, vs := range v[nsxsim.KindVirtualServer] {
		if in[vs.ID()] != "" {
			live[vs.String("ip_address")] = true
		}
	}
	for addr := range t.lost {
		for _, c := range t.w.clusters {
			if !live[addr] {
				c.kube.mayLose(addr)
			}
		}
	}
}

// forget: what was allocated of an address says nothing any more.
func (t *watch) forget(pool, addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.w.clusters {
		delete(t.succeeded, c.Name+" "+pool+" "+addr)
	}
}

// unproven tells whether the record of an address in an IP pool that is not exclusive was deleted by hand.
func (t *watch) unproven(addr string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, h := range t.held {
		if strings.HasSuffix(key, " "+addr) && h.unrecorded {
			return !t.w.o.Exclusive
		}
	}
	return false
}
