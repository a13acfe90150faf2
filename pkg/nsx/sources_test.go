package nsx

import (
	"net/netip"
	"testing"

	"go4.org/netipx"
)

func parseSources(ranges ...string) Sources {
	parsed := make([]netipx.IPRange, len(ranges))
	for i, r := range ranges {
		parsed[i] = netipx.RangeOfPrefix(netip.MustParsePrefix(r))
	}
	return Sources{Restricted: true, Ranges: Prefixes(parsed)}
}

func TestSources(t *testing.T) {
	all, none := Sources{}, Sources{Restricted: true}
	one := parseSources("192.0.2.0/24")
	for _, c := range []struct {
		s   Sources
		key string
		say string
	}{
		{all, "", "all clients"},
		// Keys find the objects that earlier releases of the controller made.
		{none, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "no clients"},
		{one, "e336915ff179f536c8e8fff8480a5293f82e4db826367068433f337aa7c94601", "clients in 192.0.2.0/24"},
		{parseSources("192.0.2.128/25", "192.0.2.0/25", "192.0.2.9/32"), one.Key(), "clients in 192.0.2.0/24"},
	} {
		if got := c.s.Key(); got != c.key {
			t.Errorf("%v: key %s, want %s", c.s, got, c.key)
		}
		if got := c.s.String(); got != c.say {
			t.Errorf("%q, want %q", got, c.say)
		}
	}
	for i, s := range []Sources{all, none, one, parseSources("192.0.2.0/25")} {
		for j, u := range []Sources{all, none, one, parseSources("192.0.2.0/25")} {
			if s.Equal(u) != (i == j) {
				t.Errorf("%v and %v: equal %t", s, u, s.Equal(u))
			}
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]struct {
		v    Version
		list bool
	}{
		"2.5.1.0.0.15314288": {Version{2, 5}, false},
		"3.0.0.0.0.15946738": {Version{3, 0}, true},
		" 4.1.2":             {Version{4, 1}, true},
		"3":                  {Version{}, false},
		"":                   {Version{}, false},
		"nine.zero":          {Version{}, false},
	} {
		v, err := ParseVersion(text)
		if v != want.v || v.AccessLists() != want.list || (err != nil) != (want.v == Version{}) {
			t.Errorf("%q: %v, access lists %t, %v", text, v, v.AccessLists(), err)
		}
	}
}
