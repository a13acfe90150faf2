package dataplane

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
)

// share is a member as the algorithms see it.
type share struct {
	key         netip.AddrPort
	weight      int
	connections int // that it has now
	credit      int // turns it is owed: the state of the round robin
}

// choose returns the one of the candidates that gets the next connection from client. It is pure but for the
// credits of the candidates, which it moves on. There must be a candidate.
func choose(algorithm Algorithm, candidates []*share, client netip.Addr) *share {
	one := func(*share) int { return 1 }
	weight := func(s *share) int { return s.weight }
	switch algorithm {
	case WeightedRoundRobin:
		return nextInTurn(candidates, weight)
	case LeastConnection:
		return nextInTurn(leastLoaded(candidates, one), one)
	case WeightedLeastConnection:
		return nextInTurn(leastLoaded(candidates, weight), weight)
	case IPHash:
		return highestHash(candidates, client)
	default:
		return nextInTurn(candidates, one)
	}
}

// nextInTurn is the smooth weighted round robin: each round every candidate earns its weight and the winner
// pays the sum of all weights, so that turns are spread evenly and candidates may come and go between rounds.
func nextInTurn(candidates []*share, weight func(*share) int) *share {
	total := 0
	best := candidates[0]
	for _, c := range candidates {
		total += weight(c)
		c.credit += weight(c)
		if c.credit > best.credit {
			best = c
		}
	}
	best.credit -= total
	return best
}

// leastLoaded returns the candidates with the fewest connections for their weight.
func leastLoaded(candidates []*share, weight func(*share) int) []*share {
	// a/b < c/d, with the weights positive, without dividing.
	less := func(a, b *share) int { return a.connections*weight(b) - b.connections*weight(a) }
	least := slices.MinFunc(candidates, less)
	return slices.DeleteFunc(slices.Clone(candidates), func(c *share) bool { return less(c, least) != 0 })
}

// highestHash is rendezvous hashing: a client stays with its member whatever others come and go.
func highestHash(candidates []*share, client netip.Addr) *share {
	var (
		best *share
		high uint64
	)
	for _, c := range candidates {
		sum := sha256.Sum256(append(client.AsSlice(), c.key.String()...))
		if h := binary.BigEndian.Uint64(sum[:]); best == nil || h > high {
			best, high = c, h
		}
	}
	return best
}
