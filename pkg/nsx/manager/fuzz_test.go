package manager_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx/manager"
	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// oddAnswers is the way to an NSX that answers one call with something odd, after having done it or not.
type oddAnswers struct {
	sim  http.Handler
	call string // which one: see calls; "" for none
	done bool   // it is carried out all the same

	mu    sync.Mutex
	limit int            // of calls
	calls map[string]int // "method path number" of the calls so far: the first of its kind has number 1
	// odd makes the answer of what NSX answered: 0 and nothing when the call is not done.
	odd func(status int, body []byte) (int, []byte)
}

// RoundTrip implements http.RoundTripper.
func (o *oddAnswers) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	o.mu.Lock()
	name := req.Method + " " + req.URL.Path
	o.calls[name]++
	name = fmt.Sprintf("%s %d", name, o.calls[name])
	o.limit--
	over := o.limit < 0
	o.mu.Unlock()
	if over {
		return nil, errors.New("asked too often")
	}
	req = req.Clone(req.Context())
	req.SetBasicAuth(nsxsim.DefaultUsername, nsxsim.DefaultPassword)
	req.RequestURI = req.URL.RequestURI()
	if req.Body == nil {
		req.Body = http.NoBody
	}
	odd := name == o.call
	rec := httptest.NewRecorder()
	if !odd || o.done {
		o.sim.ServeHTTP(rec, req)
	}
	resp := rec.Result()
	if odd {
		var body []byte
		if o.done {
			body = rec.Body.Bytes()
		}
		resp.StatusCode, body = o.odd(resp.StatusCode, body)
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp.Request = req
	return resp, nil
}

// Whatever NSX answers, and whenever: never a panic nor an endless list, always an error that says what kind it is, and
// when NSX has come to its senses a new start finds a way on.
func FuzzAnswers(f *testing.F) {
	f.Add(uint8(0), uint8(1), true, 200, []byte(`{"results": [{"id": 7}]}`))
	f.Add(uint8(0), uint8(3), false, 200, []byte(`{"results": [null, {"id": "", "tags": null, "members": {}}], "cursor": "x"}`))
	f.Add(uint8(1), uint8(2), true, 201, []byte(`{}`))
	f.Add(uint8(1), uint8(3), true, 200, []byte(`{"allocation_id": "10.0.0.999"}`))
	f.Add(uint8(1), uint8(3), true, 200, []byte(`{"allocation_id": "fe80::1%eth0"}`))
	f.Add(uint8(1), uint8(1), false, 500, []byte(`<html>`))
	f.Add(uint8(2), uint8(1), true, 200, []byte(`null`))
	f.Add(uint8(2), uint8(2), true, 200, []byte(`{"id": "x", "virtual_server_ids": "all"}`))
	f.Add(uint8(3), uint8(1), true, 200, []byte(`[]`))
	f.Add(uint8(4), uint8(1), false, 412, []byte(`{"error_code": "206"}`))
	f.Add(uint8(5), uint8(2), true, 204, []byte(``))
	var calls [oddOperations][]string
	for operation := range calls {
		calls[operation] = surviveOddAnswer(f, operation, "", true, nil)
	}
	f.Fuzz(func(t *testing.T, op, nth uint8, done bool, status int, body []byte) {
		if status < 200 || status > 599 {
			t.Skip("not what an HTTP client gives on")
		}
		operation := int(op) % oddOperations
		call := calls[operation][int(nth)%len(calls[operation])]
		surviveOddAnswer(t, operation, call, done, func(int, []byte) (int, []byte) { return status, body })
	})
}

// A list whose cursors go round in a circle ends.
func TestCursorsInACircle(t *testing.T) {
	pages := 0
	b := manager.New(manager.Options{Clock: clocktesting.NewFakePassiveClock(time.Time{}), Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		if pages++; pages > 1000 {
			return nil, errors.New("asked too often")
		}
		cursor := "b"
		if req.URL.Query().Get("cursor") == "b" {
			cursor = "a"
		}
		return &http.Response{StatusCode: 200, Request: req, Body: io.NopCloser(strings.NewReader(`{"cursor": "` + cursor + `"}`))}, nil
	})})
	if err := b.RefreshAddresses(t.Context(), "floating"); !errors.Is(err, nsx.ErrUnavailable) || pages > 10 {
		t.Errorf("got %v after %d pages", err, pages)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

const oddOperations = 6

// surviveOddAnswer does one operation, a call of which is answered oddly, and demands an error of a kind that callers
// know, or none, and that a new start finds a way on. It tells the calls that the operation took.
func surviveOddAnswer(t testing.TB, operation int, call string, done bool, odd func(int, []byte) (int, []byte)) (calls []string) {
	t.Helper()
	clock := clocktesting.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	sim, err := nsxsim.New(nsxsim.Options{Clock: clock, NewID: nsxsim.SequentialIDs()})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	pool := nsxsim.Must(sim.AddIPPool("floating", "10.0.0.0/24", "10.0.0.1-10.0.0.4")).ID()
	nsxsim.Must(sim.AddLBService("lb", "SMALL", nsxsim.Must(sim.AddTier1("t1")).ID()))
	way := &oddAnswers{sim: sim, limit: 1 << 20, calls: map[string]int{}, odd: odd, done: done}
	start := func() *manager.Backend {
		return manager.New(manager.Options{
			Transport: way, ClusterName: "test", ClusterUID: "cluster-1", Clock: clock,
			IPPools:    []manager.IPPool{{Name: "floating", ID: "floating", Exclusive: true}},
			LBServices: []string{"lb"},
		})
	}
	ctx := context.Background()
	b := start()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	virtualServer := func(n byte) nsx.VirtualServer {
		profile, _ := b.Inventory().ApplicationProfile("default-tcp-lb-app-profile")
		p := clusterPool()
		if n == 2 {
			p = localPool(32000)
		}
		return nsx.VirtualServer{
			Protocol: nsx.TCP, Address: netip.AddrFrom4([4]byte{10, 0, 0, n}), IPPool: pool, Class: "default", LBService: "lb",
			Ports: []nsx.PortMap{{Port: 80, NodePort: 30080}}, ApplicationProfile: profile, Pool: p,
		}
	}
	publish := func(name string, n byte) error {
		return b.Apply(ctx, nsx.Publish{Owner: owner(name), VirtualServers: []nsx.VirtualServer{virtualServer(n)}})
	}
	withdraw := func(name string) error {
		return b.Apply(ctx, nsx.Withdraw{Owner: owner(name), VirtualServers: b.Inventory().Observe(owner(name)).VirtualServers})
	}
	must(b.Load(ctx))
	must(b.SetNodes(ctx, nodes("a", "b")))
	must(publish("old", 1))

	way.call, way.limit, way.calls = call, 200, map[string]int{}
	err = [oddOperations]func() error{
		func() error { return b.Load(ctx) },
		func() error { return publish("new", 2) },
		func() error { return withdraw("old") },
		func() error { return b.SetNodes(ctx, nodes("a", "c", "d")) },
		func() error {
			if err := withdraw("old"); err != nil {
				return err
			}
			return b.Tidy(ctx)
		},
		func() error { return b.RefreshAddresses(ctx, "floating") },
	}[operation]()
	for name, n := range way.calls {
		for i := range n {
			calls = append(calls, fmt.Sprintf("%s %d", name, i+1))
		}
	}
	slices.Sort(calls)
	if err != nil && !knownKind(err) {
		t.Errorf("an error of no kind: %v", err)
	}

	way.call, way.limit = "", 1<<20
	b = start()
	must(b.Load(ctx))
	must(b.SetNodes(ctx, nodes("a", "b")))
	for _, name := range []string{"old", "new"} {
		// A RELEASE whose answer was lost takes two sightings.
		for range 3 {
			if err = withdraw(name); err == nil {
				break
			}
			clock.Step(3 * time.Minute)
			must(b.Load(ctx))
		}
		must(err)
	}
	must(publish("after", 4))
	return calls
}

// Every field of every answer in turn is missing or of another type.
func TestOddFields(t *testing.T) {
	cases := 0
	for operation := range oddOperations {
		for _, call := range surviveOddAnswer(t, operation, "", true, nil) {
			var answer []byte
			surviveOddAnswer(t, operation, call, true, func(status int, body []byte) (int, []byte) {
				answer = body
				return status, body
			})
			for _, path := range fieldsOf(answer) {
				for _, value := range []string{"", `"odd"`, `{"a": []}`} {
					name := fmt.Sprintf("operation %d, %s, %s = %s", operation, call, strings.Join(path, "."), value)
					ok := t.Run(name, func(t *testing.T) {
						surviveOddAnswer(t, operation, call, true, func(status int, body []byte) (int, []byte) {
							return status, replaceField(t, body, path, value)
						})
					})
					cases++
					if !ok {
						break
					}
				}
			}
		}
	}
	if cases < 500 {
		t.Errorf("only %d cases", cases)
	}
}

// fieldsOf lists the paths of all fields in a document, but for those that tell who made it and when; of a list, the
// fields of its first item.
func fieldsOf(raw []byte) [][]string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	var out [][]string
	var walk func(v any, path []string)
	walk = func(v any, path []string) {
		if len(path) > 0 {
			out = append(out, slices.Clone(path))
		}
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				if k == "_revision" || !strings.HasPrefix(k, "_") {
					walk(v[k], append(path, k))
				}
			}
		case []any:
			if len(v) > 0 {
				walk(v[0], append(path, "0"))
			}
		}
	}
	walk(v, nil)
	return out
}

// replaceField puts raw JSON in place of the field at path, or takes the field away when value is empty.
func replaceField(t *testing.T, doc []byte, path []string, value string) []byte {
	t.Helper()
	var root any
	if err := json.Unmarshal(doc, &root); err != nil {
		t.Fatal(err)
	}
	holder := root
	for _, k := range path[:len(path)-1] {
		switch h := holder.(type) {
		case map[string]any:
			holder = h[k]
		case []any:
			holder = h[0]
		}
	}
	last := path[len(path)-1]
	switch h := holder.(type) {
	case map[string]any:
		if h[last] = json.RawMessage(value); value == "" {
			delete(h, last)
		}
	case []any:
		if h[0] = json.RawMessage(value); value == "" {
			h[0] = map[string]any{}
		}
	}
	out, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func knownKind(err error) bool {
	for _, kind := range []error{
		nsx.ErrNotFound, nsx.ErrStaleRevision, nsx.ErrInUse, nsx.ErrThrottled, nsx.ErrExhausted, nsx.ErrAlreadyAllocated,
		nsx.ErrUnauthorized, nsx.ErrInvalid, nsx.ErrUnavailable, nsx.ErrAmbiguous,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
