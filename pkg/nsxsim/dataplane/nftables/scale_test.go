//go:build linux

package nftables_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// crowd gives n virtual servers on addresses of their own, half of them with a pool of their own, and the others with
// one that they share.
func crowd(n int, members ...int) []dataplane.VirtualServer {
	all := make([]dataplane.VirtualServer, n)
	shared := nodes(members...)
	shared.ID = "shared"
	for i := range all {
		pool := shared
		if i%2 == 1 {
			pool = nodes(1, 2, 3)
			pool.ID = fmt.Sprint("pool-of-", i)
		}
		all[i] = dataplane.VirtualServer{
			ID: fmt.Sprint("server-", i), Address: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Protocol: dataplane.TCP,
			Ports: []dataplane.PortMap{{Listen: 80, Member: 30080}, {Listen: 81, Member: 30081}}, Pool: pool,
		}
	}
	return all
}

func TestThousandsOfVirtualServers(t *testing.T) {
	w := newWorld(t)
	p := newPlane(t, dataplane.Options{})
	all := crowd(5000, 1, 2, 3)
	begin := time.Now()
	apply(t, p, all...)
	t.Logf("all at once: %v", time.Since(begin))
	for _, i := range []int{0, 1, 2500, 4999} {
		to := netip.AddrPortFrom(all[i].Address, 81).String()
		if got := w.spread(t, "tcp", clientA, to, 3); len(got) != 3 {
			t.Errorf("%s is served by %v", to, got)
		}
	}
	begin = time.Now()
	all[2500].Ports[1].Listen = 82
	apply(t, p, all...)
	t.Logf("one port: %v", time.Since(begin))
	if member, _, failure := w.once(t, "tcp", clientA, netip.AddrPortFrom(all[2500].Address, 82).String()); member == "" {
		t.Error(failure)
	}
	begin = time.Now()
	apply(t, p)
	t.Logf("none: %v", time.Since(begin))
	if _, _, failure := w.once(t, "tcp", clientA, netip.AddrPortFrom(all[0].Address, 80).String()); failure == "" {
		t.Error("the first one is served when all are gone")
	}
}

// Requests go on, on old connections and new ones, while members and other virtual servers come and go.
func TestChangesDisturbNobody(t *testing.T) {
	w := newWorld(t)
	both(t, func(t *testing.T, network string, protocol func(*dataplane.VirtualServer)) {
		p := newPlane(t, dataplane.Options{})
		apply(t, p, web(protocol))
		call[Dial, struct{}](t, w.client, "StartLoad", Dial{Network: network, To: vip + ":80"})
		asked := func() int64 { return call[struct{}, Load](t, w.client, "Asked", struct{}{}).Asked }
		for round := range 18 {
			change := []func(*dataplane.VirtualServer){
				func(*dataplane.VirtualServer) {},
				inState(1+round/6%3, dataplane.GracefulDisabled),
				inState(2, dataplane.GracefulDisabled),
				func(vs *dataplane.VirtualServer) { vs.Pool.Algorithm = dataplane.WeightedRoundRobin },
				persistent(time.Minute),
				func(vs *dataplane.VirtualServer) { vs.Ports = append(vs.Ports, dataplane.PortMap{Listen: 81}) },
			}[round%6]
			apply(t, p, append(crowd(round*7%50, 1+round%3), web(protocol, change))...)
			before := asked()
			eventually(t, "more is asked", func() bool { return asked() > before })
		}
		result := call[struct{}, Load](t, w.client, "StopLoad", struct{}{})
		if len(result.Failures) > 0 {
			t.Errorf("%d of %d requests failed: %v", len(result.Failures), result.Asked, result.Failures[:min(5, len(result.Failures))])
		}
	})
}

// BenchmarkApplyOneChange changes a port of one of many virtual servers, half of which share a pool of 100 members. The
// processor's time counts more than the clock's, where others are at work.
func BenchmarkApplyOneChange(b *testing.B) {
	members := make([]int, 100)
	for i := range members {
		members[i] = i + 1
	}
	for _, n := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			newWorld(b)
			p := newPlane(b, dataplane.Options{Housekeeping: time.Hour})
			all := crowd(n, members...)
			apply(b, p, all...)
			begin := processorTime(b)
			for i := 0; b.Loop(); i++ {
				all[n/2].Ports[0].Member = uint16(30080 + i%2)
				if err := p.Apply(context.Background(), dataplane.Config{VirtualServers: all}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((processorTime(b)-begin).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
