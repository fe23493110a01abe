package badmem

import (
	"cmp"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// Range is a run of N blocks of the region from Block on.
type Range struct{ Block, N uint64 }

// end returns the first block behind r.
func (r Range) end() uint64 { return r.Block + r.N }

// List is the set of blocks that cannot be read. Its methods are safe for concurrent use, except
// Load, which is called first.
type List struct {
	r    *pmem.Region
	sb   *layout.Superblock
	warn func(format string, a ...any)

	ranges  atomic.Pointer[[]Range] // sorted, not adjacent; nil: no bad memory
	offline atomic.Uint64           // number of offline blocks

	mu       sync.Mutex
	lines    [layout.LinesPerBlock]layout.BadRange // the list on media; protected by mu
	durable  []Range                               // ranges to save, sorted; protected by mu
	volatile bool                                  // ranges has blocks that durable lacks; protected by mu
	stamp    func() (seq uint64, ok bool)          // see StartSaving; nil: not called yet; protected by mu
	unsaved  atomic.Bool                           // the list on media does not contain all ranges

	toldStorage atomic.Int64 // time of the last noStorage warning; ns since the epoch
}

// New returns an empty list for the filesystem sb on r. warn is called with messages for the
// administrator.
func New(r *pmem.Region, sb *layout.Superblock, warn func(format string, a ...any)) *List {
	return &List{r: r, sb: sb, warn: warn}
}

// Ranges returns all bad ranges, sorted and not adjacent. The caller must not change the slice.
func (l *List) Ranges() []Range {
	if p := l.ranges.Load(); p != nil {
		return *p
	}
	return nil
}

// SameState returns whether the first of the n blocks from block on is bad, and how many of them,
// counted from the first, are in the same state.
func (l *List) SameState(block, n uint64) (m uint64, bad bool) {
	p := l.ranges.Load()
	if p == nil {
		return n, false
	}
	rs := *p
	i := sort.Search(len(rs), func(i int) bool { return rs[i].end() > block })
	switch {
	case i == len(rs):
		return n, false
	case rs[i].Block <= block:
		return min(n, rs[i].end()-block), true
	}
	return min(n, rs[i].Block-block), false
}

// Has reports whether one of n blocks from block on is bad.
func (l *List) Has(block, n uint64) bool {
	m, bad := l.SameState(block, n)
	return n > 0 && (bad || m < n)
}

// Check returns a pmem.MediaError if one of n blocks from block on is bad.
func (l *List) Check(block, n uint64) error {
	if m, bad := l.SameState(block, n); bad {
		return l.errorAt(block)
	} else if m < n {
		return l.errorAt(block + m)
	}
	return nil
}

// errorAt returns the error for an access to a block that is known to be bad.
func (l *List) errorAt(block uint64) error {
	return pmem.MediaError{Path: l.r.Path(), Off: int64(block) << layout.BlockShift}
}

// Overlaps returns the bad parts of the n blocks from block on, in order.
func (l *List) Overlaps(block, n uint64) (out []Range) {
	rs := l.Ranges()
	i := sort.Search(len(rs), func(i int) bool { return rs[i].end() > block })
	for ; i < len(rs) && rs[i].Block < block+n; i++ {
		lo, hi := max(block, rs[i].Block), min(block+n, rs[i].end())
		out = append(out, Range{lo, hi - lo})
	}
	return out
}

// Offline counts n more bad blocks that belong to no file and are never allocated.
func (l *List) Offline(n uint64) { l.offline.Add(n) }

// OfflineBlocks returns the number of blocks counted by Offline.
func (l *List) OfflineBlocks() uint64 { return l.offline.Load() }

// Unsaved reports whether a known bad range is missing in the list on media.
func (l *List) Unsaved() bool { return l.unsaved.Load() }

// join returns the union of list and more, sorted and not adjacent.
func join(list []Range, more ...Range) (out []Range) {
	all := append(slices.Clone(list), more...)
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.Block, b.Block) })
	for _, r := range all {
		if k := len(out) - 1; k >= 0 && r.Block <= out[k].end() {
			out[k].N = max(out[k].N, r.end()-out[k].Block)
		} else if r.N > 0 {
			out = append(out, r)
		}
	}
	return out
}
