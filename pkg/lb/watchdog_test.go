package lb

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A call that never comes back makes the Engine stuck, and with it whoever waits for the same Service; all else goes on, and
// what takes long but makes progress is not stuck.
func TestStuck(t *testing.T) {
	running(t, func(t *testing.T, b *bench) {
		const limit = 10 * time.Minute
		free := make(chan struct{})
		b.onCall(func(call, on string) error {
			if call != "create" {
				return nil
			}
			b.nsx.mu.Unlock() // others go on
			<-free
			b.nsx.mu.Lock()
			return nil
		})
		done := make(chan error, 2)
		for range 2 {
			go func() { _, err := b.ensure(testService("web")); done <- err }()
		}
		slow := b.watchdog.begin("something slow")
		for range 10 {
			time.Sleep(time.Minute)
			slow.progress()
			if err := b.Stuck(limit); err != nil {
				t.Fatalf("after no more than %v: %v", limit, err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		err := b.Stuck(limit)
		if err == nil || err.Error() != "no progress: Service default/web, for 10m1s; Service default/web, for 10m1s" {
			t.Errorf("got %v", err)
		}
		close(free)
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		slow.progress()
		time.Sleep(limit)
		if err := b.Stuck(limit); err != nil {
			t.Errorf("after all have ended: %v", err)
		}
		time.Sleep(time.Second)
		if err := b.Stuck(limit); err == nil || !strings.Contains(err.Error(), "something slow") {
			t.Errorf("got %v, want something slow", err)
		}
		slow.end()
		if err := b.Stuck(0); err != nil {
			t.Error(err)
		}
	})
}
