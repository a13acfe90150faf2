package random

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A step is one thing that happens, and the time that passes then. It finds what it is about in the world as it is by then,
// and does nothing if that is not there: so any part of a list of steps can be played.
type step struct {
	// number is its place in the list of its seed.
	number int
	// about is whose it is: a cluster's name, or what else there is.
	about string
	text  string
	do    func(*player)
	then  time.Duration
}

func (s step) String() string {
	out := fmt.Sprintf("%3d  %s: %s", s.number, s.about, s.text)
	if s.then > 0 {
		out += fmt.Sprintf(", then %v", s.then)
	}
	return out
}

// restEvery is after how many steps a world rests and is checked.
const restEvery = 25

// steps makes the first steps of a seed. A step depends on its seed and its number alone.
func steps(seed uint64, count int) []step {
	var out []step
	for n := range count {
		out = append(out, newStep(seed, n))
	}
	return out
}

func newStep(seed uint64, n int) step {
	d := &dice{rand.New(rand.NewPCG(seed, uint64(n)))}
	if n%restEvery == restEvery-1 {
		return step{number: n, about: "all", text: "rest", do: func(p *player) { p.rest() }}
	}
	total := 0
	for _, k := range stepKinds {
		total += k.weight
	}
	at := d.IntN(total)
	for _, k := range stepKinds {
		if at -= k.weight; at < 0 {
			cluster := clusters[d.IntN(len(clusters))]
			s := k.make(d, cluster)
			s.number = n
			if s.about == "" {
				s.about = cluster
			}
			if s.then == 0 {
				s.then = d.pause()
			}
			return s
		}
	}
	panic("unreachable: the weights are positive")
}

// dice are what a step is made with.
type dice struct{ *rand.Rand }

// chance is true once in n times.
func (d *dice) chance(n int) bool { return d.IntN(n) == 0 }

// pause is how long nothing else happens: often so short that the step is still under way, or none has begun.
func (d *dice) pause() time.Duration {
	switch d.IntN(8) {
	case 0:
		return 0
	case 1, 2, 3:
		return time.Duration(1+d.IntN(300)) * time.Millisecond
	case 4, 5:
		return time.Duration(1+d.IntN(10)) * time.Second
	case 6:
		return time.Duration(10+d.IntN(80)) * time.Second
	default:
		return time.Duration(2+d.IntN(12)) * time.Minute
	}
}

// of is one of some texts.
func of(d *dice, texts ...string) string { return texts[d.IntN(len(texts))] }

// some are a few of some texts, in their order, and at least one.
func some(d *dice, texts ...string) []string {
	least := d.IntN(len(texts))
	var out []string
	for i, t := range texts {
		if i == least || d.chance(3) {
			out = append(out, t)
		}
	}
	return out
}

// numbers are the places of steps in the list of their seed, as the flag -only takes them: "3,9-12".
func numbers(list []step) string {
	var parts []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1].number == list[j].number+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(list[i].number))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", list[i].number, list[j].number))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// only are the steps with these numbers.
func only(list []step, numbers string) ([]step, error) {
	var out []step
	for part := range strings.SplitSeq(numbers, ",") {
		var from, to int
		if _, err := fmt.Sscanf(part, "%d-%d", &from, &to); err != nil {
			if _, err := fmt.Sscanf(part, "%d", &from); err != nil {
				return nil, fmt.Errorf("%q is no number, and no range of numbers: %w", part, err)
			}
			to = from
		}
		if from < 0 || to < from || to >= len(list) {
			return nil, fmt.Errorf("there are no steps %q: the seed has those from 0 to %d", part, len(list)-1)
		}
		out = append(out, list[from:to+1]...)
	}
	return out, nil
}
