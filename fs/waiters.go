package fs

import "sync"

// Waiters bounds how many callers wait at a time for something that may never come: each of them
// may keep a place that requests come by. Safe for concurrent use.
type Waiters struct {
	Total, Each int // of all users, of one; immutable

	mu  sync.Mutex // protects what follows
	all int
	by  map[uint32]int // by user
}

// Enter reports whether a user's caller may wait. If so, Leave ends that.
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

// Leave ends what Enter began.
func (w *Waiters) Leave(uid uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.by[uid]--; w.by[uid] == 0 {
		delete(w.by, uid)
	}
}
