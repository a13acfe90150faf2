package nsx

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// MaxRanges is how many ranges of clients a virtual server can let in: NSX takes 4,000 addresses or ranges in one IP set.
const MaxRanges = 4000

// Sources says which clients a virtual server lets in, by their addresses. The zero Sources lets everybody in.
type Sources struct {
	// Restricted: only clients in Ranges are let in, so nobody if there are none.
	Restricted bool
	// Ranges are the minimal list of prefixes for what they cover, in ascending order: see Prefixes.
	Ranges []netip.Prefix
}

// Prefixes are the minimal list of prefixes that covers exactly what the ranges do, in ascending order: the same for any two
// lists that mean the same.
func Prefixes(ranges []netipx.IPRange) []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, r := range ranges {
		b.AddRange(r)
	}
	set, err := b.IPSet()
	if err != nil {
		return nil // a range that is none covers nothing
	}
	return set.Prefixes()
}

// Equal tells whether two Sources let the same clients in.
func (s Sources) Equal(t Sources) bool {
	return s.Restricted == t.Restricted && slices.Equal(s.Ranges, t.Ranges)
}

// Key names Sources by what they are. It is part of the value of TagShared on the objects in NSX that hold them, so it must
// stay the same from release to release. It is empty for those that let everybody in.
func (s Sources) Key() string {
	if !s.Restricted {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join(s.texts(), ",")))
	return hex.EncodeToString(sum[:])
}

func (s Sources) texts() []string {
	texts := make([]string, len(s.Ranges))
	for i, r := range s.Ranges {
		texts[i] = r.String()
	}
	return texts
}

// String is for people; of a long list it shows the beginning.
func (s Sources) String() string {
	const shown = 8
	switch texts := s.texts(); {
	case !s.Restricted:
		return "all clients"
	case len(texts) == 0:
		return "no clients"
	case len(texts) > shown:
		return fmt.Sprintf("clients in %s and %d more ranges", strings.Join(texts[:shown], ","), len(texts)-shown)
	default:
		return "clients in " + strings.Join(texts, ",")
	}
}
