package fs

import (
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/internal/invariants"
	"github.com/daxfsd/daxfsd/pagecache"
)

// remap is a change of a file's extents: those it touches and what stands in their
// place afterwards. Whatever changes extents (writing, allocating, zeroing, punching,
// truncating, moving, sharing, a directory's growth) is one.
//
// Life: empty -> planned (begin, take, put, finish) -> settled (slots known: settle) -> committed
// (commit) or aborted (abort) -> empty. Each of commit and abort is the whole end: of a remap that
// was not committed nothing remains, neither slots nor blocks nor owners. From planned to the end a
// file's io is held throughout. A directory's remap is a part of a larger transaction, under its
// mu: stage -> apply or unstage.
//
// Its memory is the inode's, so that a growing file allocates nothing: an inode has one at a time.
type remap struct {
	fs *FS
	in *inode // nil: empty

	old    []pagecache.Extent // extents it replaces, in order
	now    []pagecache.Extent // what replaces them, in order; contiguous ones are merged
	parts  []piece            // plan of a write: where each piece of it goes
	runs   []run              // newly allocated: owned once committed, free again if aborted
	gone   []run              // no longer the file's once committed
	shared []run              // of another file, and this one's already; not any more if aborted
	data   []journal.Data     // of a write that is all or nothing: what the transaction stores in place
	max    int                // bounds the extents
	owned  bool               // runs have their owner
	staged bool               // it has the slots that it takes
	stored bool               // something was stored to its blocks
}

// piece is where a part of a write goes. If it is unwritten its blocks hold no data yet,
// and what the write does not cover of them is zeros, or a copy of what is at from.
type piece struct {
	pagecache.Extent
	from uint64 // region block of the shared one that it replaces; 0: none
}

// remapMax bounds the extents, and so the lines, of one transaction. A write that is all
// or nothing may have as many as there are blocks, and one on either side.
const remapMax = 40

// remapRuns bounds the allocations of one remap that merge to few extents.
const remapRuns = 256

// maxExtent is the longest extent in blocks: 4 TiB.
const maxExtent = 1 << 30

// part is the piece [lo, hi) of an extent.
// Precondition: e covers it.
func part(e pagecache.Extent, lo, hi uint64) pagecache.Extent {
	e.Block = e.BlockAt(lo)
	e.Logical, e.Len = lo, uint32(hi-lo)
	return e
}

// full reports whether nothing more should be planned: a hole or an extent adds one
// extent on either side, the end one more.
func (m *remap) full() bool {
	return max(len(m.old), len(m.now)) >= m.max || len(m.runs) >= max(m.max, remapRuns)
}

// newRemapLocked begins a plan for the file's blocks from lo on. What ends at lo takes part: it may
// be lengthened. Called with io held (of a directory mu). Precondition: there is no other remap of
// the inode.
func (fs *FS) newRemapLocked(in *inode, lo uint64) *remap {
	m := &in.remap
	if m.in != nil {
		panic("fs: a remap of the inode was neither committed nor aborted")
	}
	m.fs, m.in, m.max = fs, in, remapMax
	m.owned, m.staged, m.stored = false, false, false
	m.old, m.now, m.parts, m.runs, m.gone, m.shared = m.old[:0], m.now[:0], m.parts[:0], m.runs[:0], m.gone[:0], m.shared[:0]
	if p, ok := in.space.Prev(lo); ok && p.End() >= lo {
		m.take(p)
		m.put(part(p, p.Logical, lo))
	}
	return m
}

// end makes it empty.
func (m *remap) end() {
	clear(m.data) // the caller's
	m.in, m.data = nil, m.data[:0]
}

// finish ends a plan at block hi: what follows takes part, too.
func (m *remap) finish(hi uint64) {
	if x, ok := m.in.space.Lookup(hi); ok {
		m.take(x)
		m.put(part(x, hi, x.End()))
	}
}

// take notes that e is replaced.
func (m *remap) take(e pagecache.Extent) {
	if n := len(m.old); n == 0 || m.old[n-1].Logical != e.Logical {
		m.old = append(m.old, e)
	}
}

// put notes that e stands there afterwards, behind all that was put before.
func (m *remap) put(e pagecache.Extent) {
	if n := len(m.now); n > 0 {
		p := &m.now[n-1]
		if p.End() == e.Logical && p.Block+uint64(p.Len) == e.Block && p.Flags == e.Flags && uint64(p.Len)+uint64(e.Len) <= maxExtent {
			p.Len += e.Len
			return
		}
	}
	m.now = append(m.now, e)
}

// reduce takes what stays as it is out of both lists. It returns how many slots the rest needs
// beyond those it has.
func (m *remap) reduce() (slots int) {
	old, now := m.old[:0], m.now[:0]
	i, j := 0, 0
	for i < len(m.old) || j < len(m.now) {
		switch {
		case i < len(m.old) && j < len(m.now) && m.old[i] == m.now[j]:
			i++
			j++
		case j == len(m.now) || i < len(m.old) && m.old[i].Logical <= m.now[j].Logical:
			old = append(old, m.old[i])
			i++
		default:
			now = append(now, m.now[j])
			j++
		}
	}
	m.old, m.now = old, now
	return max(0, len(now)-len(old))
}

// idle reports whether a settled remap changes nothing.
func (m *remap) idle() bool { return len(m.old)+len(m.now) == 0 }

// reserveSlots ends the planning, and makes sure of the slots that it takes. Called with neither mu
// nor a lane.
func (m *remap) reserveSlots(ctx *Caller) error {
	n := m.reduce()
	if m.in.freeSlots() >= n {
		return nil
	}
	m.in.mu.Lock()
	defer m.in.mu.Unlock()
	return m.fs.needSlotsLocked(ctx, m.in, n)
}

// reserveSlotsLocked is settle with a directory's mu held.
func (m *remap) reserveSlotsLocked(ctx *Caller) error {
	return m.fs.needSlotsLocked(ctx, m.in, m.reduce())
}

// commit makes a settled remap of a file durable and current, and with it a new size if that is
// larger than the present one. After an error, but a journal.DataError, it has not happened, and is
// aborted. Called with neither mu nor a lane.
//
// Persistence order:
//  1. transaction: the slots; the core line if the size grows
//  2. only then are the blocks that it takes away free
func (m *remap) commit(ctx *Caller, size uint64) error {
	if size <= m.in.size.Load() && m.idle() && len(m.data) == 0 {
		m.committed(ctx) // of what it shares already it became an owner once more
		return nil
	}
	return m.commitWith(ctx, func(c layout.Core) (layout.Core, uint32) {
		c.Size = max(c.Size, size)
		return c, 0
	})
}

// commitWith is commit with any change of the core line, and of the times that are told.
func (m *remap) commitWith(ctx *Caller, change func(c layout.Core) (now layout.Core, times uint32)) error {
	for _, r := range m.runs { // before readers find them: a block of a file has an owner
		m.fs.table.Own(r.block, r.n)
	}
	m.owned = true
	err := m.transact(ctx, change)
	if !journal.Happened(err) {
		return m.abort(ctx, err)
	}
	if err != nil && m.storeFailed(err) {
		err = errBadBlocks
	}
	m.committed(ctx)
	return err
}

// transact is step 1 of commit.
func (m *remap) transact(ctx *Caller, change func(c layout.Core) (now layout.Core, times uint32)) error {
	m.in.mu.Lock()
	defer m.in.mu.Unlock()
	c := m.fs.begin(ctx)
	u := c.update(m.in)
	var set uint32
	if u.Core, set = change(u.Core); set != 0 {
		u.stamp(set, m.fs.now())
	}
	c.remap(u, m)
	c.tx.AddData(m.data...)
	return c.commit()
}

// committed is the end of an applied remap of a file: what is no longer its own goes to whoever
// holds it last. A large folio of which a part goes is split.
func (m *remap) committed(ctx *Caller) {
	for _, r := range m.runs {
		m.mergeFolios(r)
	}
	for _, r := range m.gone {
		m.fs.table.Disown(r.block, r.n, m.fs.free.to(ctx))
	}
	m.end()
}

// abort is the end of a remap of a file that was not committed, because of cause: what it got goes
// back. It returns cause, or errBadBlocks if that was of bad blocks nobody knew, so that another
// try finds others.
func (m *remap) abort(ctx *Caller, cause error) error {
	if m.storeFailed(cause) { // before they are free
		cause = errBadBlocks
	}
	for _, r := range m.runs {
		if m.owned {
			m.fs.table.Disown(r.block, r.n, leaveAllocated)
		}
		m.fs.free.to(ctx)(r.block, r.n)
	}
	for _, r := range m.shared {
		m.fs.table.Disown(r.block, r.n, m.fs.free.to(ctx))
	}
	m.end()
	return cause
}

// leaveAllocated is where blocks go that lose their owner and are freed in one piece then.
func leaveAllocated(block, n uint64) {}

// storeFailed is told of the error of a store of the remap: all of its blocks are looked at. It
// reports whether there are bad ones that were not known, so that the change should be tried again.
func (m *remap) storeFailed(err error) (news bool) {
	bad := m.fs.bad
	if !m.stored || !bad.Unknown(err) {
		return false // or what was to be kept of a block cannot be
	}
	for _, r := range m.runs {
		news = bad.ProbeFresh(r.block, r.n) || news
	}
	for _, p := range m.parts {
		if p.Flags&layout.ExtentUnwritten == 0 {
			news = bad.ProbeOwned(p.Block, uint64(p.Len)) || news
		}
	}
	return bad.Faulted(err) || news // which may be of what was to be copied
}

// stage writes the slots of a settled remap.
func (m *remap) stage(t *journal.Tx) {
	m.staged = true
	for i := range m.now {
		if i < len(m.old) {
			m.now[i].Slot = m.old[i].Slot
		} else {
			m.now[i].Slot = m.in.takeSlot()
		}
		m.in.stageSlot(t, m.now[i].Slot, mediaExtent(m.now[i]))
	}
	for i := len(m.now); i < len(m.old); i++ {
		m.in.stageSlot(t, m.old[i].Slot, layout.Extent{})
	}
}

// unstage gives back what stage took, if it did, after a commit that failed.
func (m *remap) unstage() {
	if !m.staged {
		return
	}
	m.staged = false
	for i := len(m.old); i < len(m.now); i++ {
		m.in.giveSlot(m.now[i].Slot)
	}
}

// apply makes a committed remap current in DRAM, as one change to readers.
func (m *remap) apply() {
	in := m.in
	if invariants.Enabled && in.isReg() {
		for _, e := range m.now {
			if !m.fs.table.Owned(e.Block, uint64(e.Len)) {
				panic("fs: a file gets blocks that have no owner")
			}
		}
	}
	in.space.BeginChange()
	j := 0
	for _, o := range m.old {
		for j < len(m.now) && m.now[j].Logical < o.Logical {
			j++
		}
		if j == len(m.now) || m.now[j].Logical != o.Logical {
			in.space.Remove(o.Logical)
		}
	}
	for _, insert := range []bool{false, true} { // what stays may shrink to make room
		i := 0
		for _, e := range m.now {
			for i < len(m.old) && m.old[i].Logical < e.Logical {
				i++
			}
			stays := i < len(m.old) && m.old[i].Logical == e.Logical
			switch {
			case stays && !insert:
				in.space.Update(e.Logical, e)
			case !stays && insert:
				in.space.Insert(e)
			}
		}
	}
	in.space.EndChange()
	n := uint64(0)
	for _, e := range m.now {
		n += uint64(e.Len)
	}
	for _, e := range m.old {
		n -= uint64(e.Len)
	}
	in.blocks.Add(n)
	for i := len(m.now); i < len(m.old); i++ {
		in.giveSlot(m.old[i].Slot)
	}
}

// mergeFolios makes larger folios of those that r completes: a file that grows in place by
// small appends ends up in large ones. One that is busy stays as it is.
func (m *remap) mergeFolios(r run) {
	fs := m.fs
	i := 0
	for i < len(m.now) && (r.block < m.now[i].Block || r.block >= m.now[i].Block+uint64(m.now[i].Len)) {
		i++
	}
	if i == len(m.now) {
		return // merged with nothing, and left as it was
	}
	e := m.now[i]
	o := fs.alloc.Orders()
	for _, order := range [2]uint8{o.PMD, o.PUD} {
		size := uint64(1) << order
		for _, b := range [2]uint64{r.block, r.block + r.n - 1} { // what r has of it in the middle is whole
			b = hugepage.AlignDown(b, order)
			if b >= e.Block && b+size <= e.Block+uint64(e.Len) && fs.table.Order(b) < order {
				fs.table.Merge(b, order)
			}
		}
	}
}

// payer returns the user whose space a change of the file takes.
func (in *inode) payer(ctx *Caller) uint32 {
	if ctx.Writeback {
		return in.uid()
	}
	return ctx.UID
}

// dataBlock returns the first block of an extent's data; 0: it is unwritten and holds none.
func dataBlock(e pagecache.Extent) uint64 {
	if e.Flags&layout.ExtentUnwritten != 0 {
		return 0
	}
	return e.Block
}

// disposition is what becomes of the blocks of a range.
type disposition int

const (
	dispWrite    disposition = iota // data: holes are allocated, unwritten blocks become written
	dispAllocate                    // holes become unwritten blocks, the rest stays as it is
	dispZero                        // all becomes unwritten blocks
	dispPunch                       // all becomes a hole
)

// planLocked is the remap that gives blocks [lo, hi) of a file their fate, as far as one
// transaction goes: up to stop. If there is no space for the first block it is errNoSpace, and
// there is none. Called with io held (of a directory mu).
func (fs *FS) planLocked(ctx *Caller, in *inode, lo, hi uint64, f disposition) (m *remap, stop uint64, err error) {
	m = fs.newRemapLocked(in, lo)
	if f == dispWrite && fs.atomic() {
		m.max = layout.LoggedMax - 1 // and the core line
	}
	uid := in.payer(ctx)
	b, none := lo, false // none: there is no space for the first block
	for b < hi && !m.full() {
		e, ok := in.space.Lookup(b)
		switch {
		case ok:
			m.take(e)
			x := part(e, b, min(hi, e.End()))
			if f == dispWrite || f == dispZero {
				same, bad := fs.bad.SameState(x.Block, uint64(x.Len))
				x = part(x, b, b+same)
				if bad || fs.hasOtherUsers(x) {
					block, n, ok := fs.placeCopy(ctx, b, fs.reserve.spare(uid, uint64(x.Len)))
					if !ok {
						hi, none = b, b == lo
						continue
					}
					m.runs = append(m.runs, run{block, n})
					m.gone = append(m.gone, run{x.Block, n})
					y := pagecache.Extent{Logical: b, Block: block, Len: uint32(n), Flags: layout.ExtentUnwritten}
					m.parts = append(m.parts, piece{y, dataBlock(x)})
					if f == dispWrite {
						y.Flags = 0
					}
					m.put(y)
					b += n
					continue
				}
				x.Flags &^= layout.ExtentShared
			}
			m.parts = append(m.parts, piece{Extent: x})
			switch f {
			case dispWrite:
				x.Flags &^= layout.ExtentUnwritten
			case dispZero:
				x.Flags |= layout.ExtentUnwritten
			}
			if f == dispPunch {
				m.gone = append(m.gone, run{x.Block, uint64(x.Len)})
			} else {
				m.put(x)
			}
			b = x.End()
		case f == dispPunch:
			b = min(hi, e.Logical)
		default:
			block, n, ok := fs.placeLocked(ctx, m, b, fs.reserve.spare(uid, min(hi, e.Logical)-b))
			if !ok {
				hi, none = b, b == lo
				continue
			}
			fs.defrag.placed.Add(n)
			m.runs = append(m.runs, run{block, n})
			x := pagecache.Extent{Logical: b, Block: block, Len: uint32(n), Flags: layout.ExtentUnwritten}
			m.parts = append(m.parts, piece{Extent: x})
			if f == dispWrite {
				x.Flags = 0
			}
			m.put(x)
			b += n
		}
	}
	if none {
		m.end()
		return nil, lo, errNoSpace
	}
	m.finish(b)
	return m, b, nil
}
