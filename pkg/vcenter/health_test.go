package vcenter_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// TestCheck: a vCenter is reached while it answers, be it that there is no such VM; one of two that does not is named; and
// nobody is asked who has just answered.
func TestCheck(t *testing.T) {
	a, b := newFront(t, twoDatacenters(t)), newFront(t, otherVCenter())
	opts := optionsOf(a, b)
	now := clocktesting.NewFakePassiveClock(time.Unix(1_000_000, 0))
	opts.Clock = now
	client := newClient(t, opts)
	pass := func(d time.Duration) { now.SetTime(now.Now().Add(d)) }
	if err := client.Check(); err == nil {
		t.Fatal("reached before anything was asked")
	}
	if _, err := client.ByUUID(t.Context(), unknown); err == nil {
		t.Fatal("found what is not there")
	}
	if err := client.Check(); err != nil {
		t.Errorf("after an answer: %v", err)
	}
	client.Ping(t.Context(), 30*time.Second)
	if n := a.count("CurrentTime"); n != 0 {
		t.Errorf("asked for the time %d times although there was an answer just now", n)
	}
	pass(30 * time.Second)
	client.Ping(t.Context(), 30*time.Second)
	if n, m := a.count("CurrentTime"), b.count("CurrentTime"); n != 1 || m != 1 {
		t.Errorf("asked for the time %d and %d times, want 1 and 1", n, m)
	}

	b.setDisturb(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	for range 2 {
		pass(30 * time.Second)
		client.Ping(t.Context(), 30*time.Second)
	}
	err := client.Check()
	if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(b.proxy.URL, "https://")) || strings.Contains(err.Error(), strings.TrimPrefix(a.proxy.URL, "https://")) {
		t.Errorf("one is down: %v", err)
	}
	b.setDisturb(nil)
	client.Ping(t.Context(), 0)
	if err := client.Check(); err != nil {
		t.Errorf("both are up again: %v", err)
	}
}
