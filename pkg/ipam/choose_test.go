package ipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"go4.org/netipx"
	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/ipam"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

func pool(name string, ranges ...string) nsx.IPPool {
	p := nsx.IPPool{ID: "id-of-" + name, Name: name}
	for _, r := range ranges {
		if !strings.Contains(r, "-") {
			r = r + "-" + r
		}
		p.Ranges = append(p.Ranges, netipx.MustParseIPRange(r))
	}
	return p
}

func ip(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

// taken is a set of addresses as Free: "pool/address", or "pool/*".
type taken map[string]bool

func (t taken) free(pool string, a netip.Addr) bool {
	name := strings.TrimPrefix(pool, "id-of-")
	return !t[name+"/"+a.String()] && !t[name+"/*"]
}

func TestChoose(t *testing.T) {
	broken := nsx.IPPool{Name: "typo", Problem: "not found in NSX"}
	tests := []struct {
		name   string
		pools  []nsx.IPPool
		family nsx.Family
		asked  string
		prev   string
		taken  taken
		want   string // "pool/address", or "pool/" for any
		kind   error
		text   string
	}{
		{name: "any", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9")}, want: "a/"},
		{name: "the only free one, below where others are", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.3")},
			taken: taken{"a/10.0.0.2": true, "a/10.0.0.3": true}, want: "a/10.0.0.1"},
		{name: "asked for", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9")}, asked: "10.0.0.7", want: "a/10.0.0.7"},
		{name: "asked for, in another pool than the first", pools: []nsx.IPPool{pool("a", "10.0.0.1"), pool("b", "10.0.1.1-10.0.1.4")},
			asked: "10.0.1.2", want: "b/10.0.1.2"},
		{name: "asked for in IPv6 form", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9")}, asked: "::ffff:10.0.0.7", want: "a/10.0.0.7"},
		{name: "asked for beats the one in the status", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9")},
			asked: "10.0.0.7", prev: "10.0.0.8", want: "a/10.0.0.7"},
		{name: "asked for and taken", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9")}, asked: "10.0.0.7", taken: taken{"a/10.0.0.7": true},
			kind: nsx.ErrAlreadyAllocated, text: `address 10.0.0.7 of pool "a" is already in use`},
		{name: "asked for and in no pool", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9", "10.0.0.20"), broken, pool("v6", "2001:db8::1")},
			asked: "10.0.0.10", kind: ipam.ErrNotInPools,
			text: `address 10.0.0.10 is in no IP pool of class "gold" (pool "a": 10.0.0.1-10.0.0.9, 10.0.0.20-10.0.0.20; ` +
				`pool "typo": not found in NSX; pool "v6": has no IPv4 addresses)`},
		{name: "asked for without pools", asked: "10.0.0.10", kind: ipam.ErrNotInPools,
			text: `address 10.0.0.10 is in no IP pool of class "gold" (it has none)`},
		{name: "the one in the status", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9"), pool("b", "10.0.1.1-10.0.1.9")},
			prev: "10.0.1.5", want: "b/10.0.1.5"},
		{name: "the one in the status is taken", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.2")},
			prev: "10.0.0.1", taken: taken{"a/10.0.0.1": true}, want: "a/10.0.0.2"},
		{name: "the one in the status is of another pool", pools: []nsx.IPPool{pool("a", "10.0.0.1")}, prev: "10.9.0.1", want: "a/10.0.0.1"},
		{name: "the next pool with room", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9"), broken, pool("b", "10.0.1.1")},
			taken: taken{"a/*": true}, want: "b/10.0.1.1"},
		{name: "IPv6 out of a pool with both", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.9", "2001:db8::5")}, family: nsx.IPv6, want: "a/2001:db8::5"},
		{name: "a whole IPv6 subnet", pools: []nsx.IPPool{pool("a", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff")}, family: nsx.IPv6, want: "a/"},
		{name: "all of IPv6", pools: []nsx.IPPool{pool("a", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}, family: nsx.IPv6, want: "a/"},
		{name: "overlapping ranges count once", pools: []nsx.IPPool{pool("a", "10.0.0.1-10.0.0.3", "10.0.0.2-10.0.0.4")}, taken: taken{"a/*": true},
			kind: nsx.ErrExhausted, text: `no free IPv4 address in class "gold": pool "a": all 4 addresses are in use`},
		{name: "exhausted", pools: []nsx.IPPool{pool("floating", "10.0.0.1-10.0.0.16"), pool("one", "10.0.1.1"), broken, pool("v6", "2001:db8::1")},
			taken: taken{"floating/*": true, "one/*": true}, kind: nsx.ErrExhausted,
			text: `no free IPv4 address in class "gold": pool "floating": all 16 addresses are in use; pool "one": its only address is in use; ` +
				`pool "typo": not found in NSX; pool "v6": has no IPv4 addresses`},
		{name: "a subnet too large to search", pools: []nsx.IPPool{pool("a", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff")}, family: nsx.IPv6,
			taken: taken{"a/*": true}, kind: nsx.ErrExhausted,
			text: `no free IPv6 address in class "gold": pool "a": none of 1048576 addresses tried is free`},
		{name: "no pools", kind: nsx.ErrExhausted, text: `class "gold" has no IP pools`},
		{name: "a pool that only its id names", pools: []nsx.IPPool{{ID: "4711"}}, kind: nsx.ErrExhausted,
			text: `no free IPv4 address in class "gold": pool "4711": has no IPv4 addresses`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.family == "" {
				tt.family = nsx.IPv4
			}
			r := ipam.Request{Class: "gold", Family: tt.family, Asked: ip(tt.asked), Previous: ip(tt.prev), Seed: "cluster/service"}
			p, a, err := ipam.Choose(tt.pools, r, tt.taken.free)
			if tt.kind != nil {
				if !errors.Is(err, tt.kind) || err.Error() != tt.text {
					t.Fatalf("got %v, %v, error\n%v, want\n%s", p.Name, a, err, tt.text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Name + "/" + a.String(); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// Services must not all start at the same address: two clusters with stale lists would then meet on each new Service.
func TestSeedsSpread(t *testing.T) {
	pools := []nsx.IPPool{pool("a", "10.0.0.0-10.0.0.255")}
	seen := map[netip.Addr]bool{}
	for i := range 256 {
		_, a, err := ipam.Choose(pools, ipam.Request{Family: nsx.IPv4, Seed: fmt.Sprint("service ", i)}, taken{}.free)
		if err != nil {
			t.Fatal(err)
		}
		seen[a] = true
	}
	// 256 throws into 256 bins fill 162 on average, with a standard deviation of about 5.
	if len(seen) < 130 {
		t.Errorf("256 seeds chose only %d of 256 addresses", len(seen))
	}
}

// genPools draws one to four small pools of one or both families; some overlap, some cannot be used.
func genPools(t *rapid.T) []nsx.IPPool {
	var out []nsx.IPPool
	for i := range rapid.IntRange(1, 4).Draw(t, "pools") {
		p := nsx.IPPool{ID: fmt.Sprint("id-of-", i), Name: fmt.Sprint(i)}
		for range rapid.IntRange(0, 3).Draw(t, "ranges") {
			base := rapid.SampledFrom([]string{"10.0.0.0", "10.0.255.250", "2001:db8::", "2001:db8::fffe"}).Draw(t, "base")
			from := skip(netip.MustParseAddr(base), rapid.IntRange(0, 12).Draw(t, "from"))
			p.Ranges = append(p.Ranges, netipx.IPRangeFrom(from, skip(from, rapid.IntRange(0, 12).Draw(t, "length"))))
		}
		if rapid.IntRange(0, 5).Draw(t, "broken") == 0 {
			p.Problem = "broken"
		}
		out = append(out, p)
	}
	return out
}

func skip(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

// addresses of the family in pools that can be used, written out.
func addresses(pools []nsx.IPPool, f nsx.Family) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, p := range pools {
		for _, r := range p.Ranges {
			for a := r.From(); p.Problem == "" && r.Contains(a); a = a.Next() {
				if nsx.FamilyOf(a) == f {
					out[a] = true
				}
			}
		}
	}
	return out
}

// Serving one Service after the other from any pools: each gets a free address in range of the pool named, the same when
// asked twice, never another's, and the pools are exhausted exactly when no address is left.
func TestChooseUntilExhausted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pools := genPools(t)
		family := rapid.SampledFrom([]nsx.Family{nsx.IPv4, nsx.IPv6}).Draw(t, "family")
		left := addresses(pools, family)
		if got := ipam.Serves(pools, family); got != (len(left) > 0) {
			t.Fatalf("Serves = %v with %d addresses", got, len(left))
		}
		free := func(_ string, a netip.Addr) bool { return left[a] }
		for i := 0; len(left) > 0; i++ {
			r := ipam.Request{Class: "c", Family: family, Seed: fmt.Sprint(rapid.Int().Draw(t, "seed"), i)}
			p, a, err := ipam.Choose(pools, r, free)
			if err != nil {
				t.Fatalf("%d addresses left: %v", len(left), err)
			}
			if !left[a] || nsx.FamilyOf(a) != family {
				t.Fatalf("%v is not a free %s address", a, family)
			}
			if holder, ok := ipam.Holding([]nsx.IPPool{p}, a); !ok || holder.ID != p.ID {
				t.Fatalf("%v is not in pool %s", a, p.Name)
			}
			if q, b, err := ipam.Choose(pools, r, free); err != nil || q.ID != p.ID || b != a {
				t.Fatalf("asked twice: %v of %s, then %v of %s (%v)", a, p.ID, b, q.ID, err)
			}
			delete(left, a)
		}
		_, _, err := ipam.Choose(pools, ipam.Request{Family: family, Seed: "last"}, free)
		if !errors.Is(err, nsx.ErrExhausted) {
			t.Fatalf("got %v with no address left", err)
		}
	})
}

// The search walks in the order of addresses and wraps around, so what it finds is the first free one from its start.
func TestChooseIsStableWhenOthersCome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pools := genPools(t)
		all := addresses(pools, nsx.IPv4)
		if len(all) == 0 {
			t.Skip("no IPv4 addresses")
		}
		r := ipam.Request{Family: nsx.IPv4, Seed: rapid.String().Draw(t, "seed")}
		_, first, err := ipam.Choose(pools, r, func(string, netip.Addr) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		_, again, err := ipam.Choose(pools, r, func(_ string, a netip.Addr) bool {
			return a == first || rapid.Bool().Draw(t, "free")
		})
		if err != nil || again != first {
			t.Fatalf("chose %v, and %v (%v) when others took the rest", first, again, err)
		}
	})
}

func FuzzChoose(f *testing.F) {
	f.Add("10.0.0.1", "10.0.0.9", "10.0.0.3", "10.0.0.4", "seed", uint8(3))
	f.Add("2001:db8::", "2001:db8::ffff", "::1", "", "", uint8(0))
	f.Add("::ffff:10.0.0.1", "10.0.0.9", "10.0.0.3%eth0", "fe80::1%1", "x", uint8(255))
	f.Fuzz(func(t *testing.T, from, to, asked, prev, seed string, odds uint8) {
		parse := func(s string) netip.Addr { a, _ := netip.ParseAddr(s); return a }
		p := nsx.IPPool{ID: "p", Ranges: []netipx.IPRange{netipx.IPRangeFrom(parse(from), parse(to))}}
		free := func(_ string, a netip.Addr) bool { return a.As16()[15] >= odds }
		for _, family := range []nsx.Family{nsx.IPv4, nsx.IPv6} {
			got, a, err := ipam.Choose([]nsx.IPPool{p}, ipam.Request{Family: family, Asked: parse(asked), Previous: parse(prev), Seed: seed}, free)
			if err != nil {
				continue
			}
			if _, ok := ipam.Holding([]nsx.IPPool{got}, a); !ok || !free("p", a) {
				t.Errorf("%v is not a free address of %v", a, p.Ranges)
			}
		}
	})
}
