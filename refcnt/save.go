package refcnt

import (
	"errors"
	"fmt"
)

// ErrRun reports a run that Walk cannot have returned.
var ErrRun = errors.New("refcnt: bad run")

// ErrNoOwner reports that the blocks to be shared have no owner; see Doubt.
var ErrNoOwner = errors.New("refcnt: block has no owner")

// Run is a run of folios, as Walk returns it and Restore takes it.
type Run struct {
	Block, N uint64 // first block, number of blocks
	Order    uint8  // order of the folios: 0, PMD or PUD
	Owners   uint64 // owners of each folio; if Missing, see there
	// Missing marks a run of blocks instead of folios: blocks of the large folio in the run before,
	// which Owners of that folio's owners do not own.
	Missing bool
}

// Walk calls f for each maximal run of folios of one order that have the same number of owners, in
// ascending order, until f returns false. A large folio that some owners own in part only is a run
// by itself, and its Missing runs follow.
//
// Precondition: no other method runs meanwhile.
func (t *Table) Walk(f func(Run) bool) {
	var last Run // not yet passed to f; N = 0: no run
	tell := func(current Run) bool {
		if last.N > 0 && !last.Missing && !current.Missing && last.Block+last.N == current.Block && last.Order == current.Order && last.Owners == current.Owners {
			last.N += current.N
			return true
		}
		ok := last.N == 0 || f(last)
		last = current
		return ok
	}
	for piece := range t.pairs {
		base := uint64(piece) << t.pmd
		head := t.pairs[piece].head.Load()
		current := Run{Block: base, N: 1 << t.pmd, Order: t.pmd, Owners: sharesOf(head)}
		switch head & kindMask {
		case kindTail:
			continue
		case 0:
			if t.pairs[piece].table.Load()&liveMask == 0 {
				continue
			}
			words := t.words[base:min(base+1<<t.pmd, t.blocks)]
			for i := range words {
				if n := sharesOf(words[i].Load()); n > 0 && !tell(Run{Block: base + uint64(i), N: 1, Owners: n}) {
					return
				}
			}
			continue
		case kindPUD:
			current.N, current.Order = 1<<t.pud, t.pud
		}
		switch {
		case current.Owners == 0: // free, or only referenced
			continue
		case head&partial == 0:
			if !tell(current) {
				return
			}
			continue
		}
		if last.N > 0 && !f(last) { // so that the Missing runs follow a run of this folio alone
			return
		}
		last = Run{}
		if !f(current) {
			return
		}
		counts, ok := t.partlyOwned.of[base], true
		counts.runs(0, current.N, func(at, n uint64, value int64) bool {
			ok = value == counts.top || f(Run{Block: base + at, N: n, Order: current.Order, Owners: uint64(counts.top - value), Missing: true})
			return ok
		})
		if !ok {
			return
		}
	}
	if last.N > 0 {
		f(last)
	}
}

// Doubt sets f as the function that is called with a block that is disowned or shared and has no
// owner. Counts that Restore took from the media may be wrong although everything else is right.
// Counts that Own made cannot be: without Doubt, a missing owner is a broken precondition. Called
// before the table is used. f may be called concurrently, with no lock held, and must not use the
// table.
func (t *Table) Doubt(f func(block uint64)) { t.doubt = f }

// noOwner reports that a block that must have an owner has none: to the function that Doubt set, or
// else as a misuse.
func (t *Table) noOwner(op string, block, w uint64) {
	if t.doubt == nil {
		misuse(op, block, w)
	}
	t.doubt(block)
}

// Restore gives folios owners as a run of Walk describes them. It returns ErrRun if Walk cannot
// have returned that run; then the table may only be closed.
//
// Precondition: the blocks are free (except for a Missing run), and no other method runs meanwhile.
func (t *Table) Restore(r Run) error {
	size := uint64(1) << r.Order
	if r.Block > t.blocks || r.N > t.blocks-r.Block || r.Owners == 0 || r.Owners > maxShares ||
		r.Order != 0 && r.Order != t.pmd && r.Order != t.pud || !r.Missing && (r.Block|r.N)&(size-1) != 0 {
		return fmt.Errorf("%w: blocks %d+%d of order %d with %d owners", ErrRun, r.Block, r.N, r.Order, r.Owners)
	}
	if r.Missing {
		return t.restoreMissing(r)
	}
	more := (r.Owners - 1) * shareOne
	for at, end := r.Block, r.Block+r.N; at < end; {
		p := at >> t.pmd
		switch r.Order {
		case 0:
			n := min(end, (p+1)<<t.pmd) - at
			t.appear(p, n)
			t.fill(at, n, shareOne+more)
			at += n
			continue
		case t.pmd:
			t.ownHead(p, kindPMD|shareOne+more)
			t.pmds.Add(1)
		default:
			t.ownPUD(at)
			t.pairs[p].head.Add(more)
		}
		at += size
	}
	return nil
}

func (t *Table) restoreMissing(r Run) error {
	f := t.find(r.Block)
	w := f.w.Load()
	if r.N == 0 || r.Block+r.N > f.end() || f.kind == 0 || r.Owners >= sharesOf(w) {
		return fmt.Errorf("%w: blocks %d+%d that %d owners do not own: want blocks of a large folio with more owners", ErrRun, r.Block, r.N, r.Owners)
	}
	y, whole := t.partlyOwned.of[f.block], true
	if y != nil {
		y.runs(r.Block-f.block, r.N, func(_, _ uint64, v int64) bool { whole = whole && v == y.top; return whole })
	}
	if whole {
		if _, rise := t.partlyOwned.addLocked(&f, t.pmd, r.Block, r.N, -int64(r.Owners)); rise == 0 {
			f.w.Store(w | partial)
			return nil
		}
	}
	return fmt.Errorf("%w: blocks %d+%d that some owners do not own: listed twice, or no block of the folio has all owners", ErrRun, r.Block, r.N)
}
