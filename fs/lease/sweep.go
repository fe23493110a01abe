package lease

import (
	"math"
	"time"
)

// Look looks whether the lease of a grant has ended, as Sweep does. A promised grant whose lock is
// not seen ends at once: its program says that it will not confirm it. ErrUnknown.
func (t *Table) Look(ino, id uint64) error {
	g, err := t.Lookup(ino, id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	unconfirmed := g.state == promised
	t.mu.Unlock()
	if unconfirmed {
		locked, err := t.locked(g)
		if err == nil && !locked {
			t.end(func(x *Grant) bool { return x == g && x.state == promised })
		}
		return err
	}
	over, ino, err := t.look(g)
	if over {
		t.o.Ended(ino, g)
	}
	return err
}

// look ends a confirmed grant whose lock is not seen any more, and returns its file. The caller
// calls Options.Ended if it has ended.
func (t *Table) look(g *Grant) (over bool, ino uint64, err error) {
	t.mu.Lock()
	state, seen := g.state, g.seen
	t.mu.Unlock()
	if state != confirmed {
		return false, 0, nil
	}
	locked, err := t.locked(g)
	if err != nil || locked {
		return false, 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if over = g.state == confirmed && g.seen == seen; over { // else Confirm has seen the lock since
		g.state, g.ended = ended, t.o.Now()
		t.uncountLocked(g)
		t.ending.Add(1)
	}
	return over, g.Ino, nil
}

// Sweep looks whether leases have ended: those of most grants, in turns, and of found leases too
// at the end of each turn. A lease that has ended keeps its blocks for Quarantine, so a caller that
// waits for space sweeps again. It waits for another Sweep under way.
func (t *Table) Sweep(most int) error {
	t.sweeping.Lock()
	return t.sweepAndUnlock(most)
}

// TrySweep is a Sweep of all grants, or does nothing if a Sweep is under way.
func (t *Table) TrySweep() error {
	if !t.sweeping.TryLock() {
		return nil
	}
	return t.sweepAndUnlock(math.MaxInt)
}

// sweepAndUnlock is Sweep. Called with sweeping held, which it unlocks before it calls
// Options.Ended: that may have to free the file.
func (t *Table) sweepAndUnlock(most int) (err error) {
	type ending struct {
		ino uint64
		g   *Grant
	}
	var endings []ending
	now := t.o.Now()
	look, last := t.turn(most)
	for _, g := range look {
		over, ino, e := t.look(g)
		if err = e; err != nil {
			break
		}
		if over {
			endings = append(endings, ending{ino, g})
		}
	}
	t.end(func(g *Grant) bool {
		return g.state == ended && now.Sub(g.ended) >= Quarantine || g.state == promised && now.Sub(g.Since) >= Unconfirmed
	})
	if last && err == nil {
		err = t.sweepFound(t.o.Now())
	}
	t.sweeping.Unlock()
	for _, x := range endings {
		t.o.Ended(x.ino, x.g)
	}
	return err
}

// turn returns the confirmed grants that the next Sweep of most grants looks at. last says that a
// turn of all grants is over. Called with sweeping held.
func (t *Table) turn(most int) (look []*Grant, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range t.order {
		if len(look) == most {
			return look, last
		}
		if t.next >= len(t.order) {
			t.next, last = 0, true
		}
		if g := t.order[t.next]; g.state == confirmed {
			look = append(look, g)
		}
		t.next++
	}
	return look, true
}

// sweepFoundTime bounds how long a Sweep queries the locks of found leases. Grants are budgeted; a
// program may take any number of locks, and with 10 000 each query takes a fraction of a
// millisecond.
const sweepFoundTime = 10 * time.Millisecond

// sweepFound ends the found leases of blocks that nobody locks any more, and gives up those that
// have been ended for Quarantine. If it takes long, the next Sweep goes on where it stops. Called
// with sweeping held.
func (t *Table) sweepFound(now time.Time) error {
	t.mu.Lock()
	look := t.found
	t.mu.Unlock()
	if len(look) == 0 {
		return nil
	}
	var rest, left, over []found // not looked at; locked, or in quarantine; to be given up
	endings := 0
	end := func(block, n uint64) {
		left = append(left, found{block, n, now})
		endings++
	}
	for i, f := range look {
		if t.o.Now().Sub(now) >= sweepFoundTime {
			rest = append(rest, look[i:]...)
			break
		}
		if !f.ended.IsZero() {
			if now.Sub(f.ended) >= Quarantine {
				over = append(over, f)
			} else {
				left = append(left, f)
			}
			continue
		}
		at, stop := f.block, f.block+f.n
		inTime := true
		err := t.o.Locks.Locks(int64(f.block)*t.o.Block, int64(f.n)*t.o.Block, func(lo, hi int64) bool {
			first, last := max(uint64(lo/t.o.Block), at), uint64((hi+t.o.Block-1)/t.o.Block)
			if at < first {
				end(at, first-at)
			}
			if first < last {
				left = append(left, found{block: first, n: last - first})
				at = last
			}
			inTime = t.o.Now().Sub(now) < sweepFoundTime
			return inTime
		})
		if err != nil {
			return err // of what was seen until then nothing is given up
		}
		switch {
		case at >= stop:
		case inTime:
			end(at, stop-at)
		default:
			rest = append(rest, found{block: at, n: stop - at})
		}
	}
	left = append(rest, left...)
	t.mu.Lock()
	t.grants.Add(int64(len(left) - len(t.found)))
	t.ending.Add(int64(endings - len(over)))
	t.found = left
	t.mu.Unlock()
	for _, f := range over {
		t.o.Folios.Unlease(f.block, f.n, true, t.o.Idle)
	}
	return nil
}
