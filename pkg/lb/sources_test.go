package lb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	servicehelpers "k8s.io/cloud-provider/service/helpers"
	"pgregory.net/rapid"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// everyOther lists that many single addresses, no two of which make a range, as JSON strings.
func everyOther(n int) string {
	ranges := make([]string, n)
	for i := range ranges {
		ranges[i] = fmt.Sprintf(`"10.0.%d.%d/32"`, i/128, i%128*2)
	}
	return strings.Join(ranges, ",")
}

func TestSources(t *testing.T) {
	v4, both := []nsx.Family{nsx.IPv4}, []nsx.Family{nsx.IPv4, nsx.IPv6}
	tests := []struct {
		name       string
		families   []nsx.Family
		ranges     []string
		annotation string
		// want is what is let in of each family that does not let everybody in.
		want map[nsx.Family]string
	}{
		{"nothing said", both, nil, "", map[nsx.Family]string{}},
		{"an empty annotation", both, nil, "  ", map[nsx.Family]string{}},
		{"everybody", v4, []string{"0.0.0.0/0"}, "", map[nsx.Family]string{}},
		{"everybody, and somebody besides", v4, []string{"192.0.2.0/24", "0.0.0.0/0"}, "", map[nsx.Family]string{}},
		{"everybody in two halves", v4, []string{"0.0.0.0/1", "128.0.0.0/1"}, "", map[nsx.Family]string{}},
		{"everybody of one family stands for the other", both, []string{"0.0.0.0/0"}, "", map[nsx.Family]string{}},
		{"unless that is named", both, []string{"0.0.0.0/0", "2001:db8::/32"}, "", map[nsx.Family]string{nsx.IPv6: "clients in 2001:db8::/32"}},
		{"everybody of the other family", both, []string{"192.0.2.0/24", "::/0"}, "", map[nsx.Family]string{nsx.IPv4: "clients in 192.0.2.0/24"}},
		{"a family that is not named", both, []string{"192.0.2.0/24"}, "", map[nsx.Family]string{nsx.IPv4: "clients in 192.0.2.0/24", nsx.IPv6: "no clients"}},
		{"a family that the Service does not have", v4, []string{"192.0.2.0/24", "2001:db8::/32"}, "", map[nsx.Family]string{nsx.IPv4: "clients in 192.0.2.0/24"}},
		{"host bits", v4, []string{"192.0.2.77/24"}, "", map[nsx.Family]string{nsx.IPv4: "clients in 192.0.2.0/24"}},
		{"sorted, each once, and merged", v4, []string{"198.51.100.0/24", "192.0.2.128/25", "192.0.2.0/25", "198.51.100.7/32", "198.51.100.0/24"}, "",
			map[nsx.Family]string{nsx.IPv4: "clients in 192.0.2.0/24,198.51.100.0/24"}},
		{"leading zeros, as Kubernetes reads them", v4, []string{" 010.01.0.0/16 "}, "", map[nsx.Family]string{nsx.IPv4: "clients in 10.1.0.0/16"}},
		{"IPv4 in the form of IPv6", v4, []string{"::ffff:192.0.2.0/120"}, "", map[nsx.Family]string{nsx.IPv4: "clients in 192.0.2.0/24"}},
		{"the annotation", v4, nil, "192.0.2.0/24, 198.51.100.0/24", map[nsx.Family]string{nsx.IPv4: "clients in 192.0.2.0/24,198.51.100.0/24"}},
		{"the field before the annotation", v4, []string{"192.0.2.0/24"}, "198.51.100.0/24", map[nsx.Family]string{nsx.IPv4: "clients in 192.0.2.0/24"}},
		{"a long list is cut short for people", v4, strings.Split(strings.ReplaceAll(everyOther(10), `"`, ""), ","), "",
			map[nsx.Family]string{nsx.IPv4: "clients in 10.0.0.0/32,10.0.0.2/32,10.0.0.4/32,10.0.0.6/32,10.0.0.8/32,10.0.0.10/32,10.0.0.12/32,10.0.0.14/32 and 2 more ranges"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			svc := &corev1.Service{Spec: corev1.ServiceSpec{LoadBalancerSourceRanges: tt.ranges}}
			svc.Annotations = map[string]string{corev1.AnnotationLoadBalancerSourceRangesKey: tt.annotation}
			var bad faults
			got := map[nsx.Family]string{}
			for family, s := range sources(svc, tt.families, &bad) {
				got[family] = s.String()
			}
			if d := cmp.Diff(tt.want, got); d != "" || bad.error() != nil {
				t.Errorf("%v (-want +got):\n%s", bad.error(), d)
			}
		})
	}
}

// Any list lets in the very addresses that its ranges name as Kubernetes reads them, and two lists that mean the same are the
// same, whatever their order.
func TestSourcesMeanWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		octet := rapid.SampledFrom([]int{0, 1, 127, 128, 255})
		ranges := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return fmt.Sprintf("10.%d.%d.%d/%d", octet.Draw(t, "b"), octet.Draw(t, "c"), octet.Draw(t, "d"), rapid.IntRange(1, 32).Draw(t, "bits"))
		}), 1, 12).Draw(t, "ranges")
		read := func(ranges []string) nsx.Sources {
			var bad faults
			svc := &corev1.Service{Spec: corev1.ServiceSpec{LoadBalancerSourceRanges: ranges}}
			s := sources(svc, []nsx.Family{nsx.IPv4}, &bad)[nsx.IPv4]
			if bad.error() != nil || !s.Restricted {
				t.Fatalf("%v: %v %v", ranges, s, bad.error())
			}
			return s
		}
		got := read(ranges)
		nets, err := servicehelpers.GetLoadBalancerSourceRanges(&corev1.Service{Spec: corev1.ServiceSpec{LoadBalancerSourceRanges: ranges}})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			a := netip.AddrFrom4([4]byte{10, byte(octet.Draw(t, "b")), byte(octet.Draw(t, "c")), byte(rapid.IntRange(0, 255).Draw(t, "d"))})
			in := false
			for _, n := range nets {
				in = in || n.Contains(a.AsSlice())
			}
			if has := slices.ContainsFunc(got.Ranges, func(p netip.Prefix) bool { return p.Contains(a) }); has != in {
				t.Fatalf("%v: %v is let in: %v, want %v", ranges, a, has, in)
			}
		}
		if again := read(rapid.Permutation(ranges).Draw(t, "order")); again.Key() != got.Key() || !again.Equal(got) {
			t.Fatalf("%v in another order: %v, %v", ranges, again, got)
		}
		if !slices.IsSortedFunc(got.Ranges, netip.Prefix.Compare) {
			t.Fatalf("not sorted: %v", got.Ranges)
		}
		var b netipx.IPSetBuilder
		for _, p := range got.Ranges {
			if b.AddPrefix(p); p != p.Masked() {
				t.Fatalf("not masked: %v", p)
			}
		}
		if set, err := b.IPSet(); err != nil || len(set.Prefixes()) != len(got.Ranges) {
			t.Fatalf("not minimal: %v, %v", got.Ranges, err)
		}
	})
}
