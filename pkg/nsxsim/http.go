package nsxsim

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const maxBody = 16 << 20

// request is one HTTP request on its way through the simulator.
type request struct {
	*http.Request
	sim    *Sim
	node   int // that it was sent to
	route  route
	query  url.Values
	body   []byte
	author author
	struck []string // names of the fault rules applied

	outcome int // the status of its real answer; 0 before it is served
}

// response is what a request is answered with; nil stands for a connection
// closed without an answer.
type response struct {
	status int
	header http.Header
	body   []byte
	half   bool // only half of the body is sent
	reset  bool // the connection is reset without an answer
}

// ServeHTTP serves the API, as node 0. A fault rule that drops a request ends it with
// a panic(http.ErrAbortHandler), which closes the connection.
func (s *Sim) ServeHTTP(w http.ResponseWriter, hr *http.Request) { s.serveHTTP(0, w, hr) }

// Node gives the handler of one of the manager's nodes, from 0. All serve the same
// objects; sessions and limits are each node's own.
func (s *Sim) Node(n int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveHTTP(n, w, r) })
}

func (s *Sim) serveHTTP(node int, w http.ResponseWriter, hr *http.Request) {
	r := &request{Request: hr, sim: s, node: node, query: hr.URL.Query()}
	if s.admin && strings.HasPrefix(hr.URL.Path, adminBase) {
		s.serveAdmin(r).write(w)
		return
	}
	start := s.clock.Now()
	entry := Entry{Seq: s.journal.begin(), Time: start, Node: node, Method: hr.Method, Path: hr.URL.Path, Query: hr.URL.RawQuery}
	resp := s.process(r)
	entry.User, entry.Op, entry.Fault = r.author.user, r.route.op, strings.Join(r.struck, ",")
	entry.Outcome = r.outcome
	entry.Duration = s.clock.Since(start)
	if resp != nil {
		entry.Status = resp.status
	}
	s.journal.add(entry)
	s.logger.V(2).Info("Request", "method", entry.Method, "path", entry.Path, "query", entry.Query,
		"user", entry.User, "status", entry.Status, "duration", entry.Duration, "fault", entry.Fault)
	if resp == nil {
		panic(http.ErrAbortHandler)
	}
	if resp.reset {
		resetConnection(w)
		return
	}
	resp.write(w)
}

// resetConnection ends the request's connection with a TCP reset, where there is
// such a connection.
func resetConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	socket := conn
	if secured, ok := conn.(*tls.Conn); ok {
		socket = secured.NetConn()
	}
	if tcp, ok := socket.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // else it ends in order
	}
	_ = socket.Close() // not conn, which would say goodbye
}

func (resp *response) write(w http.ResponseWriter) {
	for name, values := range resp.header {
		w.Header()[name] = values
	}
	if len(resp.body) > 0 {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(resp.body)))
	w.WriteHeader(resp.status)
	if resp.half {
		_, _ = w.Write(resp.body[:len(resp.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(resp.body) // the client may be gone: nobody to tell
}

// process does everything but write the answer.
func (s *Sim) process(r *request) *response {
	r.route = s.resolve(r)
	if err := r.readBody(); err != nil {
		return r.refusal(err)
	}
	if !s.faults.wait(s.done) {
		return nil
	}
	if r.route.login != nil {
		return s.faulty(r, r.route.login)
	}
	user, refused := s.auth.authenticate(r.Request, r.node)
	if refused != nil {
		return r.refusal(refused)
	}
	r.author = author{user: user.Name, principal: user.Principal, overwrite: strings.EqualFold(r.Header.Get("X-Allow-Overwrite"), "true")}
	leave, refused := s.limits.enter(r.node, user.Name)
	if refused != nil {
		return r.refusal(refused)
	}
	defer leave()
	if user.ReadOnly && r.Method != http.MethodGet {
		return r.refusal(forbidden())
	}
	return s.faulty(r, s.serve)
}

func (r *request) readBody() *Error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return refuse(codeBadJSON, "The body cannot be read: %v", err)
	}
	r.body = body
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// faulty serves the request as the fault rules have it.
func (s *Sim) faulty(r *request, serve func(*request) *response) *response {
	rules := s.faults.strike(r)
	if resp, over := s.applyFaults(r, rules, BeforeCommit); over {
		return resp
	}
	resp := serve(r)
	if resp != nil {
		r.outcome = resp.status
	}
	if instead, over := s.applyFaults(r, rules, AfterCommit); over {
		return instead
	}
	if resp != nil && slices.ContainsFunc(rules, func(rule Rule) bool { return rule.When == AfterCommit && rule.Half }) {
		halved := *resp
		halved.half = true
		return &halved
	}
	return resp
}

// applyFaults applies the rules of one phase; over tells that the request has
// got its answer by that.
func (s *Sim) applyFaults(r *request, rules []Rule, phase Phase) (resp *response, over bool) {
	for _, rule := range rules {
		if rule.When != phase {
			continue
		}
		r.struck = append(r.struck, rule.Name)
		if rule.Hook != nil {
			hr := r.Request.Clone(r.Context())
			hr.Body = io.NopCloser(bytes.NewReader(r.body))
			rule.Hook(hr)
		}
		// A client that gives up does not stop a delayed request: a manager does
		// what has reached it.
		if rule.Delay > 0 && !s.sleep(time.Duration(rule.Delay)) {
			return nil, true
		}
		if rule.Drop {
			return nil, true
		}
		if rule.Reset {
			return &response{reset: true}, true
		}
		if rule.Status != 0 {
			return rule.answer(r), true
		}
	}
	return nil, false
}

// sleep waits on the simulator's clock; false when the simulator closes.
func (s *Sim) sleep(d time.Duration) bool {
	timer := s.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-s.done:
		return false
	}
}

func (rule Rule) answer(r *request) *response {
	e := &Error{Status: rule.Status, Code: rule.Code, Module: "common-services", Message: rule.Text}
	if e.Message == "" {
		e.Message = http.StatusText(rule.Status)
	}
	resp := r.refusal(e)
	resp.half = rule.Half
	if rule.RawBody != "" || rule.Status < 300 {
		resp.body = []byte(rule.RawBody)
	}
	if rule.RetryAfter > 0 {
		resp.header = http.Header{"Retry-After": {strconv.Itoa(rule.RetryAfter)}}
	}
	return resp
}

// serve does the request, under the lock.
func (s *Sim) serve(r *request) *response {
	if r.route.refused != nil {
		return r.refusal(r.route.refused)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.realizeDue()
	resp, err := r.route.serve(r)
	if err != nil {
		return r.refusal(err)
	}
	return resp
}

func (r *request) refusal(e *Error) *response {
	return &response{status: e.Status, body: e.body(r.sim.quirks.ErrorCodeIsString)}
}

// document parses the body.
func (r *request) document() (document, *Error) {
	doc, err := parseDocument(r.body)
	if err != nil {
		return nil, refuse(codeBadJSON, "Unable to parse the request: %v", err)
	}
	return doc, nil
}

// isWrite tells of an operation (see Journal.Counts) whether it changes objects.
func isWrite(op string) bool {
	return !strings.HasPrefix(op, "GET ") && !strings.HasPrefix(op, "POST /api/session/")
}
