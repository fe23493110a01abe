package refcnt

import (
	"errors"
	"fmt"
)

// ErrRun: a run that no Walk tells.
var ErrRun = errors.New("refcnt: bad run")

// ErrNoOwner: nobody owns what was to be shared; see Doubt.
var ErrNoOwner = errors.New("refcnt: block has no owner")

// Run is a run of folios as Walk tells and Restore takes it.
type Run struct {
	Block, N uint64 // in blocks
	Order    uint8  // of the folios: 0, PMD or PUD
	Owners   uint64 // of each of them
	// Missing: no folios, but blocks of the large folio that came last, which that many of
	// its owners do not own.
	Missing bool
}

// Walk calls f for each maximal run of folios of one order that have as many owners, in
// ascending order, until f returns false. A large folio of which some own a part only is a
// run of its own, and its Lack runs follow.
//
// Precondition: nobody uses the table meanwhile.
func (t *Table) Walk(f func(Run) bool) {
	var last Run // not told yet; N = 0: none
	tell := func(r Run) bool {
		if last.N > 0 && !last.Missing && !r.Missing && last.Block+last.N == r.Block && last.Order == r.Order && last.Owners == r.Owners {
			last.N += r.N
			return true
		}
		ok := last.N == 0 || f(last)
		last = r
		return ok
	}
	for p := range t.pairs {
		base := uint64(p) << t.pmd
		h := t.pairs[p].head.Load()
		r := Run{Block: base, N: 1 << t.pmd, Order: t.pmd, Owners: sharesOf(h)}
		switch h & kindMask {
		case kindTail:
			continue
		case 0:
			if t.pairs[p].table.Load()&liveMask == 0 {
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
			r.N, r.Order = 1<<t.pud, t.pud
		}
		switch {
		case r.Owners == 0: // only referenced
			continue
		case h&partial == 0:
			if !tell(r) {
				return
			}
			continue
		}
		if last.N > 0 && !f(last) { // so that the lacks are of this folio alone
			return
		}
		last = Run{}
		if !f(r) {
			return
		}
		y, ok := t.partlyOwned.of[base], true
		y.runs(0, r.N, func(at, n uint64, v int64) bool {
			ok = v == y.top || f(Run{Block: base + at, N: n, Order: r.Order, Owners: uint64(y.top - v), Missing: true})
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

// Doubt makes f be told of a block that somebody disowns or shares and nobody owns. Counts that
// Restore took from media may be wrong where nothing else is; counts that Own made cannot be, so
// without Doubt that is a broken precondition. Called before the table is used; f may be called
// concurrently, with no lock held, and must not use the table.
func (t *Table) Doubt(f func(block uint64)) { t.doubt = f }

// noOwner is where a block is found to have no owner that must have one.
func (t *Table) noOwner(op string, block, w uint64) {
	if t.doubt == nil {
		misuse(op, block, w)
	}
	t.doubt(block)
}

// Restore makes folios owned as Walk told. ErrRun: no Walk can have told that; the
// table is good for nothing but Close then.
//
// Precondition: the blocks are free (but for a Lack), and nobody uses the table meanwhile.
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
		return fmt.Errorf("%w: %d owners lack blocks %d+%d", ErrRun, r.Owners, r.Block, r.N)
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
	return fmt.Errorf("%w: all owners of blocks %d+%d lack some", ErrRun, r.Block, r.N)
}
