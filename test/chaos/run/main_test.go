package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTally(t *testing.T) {
	var out strings.Builder
	tally := newTally(&out)
	err := tally.read(strings.NewReader(`{"Action":"run","Test":"TestA"}
{"Action":"run","Test":"TestA/x"}
{"Action":"run","Test":"TestA/x/1"}
{"Action":"pass","Test":"TestA/x/1","Elapsed":0.1}
{"Action":"run","Test":"TestA/x/2"}
{"Action":"output","Test":"TestA/x/2","Output":"broken\n"}
{"Action":"fail","Test":"TestA/x/2","Elapsed":0.1}
{"Action":"fail","Test":"TestA/x","Elapsed":0.2}
{"Action":"run","Test":"TestA/y"}
{"Action":"run","Test":"TestA/y/1"}
{"Action":"pass","Test":"TestA/y/1"}
{"Action":"output","Test":"TestA/y","Output":"by itself\n"}
{"Action":"fail","Test":"TestA/y","Elapsed":0.3}
{"Action":"fail","Test":"TestA","Elapsed":0.5}
{"Action":"run","Test":"TestB"}
{"Action":"skip","Test":"TestB"}
`))
	if err != nil {
		t.Fatal(err)
	}
	tally.summary(0)
	want := `--- FAIL: TestA/x/2
broken

TestA x                                                      1 passed, 1 failed     0.2s
--- FAIL: TestA/y
by itself

TestA y                                                      1 passed, 1 failed     0.3s
--- SKIP: TestB

TestB                                                        0 passed, 1 failed     0.0s

TestA                                                        2 passed, 2 failed     0.5s
TestB                                                        0 passed, 1 failed     0.0s
2 passed, 3 failed in 0s
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
