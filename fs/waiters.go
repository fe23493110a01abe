package fs

import "sync"

// Waiters bounds how many callers wait at the same time for something that may never come. Each of
// them may keep one of the transport's places for requests. Safe for concurrent use.
type Waiters struct {
	Total, Each int // most callers: of all users, of one user; immutable

	mu  sync.Mutex     // protects the fields below
	all int            // callers that wait
	by  map[uint32]int // callers that wait, by user
}

// Enter reports whether a caller of user uid may wait. If so, the caller ends its wait with Leave.
func (w *Waiters) Enter(uid uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all >= w.Total || w.by[uid] >= w.Each {
		return false
	}
	if w.by == nil {
		w.by = map[uint32]int{}
	}
	w.all++
	w.by[uid]++
	return true
}

// Leave ends a wait that Enter allowed.
func (w *Waiters) Leave(uid uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.by[uid]--; w.by[uid] == 0 {
		delete(w.by, uid)
	}
}
