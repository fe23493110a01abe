package pagecache

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrBreaking reports that a break of the range's layout is in progress.
var ErrBreaking = errors.New("pagecache: layout is being broken")

// Layout is the holders that rely on where blocks of a file are: granted mappings. A read or a
// write in flight is not a holder; its references to the folios are enough. The zero value has no
// holders. It must not be copied once in use.
//
// A caller that moves blocks or takes them away breaks the layout of the range first (as Linux's
// dax_break_layout, and its file layout leases):
//
//  1. Break stops new users: Hold fails there until the break ends.
//  2. It asks each holder to leave, once, and waits until its ctx is done at the latest.
//  3. The caller removes the extents, durably.
//  4. The last reference frees what is still held (refcnt). The caller does not wait for that.
//  5. The break ends.
type Layout struct {
	mu      sync.Mutex
	holders []*Holder     // protected by mu
	breaks  []*blockRange // protected by mu
	left    chan struct{} // protected by mu: closed when a holder leaves; nil: no break waits
}

type blockRange struct{ lo, hi uint64 } // [lo, hi), in file blocks

func (r *blockRange) meets(lo, hi uint64) bool { return r.lo < hi && lo < r.hi }

// Holder is a user that relies on the place of the blocks of a range. Its life:
//
//	holding -> asked    Break
//	either  -> gone     Release
type Holder struct {
	blockRange
	layout *Layout
	recall func()
	asked  bool // protected by layout.mu
}

// Hold adds a holder of file blocks [lo, hi). recall is called at most once, when the holder should
// leave. It is called from the goroutine that breaks the layout, with no lock held, and must not
// wait for the Release that it causes. Hold returns ErrBreaking while a break overlaps the range.
func (l *Layout) Hold(lo, hi uint64, recall func()) (*Holder, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.breaks {
		if b.meets(lo, hi) {
			return nil, ErrBreaking
		}
	}
	h := &Holder{blockRange: blockRange{lo, hi}, layout: l, recall: recall}
	l.holders = append(l.holders, h)
	return h, nil
}

// Release ends the hold. It panics if the hold has ended already.
func (h *Holder) Release() {
	l := h.layout
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.holders, h)
	if i < 0 {
		panic("pagecache: layout holder released twice")
	}
	l.holders = slices.Delete(l.holders, i, i+1)
	if l.left != nil {
		close(l.left)
		l.left = nil
	}
}

// Break breaks the layout of file blocks [lo, hi) until end is called, exactly once. It returns as
// soon as no holder overlaps the range, or when ctx is done; held is how many holders are left
// then. Breaks may overlap.
func (l *Layout) Break(ctx context.Context, lo, hi uint64) (end func(), held int) {
	breaking := &blockRange{lo, hi}
	l.mu.Lock()
	l.breaks = append(l.breaks, breaking)
	var ask []*Holder
	for _, holder := range l.holders {
		if holder.meets(lo, hi) && !holder.asked {
			holder.asked = true
			ask = append(ask, holder)
		}
	}
	l.mu.Unlock()
	for _, holder := range ask {
		holder.recall()
	}
	end = func() {
		l.mu.Lock()
		i := slices.Index(l.breaks, breaking)
		if i >= 0 {
			l.breaks = slices.Delete(l.breaks, i, i+1)
		}
		l.mu.Unlock()
		if i < 0 {
			panic("pagecache: a break of a layout ended twice")
		}
	}
	for {
		l.mu.Lock()
		held = 0
		for _, holder := range l.holders {
			if holder.meets(lo, hi) {
				held++
			}
		}
		if held == 0 {
			l.mu.Unlock()
			return end, 0
		}
		if l.left == nil {
			l.left = make(chan struct{})
		}
		left := l.left
		l.mu.Unlock()
		select {
		case <-left:
		case <-ctx.Done():
			return end, held
		}
	}
}
