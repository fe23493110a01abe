package fs

import (
	"slices"
	"syscall"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/hugepage"
)

// promotion collapses ranges of a file because a program asks for large pages. Other than the
// collapses in the background it has no budget, but only one promotion moves blocks at a time: they
// take turns after each range. What cannot be moved stays where it is: that is no error.
//
// A promotion holds the locks of an inode for a piece at a time, of 2 MiB at most.
type promotion struct {
	d        *defrag
	ctx      *Caller
	in       *inode
	order    uint8  // of the largest folios wanted, PMD or PUD
	lo, hi   uint64 // file blocks [lo, hi)
	allocate bool   // holes get blocks

	turn   bool // it has the turn to move blocks, see begin
	packed bool // there is no free PMD block, and none can be made
	shared bool // some blocks were not moved because they are shared
	leased bool // some blocks were not moved because a program maps them
}

// pageOrder returns the order of the largest folio that is not larger than a page of size bytes; 0
// if that is a block.
func (fs *FS) pageOrder(size uint64) uint8 {
	switch o := fs.alloc.Orders(); {
	case size >= layout.BlockSize<<o.PUD:
		return o.PUD
	case size >= layout.BlockSize<<o.PMD:
		return o.PMD
	}
	return 0
}

// promote makes the range of a grant mappable in pages of the size that is wanted, as far as that
// can be had. It reports whether shared blocks were in the way, which prepare replaces. Called with
// no lock held.
func (d *Direct) promote(ctx *Caller, in *inode, q *GrantQuery) (shared bool) {
	if ctx.Order == 0 {
		return false
	}
	d.sweep() // blocks whose lease has ended can be moved
	p := promotion{d: &d.fs.defrag, ctx: ctx, in: in, order: ctx.Order, lo: q.Lo, hi: q.Hi, allocate: q.Allocate}
	p.run()
	if p.leased && d.leases.EndingOf(in.ino) {
		p.end() // not while waiting
		d.awaitEnded(ctx, in)
		p.run()
	}
	return p.shared
}

// awaitEnded waits until no lease of the file that has ended keeps its blocks: those of a program
// that unmaps a file and maps it again in large pages, or of one that has ended just now. It waits
// for no lease that lives.
func (d *Direct) awaitEnded(ctx *Caller, in *inode) {
	const most = lease.Quarantine + 2*sweepInterval
	ctx.Wait(func() {
		for end := time.Now().Add(most); d.leases.EndingOf(in.ino) && time.Now().Before(end); d.sweep() {
			select {
			case <-ctx.Cancel:
				return
			case <-time.After(sweepInterval):
			}
		}
	})
}

// run collapses the aligned ranges of the file that lie in the range. If that includes the end of
// the file, so do the ranges. It works on one PUD range after the other: a file has one reservation
// for what it allocates.
func (p *promotion) run() {
	o := p.d.fs.alloc.Orders()
	end, last := p.hi, false
	if eof := blocksOf(int64(p.in.size.Load())); end >= eof {
		end, last = hugepage.AlignUp(eof, p.order), true
	}
	for at, next := p.lo, uint64(0); at < end && !p.ctx.cancelled(); at = next {
		next = min(end, hugepage.AlignUp(at+1, o.PUD))
		if p.allocate {
			p.fill(at, next, last && next == end)
		}
		if p.order < o.PUD || next-at < 1<<o.PUD || !p.collapsePUD(at) {
			for b := hugepage.AlignUp(at, o.PMD); b+1<<o.PMD <= next && !p.ctx.cancelled(); {
				b = p.collapsePMD(b)
			}
		}
	}
}

// begin waits for the turn to move blocks. It returns false if the caller gave up.
func (p *promotion) begin() bool {
	if !p.turn {
		p.ctx.Wait(func() {
			select {
			case p.d.turn <- struct{}{}:
				p.turn = true
			case <-p.ctx.Cancel:
			}
		})
	}
	return p.turn
}

// end gives up the turn: whoever waits for it comes next.
func (p *promotion) end() {
	if p.turn {
		<-p.d.turn
		p.turn = false
	}
}

// inPlace returns the end of the aligned ranges of an order from file block at on that one extent
// has in place, or that begin with a hole; at if there is none.
func (p *promotion) inPlace(at uint64, order uint8) (next uint64) {
	e, ok := p.in.space.Lookup(at)
	if !ok {
		return max(at+1<<order, hugepage.AlignDown(min(e.Logical, p.hi), order))
	}
	if next = hugepage.AlignDown(e.End(), order); next <= at || hugepage.Congruence(at, e.BlockAt(at)) < order {
		return at
	}
	t := p.d.fs.table
	for b := at; b < next; {
		block := e.BlockAt(b)
		has := t.Order(block)
		if has < order {
			p.d.merge(p.ctx, p.in, b, order)
		}
		b += hugepage.AlignUp(block+1, max(has, order)) - block
	}
	return next
}

// collapsePMD collapses the PMD range at file block at, and returns where to go on.
func (p *promotion) collapsePMD(at uint64) (next uint64) {
	order := p.d.fs.alloc.Orders().PMD
	if next = p.inPlace(at, order); next > at {
		return next
	}
	next = at + 1<<order
	s := p.in.rangeState(at, order)
	p.shared = p.shared || s.shared
	switch {
	case !s.full:
	case s.collapsed():
		p.d.merge(p.ctx, p.in, at, order)
	case p.mayMove(at, &s, s.best, false) && p.begin():
		defer p.end()
		placed := p.d.collapsePMD(p.ctx, p.in, at, &s, onRequest)
		if !placed && !p.packed {
			if p.packed = p.d.pack(p.ctx, onRequest) == 0; !p.packed {
				p.d.collapsePMD(p.ctx, p.in, at, &s, onRequest)
			}
		}
	}
	return next
}

// promoteTries bounds how often a promotion tries to collapse a PUD range in one aligned block, of
// which a reader may have a part.
const promoteTries = 2

// collapsePUD collapses the PUD range at file block at, and reports whether it is collapsed now.
func (p *promotion) collapsePUD(at uint64) bool {
	order := p.d.fs.alloc.Orders().PUD
	if _, ok := p.in.space.Lookup(at); ok && p.inPlace(at, order) > at {
		return true
	}
	s := p.in.rangeState(at, order)
	p.shared = p.shared || s.shared
	if !s.full {
		return false
	}
	if s.collapsed() {
		return p.d.merge(p.ctx, p.in, at, order)
	}
	if !p.begin() {
		return false
	}
	defer p.end()
	if p.in.lockIO(p.ctx) != nil {
		return false
	}
	cs := p.d.candidatesLocked(p.in, at, &s)
	p.in.io.Unlock()
	slices.SortFunc(cs, func(a, b candidate) int { return int(a.cost) - int(b.cost) })
	for _, c := range cs {
		if !p.mayMove(at, &s, c.base, true) {
			continue
		}
		for range promoteTries {
			ok := p.d.collapsePUD(p.ctx, &c)
			if p.d.requested.Add(c.done); ok || p.ctx.cancelled() {
				return ok
			}
			c.done = 0
		}
		return false // much was moved: the PMD ranges are collapsed at least
	}
	return false
}

// mayMove reports whether no lease and no bad block forbids to collapse the range at file block at,
// of the state s, in the aligned block at base; with clear, also to move other blocks from there.
// It holds no lock: a move looks again.
func (p *promotion) mayMove(at uint64, s *rangeState, base uint64, clear bool) bool {
	fs := p.d.fs
	if !fs.direct.any() && len(fs.bad.Ranges()) == 0 {
		return true
	}
	fixed := func(block, n uint64) bool {
		if n > 0 && fs.direct.leased(block, n) {
			p.leased = true
			return true
		}
		return n > 0 && fs.bad.Has(block, n)
	}
	to := base // up to here base is looked at
	for b := at; b < at+s.whole; {
		e, ok := p.in.space.Lookup(b)
		if !ok {
			return false
		}
		x := part(e, b, min(e.End(), at+s.whole))
		if x.Block != base+(b-at) {
			if fixed(x.Block, uint64(x.Len)) {
				return false
			}
		} else {
			if clear && fixed(to, x.Block-to) {
				return false
			}
			to = x.Block + uint64(x.Len)
		}
		b = x.End()
	}
	return !clear || !fixed(to, base+s.whole-to)
}

// tailShare bounds the blocks behind the end of a file that a promotion allocates, so that the last
// range is whole: to this share of the space that is left.
const tailShare = 8

// fill allocates the missing blocks of file blocks [lo, hi), up to the end of the file, and with
// last and if there is room, the rest of the aligned range in which the file ends. It is not an
// error if there is no space.
func (p *promotion) fill(lo, hi uint64, last bool) {
	fs := p.d.fs
	if p.fillTo(lo, hi, false) != nil {
		p.allocate = false
		return
	}
	eof := blocksOf(int64(p.in.size.Load()))
	for _, order := range [2]uint8{p.order, fs.alloc.Orders().PMD} {
		end := hugepage.AlignUp(eof, order)
		if last && hugepage.AlignDown(eof, order) >= p.lo && end-eof <= fs.reserve.available(p.ctx.UID == 0)/tailShare {
			_ = p.fillTo(eof, end, true)
			return
		}
	}
}

// fillSteps bounds the extents that a piece of fillTo passes.
const fillSteps = 1024

// fillTo allocates the missing blocks of file blocks [lo, hi) as unwritten ones, also those behind
// the end of the file if beyond is set.
//
// Persistence order: transactions: slots.
func (p *promotion) fillTo(lo, hi uint64, beyond bool) error {
	for lo < hi {
		if p.ctx.cancelled() {
			return syscall.EINTR
		}
		if err := p.in.lockIO(p.ctx); err != nil {
			return err
		}
		if !beyond {
			hi = min(hi, blocksOf(int64(p.in.size.Load())))
		}
		stop, err := p.fillPieceLocked(lo, hi)
		p.in.io.Unlock()
		if err != nil {
			return err
		}
		lo = stop
	}
	return nil
}

// fillPieceLocked is one piece of fillTo, and returns up to where it goes. Called with io held.
func (p *promotion) fillPieceLocked(lo, hi uint64) (stop uint64, err error) {
	for n := 0; lo < hi; n++ {
		e, ok := p.in.space.Lookup(lo)
		if !ok {
			hi = min(hi, e.Logical)
			break
		}
		if lo = min(hi, e.End()); n == fillSteps {
			return lo, nil
		}
	}
	if lo >= hi {
		return hi, nil
	}
	m, stop, err := p.d.fs.planLocked(p.ctx, p.in, lo, hi, dispAllocate)
	if err != nil {
		return lo, err
	}
	if err := m.reserveSlots(p.ctx); err != nil {
		return lo, m.abort(p.ctx, err)
	}
	return stop, m.commit(p.ctx, 0)
}

// endedMax bounds the files that collapseEnded looks at.
const endedMax = 4096

// blockRange is the file blocks [lo, hi).
type blockRange struct{ lo, hi uint64 }

// leaseEnded notes file blocks that were not moved because a program mapped them.
func (d *defrag) leaseEnded(ino, lo, hi uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended == nil {
		d.ended = map[uint64]blockRange{}
	}
	if r, ok := d.ended[ino]; ok {
		lo, hi = min(lo, r.lo), max(hi, r.hi)
	} else if len(d.ended) == endedMax {
		return
	}
	d.ended[ino] = blockRange{lo, hi}
}

// collapseEnded collapses ranges of files whose leases have ended, as the write that filled them
// would have. It works in the background.
func (d *defrag) collapseEnded(ctx *Caller) {
	d.mu.Lock()
	ended := d.ended
	d.ended = nil
	d.mu.Unlock()
	for ino, r := range ended {
		if ctx.cancelled() {
			return
		}
		in, e := d.fs.get(ino)
		if e != 0 {
			continue
		}
		if in.isReg() && d.fs.extentsLoaded(ctx, in) == nil {
			if d.stillLeased(in, r) {
				d.leaseEnded(ino, r.lo, r.hi)
			} else {
				d.collapseFilled(ctx, in, r.lo, min(r.hi, blocksOf(int64(in.size.Load()))))
			}
		}
		d.fs.put(in, 1)
	}
}

// stillLeased reports whether a program maps a block of a range of a file.
func (d *defrag) stillLeased(in *inode, r blockRange) bool {
	for b := r.lo; b < r.hi && d.fs.direct.any(); {
		e, ok := in.space.Lookup(b)
		if !ok {
			b = min(r.hi, e.Logical)
			continue
		}
		x := part(e, b, min(r.hi, e.End()))
		if d.fs.direct.leased(x.Block, uint64(x.Len)) {
			return true
		}
		b = x.End()
	}
	return false
}
