package dataplane

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Whatever a client sends as a cookie, it names a member that was written into one, or none.
func FuzzCookie(f *testing.F) {
	g, now := newGarbler(), time.Unix(1000, 0)
	member := netip.MustParseAddrPort("10.0.0.1:80")
	for _, c := range []CookiePersistence{{}, {Garble: true}, {MaxIdle: time.Minute}, {Garble: true, MaxLife: time.Minute}} {
		f.Add(c.value(g, crumb{member, now, now}), c.Garble, c.MaxIdle > 0)
	}
	f.Add("10.0.0.1:80|x|1~", false, true)
	f.Fuzz(func(t *testing.T, value string, garble, timed bool) {
		c := CookiePersistence{Name: "LB", Garble: garble}
		if timed {
			c.MaxIdle, c.MaxLife = time.Minute, time.Hour
		}
		k, ok := c.read(g, value, now)
		if !ok {
			return
		}
		if garble && k.member != member {
			t.Errorf("%q was made up, and names %v", value, k.member)
		}
		if again, ok := c.read(g, c.value(g, k), now); !ok || again.member != k.member {
			t.Errorf("%q does not survive: %v, %t", value, again, ok)
		}
	})
}

// Rules that a user may write never panic, whatever the request, and a request that was rewritten can still be sent.
func FuzzRules(f *testing.F) {
	f.Add("/news/(?<y>\\d+)", "/new/$y", "a=$_args", "/news/2017?x=1", "x-h", "$_http_host")
	f.Add("(?<_uri>.*)", "$_uri$$_arg_a$", "", "/%zz", "Host", "$_request_body")
	f.Add(".*", "//evil/%2f", "a b\r\nc", "/?", "Cookie", "\r\nX: y")
	f.Fuzz(func(t *testing.T, pattern, uri, arguments, target, header, value string) {
		conditions := []Condition{{Type: IfURI, Value: pattern}, {Type: IfURIArguments, Value: pattern, IgnoreCase: true}, {Type: IfHeader, Name: header, Value: pattern},
			{Type: IfBody, Value: pattern}, {Type: IfVariable, Name: header, Value: pattern}}
		ready, err := newRule(Rule{Phase: PhaseRequestRewrite, MatchAny: true, Conditions: conditions, Actions: []Action{
			{Type: AssignVariable, Name: "v", Value: value}, {Type: RewriteURI, Value: uri, Arguments: &arguments}, {Type: RewriteRequestHeader, Name: header, Value: value + "$v"}}})
		if err != nil {
			return
		}
		request, err := http.NewRequest("POST", "http://app.example/", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		if request.URL, err = request.URL.Parse(target); err != nil {
			return
		}
		m := &message{request: request, variables: map[string]string{}}
		if !ready.matches(m) {
			return
		}
		for i := range ready.Actions {
			m.rewrite(&ready.Actions[i])
		}
		m.response = httptest.NewRecorder().Result()
		m.expand("$_status $_cookie_a $_upstream_http_a $v")
		if uri := m.request.URL.RequestURI(); strings.ContainsAny(uri, " \r\n") && !strings.ContainsAny(target, " \r\n") {
			t.Errorf("the request line is broken: %q", uri)
		}
	})
}
