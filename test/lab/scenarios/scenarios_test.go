package scenarios

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/visits"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMatching(t *testing.T) {
	for pattern, want := range map[string][]int{
		"":         {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 16, 17},
		"1":        {1},
		"3|9":      {3, 9},
		"1[356]":   {13, 15, 16},
		"headless": {2},
		"policy":   {8, 9, 10},
		"nothing":  nil,
		"(":        nil,
	} {
		found, err := Matching(pattern)
		if (err == nil) != (want != nil) {
			t.Errorf("%q: %v", pattern, err)
		}
		var got []int
		for _, s := range found {
			got = append(got, s.Row)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", pattern, diff)
		}
	}
}

func TestFirstFailureEndsTheScenario(t *testing.T) {
	first := errors.New("first")
	s := &Stage{ctx: t.Context()}
	s.run(func(s *Stage) {
		s.saw("before")
		s.need(nil)
		s.need(first)
		s.saw("after")
	})
	s.run(func(s *Stage) { s.fail("second") })
	if !errors.Is(s.failure, first) || len(s.seen) != 1 {
		t.Errorf("failure %v, seen %v", s.failure, s.seen)
	}
}

func TestEventually(t *testing.T) {
	s := &Stage{ctx: t.Context()}
	tries := 0
	s.run(func(s *Stage) {
		s.eventually("third try", time.Minute, func() error {
			if tries++; tries < 3 {
				return errors.New("not yet")
			}
			return nil
		})
	})
	if s.failure != nil || tries != 3 {
		t.Errorf("%d tries, %v", tries, s.failure)
	}

	reason := errors.New("broken")
	s.run(func(s *Stage) { s.eventually("what never comes", time.Millisecond, func() error { return reason }) })
	if !errors.Is(s.failure, reason) || !strings.Contains(s.failure.Error(), "what never comes") {
		t.Errorf("failure %v", s.failure)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s = &Stage{ctx: ctx}
	s.run(func(s *Stage) { s.eventually("x", time.Hour, func() error { return reason }) })
	if !errors.Is(s.failure, context.Canceled) || !errors.Is(s.failure, reason) {
		t.Errorf("failure %v", s.failure)
	}
}

func TestNeverFailsOnTheFirstError(t *testing.T) {
	reason := errors.New("written")
	s := &Stage{ctx: t.Context()}
	tries := 0
	s.run(func(s *Stage) {
		s.never("NSX is untouched", time.Minute, func() error {
			if tries++; tries < 2 {
				return nil
			}
			return reason
		})
	})
	if !errors.Is(s.failure, reason) {
		t.Errorf("failure %v", s.failure)
	}
}

func TestWantAnswers(t *testing.T) {
	refused := errors.New("refused")
	made := visits.Visits{{}, {Err: refused}, {}}
	s := &Stage{ctx: t.Context()}
	s.run(func(s *Stage) { s.wantAnswers("early", made[:1]) })
	if s.failure != nil {
		t.Error(s.failure)
	}
	s.run(func(s *Stage) { s.wantAnswers("late", made) })
	if !errors.Is(s.failure, refused) || !strings.Contains(s.failure.Error(), "1 of 3") {
		t.Errorf("failure %v", s.failure)
	}
}

func TestServesOn(t *testing.T) {
	for _, c := range []struct {
		ready, serving, terminating *bool
		want                        bool
	}{
		{nil, nil, nil, false},
		{new(true), new(true), new(false), false},
		{new(false), new(true), new(true), true},
		{new(false), new(false), new(true), false},
		{new(true), new(true), new(true), false}, // publishNotReadyAddresses
	} {
		e := discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: c.ready, Serving: c.serving, Terminating: c.terminating}}
		if got := servesOn(e); got != c.want {
			t.Errorf("%s: %t", conditions(e), got)
		}
	}
}

func TestColumn(t *testing.T) {
	const table = "NAME        TYPE           CLUSTER-IP     EXTERNAL-IP     PORT(S)                        AGE\n" +
		"nginx-svc   LoadBalancer   10.17.245.57   <pending>       8080:31163/TCP,443:32000/TCP   1s\n"
	s := &Stage{ctx: t.Context()}
	s.run(func(s *Stage) {
		for name, want := range map[string]string{"NAME": "nginx-svc", "EXTERNAL-IP": "<pending>", "PORT(S)": "8080:31163/TCP,443:32000/TCP", "AGE": "1s"} {
			if got := s.column(table, name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
	if s.failure != nil {
		t.Error(s.failure)
	}
	s.run(func(s *Stage) { s.column(table, "NODES") })
	if s.failure == nil {
		t.Error("a column that is not there was read")
	}
}

func TestStateDifference(t *testing.T) {
	a, b := nsxState{"allocation 1", "pool p"}, nsxState{"pool p", "virtual server v"}
	if diff := cmp.Diff([]string{"virtual server v"}, b.minus(a)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"allocation 1"}, a.minus(b)); diff != "" {
		t.Error(diff)
	}
}
