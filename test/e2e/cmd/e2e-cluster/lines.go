package main

import (
	"bufio"
	"io"
)

// copyUntil copies lines up to one, and says whether it came.
func copyUntil(w io.Writer, r io.Reader, last string) bool {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		say(w, "%s", lines.Text())
		if lines.Text() == last {
			return true
		}
	}
	return false
}
