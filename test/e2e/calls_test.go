//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// What the controller may ask of NSX: see docs/reference/nsx-calls.md, whose rows for one port these are.
const (
	// readsOfAudit is the reads of an audit, or of a restart, which read everything.
	readsOfAudit = 12
	// auditEvery is the pace of audits at most: the config's, less its jitter.
	auditEvery = 50 * time.Second
	// readsOfConflict is what finds out about a write that somebody else's, or an own one, got ahead of.
	readsOfConflict = 1
)

// writesOfLife is what a Service takes from its creation to its deletion.
func writesOfLife(spec *corev1.ServiceSpec) int {
	writes := 3 + 3
	if spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		writes = 5 + 5
	}
	return writes + writesOfExtras(spec)
}

// writesOfExtras is what Services with the same wish share, and the first one makes and the last one takes along: a persistence
// profile, a group of clients and its addresses.
func writesOfExtras(spec *corev1.ServiceSpec) int {
	writes := 0
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		writes += 2
	}
	if len(spec.LoadBalancerSourceRanges) > 0 {
		writes += 4
	}
	return writes
}

// writesOfChange is a change of policy, the most that a change takes, and what becomes new by it.
func writesOfChange(spec *corev1.ServiceSpec) int { return 3 + writesOfExtras(spec) }

// calls watches Services and the calls to NSX while others work on a cluster.
type calls struct {
	stage *stage
	stop  func()
	began time.Time
	from  journal

	mu      sync.Mutex
	specs   map[types.UID]string // of the Services that are load balancers, in JSON
	lives   int                  // load balancers that began to be
	changes int                  // of load balancers
	writes  int                  // the budget for both
}

// journal is what NSX counts.
type journal struct {
	Counts map[string]int `json:"counts"`
}

// watchCalls begins to watch. The objects that the cluster's Services share are made, and stay until the end.
func watchCalls(t *testing.T) *calls {
	t.Helper()
	c := &calls{stage: newStage(t), specs: map[types.UID]string{}}
	c.stage.service("shared", "none", corev1.ServiceExternalTrafficPolicyCluster)
	c.stage.service("shared-local", "none", corev1.ServiceExternalTrafficPolicyLocal)

	ctx, cancel := context.WithCancel(t.Context())
	factory := informers.NewSharedInformerFactory(c.stage.Client, 0)
	informer := factory.Core().V1().Services().Informer()
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.see(o.(*corev1.Service)) },
		UpdateFunc: func(_, o any) { c.see(o.(*corev1.Service)) },
		DeleteFunc: func(o any) {
			if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = d.Obj
			}
			c.gone(o.(*corev1.Service))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	c.stop = func() {
		cancel()
		factory.Shutdown()
	}
	t.Cleanup(c.stop)
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		t.Fatal("no list of Services")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began, c.from = time.Now(), c.journal()
	return c
}

func (c *calls) journal() (j journal) {
	c.stage.Helper()
	c.stage.must(c.stage.NSX.Get(c.stage.ctx, "/_nsxsim/journal", &j))
	return j
}

func (c *calls) see(svc *corev1.Service) {
	if svc.Namespace == c.stage.namespace {
		return // made before, and stays
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.DeletionTimestamp != nil {
		delete(c.specs, svc.UID)
		return
	}
	text, err := json.Marshal(svc.Spec)
	if err != nil {
		panic(err) // an API object
	}
	was, known := c.specs[svc.UID]
	c.specs[svc.UID] = string(text)
	switch {
	case !known:
		c.lives++
		c.writes += writesOfLife(&svc.Spec)
	case was != string(text):
		c.changes++
		c.writes += writesOfChange(&svc.Spec)
	}
}

func (c *calls) gone(svc *corev1.Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.specs, svc.UID)
}

// check ends the watch, and holds the calls made meanwhile against the budget.
func (c *calls) check(t *testing.T) {
	t.Helper()
	c.stop()
	c.stage.ctx = context.WithoutCancel(c.stage.ctx)
	now, took := c.journal(), time.Since(c.began)
	writes, reads := 0, 0
	for op, n := range now.Counts {
		n -= c.from.Counts[op]
		switch {
		case n == 0, op == "GET /loadbalancer/services/{id}/pools/{id}/status": // what tests ask
		case strings.HasPrefix(op, "GET "):
			reads += n
		default:
			writes += n
			t.Logf("%4d %s", n, op)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	audits := 1 + int(took/auditEvery)
	t.Logf("%d load balancers lived and %d times one was changed: %d writes of at most %d and %d reads of NSX in %.0f s",
		c.lives, c.changes, writes, c.writes, reads, took.Seconds())
	if c.lives == 0 || writes == 0 {
		t.Error("no load balancer lived, or none was written")
	}
	if writes > c.writes {
		t.Errorf("%d writes, the budget is %d", writes, c.writes)
	}
	if limit := audits*readsOfAudit + (2*c.lives+c.changes)*readsOfConflict; reads > limit {
		t.Errorf("%d reads, the budget is %d with %d audits", reads, limit, audits)
	}
	// Tests leave their Services to the end of the namespace, which waits for their pods first: those of rolling updates take
	// up to ten minutes for theirs.
	c.stage.eventually("NSX has nothing of the upstream tests' Services", time.Minute, func() error {
		var left []string
		for _, o := range c.stage.inventory().Objects {
			if service := o.Tags()[nsx.TagService]; service != "" && !strings.HasPrefix(service, namespacePrefix) {
				left = append(left, o.String("kind")+" of "+service)
				c.stage.deleteService(service)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("it has %v", left)
		}
		return nil
	})
}

// deleteService deletes a Service, namespace/name, if it is there.
func (s *stage) deleteService(service string) {
	s.Helper()
	namespace, name, _ := strings.Cut(service, "/")
	if err := s.Client.CoreV1().Services(namespace).Delete(s.ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		s.must(err)
	}
}
