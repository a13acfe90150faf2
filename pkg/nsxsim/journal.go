package nsxsim

import (
	"maps"
	"sync"
	"time"
)

// Entry is one request in the Journal.
type Entry struct {
	Seq      uint64        `json:"seq"` // from 1, never used twice, not even after a Reset
	Time     time.Time     `json:"time"`
	Node     int           `json:"node,omitempty"` // of the manager, from 0
	User     string        `json:"user,omitempty"` // empty when the request was not authenticated
	Method   string        `json:"method"`
	Path     string        `json:"path"`
	Query    string        `json:"query,omitempty"`
	Op       string        `json:"op"`              // see Journal.Counts
	Status   int           `json:"status"`          // 0 when the connection was closed without an answer
	Outcome  int           `json:"outcome"`         // what it came to, as a status, also when a fault hid that; 0 when it was not served
	Duration time.Duration `json:"duration"`        // on the simulator's clock
	Fault    string        `json:"fault,omitempty"` // names of the fault rules applied, joined by commas
}

// Journal remembers the requests served, in the order in which they were
// finished. It keeps the last entries only (Options.JournalSize) but counts all.
type Journal struct {
	mu      sync.Mutex
	size    int
	ring    []Entry
	next    int // where the ring is written next, once it is full
	lastSeq uint64
	counts  map[string]int
}

func newJournal(size int) *Journal { return &Journal{size: size, counts: map[string]int{}} }

// begin gives the sequence number of a request that has just arrived.
func (j *Journal) begin() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lastSeq++
	return j.lastSeq
}

func (j *Journal) add(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts[e.Op]++
	if len(j.ring) < j.size {
		j.ring = append(j.ring, e)
		return
	}
	if j.size > 0 {
		j.ring[j.next] = e
		j.next = (j.next + 1) % j.size
	}
}

// Entries gives the remembered requests, oldest first.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	entries := make([]Entry, 0, len(j.ring))
	entries = append(entries, j.ring[j.next:]...)
	return append(entries, j.ring[:j.next]...)
}

// Counts gives the number of requests by operation since the last Reset. An
// operation is the method and the path below the API's base with ids replaced,
// and the action: "GET /loadbalancer/pools", "PUT /loadbalancer/pools/{id}",
// "POST /pools/ip-pools/{id}?action=ALLOCATE". Requests to paths that are no
// API count as "METHOD (unknown)".
func (j *Journal) Counts() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.counts)
}

// Count gives the number of requests of the operations since the last Reset; of
// all, when none is named.
func (j *Journal) Count(ops ...string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	if len(ops) == 0 {
		for _, c := range j.counts {
			n += c
		}
	}
	for _, op := range ops {
		n += j.counts[op]
	}
	return n
}

// Writes gives the counts of all operations but GETs and log-ins.
func (j *Journal) Writes() map[string]int {
	counts := j.Counts()
	maps.DeleteFunc(counts, func(op string, _ int) bool { return !isWrite(op) })
	return counts
}

// Reset forgets all entries and counts.
func (j *Journal) Reset() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ring, j.next, j.counts = nil, 0, map[string]int{}
}
