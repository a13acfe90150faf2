package nsxsim

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	sessionCookie = "JSESSIONID"
	xsrfHeader    = "X-XSRF-TOKEN"
)

// authenticator knows the users and their sessions.
type authenticator struct {
	byCert  map[string]string // user by the DER of the certificate
	byToken map[string]string // user by the SHA-256 of the bearer token
	clock   clock.Clock
	timeout time.Duration
	newID   func() string
	status  int // of bad credentials

	mu    sync.Mutex
	users map[string]User // by name
	// principals are those that clients registered.
	principals []principal
	sessions   map[string]*session // by the cookie's value
}

// session is known to the manager node that made it only.
type session struct {
	node int
	user string
	xsrf string
	ends time.Time
}

func newAuthenticator(o Options, newID func() string) (*authenticator, error) {
	a := &authenticator{
		users: map[string]User{}, byCert: map[string]string{}, byToken: map[string]string{}, sessions: map[string]*session{},
		clock: o.Clock, timeout: o.SessionTimeout, newID: newID, status: http.StatusForbidden,
	}
	if o.Quirks.BadCredentials401 {
		a.status = http.StatusUnauthorized
	}
	for _, u := range o.Users {
		if _, dup := a.users[u.Name]; dup || u.Name == "" {
			return nil, fmt.Errorf("user %q: a name must be given, and once only", u.Name)
		}
		a.users[u.Name] = u
		if u.Token != "" {
			a.byToken[tokenKey(u.Token)] = u.Name
		}
		if len(u.Certificate) > 0 {
			block, _ := pem.Decode(bytes.TrimSpace(u.Certificate))
			if block == nil {
				return nil, fmt.Errorf("user %q: the certificate is not PEM", u.Name)
			}
			a.byCert[string(block.Bytes)] = u.Name
		}
	}
	return a, nil
}

func (a *authenticator) isPrincipal(name string) bool { return a.user(name).Principal }

// user is the zero value for a name that nobody has.
func (a *authenticator) user(name string) User {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known(name)
}

// known is user under the lock.
func (a *authenticator) known(name string) User {
	if u, ok := a.users[name]; ok {
		return u
	}
	for _, p := range a.principals {
		if p.Name == name {
			return p.User
		}
	}
	return User{}
}

// authenticate tells who sent the request to a node: by session, client certificate or
// Basic authentication.
func (a *authenticator) authenticate(r *http.Request, node int) (User, *Error) {
	user, found, err := a.bySession(r, node)
	if found || err != nil {
		return user, err
	}
	switch scheme, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " "); {
	case strings.EqualFold(scheme, "Bearer"):
		if name, ok := a.byToken[tokenKey(credentials)]; ok {
			return a.user(name), nil
		}
		return User{}, a.badCredentials()
	case strings.EqualFold(scheme, "Remote"):
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Basic "+credentials)
		name, password, _ := r.BasicAuth()
		return a.byPassword(name, password, true)
	case strings.EqualFold(scheme, "Basic"):
		name, password, _ := r.BasicAuth()
		return a.byPassword(name, password, false)
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		user, ok := a.byCertificate(string(r.TLS.PeerCertificates[0].Raw))
		if !ok {
			return User{}, &Error{Status: http.StatusInternalServerError, Code: codeUntrustedCert, Module: "common-services",
				Message: "The client certificate is not trusted."}
		}
		return user, nil
	}
	if _, err := r.Cookie(sessionCookie); err == nil {
		return User{}, a.badCredentials() // a session that is over
	}
	return User{}, &Error{Status: http.StatusUnauthorized, Code: codeBadCredentials, Module: "common-services",
		Message: "Authentication is required: the request carries no credentials."}
}

// tokenKey is looked up in the place of the token, which takes the same time
// whatever the token.
func tokenKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return string(sum[:])
}

func (a *authenticator) byPassword(name, password string, remote bool) (User, *Error) {
	u := a.user(name)
	if u.Remote != remote || u.Password == "" || subtle.ConstantTimeCompare([]byte(u.Password), []byte(password)) != 1 {
		return User{}, a.badCredentials()
	}
	return u, nil
}

func (a *authenticator) badCredentials() *Error {
	return &Error{Status: a.status, Code: codeBadCredentials, Module: "common-services",
		Message: "The credentials were incorrect or the account specified has been locked."}
}

// bySession looks for a live session; each use keeps it alive.
func (a *authenticator) bySession(r *http.Request, node int) (u User, found bool, err *Error) {
	cookie, cerr := r.Cookie(sessionCookie)
	if cerr != nil {
		return User{}, false, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sessions[cookie.Value]
	now := a.clock.Now()
	if s != nil && !now.Before(s.ends) {
		delete(a.sessions, cookie.Value)
		s = nil
	}
	if s == nil || s.node != node {
		return User{}, false, nil
	}
	if subtle.ConstantTimeCompare([]byte(r.Header.Get(xsrfHeader)), []byte(s.xsrf)) != 1 {
		return User{}, false, &Error{Status: http.StatusForbidden, Code: codeBadXSRFToken, Module: "common-services",
			Message: "Bad XSRF token."}
	}
	u = a.known(s.user)
	if u.Name == "" {
		delete(a.sessions, cookie.Value) // of a principal identity that is gone
		return User{}, false, nil
	}
	s.ends = now.Add(a.timeout)
	return u, true, nil
}

// login serves POST /api/session/create: for the user of the form or, without
// one, of the request's own credentials (an identity manager's user, a client
// certificate).
func (a *authenticator) login(r *request) *response {
	if err := r.ParseForm(); err != nil {
		return r.refusal(refuse(codeBadJSON, "The form does not parse."))
	}
	var u User
	var err *Error
	if r.PostForm.Has("j_username") {
		u, err = a.byPassword(r.PostForm.Get("j_username"), r.PostForm.Get("j_password"), false)
	} else {
		u, err = a.authenticate(r.Request, r.node)
	}
	if err != nil {
		return r.refusal(err)
	}
	s := &session{node: r.node, user: u.Name, xsrf: a.newID(), ends: a.clock.Now().Add(a.timeout)}
	id := a.newID()
	a.mu.Lock()
	for old, s := range a.sessions {
		if !a.clock.Now().Before(s.ends) {
			delete(a.sessions, old)
		}
	}
	a.sessions[id] = s
	a.mu.Unlock()
	r.author.user = u.Name
	cookie := http.Cookie{Name: sessionCookie, Value: id, Path: "/", HttpOnly: true, Secure: r.TLS != nil}
	header := http.Header{}
	header.Set("Set-Cookie", cookie.String())
	header.Set(xsrfHeader, s.xsrf)
	return &response{status: http.StatusOK, header: header}
}

// logout serves POST /api/session/destroy.
func (a *authenticator) logout(r *request) *response {
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		a.mu.Lock()
		delete(a.sessions, cookie.Value)
		a.mu.Unlock()
	}
	return &response{status: http.StatusOK}
}

// SetPassword gives a user another password, as an administrator of NSX does. The
// user's sessions end.
func (s *Sim) SetPassword(user, password string) error {
	a := s.auth
	a.mu.Lock()
	defer a.mu.Unlock()
	u, ok := a.users[user]
	if !ok {
		return fmt.Errorf("user %q: unknown", user)
	}
	u.Password = password
	a.users[user] = u
	maps.DeleteFunc(a.sessions, func(_ string, s *session) bool { return s.user == user })
	return nil
}

// EndSessions ends all sessions at once, as a restart of the manager does.
func (s *Sim) EndSessions() {
	s.auth.mu.Lock()
	defer s.auth.mu.Unlock()
	clear(s.auth.sessions)
}

// endSessionsOf ends those of one node.
func (s *Sim) endSessionsOf(node int) {
	s.auth.mu.Lock()
	defer s.auth.mu.Unlock()
	maps.DeleteFunc(s.auth.sessions, func(_ string, in *session) bool { return in.node == node })
}
