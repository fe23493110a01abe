package fs

import "sync"

// rangeLock orders reads and writes of one file by byte range: a read sees each
// concurrent write wholly or not at all. Shared holders overlap each other,
// exclusive ones nobody; waiters are served in order of arrival, so neither side
// starves. A holder may release from another goroutine (a reply's end).
//
// An entry's life: queued -> granted (no conflicting entry stands before it) ->
// removed.
type rangeLock struct {
	mu      sync.Mutex
	cond    sync.Cond
	q       []rangeEntry // in order of arrival; granted and waiting ones alike
	next    uint64
	waiters int
}

type rangeEntry struct {
	id         uint64
	start, end int64 // bytes, [start, end)
	excl       bool
}

func (l *rangeLock) init() { l.cond.L = &l.mu }

// lock waits for [start, end) and returns the token that unlock takes.
func (l *rangeLock) lock(start, end int64, excl bool) uint64 {
	l.mu.Lock()
	l.next++
	id := l.next
	l.q = append(l.q, rangeEntry{id, start, end, excl})
	for l.blocked(id) {
		l.waiters++
		l.cond.Wait()
		l.waiters--
	}
	l.mu.Unlock()
	return id
}

// tryLock is lock, but where that would wait it is false.
func (l *rangeLock) tryLock(start, end int64, excl bool) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	id := l.next
	l.q = append(l.q, rangeEntry{id, start, end, excl})
	if l.blocked(id) {
		l.q = l.q[:len(l.q)-1]
		return 0, false
	}
	return id, true
}

func (l *rangeLock) blocked(id uint64) bool {
	i := len(l.q) - 1
	for l.q[i].id != id {
		i--
	}
	e := &l.q[i]
	for j := 0; j < i; j++ {
		o := &l.q[j]
		if (e.excl || o.excl) && o.start < e.end && e.start < o.end {
			return true
		}
	}
	return false
}

func (l *rangeLock) unlock(id uint64) {
	l.mu.Lock()
	for i := range l.q {
		if l.q[i].id == id {
			l.q = append(l.q[:i], l.q[i+1:]...)
			break
		}
	}
	if l.waiters > 0 {
		l.cond.Broadcast()
	}
	l.mu.Unlock()
}
