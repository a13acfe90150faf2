package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsx"
)

// session is what a manager's log-in has given; it is good on that manager alone.
type session struct{ cookie, token string }

func (s *session) put(h http.Header) {
	h.Set("Cookie", "JSESSIONID="+s.cookie)
	if s.token != "" {
		h.Set("X-XSRF-TOKEN", s.token)
	}
}

// sessions is the authenticator that logs in once per manager.
type sessions struct {
	read  func(context.Context) (Credentials, error)
	guard *guard
	send  func(context.Context, *manager, *http.Request) attempt
}

func (ss *sessions) authorize(ctx context.Context, m *manager, req *http.Request) (func(fate) bool, *attempt) {
	s := m.getSession()
	if s == nil {
		var failed *attempt
		if s, failed = ss.logIn(ctx, m); failed != nil {
			return nil, failed
		}
	}
	s.put(req.Header)
	return func(f fate) bool {
		if f == refused {
			m.dropSession(s)
		}
		return true
	}, nil
}

// logIn makes a session, or takes the one that another call has made meanwhile.
func (ss *sessions) logIn(ctx context.Context, m *manager) (*session, *attempt) {
	select {
	case m.login <- struct{}{}:
		defer func() { <-m.login }()
	case <-ctx.Done():
		return nil, &attempt{fate: unsent, err: context.Cause(ctx)}
	}
	if s := m.getSession(); s != nil {
		return s, nil
	}
	c, err := ss.guard.read(ctx, ss.read)
	if err != nil {
		return nil, &attempt{fate: barred, err: err}
	}
	form := url.Values{"j_username": {c.Username}, "j_password": {c.Password}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url.JoinPath("/api/session/create").String(), strings.NewReader(form))
	if err != nil {
		return nil, &attempt{fate: barred, err: err}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a := ss.send(ctx, m, req)
	switch {
	case errors.Is(a.err, nsx.ErrUnauthorized):
		at := ss.guard.refused(c)
		return nil, &attempt{fate: barred, err: &nsx.RetryAt{At: at, Err: fmt.Errorf("cannot log in as %q: %w", c.Username, a.err)}}
	case a.fate == throttled:
		return nil, &a
	case a.resp != nil && a.err != nil:
		// What the answer means, a missing object or an unknown outcome, it means for the log-in. The call did not go out.
		return nil, &attempt{fate: unsent, err: fmt.Errorf("cannot log in: %v", a.err)}
	case a.err != nil:
		return nil, &attempt{fate: unsent, err: fmt.Errorf("cannot log in: %w", a.err)}
	}
	s := &session{token: a.resp.Header.Get("X-XSRF-TOKEN")}
	for _, cookie := range a.resp.Cookies() {
		if cookie.Name == "JSESSIONID" {
			s.cookie = cookie.Value
		}
	}
	if s.cookie == "" {
		return nil, &attempt{fate: barred, err: fmt.Errorf("%w: the log-in brought no session", nsx.ErrUnauthorized)}
	}
	ss.guard.accepted()
	m.setSession(s)
	return s, nil
}

// end logs out. Sessions that stay behind end by themselves after half an hour, so failures do not matter.
func (ss *sessions) end(ctx context.Context, ms []*manager) {
	for _, m := range ms {
		s := m.getSession()
		if s == nil {
			continue
		}
		m.dropSession(s)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url.JoinPath("/api/session/destroy").String(), nil)
		if err != nil {
			continue
		}
		s.put(req.Header)
		ss.send(ctx, m, req)
	}
}

func (m *manager) getSession() *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session
}

func (m *manager) setSession(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session = s
}

// dropSession forgets a session, unless there is a new one already.
func (m *manager) dropSession(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == s {
		m.session = nil
	}
}
