package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// TestGroupsShareAWrite: what comes while a write is under way goes out with the next one.
func TestGroupsShareAWrite(t *testing.T) {
	const waiting = 30
	synctest.Test(t, func(t *testing.T) {
		var groups [][]string
		release := make(chan struct{})
		m := &memberships{commit: func(_ context.Context, _ string, group []*membershipChange) error {
			var ids []string
			for _, c := range group {
				ids = append(ids, c.attach...)
			}
			groups = append(groups, ids)
			<-release
			return nil
		}}
		var wg sync.WaitGroup
		for i := range 1 + waiting {
			wg.Go(func() {
				if err := m.change(t.Context(), "lb", []string{fmt.Sprint(i)}, nil); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait() // until the first is written, and all others are queued
		}
		close(release)
		wg.Wait()
		if len(groups) != 2 || len(groups[1]) != waiting {
			t.Fatalf("%d writes, the last of %d; want 2, the last of %d", len(groups), len(groups[len(groups)-1]), waiting)
		}
		if len(m.queues) != 0 {
			t.Fatalf("%d queues are left", len(m.queues))
		}
	})
}

// TestOnlyTheOffenderFails: a group that NSX refuses is split.
func TestOnlyTheOffenderFails(t *testing.T) {
	written := map[string]bool{}
	writes := 0
	m := &memberships{commit: func(_ context.Context, _ string, group []*membershipChange) error {
		writes++
		if slices.ContainsFunc(group, func(c *membershipChange) bool { return c.attach[0] == "bad" }) {
			return fmt.Errorf("full: %w", nsx.ErrInvalid)
		}
		for _, c := range group {
			written[c.attach[0]] = true
		}
		return nil
	}}
	var group []*membershipChange
	for _, id := range []string{"a", "b", "bad", "c", "d", "e", "f", "g"} {
		group = append(group, &membershipChange{attach: []string{id}})
	}
	m.commitGroup(t.Context(), "lb", group)
	for _, c := range group {
		if bad := c.attach[0] == "bad"; bad != errors.Is(c.err, nsx.ErrInvalid) || bad == written[c.attach[0]] {
			t.Errorf("%s: error %v, written %t", c.attach[0], c.err, written[c.attach[0]])
		}
	}
	if writes > 7 { // 1 + 2 for each halving of 8
		t.Errorf("%d writes", writes)
	}
}

// TestAnUnknownOutcomeIsEverybodys: what may or may not have been written is not split.
func TestAnUnknownOutcomeIsEverybodys(t *testing.T) {
	writes := 0
	m := &memberships{commit: func(context.Context, string, []*membershipChange) error {
		writes++
		return nsx.ErrAmbiguous
	}}
	group := []*membershipChange{{attach: []string{"a"}}, {attach: []string{"b"}}}
	m.commitGroup(t.Context(), "lb", group)
	if writes != 1 || !errors.Is(group[0].err, nsx.ErrAmbiguous) || !errors.Is(group[1].err, nsx.ErrAmbiguous) {
		t.Errorf("%d writes, errors %v and %v", writes, group[0].err, group[1].err)
	}
}
