package lb

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// written are the node sets that were written, as a view shows them.
func (b *bench) written() []string {
	b.nsx.mu.Lock()
	defer b.nsx.mu.Unlock()
	var out []string
	for _, nodes := range b.nsx.nodes {
		out = append(out, NodeView{Nodes: nodes}.show(time.Time{}))
	}
	return out
}

// The first change is written at once; a storm after it is one write, a second later; what changes nothing is none.
func TestNodeChangesAreCoalesced(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.NodesChanged(testNodes("a"))
		b.NodesChanged(testNodes("a", "b")) // before it runs: the last one counts
		b.start(t)
		synctest.Wait()
		want(t, "at once", b.written(), []string{"a b"})
		for range 10 {
			b.NodesChanged(testNodes("a", "b cordon"))
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		want(t, "nothing new", b.written(), []string{"a b"})

		b.NodesChanged(testNodes("a", "b", "c"))
		synctest.Wait()
		want(t, "a change after a while", b.written(), []string{"a b", "a b c"})
		for i := range 50 {
			time.Sleep(10 * time.Millisecond)
			b.NodesChanged(testNodes("a", "b", "c", string(rune('d'+i%5))))
		}
		time.Sleep(499 * time.Millisecond)
		synctest.Wait()
		want(t, "in the midst of a storm", b.written(), []string{"a b", "a b c"})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		want(t, "after the storm", b.written(), []string{"a b", "a b c", "a b c h"})
	})
}

// What becomes due is written although no Node changes.
func TestNodeDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.start(t)
		b.NodesChanged(testNodes("a", "b", "c"))
		synctest.Wait()
		b.NodesChanged(testNodes("a", "b notready", "c"))
		synctest.Wait()
		time.Sleep(testGrace - time.Nanosecond)
		synctest.Wait()
		want(t, "within the grace period", b.written(), []string{"a b c"})
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		want(t, "after it", b.written(), []string{"a b c", "a b=draining c"})
		time.Sleep(testDrain)
		synctest.Wait()
		want(t, "after the drain time", b.written(), []string{"a b c", "a b=draining c", "a b=out c"})
		b.NodesChanged(testNodes("a", "b", "c"))
		time.Sleep(time.Second) // after the write before
		synctest.Wait()
		want(t, "Ready again", b.written(), []string{"a b c", "a b=draining c", "a b=out c", "a b c"})
	})
}

// A write that fails is tried again, less and less often or when the error says, until it succeeds; Services need not wait
// for it.
func TestNodeWriteFails(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		var at []time.Duration
		start := time.Now()
		b.onCall(func(call, _ string) error {
			if call != "nodes" {
				return nil
			}
			at = append(at, time.Since(start).Round(time.Millisecond))
			switch len(at) {
			case 1, 2, 3:
				return nsx.ErrUnavailable
			case 4:
				return &nsx.RetryAt{Err: nsx.ErrAmbiguous, At: time.Now().Add(20 * time.Second)}
			case 5:
				return &nsx.RetryAt{Err: nsx.ErrAmbiguous, At: time.Now()} // due: but not in a tight loop
			}
			return nil
		})
		b.start(t)
		b.NodesChanged(testNodes("a"))
		synctest.Wait()
		b.mustEnsure(t, testService("web"))
		time.Sleep(time.Minute)
		synctest.Wait()
		b.nsx.mu.Lock()
		defer b.nsx.mu.Unlock()
		var got []string
		for _, d := range at {
			got = append(got, d.String())
		}
		// Each back-off is longer by a quarter: half of the random half.
		want(t, "tries", got, []string{"0s", "1.25s", "3.75s", "8.75s", "28.75s", "29.75s"})
	})
}

func TestTooFewNodesIsAnEvent(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.start(t)
		b.NodesChanged(testNodes("a", "b"))
		synctest.Wait()
		for range 3 {
			b.NodesChanged(testNodes("a taint", "b taint"))
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if got := b.takeEvents(); len(got) != 1 || !strings.HasPrefix(got[0], " TooFewNodes: 2 of 2 nodes are leaving or not Ready") {
			t.Errorf("events: %q", got)
		}
	})
}

// Run ends soon after its context does, wherever it is.
func TestRunEnds(t *testing.T) {
	for name, upTo := range map[string]func(b *bench){
		"at the start": func(b *bench) {},
		"while NSX is down": func(b *bench) {
			b.onCall(func(string, string) error { return nsx.ErrUnavailable })
		},
		"while the node set can't be written": func(b *bench) {
			b.NodesChanged(testNodes("a"))
			b.onCall(func(call, _ string) error {
				if call == "nodes" {
					return nsx.ErrUnavailable
				}
				return nil
			})
		},
		"while it waits for changes": func(b *bench) { b.NodesChanged(testNodes("a")) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bench) {
				upTo(b)
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				start := time.Now()
				if err := b.Run(ctx); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d != 10*time.Second {
					t.Errorf("ran for %v", d)
				}
			})
		})
	}
}

// What fails because Run is to end is no error; what fails before is one.
func TestEndIsNoError(t *testing.T) {
	for _, takes := range []time.Duration{5 * time.Second, 15 * time.Second} {
		inBubble(t, func(t *testing.T, b *bench) {
			b.onCall(func(string, string) error {
				time.Sleep(takes)
				return nsx.ErrUnavailable
			})
			logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
			ctx, cancel := context.WithTimeout(klog.NewContext(context.Background(), logger), 10*time.Second)
			defer cancel()
			if err := b.Run(ctx); err != nil {
				t.Error(err)
			}
			log := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
			if got, want := strings.Contains(log, "failed"), takes < 10*time.Second; got != want {
				t.Errorf("calls of %v: %q", takes, log)
			}
		})
	}
}

// What is shared is deleted when the last Service that uses it goes, and again until that succeeds.
func TestTidying(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		b.mustEnsure(t, svc)
		tries := 0
		b.onCall(func(call, on string) error {
			if call != "delete" || on != "pool-01" {
				return nil
			}
			if tries++; tries < 3 {
				return nsx.ErrInUse
			}
			return nil
		})
		if err := b.Delete(context.Background(), svc); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(b.nsx.inv.SharedPools()); n != 1 {
			t.Errorf("%d shared pools while it can't be deleted", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(b.nsx.inv.SharedPools()) + len(b.nsx.inv.SharedMonitors()); n != 0 || tries != 3 {
			t.Errorf("%d shared objects left after %d tries", n, tries)
		}
	})
}

// tidyTimes is a Backend whose Apply takes a second, and that notes when Tidy is called.
type tidyTimes struct {
	*fakeNSX
	at []time.Time
}

func (b *tidyTimes) Apply(ctx context.Context, i nsx.Intent) error {
	time.Sleep(time.Second)
	return b.fakeNSX.Apply(ctx, i)
}

func (b *tidyTimes) Tidy(ctx context.Context) error {
	b.at = append(b.at, time.Now())
	return b.fakeNSX.Tidy(ctx)
}

// What a change leaves unused is looked for when all of the change is done: until then, that would stand in its way.
func TestTidyingDoesNotHoldUpTheChangeThatItFollows(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		svc := testService("web")
		b.mustEnsure(t, svc)
		backend := &tidyTimes{fakeNSX: b.nsx}
		b.o.Backend = backend
		svc.Spec.Ports[0].NodePort++
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Port: 53, NodePort: 30053, Protocol: corev1.ProtocolUDP})
		start := time.Now()
		b.mustEnsure(t, svc)
		synctest.Wait()
		if took := time.Since(start); took != 2*time.Second || len(backend.at) != 1 || !backend.at[0].Equal(time.Now()) {
			t.Errorf("changed in %v, want an update and a publication of a second each; tidied at %v, want at the end", took, backend.at)
		}
	})
}

func TestLocksOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyedLocks
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		unlock, err := k.lock(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := k.lock(ctx, "b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("lock that is held: %v", err)
		}
		other()
		if len(k.locks) != 1 {
			t.Errorf("%d locks, want the one that is held", len(k.locks))
		}
		got := make(chan struct{})
		go func() {
			defer close(got)
			unlock, err := k.lock(context.Background(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			unlock()
		}()
		synctest.Wait()
		unlock()
		<-got
		if len(k.locks) != 0 {
			t.Errorf("%d locks left", len(k.locks))
		}
	})
}
