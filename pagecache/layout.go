package pagecache

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrBreaking: the layout of the range is being broken.
var ErrBreaking = errors.New("pagecache: layout is being broken")

// Layout is who relies on where blocks of a file are: holders of mappings that were
// granted to them. A read or a write in flight is none, its references to the folios are
// enough. The zero value has no holders. It must not be copied once in use.
//
// Whoever changes where blocks are, or takes them away, breaks the layout of the range
// first (as Linux's dax_break_layout, and its file layout leases):
//
//  1. Break stops new users: Hold fails there until the break ends
//  2. it asks each holder to leave, once, and waits, but not longer than its ctx
//  3. the caller removes the extents, durably
//  4. what is still held is freed when it is idle, by whoever drops the last reference
//     (refcnt); the caller does not wait for it
//  5. the break ends
type Layout struct {
	mu      sync.Mutex
	holders []*Holder     // protected by mu
	breaks  []*blockRange // protected by mu
	left    chan struct{} // protected by mu: closed when a holder leaves; nil: nobody waits
}

type blockRange struct{ lo, hi uint64 } // [lo, hi), in file blocks

func (r *blockRange) meets(lo, hi uint64) bool { return r.lo < hi && lo < r.hi }

// Holder is one who relies on the blocks of a range. Its life:
//
//	holding -> asked    Break
//	either  -> gone     Release
type Holder struct {
	blockRange
	layout *Layout
	recall func()
	asked  bool // protected by layout.mu
}

// Hold adds a holder of file blocks [lo, hi). recall is called at most once, when the
// holder should leave: from the goroutine that breaks the layout, with no lock held; it
// must not wait for the Release that it causes. ErrBreaking while a break overlaps.
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

// Release ends the hold. It panics if it has ended already.
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

// Break breaks the layout of file blocks [lo, hi) until end is called, exactly once. It
// returns how many holders have not left when ctx was done; 0 comes at once if nobody
// holds anything there. Breaks may overlap.
func (l *Layout) Break(ctx context.Context, lo, hi uint64) (end func(), held int) {
	b := &blockRange{lo, hi}
	l.mu.Lock()
	l.breaks = append(l.breaks, b)
	var ask []*Holder
	for _, h := range l.holders {
		if h.meets(lo, hi) && !h.asked {
			h.asked = true
			ask = append(ask, h)
		}
	}
	l.mu.Unlock()
	for _, h := range ask {
		h.recall()
	}
	end = func() {
		l.mu.Lock()
		i := slices.Index(l.breaks, b)
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
		for _, h := range l.holders {
			if h.meets(lo, hi) {
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
