package random

import (
	"slices"
	"time"
)

// shrink leaves steps out of a list that breaks something, as long as it is still broken: first large parts of the list,
// then smaller ones, at last single steps (delta debugging). It stops at the end of its time.
func shrink(list []step, broken func([]step) bool, end time.Time) []step {
	for size := max(len(list)/2, 1); ; {
		shorter := false
		for at := 0; at < len(list); {
			if time.Now().After(end) {
				return list
			}
			without := slices.Concat(list[:at], list[min(at+size, len(list)):])
			if broken(without) {
				list, shorter = without, true
			} else {
				at += size
			}
		}
		switch {
		case size > 1:
			size /= 2
		case !shorter:
			return list
		}
	}
}
