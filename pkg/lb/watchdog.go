package lb

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// watchdog knows what is under way, and since when it has made no progress.
type watchdog struct {
	clock clock.PassiveClock

	mu   sync.Mutex
	busy map[*activity]struct{}
}

// activity is something under way.
type activity struct {
	w    *watchdog
	what string
	// since is when it began, or made progress last; guarded by w.mu.
	since time.Time
}

func newWatchdog(c clock.PassiveClock) *watchdog {
	return &watchdog{clock: c, busy: map[*activity]struct{}{}}
}

// begin notes that something begins. The caller must call end.
func (w *watchdog) begin(what string) *activity {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &activity{w, what, w.clock.Now()}
	w.busy[a] = struct{}{}
	return a
}

// progress notes that a part of it is done.
func (a *activity) progress() {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	a.since = a.w.clock.Now()
}

func (a *activity) end() {
	a.w.mu.Lock()
	defer a.w.mu.Unlock()
	delete(a.w.busy, a)
}

// stuck names what has made no progress for so long; nil when there is nothing.
func (w *watchdog) stuck(limit time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.Now()
	var all []string
	for a := range w.busy {
		if d := now.Sub(a.since); d > limit {
			all = append(all, fmt.Sprintf("%s, for %v", a.what, d.Round(time.Second)))
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return fmt.Errorf("no progress: %s", strings.Join(all[:min(len(all), 5)], "; "))
}

// Stuck names what the Engine has been doing for longer than limit without any progress, as happens when something waits for
// ever; nil when there is nothing. A limit well above what calls to NSX take with all their tries makes it a matter of the
// process alone.
func (e *Engine) Stuck(limit time.Duration) error { return e.watchdog.stuck(limit) }
