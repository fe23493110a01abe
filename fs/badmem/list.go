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

// end is the first block behind r.
func (r Range) end() uint64 { return r.Block + r.N }

// List is what is known of memory that cannot be read, in whole blocks. Its methods are safe for
// concurrent use, but for Load, which comes first.
type List struct {
	r    *pmem.Region
	sb   *layout.Superblock
	warn func(format string, a ...any)

	ranges  atomic.Pointer[[]Range] // in order, not adjacent; nil: there are none
	offline atomic.Uint64           // blocks

	mu       sync.Mutex
	lines    [layout.LinesPerBlock]layout.BadRange // the list on media; protected by mu
	durable  []Range                               // what the list on media is to say, in order; protected by mu
	volatile bool                                  // ranges has more than durable; protected by mu
	stamp    func() (seq uint64, ok bool)          // see StartSaving; nil: nothing is saved yet; protected by mu
	unsaved  atomic.Bool                           // the list on media lacks some

	toldStorage atomic.Int64 // when a full disk below a sparse region was told last; ns since the epoch
}

// New returns an empty list for the filesystem sb on r. warn is told what an administrator should
// know.
func New(r *pmem.Region, sb *layout.Superblock, warn func(format string, a ...any)) *List {
	return &List{r: r, sb: sb, warn: warn}
}

// Ranges is all bad ranges, in order and not adjacent. It must not be changed.
func (l *List) Ranges() []Range {
	if p := l.ranges.Load(); p != nil {
		return *p
	}
	return nil
}

// SameState is how many of the n blocks from block on are bad as the first of them is, or are good
// as it is.
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

// errorAt is the error of memory that is known to be bad, at a block of the region.
func (l *List) errorAt(block uint64) error {
	return pmem.MediaError{Path: l.r.Path(), Off: int64(block) << layout.BlockShift}
}

// Overlaps returns the parts of n blocks from block on that are bad, in order.
func (l *List) Overlaps(block, n uint64) (out []Range) {
	rs := l.Ranges()
	i := sort.Search(len(rs), func(i int) bool { return rs[i].end() > block })
	for ; i < len(rs) && rs[i].Block < block+n; i++ {
		lo, hi := max(block, rs[i].Block), min(block+n, rs[i].end())
		out = append(out, Range{lo, hi - lo})
	}
	return out
}

// Offline counts n bad blocks that no file has, and that are never allocated.
func (l *List) Offline(n uint64) { l.offline.Add(n) }

// OfflineBlocks is the number of blocks that Offline counted.
func (l *List) OfflineBlocks() uint64 { return l.offline.Load() }

// Unsaved reports whether the list on media lacks a range that is known now.
func (l *List) Unsaved() bool { return l.unsaved.Load() }

// join adds ranges to a list in order.
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
