package lb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/names"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

func TestMain(m *testing.M) {
	klog.SetLogger(klog.Logger{}) // the log is read where it is tested
	goleak.VerifyTestMain(m)
}

// bench is an Engine over a fakeNSX, in a bubble whose time only passes while everything waits.
type bench struct {
	*Engine
	nsx *fakeNSX

	mu     sync.Mutex
	events []Event
}

// inBubble runs a test of an Engine that is not running yet. NSX has one pool of four addresses, and one load-balancer
// service.
func inBubble(t *testing.T, test func(t *testing.T, b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{nsx: newFakeNSX(t)}
		pool := ipPool("floating", false, "10.0.0.1-10.0.0.4")
		b.nsx.inv.Merge(b.nsx.inv.Begin(), nsx.Listing{IPPools: map[string]nsx.IPPool{pool.ID: pool}}, false)
		b.nsx.addLBService("lb-1", 0)
		b.Engine = New(Options{
			Backend: b.nsx,
			Config: config.LoadBalancer{
				DefaultClass: "default", Classes: []config.Class{testClass()}, NotReadyGrace: testGrace, DrainTime: testDrain,
			},
			ClusterUID: testCluster,
			Clock:      clock.RealClock{},
			Random:     func() float64 { return 0.5 },
			Record: func(e Event) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.events = append(b.events, e)
			},
		})
		test(t, b)
	})
}

// running is inBubble with an Engine that runs and is ready.
func running(t *testing.T, test func(t *testing.T, b *bench)) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.start(t)
		b.NodesChanged(testNodes("a", "b"))
		synctest.Wait()
		if err := b.Ready(); err != nil {
			t.Fatal(err)
		}
		b.takeCalls()
		test(t, b)
	})
}

// start runs the Engine until the end of the test.
func (b *bench) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

// takeCalls are the calls to NSX since it was last called.
func (b *bench) takeCalls() []string {
	b.nsx.mu.Lock()
	defer b.nsx.mu.Unlock()
	calls := b.nsx.calls
	b.nsx.calls = nil
	return calls
}

func (b *bench) takeEvents() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, e := range b.events {
		out = append(out, strings.Trim(e.Namespace+"/"+e.Name, "/")+" "+e.Reason+": "+e.Message)
	}
	b.events = nil
	return out
}

// onCall makes the fault function of NSX.
func (b *bench) onCall(fault func(call, on string) error) {
	b.nsx.mu.Lock()
	defer b.nsx.mu.Unlock()
	b.nsx.fault = fault
}

func testService(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-of-" + name)},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeLoadBalancer,
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports:      []corev1.ServicePort{{Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP}},
		},
	}
}

// ensure is Ensure with its status written back, as the service controller does, and the address in it.
func (b *bench) ensure(svc *corev1.Service) (string, error) {
	status, err := b.Ensure(context.Background(), svc)
	if err != nil {
		return "", err
	}
	svc.Status.LoadBalancer = *status
	if len(status.Ingress) != 1 || status.Ingress[0].IPMode == nil || *status.Ingress[0].IPMode != corev1.LoadBalancerIPModeVIP {
		return "", fmt.Errorf("status %v", status)
	}
	return status.Ingress[0].IP, nil
}

func (b *bench) mustEnsure(t *testing.T, svc *corev1.Service) string {
	t.Helper()
	ip, err := b.ensure(svc)
	if err != nil {
		t.Fatalf("Ensure %s: %v", svc.Name, err)
	}
	return ip
}

// wantRetry checks that an error says when to try again, between two durations from now.
func wantRetry(t *testing.T, err error, kind error, from, to time.Duration) {
	t.Helper()
	var at *nsx.RetryAt
	if !errors.Is(err, kind) || !errors.As(err, &at) {
		t.Fatalf("got %v, want a RetryAt of: %v", err, kind)
	}
	if d := time.Until(at.At); d < from || d > to {
		t.Errorf("to be tried again in %v, want %v to %v: %v", d, from, to, err)
	}
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLifeOfAService(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		svc := testService("web")
		if status, exists, err := b.Get(ctx, svc); err != nil || exists || len(status.Ingress) > 0 {
			t.Errorf("Get before: %v, %v, %v", status, exists, err)
		}
		ip := b.mustEnsure(t, svc)
		want(t, "calls of the first Ensure", b.takeCalls(), []string{
			"monitor monitor-01", "pool pool-01", "create vs-01", "allocate " + ip, "attach vs-01"})
		if again := b.mustEnsure(t, svc); again != ip {
			t.Errorf("%s, then %s", ip, again)
		}
		want(t, "calls of the second Ensure", b.takeCalls(), nil)
		if status, exists, err := b.Get(ctx, svc); err != nil || !exists || len(status.Ingress) != 1 || status.Ingress[0].IP != ip {
			t.Errorf("Get: %v, %v, %v", status, exists, err)
		}
		want(t, "calls of Get", b.takeCalls(), nil)
		if err := b.Delete(ctx, svc); err != nil {
			t.Error(err)
		}
		synctest.Wait() // what is shared goes behind the Service's back
		want(t, "calls of Delete", b.takeCalls(), []string{"detach vs-01", "release " + ip, "delete vs-01", "delete pool-01", "delete monitor-01"})
		if status, exists, err := b.Get(ctx, svc); err != nil || exists || len(status.Ingress) > 0 {
			t.Errorf("Get after: %v, %v, %v", status, exists, err)
		}
		if err := b.Delete(ctx, svc); err != nil {
			t.Error(err)
		}
		want(t, "events", b.takeEvents(), nil)
	})
}

// Until it is known what there is, nothing is concluded from what is not seen.
func TestNothingBeforeTheInventory(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		svc := testService("web")
		check := func(want string) {
			t.Helper()
			if err := b.Ready(); !errors.Is(err, ErrNotLoaded) || err.Error() != want {
				t.Errorf("Ready: %v, want %s", err, want)
			}
			_, err := b.Ensure(ctx, svc)
			wantRetry(t, err, ErrNotLoaded, time.Second, 5*time.Second)
			_, exists, err := b.Get(ctx, svc)
			wantRetry(t, err, ErrNotLoaded, time.Second, 5*time.Second)
			if exists {
				t.Error("Get says that it exists")
			}
			wantRetry(t, b.Delete(ctx, svc), ErrNotLoaded, time.Second, 5*time.Second)
			_, err = b.Plan(ctx, svc)
			wantRetry(t, err, ErrNotLoaded, time.Second, 5*time.Second)
		}
		check("not ready yet: what the cluster has in NSX has not been read")

		loads := 0
		b.onCall(func(call, _ string) error {
			if loads++; call == "load" && loads < 4 {
				return nsx.ErrUnavailable
			}
			return nil
		})
		start := time.Now()
		b.start(t)
		synctest.Wait()
		check("not ready yet: reading what the cluster has in NSX: load all: NSX is unavailable")
		time.Sleep(time.Minute)
		synctest.Wait()
		// 1 s, 2 s and 4 s of back-off, each longer by a quarter: half of the random half.
		if loads < 4 || time.Since(start) > 2*time.Minute {
			t.Errorf("%d tries in %v", loads, time.Since(start))
		}
		check("not ready yet: the cluster's nodes are not known")
		b.takeCalls()

		b.NodesChanged(testNodes("a"))
		synctest.Wait()
		if err := b.Ready(); err != nil {
			t.Error(err)
		}
		b.mustEnsure(t, svc)
	})
}

// A cluster may have no nodes yet; its Services get their addresses all the same, and pools keep what they have.
func TestNoNodes(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.start(t)
		b.NodesChanged(nil)
		synctest.Wait()
		b.mustEnsure(t, testService("web"))
		if len(b.nsx.nodes) > 0 {
			t.Errorf("nodes written: %v", b.nsx.nodes)
		}
	})
}

// Many Services at once never get the same address, nor count on the same room, and leave both when they go.
func TestManyServicesAtOnce(t *testing.T) {
	const services = 100
	running(t, func(t *testing.T, b *bench) {
		b.nsx.setPools(ipPool("floating", false, "10.0.1.1-10.0.1.100"))
		b.nsx.inv.DeleteLBService("lb-1")
		b.nsx.addLBService("lb-1", 30)
		b.nsx.addLBService("lb-2", 70)
		b.o.Config.Classes[0].LoadBalancerServices = []string{"lb-1", "lb-2"}

		addresses := make([]string, services)
		each := func(do func(i int, svc *corev1.Service) error) {
			var all sync.WaitGroup
			for i := range services {
				all.Go(func() {
					if err := do(i, testService(fmt.Sprint("web-", i))); err != nil {
						t.Errorf("%d: %v", i, err)
					}
				})
			}
			all.Wait()
		}
		each(func(i int, svc *corev1.Service) (err error) {
			addresses[i], err = b.ensure(svc)
			return err
		})
		if n := len(slices.Compact(slices.Sorted(slices.Values(addresses)))); n != services {
			t.Errorf("%d addresses for %d Services", n, services)
		}
		if n := len(b.takeCalls()); n != 3*services+2 {
			t.Errorf("%d calls, want 3 a Service and 2 for the shared pool", n)
		}
		if _, err := b.ensure(testService("one-more")); !errors.Is(err, nsx.ErrExhausted) {
			t.Errorf("one more: %v", err)
		}
		each(func(_ int, svc *corev1.Service) error { return b.Delete(context.Background(), svc) })
		if n := len(b.nsx.inv.Owners()) + len(b.nsx.inv.Allocations("id-of-floating")); n != 0 {
			t.Errorf("%d things left", n)
		}
	})
}

// One Service is worked on by one call at a time, and a lock that nobody uses is gone.
func TestOneAtATime(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		var inside, most int
		var mu sync.Mutex
		enter := func() error {
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			inside--
			mu.Unlock()
			return nil
		}
		settle := &slowSettle{fakeNSX: b.nsx, enter: enter}
		b.o.Backend = settle
		ctx := context.Background()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { _, _ = b.Ensure(ctx, svc) })
			all.Go(func() { _ = b.Delete(ctx, svc) })
			all.Go(func() { _, _, _ = b.Get(ctx, svc) })
		}
		// One that gives up waiting does not disturb the others.
		short, cancel := context.WithTimeout(ctx, time.Second/2)
		defer cancel()
		if _, err := b.Ensure(short, svc); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a short deadline: %v", err)
		}
		all.Wait()
		if most != 1 {
			t.Errorf("%d at once", most)
		}
		if n := len(b.locks.locks); n != 0 {
			t.Errorf("%d locks left", n)
		}
		start := time.Now()
		for _, name := range []string{"x", "y", "z"} {
			all.Go(func() { _, _, _ = b.Get(ctx, testService(name)) })
		}
		all.Wait()
		if took := time.Since(start); took != time.Second {
			t.Errorf("three Services took %v, one after the other", took)
		}
	})
}

// slowSettle is a Backend whose Settle takes its time.
type slowSettle struct {
	*fakeNSX
	enter func() error
}

func (s *slowSettle) Settle(context.Context, nsx.Owner) error { return s.enter() }

// What was chosen for a Service and not used is there for others.
func TestAddressOfAFailedEnsureIsFree(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		b.nsx.setPools(ipPool("floating", false, "10.0.0.1-10.0.0.1"))
		b.nsx.addLBService("lb-1", 1)
		b.onCall(func(call, _ string) error {
			if call == "create" {
				return errFault
			}
			return nil
		})
		if _, err := b.ensure(testService("unlucky")); !errors.Is(err, errFault) {
			t.Errorf("Ensure: %v", err)
		}
		b.onCall(nil)
		b.mustEnsure(t, testService("next"))
	})
}

func TestAddressThatTurnsOutTaken(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		plan, err := b.Plan(context.Background(), svc)
		if err != nil || len(plan.Intents) != 1 {
			t.Fatalf("%v, %v", plan, err)
		}
		first := plan.Intents[0].(nsx.Publish).VirtualServers[0].Address
		b.nsx.foreign[first] = true
		want(t, "calls of Plan", b.takeCalls(), nil)
		if ip := b.mustEnsure(t, svc); ip == first.String() {
			t.Errorf("got %s, which is somebody else's", ip)
		}
		want(t, "events", b.takeEvents(), nil)
	})
}

// When every address turns out to be taken it ends, and leaves nothing behind.
func TestAllAddressesTurnOutTaken(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		for i := range 4 {
			b.nsx.foreign[netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})] = true
		}
		svc := testService("web")
		_, err := b.Ensure(context.Background(), svc)
		wantRetry(t, err, nsx.ErrExhausted, 15*time.Second, 30*time.Second)
		want(t, "events", b.takeEvents(), []string{
			`default/web NoFreeAddress: no free IPv4 address in class "default": pool "floating": all 4 addresses are in use`})
		if have := b.nsx.inv.Observe(OwnerOf(svc)); !have.Empty() {
			t.Errorf("left behind: %v", have)
		}
	})
}

// Exhaustion is answered from the inventory, which is refreshed once for all who wait, and not too often.
func TestExhaustedThenFreed(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		for i := range 4 {
			b.nsx.mishap(nsx.Owner{}, mishap{Allocate: fmt.Sprint("10.0.0.", i+1)})
		}
		const waiting = 20
		tryAll := func() (served int) {
			var all sync.WaitGroup
			var mu sync.Mutex
			for i := range waiting {
				all.Go(func() {
					_, err := b.ensure(testService(fmt.Sprint("web-", i)))
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						served++
					} else {
						wantRetry(t, err, nsx.ErrExhausted, 15*time.Second, 30*time.Second)
					}
				})
			}
			all.Wait()
			return served
		}
		if n := tryAll(); n != 0 {
			t.Errorf("%d served out of nothing", n)
		}
		want(t, "calls", b.takeCalls(), []string{"refresh floating"})
		if n := len(b.takeEvents()); n != waiting {
			t.Errorf("%d events for %d Services", n, waiting)
		}
		// Two are freed in NSX, which shows at the next refresh.
		b.nsx.mu.Lock()
		delete(b.nsx.foreign, netip.MustParseAddr("10.0.0.2"))
		delete(b.nsx.foreign, netip.MustParseAddr("10.0.0.3"))
		b.nsx.mu.Unlock()
		time.Sleep(10 * time.Second)
		if n := tryAll(); n != 0 {
			t.Errorf("%d served before the refresh", n)
		}
		want(t, "calls within 15 s", b.takeCalls(), nil)
		time.Sleep(5 * time.Second)
		if n := tryAll(); n != 2 {
			t.Errorf("%d served, want 2", n)
		}
		if calls := b.takeCalls(); slices.Index(calls, "refresh floating") != 0 || strings.Count(strings.Join(calls, " "), "refresh") != 1 {
			t.Errorf("calls: %v", calls)
		}
	})
}

// A refresh that its asker breaks off says nothing: the next one who asks gets his own.
func TestRefreshBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		read := func(ctx context.Context) error {
			reads++
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
				return nil
			}
		}
		r := newRefresher(clock.RealClock{})
		short, cancel := context.WithTimeout(context.Background(), time.Second/2)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if fresh, err := r.after(short, "it", time.Now(), read); fresh || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("broken off: %v, %v", fresh, err)
			}
		})
		synctest.Wait()
		for range 3 {
			all.Go(func() {
				if fresh, err := r.after(context.Background(), "it", time.Now(), read); !fresh || err != nil {
					t.Errorf("others: %v, %v", fresh, err)
				}
			})
		}
		all.Go(func() {
			if fresh, err := r.after(short, "it", time.Now(), read); fresh || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("waiting, and broken off: %v, %v", fresh, err)
			}
		})
		all.Wait()
		if reads != 2 {
			t.Errorf("%d reads", reads)
		}
		if fresh, err := r.after(context.Background(), "it", time.Now().Add(time.Millisecond), read); fresh || err != nil || reads != 2 {
			t.Errorf("too soon: %v, %v, %d reads", fresh, err, reads)
		}
		if fresh, err := r.after(context.Background(), "another", time.Now(), read); !fresh || err != nil || reads != 3 {
			t.Errorf("another: %v, %v, %d reads", fresh, err, reads)
		}
	})
}

// An address that the user asks for and that is not free keeps nothing from the rest.
func TestAskedAddressTaken(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		ip := b.mustEnsure(t, svc)
		b.takeCalls()
		other := "10.0.0.1"
		if ip == other {
			other = "10.0.0.2"
		}
		b.nsx.mishap(nsx.Owner{}, mishap{Allocate: other})
		svc.Annotations = map[string]string{names.AnnotationIPAddresses: other}
		svc.Spec.Ports[0].NodePort = 31080
		_, err := b.Ensure(context.Background(), svc)
		wantRetry(t, err, nsx.ErrAlreadyAllocated, 15*time.Second, 30*time.Second)
		want(t, "calls", b.takeCalls(), []string{"refresh floating", "write vs-01"})
		want(t, "events", b.takeEvents(), []string{"default/web NoFreeAddress: address " + other + ` of pool "floating" is already in use`})
		if status, _, _ := b.Get(context.Background(), svc); len(status.Ingress) != 1 || status.Ingress[0].IP != ip {
			t.Errorf("live: %v, want %s", status, ip)
		}
	})
}

// A Service whose virtual server somebody deleted gets it again on the address that its status shows, also while the one
// that the user asks for is not free.
func TestDeletedByHandWhileAskedAddressTaken(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		ip := b.mustEnsure(t, svc)
		other := "10.0.0.1"
		if ip == other {
			other = "10.0.0.2"
		}
		b.nsx.mishap(nsx.Owner{}, mishap{Allocate: other})
		svc.Annotations = map[string]string{names.AnnotationIPAddresses: other}
		b.nsx.mishap(OwnerOf(svc), mishap{Detach: "vs-01"})
		b.nsx.inv.DeleteVirtualServer("vs-01")
		_, err := b.Ensure(context.Background(), svc)
		t.Log(b.nsx.inv.Allocation("id-of-floating", netip.MustParseAddr(ip)))
		wantRetry(t, err, nsx.ErrAlreadyAllocated, 15*time.Second, 30*time.Second)
		if status, _, _ := b.Get(context.Background(), svc); len(status.Ingress) != 1 || status.Ingress[0].IP != ip {
			t.Errorf("live: %v, want %s", status, ip)
		}
	})
}

// A Service that finds no room has the load-balancer services read again, and nothing else; when there is room, it is served
// within 30 s, without any audit.
func TestNoRoomThenRoom(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		b.nsx.addLBService("lb-1", 1)
		b.mustEnsure(t, testService("first"))
		b.takeCalls()
		svc := testService("second")
		_, err := b.Ensure(context.Background(), svc)
		wantRetry(t, err, nsx.ErrExhausted, 15*time.Second, 30*time.Second)
		want(t, "calls", b.takeCalls(), []string{"refresh room"})
		want(t, "events", b.takeEvents(), []string{`default/second NoRoom: no room for 1 more virtual server in class "default": "lb-1": full`})

		b.nsx.mu.Lock()
		b.nsx.capacities = map[string]int{"lb-1": 2} // somebody makes it larger
		b.nsx.mu.Unlock()
		made := time.Now()
		var again *nsx.RetryAt
		errors.As(err, &again)
		time.Sleep(time.Until(again.At))
		b.mustEnsure(t, svc)
		if waited := time.Since(made); waited > 30*time.Second {
			t.Errorf("served %v after there was room", waited)
		}
	})
}

// A Service that finds no address has the pools of its class read again, and no others.
func TestOnlyThePoolsOfTheClassAreReadAgain(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		b.nsx.setPools(ipPool("floating", false, "10.0.0.1-10.0.0.1"), ipPool("others", false, "10.1.0.1-10.1.0.9"))
		b.nsx.mishap(nsx.Owner{}, mishap{Allocate: "10.0.0.1"})
		svc := testService("web")
		_, err := b.Ensure(context.Background(), svc)
		wantRetry(t, err, nsx.ErrExhausted, 15*time.Second, 30*time.Second)
		want(t, "calls", b.takeCalls(), []string{"refresh floating"})
		b.nsx.mu.Lock()
		delete(b.nsx.foreign, netip.MustParseAddr("10.0.0.1"))
		b.nsx.mu.Unlock()
		var again *nsx.RetryAt
		errors.As(err, &again)
		time.Sleep(time.Until(again.At))
		b.mustEnsure(t, svc)
	})
}

// A Service that can't be served any more keeps what it has; one whose class is gone can still be deleted.
func TestBadServiceKeepsItsLoadBalancer(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		svc := testService("web")
		ip := b.mustEnsure(t, svc)
		b.takeCalls()
		svc.Spec.Ports[0].Protocol = corev1.ProtocolSCTP
		_, err := b.Ensure(ctx, svc)
		wantRetry(t, err, ErrBadService, 4*time.Minute, 7*time.Minute)
		svc.Spec.Ports[0].Protocol = corev1.ProtocolTCP
		svc.Annotations = map[string]string{names.AnnotationIPAddresses: "192.0.2.1"}
		_, err = b.Ensure(ctx, svc)
		wantRetry(t, err, ErrBadService, 4*time.Minute, 7*time.Minute)
		svc.Annotations = map[string]string{names.AnnotationClass: "removed"}
		_, err = b.Ensure(ctx, svc)
		wantRetry(t, err, ErrBadService, 4*time.Minute, 7*time.Minute)
		want(t, "calls", b.takeCalls(), nil)
		want(t, "events", b.takeEvents(), []string{
			"default/web BadService: port 80/SCTP: NSX balances TCP and UDP only; use one of these, or remove the port",
			`default/web BadService: address 192.0.2.1 is in no IP pool of class "default" (pool "floating": 10.0.0.1-10.0.0.4)`,
			`default/web BadService: there is no load-balancer class "removed": name another in the annotation ` + names.AnnotationClass + " (there are: default)",
		})
		if status, exists, err := b.Get(ctx, svc); err != nil || !exists || len(status.Ingress) != 1 || status.Ingress[0].IP != ip {
			t.Errorf("Get: %v, %v, %v", status, exists, err)
		}
		if err := b.Delete(ctx, svc); err != nil {
			t.Error(err)
		}
		if _, exists, err := b.Get(ctx, svc); err != nil || exists {
			t.Errorf("Get after Delete: %v, %v", exists, err)
		}
	})
}

// Wherever a Delete ends, Get says that something is left, and the next Delete finishes.
func TestDeleteThatFails(t *testing.T) {
	for _, at := range []string{"detach vs-01", "release", "delete vs-01", "delete pool", "delete monitor"} {
		t.Run(at, func(t *testing.T) {
			running(t, func(t *testing.T, b *bench) {
				ctx := context.Background()
				svc := testService("web")
				svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyLocal, 32000
				b.mustEnsure(t, svc)
				b.onCall(func(call, on string) error {
					if strings.HasPrefix(call+" "+on, at) {
						return errFault
					}
					return nil
				})
				if err := b.Delete(ctx, svc); !errors.Is(err, errFault) {
					t.Errorf("Delete: %v", err)
				}
				if _, exists, err := b.Get(ctx, svc); err != nil || !exists {
					t.Errorf("Get: exists %v, %v", exists, err)
				}
				b.onCall(nil)
				if err := b.Delete(ctx, svc); err != nil {
					t.Error(err)
				}
				if _, exists, err := b.Get(ctx, svc); err != nil || exists {
					t.Errorf("Get at last: exists %v, %v", exists, err)
				}
				if left := b.nsx.inv.Allocations("id-of-floating"); len(left) > 0 {
					t.Errorf("still allocated: %v", left)
				}
			})
		})
	}
}

// While the outcome of a write is unknown, nothing is concluded and nothing done.
func TestUnsettled(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		at := time.Now().Add(3 * time.Second)
		b.onCall(func(call, on string) error {
			if call == "settle" && time.Now().Before(at) {
				return &nsx.RetryAt{Err: nsx.ErrAmbiguous, At: at}
			}
			return nil
		})
		ctx := context.Background()
		svc := testService("web")
		_, _, err := b.Get(ctx, svc)
		wantRetry(t, err, nsx.ErrAmbiguous, 3*time.Second, 3*time.Second)
		_, err = b.Ensure(ctx, svc)
		wantRetry(t, err, nsx.ErrAmbiguous, 3*time.Second, 3*time.Second)
		wantRetry(t, b.Delete(ctx, svc), nsx.ErrAmbiguous, 3*time.Second, 3*time.Second)
		want(t, "calls", b.takeCalls(), nil)
		time.Sleep(3 * time.Second)
		b.mustEnsure(t, svc)
	})
}

// What somebody deleted by hand is found missing, and made again in the same sync.
func TestDeletedByHand(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		ip := b.mustEnsure(t, svc)
		b.onCall(func(call, on string) error {
			if call != "write" {
				return nil
			}
			b.nsx.mishap(OwnerOf(svc), mishap{Detach: on})
			b.nsx.inv.DeleteVirtualServer(on)
			b.nsx.inv.SetReleased("id-of-floating", netip.MustParseAddr(ip))
			return nsx.ErrNotFound
		})
		b.takeCalls()
		svc.Spec.Ports[0].NodePort = 31080
		if again := b.mustEnsure(t, svc); again != ip {
			t.Errorf("%s, then %s", ip, again)
		}
		want(t, "calls", b.takeCalls(), []string{"create vs-02", "allocate " + ip, "attach vs-02"})
	})
}

// What an error means for the next try.
func TestWhenToTryAgain(t *testing.T) {
	const never = -1
	plain := func(kind error) error { return kind }
	tests := []struct {
		name     string
		kind     error
		err      func(kind error) error
		from, to time.Duration // never: by the caller's back-off
		tries    int
	}{
		{"unavailable", nsx.ErrUnavailable, plain, 15 * time.Second, 30 * time.Second, 1},
		{"throttled", nsx.ErrThrottled, plain, 15 * time.Second, 30 * time.Second, 1},
		{"throttled, with a time", nsx.ErrThrottled, func(kind error) error {
			return &nsx.APIError{Status: http.StatusTooManyRequests, Kind: kind, RetryAfter: 4 * time.Second}
		}, 4 * time.Second, 4 * time.Second, 1},
		{"ambiguous", nsx.ErrAmbiguous, plain, 15 * time.Second, 30 * time.Second, 1},
		{"ambiguous, with a time", nsx.ErrAmbiguous, func(kind error) error {
			return &nsx.RetryAt{Err: kind, At: time.Now().Add(7 * time.Second)}
		}, 7 * time.Second, 7 * time.Second, 1},
		{"taken, each time", nsx.ErrAlreadyAllocated, plain, 15 * time.Second, 30 * time.Second, maxMoves},
		{"full, as NSX says", nsx.ErrExhausted, plain, 15 * time.Second, 30 * time.Second, 1},
		{"gone, each time", nsx.ErrNotFound, plain, never, never, maxReplans},
		{"refused", nsx.ErrInvalid, plain, never, never, 1},
		{"not allowed", nsx.ErrUnauthorized, plain, never, never, 1},
		{"stopping", nsx.ErrStopping, plain, never, never, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			running(t, func(t *testing.T, b *bench) {
				tries := 0
				b.onCall(func(call, _ string) error {
					if call == "create" {
						tries++
						return tt.err(tt.kind)
					}
					return nil
				})
				_, err := b.Ensure(context.Background(), testService("web"))
				var at *nsx.RetryAt
				switch {
				case err == nil:
					t.Error("no error")
				case tt.from == never && errors.As(err, &at):
					t.Errorf("to be tried again at %v", at.At)
				case tt.from != never:
					wantRetry(t, err, tt.kind, tt.from, tt.to)
				}
				if tries != tt.tries {
					t.Errorf("%d tries, want %d", tries, tt.tries)
				}
			})
		})
	}
}

// Retries of many Services are spread over time.
func TestRetriesAreSpread(t *testing.T) {
	e := New(Options{Backend: newFakeNSX(t), Clock: clocktesting.NewFakeClock(testStart)})
	for random, want := range map[float64]time.Duration{0: 15 * time.Second, 0.5: 22500 * time.Millisecond, 0.999: 29985 * time.Millisecond} {
		e.o.Random = func() float64 { return random }
		var at *nsx.RetryAt
		if err := e.failed(testService("web"), nsx.ErrUnavailable); !errors.As(err, &at) {
			t.Fatal(err)
		}
		if d := at.At.Sub(testStart); d != want {
			t.Errorf("with %v: %v, want %v", random, d, want)
		}
	}
}

func TestNoticesBecomeEvents(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		svc.Annotations = map[string]string{names.AnnotationPrefix + "klass": "gold"}
		for i := range 3 { // it is planned again and again, and said once
			b.nsx.foreign[netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})] = true
		}
		b.mustEnsure(t, svc)
		got := b.events
		if len(got) != 1 || got[0].Namespace != "default" || got[0].Name != "web" || got[0].UID != "uid-of-web" ||
			got[0].Type != corev1.EventTypeWarning || got[0].Reason != ReasonIgnored || !strings.Contains(got[0].Message, "klass") {
			t.Errorf("events: %+v", got)
		}
	})
}

// What changed in NSX is one line in the log; a sync that changes nothing has none, and an error that is returned neither.
func TestLog(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		var svc = testService("web")
		lines := func(do func(ctx context.Context) error) (int, error) {
			logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
			err := do(klog.NewContext(context.Background(), logger))
			return strings.Count(logger.GetSink().(ktesting.Underlier).GetBuffer().String(), "Changed NSX"), err
		}
		ensure := func(ctx context.Context) error { _, err := b.Ensure(ctx, svc); return err }
		if n, err := lines(ensure); n != 1 || err != nil {
			t.Errorf("%d lines for a publish, %v", n, err)
		}
		if n, err := lines(ensure); n != 0 || err != nil {
			t.Errorf("%d lines for nothing, %v", n, err)
		}
		svc.Spec.Ports[0].NodePort++
		b.onCall(func(string, string) error { return errFault })
		if n, err := lines(ensure); n != 0 || err == nil {
			t.Errorf("%d lines for an error, %v", n, err)
		}
		b.onCall(nil)
		svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP
		if n, err := lines(ensure); n != 2 || err != nil {
			t.Errorf("%d lines for a publish and a withdraw, %v", n, err)
		}
	})
}

// Plan prints what Ensure and Delete would do, and keeps no address for it.
func TestPlan(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		b.nsx.setPools(ipPool("floating", false, "10.0.0.1-10.0.0.1"))
		svc := testService("web")
		for range 2 {
			plan, err := b.Plan(context.Background(), svc)
			if err != nil || !strings.HasPrefix(plan.String(), "publish default/web: 10.0.0.1 TCP 80->30080 in lb-1") {
				t.Errorf("%v, %v", plan, err)
			}
		}
		other := testService("other")
		b.mustEnsure(t, other) // the only address was not kept for the plan
		if _, err := b.Plan(context.Background(), svc); !errors.Is(err, nsx.ErrExhausted) {
			t.Errorf("%v", err)
		}
		other.Spec.Type = corev1.ServiceTypeClusterIP
		b.takeCalls()
		if plan, err := b.Plan(context.Background(), other); err != nil || plan.String() != "withdraw default/other: vs-01 10.0.0.1 TCP 80->30080\n" {
			t.Errorf("%v, %v", plan, err)
		}
		want(t, "calls", b.takeCalls(), nil)
	})
}

// An Ensure whose context ends does nothing more.
func TestEnsureStops(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		b.mustEnsure(t, svc)
		b.takeCalls()
		ctx, cancel := context.WithCancel(context.Background())
		b.onCall(func(call, on string) error {
			if call == "attach" {
				cancel()
			}
			return nil
		})
		svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP
		if _, err := b.Ensure(ctx, svc); !errors.Is(err, context.Canceled) {
			t.Errorf("Ensure: %v", err)
		}
		want(t, "calls", b.takeCalls(), []string{"create vs-02", "attach vs-02"})
	})
}

// Stop lets what has begun end, and nothing more begin.
func TestStop(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		slow := &slowSettle{fakeNSX: b.nsx, enter: func() error { time.Sleep(5 * time.Second); return nil }}
		b.o.Backend = slow
		var all sync.WaitGroup
		all.Go(func() { b.mustEnsure(t, testService("begun")) })
		synctest.Wait()
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := b.Stop(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Stop with little time: %v", err)
		}
		if _, err := b.Ensure(context.Background(), testService("late")); !errors.Is(err, nsx.ErrStopping) {
			t.Errorf("Ensure after Stop: %v", err)
		}
		start := time.Now()
		if err := b.Stop(context.Background()); err != nil || time.Since(start) != 4*time.Second {
			t.Errorf("Stop: %v, after %v", err, time.Since(start))
		}
		all.Wait()
	})
}
