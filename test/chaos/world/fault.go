package world

import (
	"net/http"
	"time"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// Fault is something that happens to one call to NSX.
type Fault struct {
	Name string
	// rule of the simulator by which it happens; die ends the process that calls.
	rule func(die func()) nsxsim.Rule
	// unreachable: no connection is made, so that the call never gets to NSX.
	unreachable bool
	// likeOf is the fault of which this one differs by what is done in NSX, so that for a call that reads they are the same.
	likeOf string
}

// Differs tells whether a fault is another than all before it in Faults, for a call.
func (f Fault) Differs(c Call) bool { return f.likeOf == "" || c.Write() || c.LogIn() }

func (f Fault) like(other Fault) Fault {
	f.likeOf = other.Name
	return f
}

// callTimeout is how long the controller waits for an answer: the config's default.
const callTimeout = 30 * time.Second

func answered(name string, r nsxsim.Rule) Fault {
	return Fault{Name: name, rule: func(func()) nsxsim.Rule { return r }}
}

// The faults, each of one call.
var (
	// Unreachable: no connection to NSX can be made.
	Unreachable = Fault{Name: "unreachable", unreachable: true}
	// Cut: the connection ends without an answer, and nothing is done.
	Cut = answered("cut", nsxsim.Rule{Drop: true})
	// Lost: the call is done, and the connection ends without an answer.
	Lost = answered("answer-lost", nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true}).like(Cut)
	// Halved: the call is done, and half of its answer arrives.
	Halved = answered("answer-halved", nsxsim.Rule{When: nsxsim.AfterCommit, Half: true})
	// TimedOut: nothing is done, and no answer ever comes.
	TimedOut = answered("time-out", nsxsim.Rule{Delay: nsxsim.Duration(2 * callTimeout), Drop: true})
	// Late: no answer comes in time, and the call is done soon after its client has given up.
	Late = answered("done-late", nsxsim.Rule{Delay: nsxsim.Duration(callTimeout + time.Second)}).like(TimedOut)
	// Killed: the process dies while the call is on its way, and nothing is done.
	Killed = Fault{Name: "killed", rule: func(die func()) nsxsim.Rule {
		return nsxsim.Rule{Drop: true, Hook: func(*http.Request) { die() }}
	}}
	// KilledAfter: the process dies before the answer to the call arrives, which is done.
	KilledAfter = Fault{Name: "killed-after-commit", likeOf: "killed", rule: func(die func()) nsxsim.Rule {
		return nsxsim.Rule{When: nsxsim.AfterCommit, Drop: true, Hook: func(*http.Request) { die() }}
	}}
	// Status401 and the like: NSX answers so and does nothing.
	Status401 = answered("401", nsxsim.Rule{Status: 401, Code: 403})
	Status412 = answered("412", nsxsim.Rule{Status: 412, Code: 206})
	Status429 = answered("429", nsxsim.Rule{Status: 429, Code: 102})
	Status500 = answered("500", nsxsim.Rule{Status: 500})
	Status503 = answered("503", nsxsim.Rule{Status: 503})
	// Status500After: NSX answers with an internal error to what it has done.
	Status500After = answered("500-after-commit", nsxsim.Rule{When: nsxsim.AfterCommit, Status: 500}).like(Status500)
)

// Faults are all of them.
func Faults() []Fault {
	return []Fault{
		Unreachable, Cut, Lost, Halved, TimedOut, Late, Killed, KilledAfter,
		Status401, Status412, Status429, Status500, Status503, Status500After,
	}
}

// Call is one request of a cluster's controller that has got as far as NSX.
type Call struct {
	// N counts the calls since Cluster.Fail, from 1.
	N int
	// Method, and Path with the API's base but without the query.
	Method, Path, Query string
}

// Write tells whether the call changes anything if it is done.
func (c Call) Write() bool { return c.Method != http.MethodGet && !c.LogIn() }

// LogIn tells whether the call makes or ends a session.
func (c Call) LogIn() bool {
	return c.Path == "/api/session/create" || c.Path == "/api/session/destroy"
}
