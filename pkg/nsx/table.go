package nsx

// table holds the documents of one kind by id. Every write of ours gets a sequence number, so that a list that was read
// while a write went on does not undo it: what was written after the list began stays as written.
type table[T any] struct {
	rows map[string]row[T]
	// gone remembers deletions and the sequence number they had.
	gone map[string]uint64
}

type row[T any] struct {
	value T
	seq   uint64
}

func newTable[T any]() table[T] {
	return table[T]{rows: map[string]row[T]{}, gone: map[string]uint64{}}
}

func (t *table[T]) get(id string) (T, bool) {
	r, ok := t.rows[id]
	return r.value, ok
}

func (t *table[T]) put(id string, v T, seq uint64) {
	t.rows[id] = row[T]{v, seq}
	delete(t.gone, id)
}

func (t *table[T]) remove(id string, seq uint64) {
	delete(t.rows, id)
	t.gone[id] = seq
}

// merge replaces the rows by what a list has, but for rows written or deleted after the list began at seq.
func (t *table[T]) merge(seq uint64, listed map[string]T) {
	rows := make(map[string]row[T], len(listed))
	for id, v := range listed {
		if t.gone[id] <= seq {
			rows[id] = row[T]{v, seq}
		}
	}
	for id, r := range t.rows {
		if r.seq > seq {
			rows[id] = r
		}
	}
	t.rows = rows
	for id, s := range t.gone {
		if s <= seq {
			delete(t.gone, id)
		}
	}
}
