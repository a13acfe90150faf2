package dataplane

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// matcher is a condition that is ready for use: it tells whether it holds for a message, without Inverse, and may
// capture variables.
type matcher func(*message) bool

// rule is a Rule that is ready for use.
type rule struct {
	Rule
	matchers []matcher
}

// message is a request with what is known of it, and later its response, as rules see and change it.
type message struct {
	client, local netip.AddrPort
	secure        *tls.ConnectionState // nil: plain
	request       *http.Request
	response      *http.Response // nil: not yet
	variables     map[string]string
	body          []byte // what of the request's body was looked at; nil: nothing
}

func newRule(r Rule) (*rule, error) {
	ready := &rule{Rule: r}
	for _, c := range r.Conditions {
		m, err := newMatcher(c)
		if err != nil {
			return nil, fmt.Errorf("rule %s: condition %s: %w", r.Name, c.Type, err)
		}
		ready.matchers = append(ready.matchers, m)
	}
	for _, a := range r.Actions {
		if err := a.check(); err != nil {
			return nil, fmt.Errorf("rule %s: action %s: %w", r.Name, a.Type, err)
		}
	}
	if !slices.Contains([]Phase{PhaseAccess, PhaseRequestRewrite, PhaseForwarding, PhaseResponseRewrite}, r.Phase) {
		return nil, fmt.Errorf("rule %s: phase %q: %w", r.Name, r.Phase, ErrInvalid)
	}
	return ready, nil
}

func (a *Action) check() error {
	switch a.Type {
	case SelectPool:
		if a.Pool == nil {
			return fmt.Errorf("no pool: %w", ErrInvalid)
		}
	case Reject, Redirect:
		if a.Status < 100 || a.Status > 599 {
			return fmt.Errorf("status %d: %w", a.Status, ErrInvalid)
		}
	case PersistByVariable, LearnByVariable:
		if a.Persistence == nil || a.Persistence.Shared == "" {
			return fmt.Errorf("no table: %w", ErrInvalid)
		}
	case RewriteURI, RewriteRequestHeader, DeleteRequestHeader, RewriteResponseHeader, DeleteResponseHeader, AssignVariable, DropConnection:
	default:
		return fmt.Errorf("not known here: %w", ErrInvalid)
	}
	return nil
}

// matches tells whether the rule's conditions hold. What they capture stays in m only if they do.
func (r *rule) matches(m *message) bool {
	if len(r.matchers) == 0 {
		return true
	}
	before := m.variables
	m.variables = make(map[string]string, len(before))
	for name, value := range before {
		m.variables[name] = value
	}
	for i, holds := range r.matchers {
		held := holds(m) != r.Conditions[i].Inverse
		if held == r.MatchAny { // this one decides
			if !held {
				m.variables = before
			}
			return held
		}
	}
	if r.MatchAny {
		m.variables = before
	}
	return !r.MatchAny
}

func newMatcher(c Condition) (matcher, error) {
	match, err := newTextMatcher(c)
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case IfMethod:
		return func(m *message) bool { return m.request.Method == c.Value }, nil
	case IfURI:
		return func(m *message) bool { return match(m.request.URL.Path, m.variables) }, nil
	case IfURIArguments:
		return func(m *message) bool { return match(m.request.URL.RawQuery, m.variables) }, nil
	case IfVersion:
		return func(m *message) bool { return m.request.ProtoAtLeast(1, 1) == (c.Value == string(HTTP11)) }, nil
	case IfHeader:
		return func(m *message) bool { return anyOf(requestHeader(m.request, c.Name), match, m.variables) }, nil
	case IfResponseHeader:
		return func(m *message) bool {
			return m.response != nil && anyOf(m.response.Header.Values(c.Name), match, m.variables)
		}, nil
	case IfCookie:
		return func(m *message) bool {
			var values []string
			for _, cookie := range m.request.CookiesNamed(c.Name) {
				values = append(values, cookie.Value)
			}
			return anyOf(values, match, m.variables)
		}, nil
	case IfBody:
		return func(m *message) bool { return match(m.peek(), m.variables) }, nil
	case IfTCP:
		return func(m *message) bool { return c.Ports[0] <= m.client.Port() && m.client.Port() <= c.Ports[1] }, nil
	case IfIP:
		return func(m *message) bool {
			return slices.ContainsFunc(c.Prefixes, func(p netip.Prefix) bool { return p.Contains(m.client.Addr()) })
		}, nil
	case IfVariable:
		return func(m *message) bool { return match(m.variable(c.Name), m.variables) }, nil
	case IfSNI:
		return func(m *message) bool { return m.secure != nil && match(m.secure.ServerName, m.variables) }, nil
	case IfSSL:
		return func(m *message) bool {
			return m.secure != nil && (c.Protocol == "" || c.Protocol == protocolName(m.secure.Version)) &&
				(c.Cipher == "" || c.Cipher == tls.CipherSuiteName(m.secure.CipherSuite)) &&
				(c.Reused == nil || *c.Reused == m.secure.DidResume)
		}, nil
	}
	return nil, fmt.Errorf("not known here: %w", ErrInvalid)
}

// requestHeader gives the values of a header; net/http keeps Host apart.
func requestHeader(r *http.Request, name string) []string {
	if http.CanonicalHeaderKey(name) == "Host" {
		return []string{r.Host}
	}
	return r.Header.Values(name)
}

type textMatcher func(text string, variables map[string]string) bool

func anyOf(values []string, match textMatcher, variables map[string]string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return match(v, variables) })
}

func newTextMatcher(c Condition) (textMatcher, error) {
	compare := map[MatchType]func(text, value string) bool{
		StartsWith: strings.HasPrefix, EndsWith: strings.HasSuffix, Contains: strings.Contains,
		Equals: func(text, value string) bool { return text == value },
	}[c.Match]
	switch {
	case c.Match == "" || c.Match == Regex:
		return newRegexMatcher(c)
	case compare == nil:
		return nil, fmt.Errorf("match type %q: %w", c.Match, ErrInvalid)
	case c.IgnoreCase:
		value := strings.ToLower(c.Value)
		return func(text string, _ map[string]string) bool { return compare(strings.ToLower(text), value) }, nil
	}
	return func(text string, _ map[string]string) bool { return compare(text, c.Value) }, nil
}

func newRegexMatcher(c Condition) (textMatcher, error) {
	pattern := c.Value
	if c.IgnoreCase {
		pattern = "(?i)" + pattern
	}
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return func(text string, variables map[string]string) bool {
		found := expression.FindStringSubmatch(text)
		for i, name := range expression.SubexpNames() {
			if found != nil && name != "" {
				variables[name] = found[i]
			}
		}
		return found != nil
	}, nil
}

// peek gives the beginning of the request's body, which stays to be read.
func (m *message) peek() string {
	if m.body == nil {
		// What cannot be read now, the member will not get either.
		m.body, _ = io.ReadAll(io.LimitReader(m.request.Body, maxAnswer))
		m.request.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(m.body), m.request.Body), m.request.Body}
	}
	return string(m.body)
}

// reference is a variable in a text.
var reference = regexp.MustCompile(`\$[A-Za-z_][A-Za-z0-9_]*`)

// expand puts variables' values in their places.
func (m *message) expand(text string) string {
	return reference.ReplaceAllStringFunc(text, func(name string) string { return m.variable(name[1:]) })
}

// variable gives a variable's value: one of NSX's own, whose names begin with an underscore, or one that rules made.
// Those that are not set are empty.
func (m *message) variable(name string) string {
	r := m.request
	switch name {
	case "_scheme":
		if m.secure != nil {
			return "https"
		}
		return "http"
	case "_host":
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			return r.Host
		}
		return host
	case "_server_port":
		return strconv.Itoa(int(m.local.Port()))
	case "_server_addr":
		return m.local.Addr().String()
	case "_server_protocol":
		return r.Proto
	case "_remote_addr":
		return m.client.Addr().String()
	case "_remote_port":
		return strconv.Itoa(int(m.client.Port()))
	case "_request_method":
		return r.Method
	case "_uri":
		return r.URL.Path
	case "_request_uri":
		return r.RequestURI
	case "_args", "_query_string":
		return r.URL.RawQuery
	case "_is_args":
		if r.URL.RawQuery != "" {
			return "?"
		}
		return ""
	case "_request_body":
		return m.peek()
	case "_status":
		if m.response != nil {
			return strconv.Itoa(m.response.StatusCode)
		}
		return ""
	case "_ssl_server_name":
		if m.secure != nil {
			return m.secure.ServerName
		}
		return ""
	}
	if of, found := strings.CutPrefix(name, "_arg_"); found {
		return r.URL.Query().Get(of)
	}
	if of, found := strings.CutPrefix(name, "_http_"); found {
		return strings.Join(requestHeader(r, strings.ReplaceAll(of, "_", "-")), ", ")
	}
	if of, found := strings.CutPrefix(name, "_upstream_http_"); found && m.response != nil {
		return m.response.Header.Get(strings.ReplaceAll(of, "_", "-"))
	}
	if of, found := strings.CutPrefix(name, "_upstream_cookie_"); found {
		return m.cookie(of, false)
	}
	if of, found := strings.CutPrefix(name, "_cookie_"); found {
		return m.cookie(of, true)
	}
	return m.variables[name]
}

// cookie gives the value of a cookie: that which the response sets, or else that of the request.
func (m *message) cookie(name string, ofRequest bool) string {
	if m.response != nil {
		for _, c := range m.response.Cookies() {
			if c.Name == name {
				return c.Value
			}
		}
	}
	if ofRequest {
		if c, err := m.request.Cookie(name); err == nil {
			return c.Value
		}
	}
	return ""
}

// escape makes a query of a text that may hold what clients sent: nothing in it ends the request line.
func escape(text string) string {
	var query strings.Builder
	for i := range len(text) {
		if b := text[i]; b <= ' ' || b == 0x7f || b == '#' {
			fmt.Fprintf(&query, "%%%02X", b)
		} else {
			query.WriteByte(b)
		}
	}
	return query.String()
}

// rewrite does what an action of the rewriting phases says.
func (m *message) rewrite(a *Action) {
	switch a.Type {
	case RewriteURI:
		arguments := m.request.URL.RawQuery
		if a.Arguments != nil {
			arguments = escape(m.expand(*a.Arguments))
		}
		if u, err := url.Parse(m.expand(a.Value)); err == nil {
			m.request.URL.Path, m.request.URL.RawPath = u.Path, u.RawPath
		}
		m.request.URL.RawQuery = arguments
	case RewriteRequestHeader:
		value := m.expand(a.Value)
		if http.CanonicalHeaderKey(a.Name) == "Host" {
			m.request.Host = value
		} else {
			m.request.Header.Set(a.Name, value)
		}
	case DeleteRequestHeader:
		m.request.Header.Del(a.Name)
	case RewriteResponseHeader:
		m.response.Header.Set(a.Name, m.expand(a.Value))
	case DeleteResponseHeader:
		m.response.Header.Del(a.Name)
	case AssignVariable:
		m.variables[a.Name] = m.expand(a.Value)
	}
}
