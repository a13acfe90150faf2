package dataplane

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRates(t *testing.T) {
	var c counters
	at := time.Unix(0, 0)
	if r := c.snapshot().Rates; r != (Rates{}) {
		t.Errorf("before any sample: %+v", r)
	}
	for range 20 { // 100 bytes a second, then twice as many
		c.sample(at)
		c.in.Add(100)
		at = at.Add(time.Second)
	}
	for range 2 {
		c.sample(at)
		c.in.Add(200)
		at = at.Add(time.Second)
	}
	c.total.Add(10)
	c.sample(at)
	// Of the last five seconds three had 100 bytes and two 200.
	if diff := cmp.Diff(Rates{BytesIn: 140, Connections: 2}, c.snapshot().Rates); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for range 5 {
		at = at.Add(time.Second)
		c.sample(at)
	}
	if r := c.snapshot().Rates; r != (Rates{}) {
		t.Errorf("after five quiet seconds: %+v", r)
	}
}
