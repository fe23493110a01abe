package rangelock

import "sync"

// Lock locks ranges of int64 positions, such as the bytes of a file. The ranges of shared holders
// may overlap; the range of an exclusive holder overlaps no other held range. Overlapping ranges
// are granted in order of arrival, so neither readers nor writers starve. The zero value is
// unlocked. A Lock must not be copied, and is safe for concurrent use.
//
// The life of an entry: queued -> granted (no earlier entry conflicts) -> removed.
type Lock struct {
	mu      sync.Mutex // protects the other fields
	cond    sync.Cond  // signalled when an entry is removed
	q       []entry    // granted and waiting entries in order of arrival
	next    Token      // the newest token given out
	waiters int        // goroutines that wait on cond
}

// Token identifies a held range. It is valid from Lock or TryLock until Unlock.
type Token uint64

type entry struct {
	token      Token
	start, end int64 // positions [start, end)
	excl       bool
}

// Lock waits for [start, end), exclusively if excl is set, and returns the token for Unlock.
func (l *Lock) Lock(start, end int64, excl bool) Token {
	l.mu.Lock()
	l.next++
	t := l.next
	l.q = append(l.q, entry{t, start, end, excl})
	for l.blockedLocked(t) {
		if l.cond.L == nil {
			l.cond.L = &l.mu
		}
		l.waiters++
		l.cond.Wait()
		l.waiters--
	}
	l.mu.Unlock()
	return t
}

// TryLock is Lock if it need not wait; otherwise it returns false and changes nothing.
func (l *Lock) TryLock(start, end int64, excl bool) (Token, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	t := l.next
	l.q = append(l.q, entry{t, start, end, excl})
	if l.blockedLocked(t) {
		l.q = l.q[:len(l.q)-1]
		return 0, false
	}
	return t, true
}

// blockedLocked reports whether the entry of token t conflicts with an earlier one. Called with mu
// held.
func (l *Lock) blockedLocked(t Token) bool {
	i := len(l.q) - 1
	for l.q[i].token != t {
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

// Unlock releases the range of a token. Any goroutine may call it.
func (l *Lock) Unlock(t Token) {
	l.mu.Lock()
	for i := range l.q {
		if l.q[i].token == t {
			l.q = append(l.q[:i], l.q[i+1:]...)
			break
		}
	}
	if l.waiters > 0 {
		l.cond.Broadcast()
	}
	l.mu.Unlock()
}
