package nsxsim

import (
	"encoding/json"
	"net/http"
)

// adminBase is where the simulator itself is steered, beside the API of NSX.
const adminBase = "/_nsxsim/"

// serveAdmin serves the paths below adminBase, to users who may write. Neither
// faults nor limits apply, and the journal does not tell of it.
func (s *Sim) serveAdmin(r *request) *response {
	if err := r.readBody(); err != nil {
		return r.refusal(err)
	}
	user, err := s.auth.authenticate(r.Request, r.node)
	if err == nil && user.ReadOnly {
		err = forbidden()
	}
	if err != nil {
		return r.refusal(err)
	}
	answer := func(v any) *response {
		raw, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return r.refusal(refuse(codeBadJSON, "%v", err))
		}
		return &response{status: http.StatusOK, body: append(raw, '\n')}
	}
	done := &response{status: http.StatusOK}
	switch r.Method + " " + r.URL.Path[len(adminBase):] {
	case "GET faults":
		return answer(s.faults.Rules())
	case "POST faults", "PUT faults":
		rules, err := ParseRules(r.body)
		if err != nil {
			return r.refusal(refuse(codeBadJSON, "%v", err))
		}
		if r.Method == http.MethodPut {
			s.faults.Clear()
		}
		if _, err := s.faults.Add(rules...); err != nil {
			return r.refusal(refuse(codeBadJSON, "%v", err))
		}
		return answer(s.faults.Rules())
	case "DELETE faults":
		s.faults.Clear()
		return done
	case "POST pause":
		s.faults.Pause()
		return done
	case "POST resume":
		s.faults.Resume()
		return done
	case "GET journal":
		return answer(map[string]any{"counts": s.journal.Counts(), "entries": s.journal.Entries()})
	case "DELETE journal":
		s.journal.Reset()
		return done
	case "GET state":
		return answer(s.Snapshot())
	case "POST state", "PUT state":
		inventory, err := ParseInventory(r.body)
		if err == nil && r.Method == http.MethodPut {
			err = s.Restore(inventory)
		} else if err == nil {
			err = s.Load(inventory)
		}
		if err != nil {
			return r.refusal(refuse(codeBadJSON, "%v", err))
		}
		return done
	}
	return r.refusal(noSuchURI(r.URL.Path))
}
