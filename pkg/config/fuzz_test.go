package config

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever the bytes, the answer is a config that survives printing, or errors
// that each have a place in the file and a reason.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"good", "bad"} {
		for _, file := range testFiles(f, folder) {
			f.Add(read(f, file))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz.yaml", data)
		if err == nil {
			again, err := Parse("printed.yaml", []byte(c.String()))
			if err != nil {
				t.Fatalf("what was read cannot be printed and read again:\n%v\n%s", err, c)
			}
			if diff := cmp.Diff(c, again, equateConfigs); diff != "" {
				t.Fatalf("(-first +again):\n%s", diff)
			}
			return
		}
		errs, ok := errors.AsType[Errors](err)
		if !ok || len(errs) == 0 {
			t.Fatalf("not Errors: %v", err)
		}
		lines := 1 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r"))
		last := 0
		for _, e := range errs {
			if e.Line < 1 || e.Column < 1 || e.Reason == "" || e.File != "fuzz.yaml" {
				t.Errorf("incomplete: %#v", e)
			}
			if e.Line > lines {
				t.Errorf("line %d of %d: %v", e.Line, lines, e)
			}
			if e.Line < last {
				t.Errorf("line %d after %d: %v", e.Line, last, e)
			}
			last = e.Line
		}
	})
}
