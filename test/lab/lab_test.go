package lab_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/test/lab"
)

func TestLab(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := lab.Start(ctx, lab.Options{Report: func(p lab.Part) { t.Logf("%+v", p) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("memory %d MiB", l.Memory()>>20)
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
