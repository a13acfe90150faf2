package dataplane_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim/dataplane"
)

// webScene is a layer 7 virtual server with two pools of two web servers each: "main", its own, and "other".
type webScene struct {
	*scene
	main, other *dataplane.Pool
	names       map[netip.AddrPort]string // of the members
}

// newWebScene starts members that answer with their name and what they were asked.
func newWebScene(t *testing.T, opts dataplane.Options, config *tls.Config) *webScene {
	t.Helper()
	w := &webScene{scene: newScene(t, dataplane.TCP, opts), names: map[netip.AddrPort]string{}}
	for i, name := range []string{"main-1", "main-2", "other-1", "other-2"} {
		at := serveHTTP(t, netip.AddrPortFrom(w.addr(byte(31+i)), 0), config, func(rw http.ResponseWriter, r *http.Request) {
			if set := r.URL.Query().Get("set"); set != "" {
				rw.Header().Add("Set-Cookie", set)
			}
			rw.Header().Set("X-Member", name)
			if r.TLS != nil {
				rw.Header().Set("X-Secure", fmt.Sprint(len(r.TLS.PeerCertificates)))
			}
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(rw, "%s %s host=%s proto=%s port=%s x=%s cookie=%s body=%s", r.Method, r.URL, r.Host,
				r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Port"), r.Header.Get("X"), r.Header.Get("Cookie"), body)
		})
		w.names[at] = name
	}
	pool := func(id string) *dataplane.Pool {
		p := &dataplane.Pool{ID: id}
		for at, name := range w.names {
			if strings.HasPrefix(name, id) {
				p.Members = append(p.Members, dataplane.Member{Address: at.Addr(), Port: at.Port()})
			}
		}
		slices.SortFunc(p.Members, func(a, b dataplane.Member) int { return a.Address.Compare(b.Address) })
		return p
	}
	w.main, w.other = pool("main"), pool("other")
	return w
}

func (w *webScene) set(t *testing.T, h dataplane.HTTP, edits ...func(vs *dataplane.VirtualServer)) {
	t.Helper()
	vs := w.vs
	vs.HTTP, vs.Pool = &h, w.main
	for _, edit := range edits {
		edit(&vs)
	}
	apply(t, w.plane, vs)
}

// visitor is a client with a connection of its own, which keeps cookies if it has a jar of them.
func (w *webScene) visitor(t *testing.T, from byte, config *tls.Config) *http.Client {
	return browser(t, w.addr(from), config)
}

// rules that must apply.
func when(phase dataplane.Phase, actions []dataplane.Action, conditions ...dataplane.Condition) dataplane.Rule {
	return dataplane.Rule{Name: "r", Phase: phase, Actions: actions, Conditions: conditions}
}

func TestRules(t *testing.T) {
	w := newWebScene(t, dataplane.Options{}, nil)
	visitor := w.visitor(t, clientHost, nil)
	type (
		conditions = []dataplane.Condition
		actions    = []dataplane.Action
	)
	toOther := actions{{Type: dataplane.SelectPool, Pool: w.other}}
	arguments := "from=$_uri"
	other := netip.PrefixFrom(w.addr(clientHost+1), 32)
	self := netip.PrefixFrom(w.addr(clientHost), 32)

	t.Run("conditions", func(t *testing.T) {
		for name, c := range map[string]struct {
			condition dataplane.Condition
			yes, no   string // method, URL, then header lines, and a body after an empty one
		}{
			"method":         {dataplane.Condition{Type: dataplane.IfMethod, Value: "PUT"}, "PUT /", "GET /"},
			"path begins":    {dataplane.Condition{Type: dataplane.IfURI, Match: dataplane.StartsWith, Value: "/api"}, "GET /api/v1?x=/y", "GET /v1?x=/api"},
			"path ends":      {dataplane.Condition{Type: dataplane.IfURI, Match: dataplane.EndsWith, Value: ".png"}, "GET /a.png?x", "GET /a.png.html"},
			"path is":        {dataplane.Condition{Type: dataplane.IfURI, Match: dataplane.Equals, Value: "/Api"}, "GET /Api", "GET /api"},
			"path is, cases": {dataplane.Condition{Type: dataplane.IfURI, Match: dataplane.Equals, Value: "/Api", IgnoreCase: true}, "GET /api", "GET /apis"},
			"path holds":     {dataplane.Condition{Type: dataplane.IfURI, Match: dataplane.Contains, Value: "news"}, "GET /old/news/1", "GET /olds"},
			"path matches":   {dataplane.Condition{Type: dataplane.IfURI, Value: `/image[s]?/`}, "GET /a/images/1", "GET /imagination"},
			"query":          {dataplane.Condition{Type: dataplane.IfURIArguments, Value: `foo=\d+`}, "GET /?a=b&foo=12", "GET /?foo=x"},
			"version":        {dataplane.Condition{Type: dataplane.IfVersion, Value: "HTTP_VERSION_1_1"}, "GET /", ""},
			"header":         {dataplane.Condition{Type: dataplane.IfHeader, Name: "x-kind", Match: dataplane.Equals, Value: "a"}, "GET /\nX-Kind: a", "GET /\nX-Kind: b"},
			"any header":     {dataplane.Condition{Type: dataplane.IfHeader, Name: "X-Kind", Value: ".*"}, "GET /\nX-Kind: b", "GET /"},
			"host":           {dataplane.Condition{Type: dataplane.IfHeader, Name: "Host", Value: `^app\.`}, "GET /\nHost: app.example", "GET /\nHost: example"},
			"cookie":         {dataplane.Condition{Type: dataplane.IfCookie, Name: "v", Match: dataplane.Equals, Value: "2"}, "GET /\nCookie: u=1; v=2", "GET /\nCookie: v=1"},
			"body":           {dataplane.Condition{Type: dataplane.IfBody, Match: dataplane.Contains, Value: "beta"}, "POST /\n\nalpha beta", "POST /\n\nalpha"},
			"address":        {dataplane.Condition{Type: dataplane.IfIP, Prefixes: []netip.Prefix{other, self}}, "GET /", ""},
			"other address":  {dataplane.Condition{Type: dataplane.IfIP, Prefixes: []netip.Prefix{other}}, "", "GET /"},
			"inverse":        {dataplane.Condition{Type: dataplane.IfIP, Prefixes: []netip.Prefix{other}, Inverse: true}, "GET /", ""},
			"port":           {dataplane.Condition{Type: dataplane.IfTCP, Ports: [2]uint16{1024, 65535}}, "GET /", ""},
			"other port":     {dataplane.Condition{Type: dataplane.IfTCP, Ports: [2]uint16{1, 2}}, "", "GET /"},
			"variable":       {dataplane.Condition{Type: dataplane.IfVariable, Name: "_arg_id", Match: dataplane.Equals, Value: "7"}, "GET /?id=7", "GET /?id=8"},
			"SSL":            {dataplane.Condition{Type: dataplane.IfSSL}, "", "GET /"},
			"SNI":            {dataplane.Condition{Type: dataplane.IfSNI, Value: ".*"}, "", "GET /"},
		} {
			w.set(t, dataplane.HTTP{Rules: []dataplane.Rule{when(dataplane.PhaseForwarding, toOther, c.condition)}})
			for request, want := range map[string]string{c.yes: "other", c.no: "main"} {
				if request == "" {
					continue
				}
				resp, body := send(t, visitor, w, request)
				if got := resp.Header.Get("X-Member"); !strings.HasPrefix(got, want) {
					t.Errorf("%s: %q went to %q, want %s", name, request, got, want)
				}
				if _, sent, _ := strings.Cut(request, "\n\n"); !strings.HasSuffix(body, "body="+sent) {
					t.Errorf("%s: the member got %q, want the body %q", name, body, sent)
				}
			}
		}
	})

	t.Run("actions", func(t *testing.T) {
		news := dataplane.Condition{Type: dataplane.IfURI, Value: `/news/(?<year>\d+)/(?<month>\d+)/(?<article>.*)`}
		for name, c := range map[string]struct {
			rules   []dataplane.Rule
			request string
			want    string // part of the body
			status  int    // 0: 200
			header  http.Header
		}{
			"path by captured variables": {
				[]dataplane.Rule{when(dataplane.PhaseRequestRewrite, actions{{Type: dataplane.RewriteURI, Value: "/articles/news/$year-$month-$article"}}, news)},
				"GET /articles/news/2017/06/xyz.html?a=b", "GET /articles/news/2017-06-xyz.html?a=b ", 0, nil},
			"path and query": {
				[]dataplane.Rule{when(dataplane.PhaseRequestRewrite, actions{{Type: dataplane.RewriteURI, Value: "/new%20one", Arguments: &arguments}})},
				"GET /the%20old?a=b", "GET /new%20one?from=/the%20old ", 0, nil},
			"header": {
				[]dataplane.Rule{when(dataplane.PhaseRequestRewrite, actions{{Type: dataplane.RewriteRequestHeader, Name: "X",
					Value: "$_remote_addr $_scheme $_host $_server_port $_request_uri $_args $_is_args $_http_user_agent $_cookie_a $nobody."}})},
				"GET /p?q=1\nHost: app.example:80\nUser-Agent: me\nCookie: a=b",
				fmt.Sprintf("x=%s http app.example %d /p?q=1 q=1 ? me b .", w.addr(clientHost), w.vip.Port()), 0, nil},
			"host": {
				[]dataplane.Rule{when(dataplane.PhaseRequestRewrite, actions{{Type: dataplane.RewriteRequestHeader, Name: "host", Value: "new.example"}})},
				"GET /\nHost: app.example", "host=new.example ", 0, nil},
			"no header": {
				[]dataplane.Rule{when(dataplane.PhaseRequestRewrite, actions{{Type: dataplane.DeleteRequestHeader, Name: "X"}})},
				"GET /\nX: y", "x= ", 0, nil},
			"all rewriting rules in order": {
				[]dataplane.Rule{
					when(dataplane.PhaseRequestRewrite, actions{{Type: dataplane.AssignVariable, Name: "a", Value: "1"}}),
					when(dataplane.PhaseRequestRewrite, actions{{Type: dataplane.AssignVariable, Name: "a", Value: "${a}$a$_request_method"}}),
					when(dataplane.PhaseRequestRewrite, actions{{Type: dataplane.RewriteRequestHeader, Name: "X", Value: "$a"}}),
				}, "GET /", "x=${a}1GET ", 0, nil},
			"the first forwarding rule only": {
				[]dataplane.Rule{
					when(dataplane.PhaseForwarding, actions{{Type: dataplane.Reject, Status: 403}}, dataplane.Condition{Type: dataplane.IfMethod, Value: "PUT"}),
					when(dataplane.PhaseForwarding, actions{{Type: dataplane.Reject, Status: 418, Value: "no $_uri"}}),
					when(dataplane.PhaseForwarding, toOther),
				}, "GET /", "no $_uri", 418, nil},
			"redirect": {
				[]dataplane.Rule{when(dataplane.PhaseForwarding, actions{{Type: dataplane.Redirect, Status: 307, Value: "https://$_host$_request_uri"}})},
				"GET /a?b=c\nHost: app.example", "", 307, http.Header{"Location": {"https://app.example/a?b=c"}}},
			"response headers": {
				[]dataplane.Rule{
					when(dataplane.PhaseResponseRewrite, actions{{Type: dataplane.RewriteResponseHeader, Name: "Server", Value: "$_status $_upstream_http_content_type $m"},
						{Type: dataplane.DeleteResponseHeader, Name: "X-Member"}}, dataplane.Condition{Type: dataplane.IfResponseHeader, Name: "X-Member", Value: "(?<m>main)"}),
					when(dataplane.PhaseResponseRewrite, actions{{Type: dataplane.RewriteResponseHeader, Name: "Server", Value: "wrong"}},
						dataplane.Condition{Type: dataplane.IfResponseHeader, Name: "X-Member", Value: "main"}),
				}, "GET /", "", 0, http.Header{"Server": {"200 text/plain; charset=utf-8 main"}, "X-Member": nil}},
			"all conditions": {
				[]dataplane.Rule{when(dataplane.PhaseForwarding, toOther, dataplane.Condition{Type: dataplane.IfMethod, Value: "GET"}, dataplane.Condition{Type: dataplane.IfURI, Value: "/no"})},
				"GET /yes", "", 0, http.Header{"X-Member": {"main"}}},
			"any condition": {
				[]dataplane.Rule{{Phase: dataplane.PhaseForwarding, Actions: toOther, MatchAny: true,
					Conditions: conditions{{Type: dataplane.IfURI, Value: "/no"}, {Type: dataplane.IfMethod, Value: "GET"}}}},
				"GET /yes", "", 0, http.Header{"X-Member": {"other"}}},
		} {
			w.set(t, dataplane.HTTP{Rules: c.rules})
			resp, body := send(t, visitor, w, c.request)
			if c.status == 0 {
				c.status = 200
			}
			if resp.StatusCode != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%s: %d %q, want %d ...%q...", name, resp.StatusCode, body, c.status, c.want)
			}
			for key, values := range c.header {
				if got := resp.Header.Get(key); values == nil && got != "" || values != nil && !strings.HasPrefix(got, values[0]) {
					t.Errorf("%s: %s is %q, want %q", name, key, got, values)
				}
			}
		}
	})

	t.Run("a connection is dropped", func(t *testing.T) {
		for _, phase := range []dataplane.Phase{dataplane.PhaseAccess, dataplane.PhaseForwarding} {
			w.set(t, dataplane.HTTP{Rules: []dataplane.Rule{when(phase, actions{{Type: dataplane.DropConnection}}, dataplane.Condition{Type: dataplane.IfURI, Value: "/bad"})}})
			if resp, err := w.visitor(t, clientHost, nil).Get(w.url("/bad")); err == nil {
				t.Errorf("%s: it was answered: %s", phase, resp.Status)
				resp.Body.Close()
			}
			send(t, visitor, w, "GET /good")
		}
		if n := w.plane.Status().VirtualServers[0].Counters.DroppedByRules; n != 2 {
			t.Errorf("%d dropped, want 2", n)
		}
	})
}

// send sends a request written as in TestRules.
func send(t *testing.T, client *http.Client, w *webScene, text string) (*http.Response, string) {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	method, path, _ := strings.Cut(lines[0], " ")
	scheme := "http"
	if client.Transport.(*http.Transport).TLSClientConfig != nil {
		scheme = "https"
	}
	header := http.Header{}
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(line, ": ")
		header.Add(key, value)
	}
	return fetch(t, client, method, scheme+"://"+w.vip.String()+path, body, header)
}

func TestRulesThatCannotBe(t *testing.T) {
	for want, r := range map[string]dataplane.Rule{
		"phase":              {Phase: "TRANSPORT"},
		"no pool":            {Phase: dataplane.PhaseForwarding, Actions: []dataplane.Action{{Type: dataplane.SelectPool}}},
		"status 0":           {Phase: dataplane.PhaseForwarding, Actions: []dataplane.Action{{Type: dataplane.Reject}}},
		"JwtAuth":            {Phase: dataplane.PhaseAccess, Actions: []dataplane.Action{{Type: "JwtAuth"}}},
		"no table":           {Phase: dataplane.PhaseForwarding, Actions: []dataplane.Action{{Type: dataplane.PersistByVariable, Name: "x"}}},
		"HttpRequestWeather": {Phase: dataplane.PhaseForwarding, Conditions: []dataplane.Condition{{Type: "HttpRequestWeather"}}},
		"missing closing":    {Phase: dataplane.PhaseForwarding, Conditions: []dataplane.Condition{{Type: dataplane.IfURI, Value: "("}}},
		"match type":         {Phase: dataplane.PhaseForwarding, Conditions: []dataplane.Condition{{Type: dataplane.IfURI, Match: "LIKE"}}},
	} {
		s := newScene(t, dataplane.TCP, dataplane.Options{})
		vs := s.with(func(vs *dataplane.VirtualServer) { vs.HTTP = &dataplane.HTTP{Rules: []dataplane.Rule{r}} })
		err := s.plane.Apply(t.Context(), dataplane.Config{VirtualServers: []dataplane.VirtualServer{vs}})
		if !errors.Is(err, dataplane.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if st := s.plane.Status().VirtualServers[0]; st.State != dataplane.StateDown || !strings.Contains(st.Reason, want) {
			t.Errorf("%s: %+v", want, st)
		}
	}
}

// Requests of one connection go to the members in turn; rules, pools and what is sorry follow changes at once.
func TestRequestsAreBalanced(t *testing.T) {
	w := newWebScene(t, dataplane.Options{}, nil)
	visitor := w.visitor(t, clientHost, nil)
	members := func(n int) map[string]int {
		seen := map[string]int{}
		for range n {
			resp, _ := send(t, visitor, w, "GET /")
			seen[resp.Header.Get("X-Member")]++
		}
		return seen
	}
	w.set(t, dataplane.HTTP{})
	if got := members(4); got["main-1"] != 2 || got["main-2"] != 2 {
		t.Errorf("in turn: %v", got)
	}
	w.set(t, dataplane.HTTP{ServerKeepAlive: true})
	if got := members(4); len(got) != 1 {
		t.Errorf("kept alive: %v", got)
	}
	w.set(t, dataplane.HTTP{ServerKeepAlive: true, Rules: []dataplane.Rule{when(dataplane.PhaseForwarding, []dataplane.Action{{Type: dataplane.SelectPool, Pool: w.other}})}})
	if got := members(4); len(got) != 1 || got["main-1"]+got["main-2"] != 0 {
		t.Errorf("kept alive, with another pool: %v", got)
	}
	w.set(t, dataplane.HTTP{}, func(vs *dataplane.VirtualServer) { vs.Pool, vs.SorryPool = nil, w.other })
	if got := members(4); got["other-1"] != 2 || got["other-2"] != 2 {
		t.Errorf("sorry: %v", got)
	}
	if st := w.plane.Status(); st.VirtualServers[0].State != up || len(st.Pools) != 1 {
		t.Errorf("without a pool of its own: %+v", st)
	}
	w.set(t, dataplane.HTTP{}, func(vs *dataplane.VirtualServer) { vs.Persistence = &dataplane.Persistence{} })
	if got := members(4); len(got) != 1 {
		t.Errorf("tied by its address: %v", got)
	}
}

func TestCookiePersistence(t *testing.T) {
	base := func() dataplane.CookiePersistence {
		return dataplane.CookiePersistence{Name: "LB", Mode: dataplane.CookieInsert, Fallback: true, Garble: true}
	}
	// visit asks with the cookies given, and gives the member and the cookies that it gets.
	visit := func(t *testing.T, w *webScene, request string) (member, body string, status int, set []*http.Cookie) {
		t.Helper()
		resp, body := send(t, w.visitor(t, clientHost, nil), w, request)
		return resp.Header.Get("X-Member"), body, resp.StatusCode, resp.Cookies()
	}
	t.Run("INSERT", func(t *testing.T) {
		for _, garble := range []bool{true, false} {
			w := newWebScene(t, dataplane.Options{}, nil)
			c := base()
			c.Garble, c.Domain, c.Path, c.HTTPOnly, c.MaxAge = garble, "app.example", "/shop", true, time.Hour
			w.set(t, dataplane.HTTP{Cookie: &c})
			home, _, _, set := visit(t, w, "GET /")
			if len(set) != 1 || set[0].Name != "LB" || set[0].Domain != "app.example" || set[0].Path != "/shop" || !set[0].HttpOnly || set[0].MaxAge != 3600 {
				t.Fatalf("cookies %v", set)
			}
			if at := w.at(home); garble == strings.Contains(set[0].Value, at.Addr().String()) {
				t.Errorf("garbled %t: value %q", garble, set[0].Value)
			}
			for range 3 {
				member, body, _, again := visit(t, w, "GET /\nCookie: a=b; LB="+set[0].Value)
				if member != home || len(again) != 0 || !strings.Contains(body, "cookie=a=b; LB=") {
					t.Errorf("it went to %s, and got %v; the member saw %q", member, again, body)
				}
			}
			if _, _, _, again := visit(t, w, "GET /\nCookie: LB=nonsense"); len(again) != 1 {
				t.Errorf("a cookie that says nothing: %v", again)
			}
		}
	})
	t.Run("members that cannot serve", func(t *testing.T) {
		for _, fallback := range []bool{true, false} {
			w := newWebScene(t, dataplane.Options{}, nil)
			c := base()
			c.Fallback = fallback
			w.set(t, dataplane.HTTP{Cookie: &c})
			home, _, _, set := visit(t, w, "GET /")
			cookie := "GET /\nCookie: LB=" + set[0].Value
			state := func(s dataplane.AdminState) {
				pool := *w.main
				pool.Members = slices.Clone(pool.Members)
				for i, m := range pool.Members {
					if m.Address == w.at(home).Addr() {
						pool.Members[i].AdminState = s
					}
				}
				w.set(t, dataplane.HTTP{Cookie: &c}, func(vs *dataplane.VirtualServer) { vs.Pool = &pool })
			}
			state(dataplane.GracefulDisabled)
			if member, _, _, _ := visit(t, w, cookie); member != home {
				t.Errorf("GRACEFUL_DISABLED: it went to %q", member)
			}
			state(dataplane.Disabled)
			member, _, status, again := visit(t, w, cookie)
			if moved := status == 200 && member != home && len(again) == 1; moved != fallback || !fallback && status != 503 {
				t.Errorf("DISABLED, fallback %t: %d from %q with %v", fallback, status, member, again)
			}
		}
	})
	t.Run("PREFIX and REWRITE", func(t *testing.T) {
		for mode, want := range map[dataplane.CookieMode]string{dataplane.CookiePrefix: "cookie=LB=own1; a=b ", dataplane.CookieRewrite: ""} {
			w := newWebScene(t, dataplane.Options{}, nil)
			c := base()
			c.Mode, c.Garble = mode, false
			w.set(t, dataplane.HTTP{Cookie: &c})
			if _, _, _, set := visit(t, w, "GET /"); len(set) != 0 {
				t.Errorf("%s: a member that sets no cookie: %v", mode, set)
			}
			home, _, _, set := visit(t, w, "GET /?set=LB%3Down1%3B+Path=/p")
			if len(set) != 1 || set[0].Path != "/p" || !strings.HasPrefix(set[0].Value, w.at(home).String()) || strings.HasSuffix(set[0].Value, "own1") != (mode == dataplane.CookiePrefix) {
				t.Fatalf("%s: %v from %s", mode, set, home)
			}
			for range 3 {
				if member, body, _, _ := visit(t, w, "GET /\nCookie: LB="+set[0].Value+"; a=b"); member != home || !strings.Contains(body, want) {
					t.Errorf("%s: it went to %s, which saw %q", mode, member, body)
				}
			}
		}
	})
	t.Run("times", func(t *testing.T) {
		clock := clocktesting.NewFakeClock(time.Unix(1000, 0))
		w := newWebScene(t, dataplane.Options{Clock: clock, Housekeeping: time.Hour}, nil)
		c := base()
		c.MaxIdle, c.MaxLife = time.Minute, 2*time.Minute
		w.set(t, dataplane.HTTP{Cookie: &c})
		home, _, _, set := visit(t, w, "GET /")
		for i, want := range []bool{true, true, false} { // after 50 s, 100 s, 150 s
			clock.Step(50 * time.Second)
			member, _, _, again := visit(t, w, "GET /\nCookie: LB="+set[0].Value)
			if len(again) != 1 {
				t.Fatalf("no new cookie: %v", again)
			}
			if set = again; member != home && want {
				t.Errorf("visit %d went to %s", i, member)
			}
		}
		// After its life the client is anybody: of two visits with the old cookie one goes elsewhere.
		seen := map[string]bool{}
		stale := set[0].Value
		clock.Step(time.Hour)
		for range 2 {
			member, _, _, _ := visit(t, w, "GET /\nCookie: LB="+stale)
			seen[member] = true
		}
		if len(seen) != 2 {
			t.Errorf("with a cookie that is too old: %v", seen)
		}
	})
}

// at is where a member listens.
func (w *webScene) at(name string) netip.AddrPort {
	for at, n := range w.names {
		if n == name {
			return at
		}
	}
	return netip.AddrPort{}
}

// Generic persistence: requests with the same value of a variable go to the same member; the value is learnt from
// responses.
func TestVariablePersistence(t *testing.T) {
	w := newWebScene(t, dataplane.Options{}, nil)
	table := &dataplane.Persistence{Shared: "table"}
	w.set(t, dataplane.HTTP{Rules: []dataplane.Rule{
		when(dataplane.PhaseForwarding, []dataplane.Action{{Type: dataplane.PersistByVariable, Name: "_cookie_JSESSIONID", Persistence: table}}),
		when(dataplane.PhaseResponseRewrite, []dataplane.Action{{Type: dataplane.LearnByVariable, Name: "_cookie_JSESSIONID", Persistence: table}}),
	}})
	visit := func(request string) string {
		resp, _ := send(t, w.visitor(t, clientHost, nil), w, request)
		return resp.Header.Get("X-Member")
	}
	learnt := visit("GET /?set=JSESSIONID%3Dabc")
	for range 3 {
		if got := visit("GET /\nCookie: JSESSIONID=abc"); got != learnt {
			t.Errorf("a value that was learnt went to %s, want %s", got, learnt)
		}
	}
	new := visit("GET /\nCookie: JSESSIONID=def")
	for range 3 {
		if got := visit("GET /\nCookie: JSESSIONID=def"); got != new {
			t.Errorf("a value that a client brought went to %s, want %s", got, new)
		}
	}
	if seen := map[string]bool{visit("GET /"): true, visit("GET /"): true}; len(seen) != 2 {
		t.Errorf("without the cookie: %v", seen)
	}
}

func TestTLSToClientsAndMembers(t *testing.T) {
	root, other := dataplane.NewTestAuthority(t, "root", nil), dataplane.NewTestAuthority(t, "other", nil)
	pair := func(c dataplane.Certificate) tls.Certificate {
		p, err := tls.X509KeyPair([]byte(c.Chain), []byte(c.Key))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	trust := func(a *dataplane.TestAuthority) *x509.CertPool {
		p := x509.NewCertPool()
		p.AppendCertsFromPEM([]byte(a.PEM))
		return p
	}
	members := &tls.Config{Certificates: []tls.Certificate{pair(root.Issue(t, "member"))}, ClientAuth: tls.RequestClientCert}
	toClient := func(edit func(c *dataplane.TLS)) *dataplane.TLS {
		c := &dataplane.TLS{Certificates: []dataplane.Certificate{root.Issue(t, "default.example"), root.Issue(t, "app.example", "www.app.example")}}
		if edit != nil {
			edit(c)
		}
		return c
	}
	anyMember := &dataplane.TLS{}
	good := &tls.Config{RootCAs: trust(root), ServerName: "app.example"}
	for name, c := range map[string]struct {
		to       *dataplane.TLS // members
		from     *dataplane.TLS
		client   *tls.Config
		status   int // 0: the handshake fails
		expected string
	}{
		"offload":             {nil, toClient(nil), good, 200, ""},
		"end to end":          {anyMember, toClient(nil), good, 200, "0"},
		"the default":         {nil, toClient(nil), &tls.Config{RootCAs: trust(root), ServerName: "default.example"}, 200, ""},
		"no such name":        {nil, toClient(nil), &tls.Config{RootCAs: trust(root), ServerName: "nobody.example"}, 0, ""},
		"member is verified":  {&dataplane.TLS{VerifyPeer: true, CAs: root.PEM}, toClient(nil), good, 200, "0"},
		"member is not ours":  {&dataplane.TLS{VerifyPeer: true, CAs: other.PEM}, toClient(nil), good, 503, ""},
		"we show ourselves":   {&dataplane.TLS{Certificates: []dataplane.Certificate{other.Issue(t, "lb")}}, toClient(nil), good, 200, "1"},
		"client is verified":  {nil, toClient(func(c *dataplane.TLS) { c.VerifyPeer, c.CAs = true, other.PEM }), &tls.Config{RootCAs: trust(root), ServerName: "app.example", Certificates: []tls.Certificate{pair(other.Issue(t, "me"))}}, 200, ""},
		"client is not ours":  {nil, toClient(func(c *dataplane.TLS) { c.VerifyPeer, c.CAs = true, other.PEM }), &tls.Config{RootCAs: trust(root), ServerName: "app.example", Certificates: []tls.Certificate{pair(root.Issue(t, "me"))}}, 0, ""},
		"protocol too old":    {nil, toClient(func(c *dataplane.TLS) { c.Protocols = []string{"TLS_V1_2"} }), &tls.Config{RootCAs: trust(root), ServerName: "app.example", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, 0, ""},
		"cipher of choice":    {nil, toClient(func(c *dataplane.TLS) { c.Ciphers = []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"} }), good, 200, ""},
		"no cipher in common": {nil, toClient(func(c *dataplane.TLS) { c.Ciphers = []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"} }), &tls.Config{RootCAs: trust(root), ServerName: "app.example", CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}, MaxVersion: tls.VersionTLS12}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var config *tls.Config
			if c.to != nil {
				config = members
			}
			w := newWebScene(t, dataplane.Options{}, config)
			w.set(t, dataplane.HTTP{ToClient: c.from, ToServer: c.to, XForwardedFor: dataplane.ForwardedForInsert, RedirectToHTTPS: true,
				Rules: []dataplane.Rule{when(dataplane.PhaseResponseRewrite, []dataplane.Action{{Type: dataplane.RewriteResponseHeader, Name: "Sni", Value: "$_ssl_server_name"}},
					dataplane.Condition{Type: dataplane.IfSSL, Protocol: "TLS_V1_2"})}})
			resp, err := w.visitor(t, clientHost, c.client).Get("https://" + w.vip.String() + "/a")
			if c.status == 0 {
				if err == nil {
					t.Errorf("answered %s", resp.Status)
					resp.Body.Close()
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || resp.Header.Get("X-Secure") != c.expected {
				t.Fatalf("%s %s, certificates %q, want %d and %q", resp.Status, body, resp.Header.Get("X-Secure"), c.status, c.expected)
			}
			want := fmt.Sprintf("proto=https port=%d", w.vip.Port())
			if c.status == 200 && (!strings.Contains(string(body), want) || resp.Header.Get("Sni") != c.client.ServerName) {
				t.Errorf("the member saw %q, want %q in it; SNI %q", body, want, resp.Header.Get("Sni"))
			}
		})
	}
}

// What clients and members may do, and how long.
func TestHTTPLimits(t *testing.T) {
	w := newWebScene(t, dataplane.Options{}, nil)
	babbler := serveHTTP(t, netip.AddrPortFrom(w.addr(50), 0), nil, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "what?\n")
	})
	mute, err := net.Listen("tcp", netip.AddrPortFrom(w.addr(51), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	visitor := func() *http.Client { return w.visitor(t, clientHost, nil) }
	w.set(t, dataplane.HTTP{RequestBodySize: 4})
	if resp, _ := send(t, visitor(), w, "POST /\n\n1234"); resp.StatusCode != 200 {
		t.Errorf("a body of the size: %s", resp.Status)
	}
	if resp, _ := send(t, visitor(), w, "POST /\n\n12345"); resp.StatusCode != 413 {
		t.Errorf("a larger body: %s", resp.Status)
	}
	w.set(t, dataplane.HTTP{})
	if resp, _ := send(t, visitor(), w, "GET /\nX: "+strings.Repeat("x", 20<<10)); resp.StatusCode != 200 {
		t.Errorf("a header of 20 KiB: %s", resp.Status)
	}
	if resp, _ := send(t, visitor(), w, "GET /\nX: "+strings.Repeat("x", 40<<10)); resp.StatusCode != 431 {
		t.Errorf("a header of 40 KiB: %s", resp.Status)
	}
	w.set(t, dataplane.HTTP{ResponseTimeout: 30 * time.Millisecond}, func(vs *dataplane.VirtualServer) {
		at := netip.MustParseAddrPort(mute.Addr().String())
		vs.Pool = &dataplane.Pool{ID: "mute", Members: []dataplane.Member{{Address: at.Addr(), Port: at.Port()}}}
	})
	if resp, _ := send(t, visitor(), w, "GET /"); resp.StatusCode != 504 {
		t.Errorf("a member that is silent: %s", resp.Status)
	}
	w.set(t, dataplane.HTTP{}, func(vs *dataplane.VirtualServer) {
		vs.Pool = &dataplane.Pool{ID: "wrong", Members: []dataplane.Member{{Address: babbler.Addr(), Port: babbler.Port()}}, Passive: &dataplane.Passive{MaxFails: 1}}
	})
	if resp, _ := send(t, visitor(), w, "GET /"); resp.StatusCode != 502 {
		t.Errorf("a member that speaks no HTTP: %s", resp.Status)
	}
	if st := w.plane.Status().Pools[0].Members[0]; st.State != down {
		t.Errorf("the passive monitor did not notice: %+v", st)
	}
}

// A client's connection lives as long as its requests are answered, and no longer than the idle time-out afterwards.
func TestHTTPIdleTimeout(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	w := newWebScene(t, dataplane.Options{Clock: clock, Housekeeping: time.Second}, nil)
	slow, err := net.Listen("tcp", netip.AddrPortFrom(w.addr(51), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	w.set(t, dataplane.HTTP{}, func(vs *dataplane.VirtualServer) {
		at := netip.MustParseAddrPort(slow.Addr().String())
		vs.IdleTimeout = 15 * time.Second
		vs.Pool = &dataplane.Pool{ID: "slow", Members: []dataplane.Member{{Address: at.Addr(), Port: at.Port()}}}
	})
	client, err := net.Dial("tcp", w.vip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	member, err := slow.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	member.SetDeadline(time.Now().Add(patience))
	if _, err := http.ReadRequest(bufio.NewReader(member)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		clock.Step(10 * time.Second) // the member takes its time
	}
	fmt.Fprint(member, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("a slow answer: %v, %v", resp, err)
	}
	eventually(t, func() error {
		clock.Step(16 * time.Second)
		if n := w.plane.Status().VirtualServers[0].Counters.CurrentConnections; n != 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
}
