package nsxsim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// at runs f n times at once.
func at(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func TestOneWinnerPerRevision(t *testing.T) {
	b := newBench(t, nsxsim.Options{})
	var ids []string
	for i := range 8 {
		ids = append(ids, b.create(servers, b.tcpVS(fmt.Sprintf("10.1.0.%d", i+1), []string{"80"}, nil)))
	}
	service := b.ok("GET", services+"/"+b.lb, nil)
	codes := make([]int, len(ids))
	at(len(ids), func(i int) {
		body := nsxsim.Object{}
		for k, v := range service {
			body[k] = v
		}
		body["virtual_server_ids"] = []string{ids[i]}
		codes[i] = b.do("PUT", services+"/"+b.lb, body).status
	})
	wins := 0
	for i, code := range codes {
		switch code {
		case 200:
			wins++
			if got := b.Get(nsxsim.KindLBService, b.lb).Strings("virtual_server_ids"); len(got) != 1 || got[0] != ids[i] {
				t.Errorf("the winner wrote %s, the service holds %v", ids[i], got)
			}
		case 412:
		default:
			t.Errorf("a loser got %d, want 412", code)
		}
	}
	if wins != 1 {
		t.Errorf("%d winners, want 1", wins)
	}
}

// 32 clients write the same object over real connections, again and again: each
// revision is of exactly one of them, and nobody's write is lost.
func TestThirtyTwoClientsOnOneObject(t *testing.T) {
	const clients, writes = 32, 2
	srv := nsxsim.StartPlain(t, nsxsim.Options{})
	client := srv.HTTPClient(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	t.Cleanup(client.CloseIdleConnections)
	id := nsxsim.Must(srv.As("admin").Create(nsxsim.KindPool, nsxsim.Object{})).ID()
	path := srv.URL + "/api/v1" + pools + "/" + id
	send := func(method string, body any) (int, nsxsim.Object) {
		req, err := http.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(mustJSON(t, body)))
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		defer resp.Body.Close()
		var o nsxsim.Object
		if err := json.NewDecoder(resp.Body).Decode(&o); err != nil {
			t.Error(err)
		}
		return resp.StatusCode, o
	}
	var mu sync.Mutex
	winners := map[int]int{} // by revision
	at(clients, func(i int) {
		for done := 0; done < writes && !t.Failed(); {
			_, o := send("GET", nil)
			o["tags"] = []doc{{"scope": "writer", "tag": fmt.Sprint(i)}}
			switch status, o := send("PUT", o); status {
			case 200:
				done++
				mu.Lock()
				winners[o.Revision()]++
				mu.Unlock()
			case 412:
			default:
				t.Errorf("PUT: %d %v", status, o)
			}
		}
	})
	if got := srv.Get(nsxsim.KindPool, id).Revision(); got != clients*writes || len(winners) != clients*writes {
		t.Errorf("revision %d with %d winners, want %d of both", got, len(winners), clients*writes)
	}
	for revision, n := range winners {
		if n != 1 {
			t.Errorf("revision %d has %d winners", revision, n)
		}
	}
}

func TestAnAddressHasOneWinner(t *testing.T) {
	r := newIPRig(t, nsxsim.Options{})
	codes := make([]int, 8)
	at(len(codes), func(i int) { codes[i] = r.allocate("10.9.0.2").status })
	wins := 0
	for _, code := range codes {
		if code == 200 {
			wins++
		}
	}
	if wins != 1 {
		t.Errorf("%d winners, want 1: %v", wins, codes)
	}
}

// Everything at once: reads, writes, lists, statuses, journals, snapshots.
func TestConcurrentUse(t *testing.T) {
	b := newBench(t, nsxsim.Options{JournalSize: 16, Capacity: map[string]nsxsim.Capacity{"SMALL": {VirtualServers: 100, Pools: 100, Members: 100}}, RateLimit: 1e6, MaxConcurrent: 1000})
	at(32, func(i int) {
		for range 2 {
			pool := b.create(pools, doc{"members": []doc{{"ip_address": "10.0.0.1"}}})
			vs := b.create(servers, b.tcpVS(fmt.Sprintf("10.2.0.%d", i+1), []string{"80"}, doc{"pool_id": pool}))
			for {
				service := b.ok("GET", services+"/"+b.lb, nil)
				service["virtual_server_ids"] = append(service.Strings("virtual_server_ids"), vs)
				if b.do("PUT", services+"/"+b.lb, service).status == 200 {
					break
				}
			}
			b.do("GET", services+"/"+b.lb+"/status", nil)
			b.do("GET", pools+"?page_size=2", nil)
			b.Journal().Entries()
			b.Snapshot()
			_, err := b.As("other").Update(nsxsim.KindLBService, b.lb, func(o nsxsim.Object) {
				var kept []string
				for _, id := range o.Strings("virtual_server_ids") {
					if id != vs {
						kept = append(kept, id)
					}
				}
				o["virtual_server_ids"] = kept
			})
			if err != nil {
				t.Errorf("another user's edit: %v", err)
			}
			for _, path := range []string{servers + "/" + vs, pools + "/" + pool} {
				if a := b.do("DELETE", path, nil); a.status != 200 {
					t.Errorf("DELETE %s: %d %s", path, a.status, a.raw)
				}
			}
		}
	})
	if left := len(b.List(nsxsim.KindVirtualServer)) + len(b.List(nsxsim.KindPool)); left != 0 {
		t.Errorf("%d objects left over", left)
	}
}
