package config

import "strings"

// closest returns the candidate that word is most likely a slip of, if any is
// near enough: at most a third of its letters wrong, regardless of case.
func closest(word string, candidates []string) (string, bool) {
	best, least := "", -1
	for _, candidate := range candidates {
		allowed := max(1, len(candidate)/3)
		if len(word) > len(candidate)+allowed {
			continue
		}
		slips := distance(strings.ToLower(word), strings.ToLower(candidate))
		if slips <= allowed && (least < 0 || slips < least) {
			best, least = candidate, slips
		}
	}
	return best, least >= 0
}

// distance returns how many letters must be added, dropped, replaced or
// swapped with their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	// rows[i][j] is the distance of a's first i and b's first j letters.
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			if i == 0 || j == 0 {
				rows[i][j] = i + j
				continue
			}
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
