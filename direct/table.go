package direct

import (
	"errors"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// table is the windows of a file for one kind of access. Readers find a window without a lock; the
// list that they see never changes, and is replaced.
type table struct {
	conn  *conn
	flags uint32 // of grants
	now   atomic.Pointer[[]*window]

	mu     sync.Mutex // serialises changes
	closed bool       // protected by mu
	span   int64      // protected by mu: how much to ask for; bytes, a power of two
	fine   bool       // protected by mu: the file has so many extents that a grant holds few MiB

	pause  time.Duration // protected by mu: how long to ask nothing after the next failure
	resume atomic.Int64  // when to ask again, as time since started; 0: now
}

var started = time.Now()

const (
	readSpan      = 1 << 30
	firstSpan     = 64 << 20 // to write: what is unwritten is zeroed, so a first write takes longer
	fineSpan      = 1 << 20  // the extents of so many bytes always fit into one reply
	minPause      = time.Millisecond
	longestPause  = 50 * time.Millisecond
	failedPause   = time.Second
	refusedPause  = 10 * time.Second
	shortLife     = 10 * time.Millisecond
	cheapPrepared = 2 * time.Millisecond
)

func newTable(c *conn, flags uint32) *table {
	t := &table{conn: c, flags: flags, span: readSpan}
	if flags&protocol.Write != 0 {
		t.span = firstSpan
	}
	t.now.Store(new([]*window))
	return t
}

// find returns the window that holds byte off with a reference; nil if there is none. It begins
// loading n bytes: taking the reference waits for what the processor does, but not for that.
func (t *table) find(off, n int64) *window {
	all := *t.now.Load()
	if len(all) == 0 {
		return nil
	}
	i := 0
	if len(all) > 1 {
		i = max(0, after(all, off)-1)
	}
	w := all[i]
	if off < w.lo || off >= w.hi {
		return nil
	}
	if n > 0 {
		w.prefetch(off, n)
	}
	if w.get() {
		return w
	}
	return nil
}

// after returns the index of the first window that begins behind off.
func after(all []*window, off int64) int {
	return sort.Search(len(all), func(i int) bool { return all[i].lo > off })
}

// open returns a window that holds byte off, with a reference, which it leases if need be. It
// returns nil if the access should go the normal way: there is no such grant now, or another
// goroutine is just asking.
func (t *table) open(off int64) *window {
	if at := t.resume.Load(); off >= beyond || at != 0 && int64(time.Since(started)) < at {
		return nil
	}
	if !t.mu.TryLock() {
		return nil
	}
	defer t.mu.Unlock()
	if w := t.find(off, 0); w != nil || t.closed {
		return w
	}
	w, err := t.leaseLocked(off)
	if err != nil {
		t.failedLocked(err)
		return nil
	}
	w.get()
	return w
}

// leaseLocked adds a window that holds byte off. Called with mu held.
func (t *table) leaseLocked(off int64) (*window, error) {
	for try := range 3 {
		lo, hi := t.rangeLocked(off)
		if try == 2 {
			lo = off &^ 4095
		}
		began := time.Now()
		w, err := t.conn.openWindow(lo, hi, t.flags)
		if errors.Is(err, unix.ENXIO) && lo < off&^4095 && !t.fine { // a hole before off
			t.fine = true
			continue
		}
		if err != nil {
			return nil, err
		}
		if off < w.hi {
			t.addLocked(w)
			if !w.cut && !t.fine && t.span < readSpan && time.Since(began) < cheapPrepared {
				t.span *= 2
			}
			return w, nil
		}
		w.put()
		t.fine = true
	}
	return nil, ErrRange
}

// rangeLocked returns the range to ask for when a window that holds off is wanted. Called with mu
// held.
func (t *table) rangeLocked(off int64) (lo, hi int64) {
	all := *t.now.Load()
	lo = off &^ (t.span - 1)
	hi = lo + t.span
	if t.fine {
		lo = off &^ (fineSpan - 1)
		if t.flags&protocol.Write != 0 { // it would end at a hole before off
			lo = off &^ 4095
		}
	}
	i := after(all, off)
	if i > 0 {
		if prev := all[i-1]; prev.cut && prev.lo >= lo {
			lo = prev.lo // the file has grown: one larger window instead of two
		} else {
			lo = max(lo, prev.hi)
		}
	}
	if i < len(all) {
		hi = min(hi, all[i].lo)
	}
	return lo, hi
}

// addLocked adds a window, and drops those that it overlaps. Called with mu held.
func (t *table) addLocked(w *window) {
	now, old := t.overlap(w.lo, w.hi)
	now = slices.Insert(now, after(now, w.lo), w)
	t.now.Store(&now)
	t.droppedLocked(old)
}

// overlap divides the windows into those that share no byte with [lo, hi), and those that do.
func (t *table) overlap(lo, hi int64) (others, overlap []*window) {
	for _, v := range *t.now.Load() {
		if v.lo < hi && lo < v.hi {
			overlap = append(overlap, v)
		} else {
			others = append(others, v)
		}
	}
	return others, overlap
}

// droppedLocked puts windows that were taken out of the table. If they were in it for a short time
// only, nothing is asked for a while, and longer each time. Called with mu held.
func (t *table) droppedLocked(old []*window) {
	if len(old) == 0 {
		return
	}
	young := false
	for _, w := range old {
		young = young || time.Since(w.since) < shortLife
		w.put()
	}
	if young {
		t.pauseLocked(minPause)
	} else {
		t.pause = 0
	}
}

// stale drops all windows: the layout of the file has changed since w was leased.
func (t *table) stale(w *window) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := *t.now.Load()
	if !slices.Contains(all, w) {
		return
	}
	var now, old []*window
	for _, v := range all {
		if _, fresh, err := v.look(); fresh && err == nil {
			now = append(now, v)
		} else {
			old = append(old, v)
		}
	}
	t.now.Store(&now)
	t.droppedLocked(old)
}

// drop drops the windows of bytes [lo, hi), and returns whether there were any.
func (t *table) drop(lo, hi int64) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now, old := t.overlap(lo, hi)
	t.now.Store(&now)
	for _, w := range old {
		w.put()
	}
	return len(old) > 0
}

// failedLocked is called when a window could not be leased. Called with mu held.
func (t *table) failedLocked(err error) {
	switch {
	case errors.Is(err, ErrRange): // a hole, which a program may be filling
		t.pauseLocked(minPause)
	case errors.Is(err, ErrRefused), errors.Is(err, ErrRegion):
		t.resume.Store(int64(time.Since(started) + refusedPause))
	default:
		t.resume.Store(int64(time.Since(started) + failedPause))
	}
}

// beyondEnd reports whether a window knows that the file ends at off or before.
func (t *table) beyondEnd(off int64) bool {
	all := *t.now.Load()
	if len(all) == 0 {
		return false
	}
	w := all[len(all)-1]
	if off < w.hi || !w.get() {
		return false
	}
	size, fresh, err := w.look()
	w.put()
	return fresh && err == nil && size <= off
}

// pauseLocked asks nothing for a while: first, or twice as long as the last time. Called with mu
// held.
func (t *table) pauseLocked(first time.Duration) {
	t.pause = min(max(first, 2*t.pause), longestPause)
	t.resume.Store(int64(time.Since(started) + t.pause))
}

// commit sends COMMIT for all windows that were stored to.
func (t *table) commit() (err error) {
	for _, w := range *t.now.Load() {
		if w.get() {
			err = errors.Join(err, w.commit())
			w.put()
		}
	}
	return err
}

// close drops all windows for good.
func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.now.Load()
	t.closed = true
	t.now.Store(new([]*window))
	for _, w := range old {
		w.put()
	}
}
