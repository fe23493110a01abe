package fs

import (
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/internal/invariants"
	"github.com/daxfsd/daxfsd/pagecache"
)

// remap is one change of a file's extents: those that it replaces, and those that replace them.
// Every change of extents (writing, allocating, zeroing, punching, truncating, moving, sharing, a
// directory's growth) is a remap.
//
// Life: empty -> planned (newRemapLocked, take, put, finish) -> settled (the slots that it needs
// are available: reserveSlots) -> committed (commit) or aborted (abort) -> empty. Each of commit
// and abort ends it completely: a remap that was not committed leaves no slots, blocks or owners
// behind. From planned to the end a file's io is held throughout. A directory's remap is a part of
// a larger transaction, under its mu: stage -> apply or unstage.
//
// Its memory belongs to the inode, so that a growing file allocates nothing. So an inode has one
// remap at a time.
type remap struct {
	fs *FS
	in *inode // nil: empty

	old    []pagecache.Extent // extents that are replaced, in order
	now    []pagecache.Extent // extents that replace them, in order; contiguous ones are merged
	parts  []piece            // plan of a write: where each piece goes
	runs   []run              // newly allocated blocks: owned once committed, freed if aborted
	gone   []run              // blocks that the file loses once committed
	shared []run              // another file's blocks that have this file as an owner, too; disowned if aborted
	data   []journal.Data     // for a write that is all or nothing: bytes that the transaction stores in place
	max    int                // bounds old and now, in extents
	owned  bool               // runs have this file as their owner
	staged bool               // it has taken its slots
	stored bool               // something was stored to its blocks
}

// piece is where a part of a write goes. If it is unwritten, its blocks hold no data yet: the bytes
// that the write does not cover become zeros, or a copy of the bytes at from.
type piece struct {
	pagecache.Extent
	from uint64 // first region block of the shared or bad blocks that it replaces; 0: none
}

// remapMax bounds the extents, and so the lines, of one transaction. A write that is all or nothing
// may have as many extents as it has blocks, and one on either side.
const remapMax = 40

// remapRuns bounds the allocations of one remap that merge to few extents.
const remapRuns = 256

// maxExtent is the longest extent in blocks: 4 TiB.
const maxExtent = 1 << 30

// part returns the part of an extent that covers file blocks [lo, hi).
// Precondition: e covers them.
func part(e pagecache.Extent, lo, hi uint64) pagecache.Extent {
	e.Block = e.BlockAt(lo)
	e.Logical, e.Len = lo, uint32(hi-lo)
	return e
}

// full reports whether nothing more should be planned. One step of a plan, for a hole or an extent,
// adds at most one extent to each list, and finish one more.
func (m *remap) full() bool {
	return max(len(m.old), len(m.now)) >= m.max || len(m.runs) >= max(m.max, remapRuns)
}

// newRemapLocked begins a plan for the file's blocks from lo on. An extent that begins before lo
// and ends at lo or later takes part: it may be lengthened or cut. Called with io held (for a
// directory, mu). Precondition: the inode has no other remap.
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

// end makes the remap empty.
func (m *remap) end() {
	clear(m.data) // it refers to the caller's bytes
	m.in, m.data = nil, m.data[:0]
}

// finish ends a plan at file block hi. An extent that covers hi takes part, too.
func (m *remap) finish(hi uint64) {
	if x, ok := m.in.space.Lookup(hi); ok {
		m.take(x)
		m.put(part(x, hi, x.End()))
	}
}

// take records that e is replaced.
func (m *remap) take(e pagecache.Extent) {
	if n := len(m.old); n == 0 || m.old[n-1].Logical != e.Logical {
		m.old = append(m.old, e)
	}
}

// put records that e is there afterwards. It follows all extents that were put before.
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

// reduce removes the extents that stay as they are from both lists. It returns how many slots the
// rest needs beyond those it has.
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

// reserveSlots ends the planning, and makes sure that the slots that the remap needs are available.
// Called with neither mu nor a lane.
func (m *remap) reserveSlots(ctx *Caller) error {
	n := m.reduce()
	if m.in.freeSlots() >= n {
		return nil
	}
	m.in.mu.Lock()
	defer m.in.mu.Unlock()
	return m.fs.needSlotsLocked(ctx, m.in, n)
}

// reserveSlotsLocked is reserveSlots for a directory, called with its mu held.
func (m *remap) reserveSlotsLocked(ctx *Caller) error {
	return m.fs.needSlotsLocked(ctx, m.in, m.reduce())
}

// commit makes a settled remap of a file durable and current. If size (bytes) is larger than the
// file's present size, it becomes the new size in the same transaction. After an error other than a
// journal.DataError the change has not happened, and the remap is aborted. Called with neither mu
// nor a lane.
//
// Persistence order:
//  1. transaction: the slots; the core line if the size grows
//  2. only then are the blocks free that the remap removes from the file
func (m *remap) commit(ctx *Caller, size uint64) error {
	if size <= m.in.size.Load() && m.idle() && len(m.data) == 0 {
		m.committed(ctx) // the file owns blocks twice that it shared before: drop one share
		return nil
	}
	return m.commitWith(ctx, func(c layout.Core) (layout.Core, uint32) {
		c.Size = max(c.Size, size)
		return c, 0
	})
}

// commitWith is commit with any change of the core line. times says which times change, too
// (SetAtime, SetMtime, SetCtime).
func (m *remap) commitWith(ctx *Caller, change func(c layout.Core) (now layout.Core, times uint32)) error {
	for _, r := range m.runs { // before readers find them: every block of a file has an owner
		m.fs.table.Own(r.block, r.n)
	}
	m.owned = true
	stale := m.fs.direct.beginChange(m)
	err := m.transact(ctx, change)
	if stale {
		m.fs.direct.endChange(m.in)
	}
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
	core, set := change(m.in.core)
	if core.Size > m.in.size.Load() && core.Format&layout.FormatTruncating != 0 {
		return corruptf("inode %d: a truncation to %d bytes could not be finished, and what it left would be seen again if the file grew", m.in.ino, m.in.size.Load())
	}
	c := m.fs.begin(ctx)
	u := c.update(m.in)
	if u.Core = core; set != 0 {
		u.stamp(set, m.fs.now())
	}
	c.remap(u, m)
	c.tx.AddData(m.data...)
	return c.commit()
}

// committed ends an applied remap of a file. The file disowns the blocks that it lost; the last
// holder of each frees it. A large folio that loses a part is split.
func (m *remap) committed(ctx *Caller) {
	for _, r := range m.runs {
		m.mergeFolios(r)
	}
	for _, r := range m.gone {
		m.fs.table.Disown(r.block, r.n, m.fs.free.to(ctx))
	}
	m.end()
}

// abort ends a remap of a file that was not committed because of cause, and gives back the blocks
// that it got. It returns cause, or errBadBlocks if bad blocks that were not known are the cause,
// so that another try finds other blocks.
func (m *remap) abort(ctx *Caller, cause error) error {
	if m.storeFailed(cause) { // before they are free
		cause = errBadBlocks
	}
	for _, r := range m.runs {
		if m.owned { // a reader that came late to what was here before may have a reference
			m.fs.table.Disown(r.block, r.n, m.fs.free.to(ctx))
		} else {
			m.fs.free.to(ctx)(r.block, r.n)
		}
	}
	for _, r := range m.shared {
		m.fs.table.Disown(r.block, r.n, m.fs.free.to(ctx))
	}
	m.end()
	return cause
}

// storeFailed is called with an error of the remap, and if that is of a store, probes all blocks
// that were stored to. It reports whether it found bad blocks that were not known, so that the
// change should be tried again.
func (m *remap) storeFailed(err error) (news bool) {
	bad := m.fs.bad
	if !m.stored || !bad.Unknown(err) {
		return false // no store, or known bad memory whose other bytes cannot be kept
	}
	for _, r := range m.runs {
		news = bad.ProbeFresh(r.block, r.n) || news
	}
	for _, p := range m.parts {
		if p.Flags&layout.ExtentUnwritten == 0 {
			news = bad.ProbeOwned(p.Block, uint64(p.Len)) || news
		}
	}
	return bad.Faulted(err) || news // err may also be of the source of a copy
}

// stage stages the slots of a settled remap in a transaction.
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

// unstage gives back the slots that stage took, if it took any, after a commit that failed.
func (m *remap) unstage() {
	if !m.staged {
		return
	}
	m.staged = false
	for i := len(m.old); i < len(m.now); i++ {
		m.in.giveSlot(m.now[i].Slot)
	}
}

// apply makes a committed remap current in DRAM, as one change for readers.
func (m *remap) apply() {
	in := m.in
	if invariants.Enabled && in.isReg() {
		for _, gained := range [2][]run{m.runs, m.shared} {
			for _, r := range gained {
				if !m.fs.table.Owned(r.block, r.n) {
					panic("fs: a file gets blocks that have no owner")
				}
			}
		}
	}
	in.space.BeginChange()
	next := 0
	for _, old := range m.old {
		for next < len(m.now) && m.now[next].Logical < old.Logical {
			next++
		}
		if next == len(m.now) || m.now[next].Logical != old.Logical {
			in.space.Remove(old.Logical)
		}
	}
	for _, insert := range []bool{false, true} { // first the extents that stay: they may shrink to make room
		i := 0
		for _, extent := range m.now {
			for i < len(m.old) && m.old[i].Logical < extent.Logical {
				i++
			}
			stays := i < len(m.old) && m.old[i].Logical == extent.Logical
			switch {
			case stays && !insert:
				in.space.Update(extent.Logical, extent)
			case !stays && insert:
				in.space.Insert(extent)
			}
		}
	}
	in.space.EndChange()
	n := uint64(0)
	for _, extent := range m.now {
		n += uint64(extent.Len)
	}
	for _, extent := range m.old {
		n -= uint64(extent.Len)
	}
	in.blocks.Add(n)
	for i := len(m.now); i < len(m.old); i++ {
		in.giveSlot(m.old[i].Slot)
	}
}

// mergeFolios merges the folios that run r completes into larger ones, so that a file that grows in
// place by small appends ends up in large folios. A busy folio stays as it is.
func (m *remap) mergeFolios(r run) {
	fs := m.fs
	i := 0
	for i < len(m.now) && (r.block < m.now[i].Block || r.block >= m.now[i].Block+uint64(m.now[i].Len)) {
		i++
	}
	if i == len(m.now) {
		return // r is in none of the new extents
	}
	e := m.now[i]
	o := fs.alloc.Orders()
	for _, order := range [2]uint8{o.PMD, o.PUD} {
		size := uint64(1) << order
		for _, b := range [2]uint64{r.block, r.block + r.n - 1} { // in the middle of r folios are large already
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

// dataBlock returns the first region block of an extent's data; 0 if the extent is unwritten, and
// so holds none.
func dataBlock(e pagecache.Extent) uint64 {
	if e.Flags&layout.ExtentUnwritten != 0 {
		return 0
	}
	return e.Block
}

// disposition is what a remap does with a range of a file.
type disposition int

const (
	dispWrite    disposition = iota // data: holes are allocated, unwritten blocks become written
	dispAllocate                    // holes become unwritten blocks, the rest stays as it is
	dispZero                        // all becomes unwritten blocks
	dispPunch                       // all becomes a hole
)

// planLocked returns the remap that does disp to file blocks [lo, hi), as far as one transaction
// goes: up to file block stop. If there is no space for the first block it returns errNoSpace and
// no remap. Called with io held (for a directory, mu).
func (fs *FS) planLocked(ctx *Caller, in *inode, lo, hi uint64, disp disposition) (plan *remap, stop uint64, err error) {
	plan = fs.newRemapLocked(in, lo)
	if disp == dispWrite && fs.atomic() {
		plan.max = layout.LoggedMax - 1 // and the core line
	}
	uid := in.payer(ctx)
	next, cause := lo, error(nil) // cause: why the plan ends before hi
	for next < hi && !plan.full() {
		found, ok := in.space.Lookup(next)
		switch {
		case ok:
			plan.take(found)
			cur := part(found, next, min(hi, found.End()))
			if disp == dispWrite || disp == dispZero {
				same, bad := fs.bad.SameState(cur.Block, uint64(cur.Len))
				cur = part(cur, next, next+same)
				if err := fs.direct.redirectLocked(&cur, bad); err != nil {
					cause, hi = err, next
					continue
				}
				if bad || fs.hasOtherUsers(cur) {
					block, n, ok := fs.placeCopy(ctx, plan, next, fs.reserve.spare(uid, uint64(cur.Len)))
					if !ok {
						cause, hi = errNoSpace, next
						continue
					}
					plan.runs = append(plan.runs, run{block, n})
					plan.gone = append(plan.gone, run{cur.Block, n})
					fresh := pagecache.Extent{Logical: next, Block: block, Len: uint32(n), Flags: layout.ExtentUnwritten}
					plan.parts = append(plan.parts, piece{fresh, dataBlock(cur)})
					if disp == dispWrite {
						fresh.Flags = 0
					}
					plan.put(fresh)
					next += n
					continue
				}
				cur.Flags &^= layout.ExtentShared
			}
			plan.parts = append(plan.parts, piece{Extent: cur})
			switch disp {
			case dispWrite:
				cur.Flags &^= layout.ExtentUnwritten
			case dispZero:
				cur.Flags |= layout.ExtentUnwritten
			}
			if disp == dispPunch {
				plan.gone = append(plan.gone, run{cur.Block, uint64(cur.Len)})
			} else {
				plan.put(cur)
			}
			next = cur.End()
		case disp == dispPunch:
			next = min(hi, found.Logical)
		default:
			block, n, ok := fs.placeLocked(ctx, plan, next, fs.reserve.spare(uid, min(hi, found.Logical)-next))
			if !ok {
				cause, hi = errNoSpace, next
				continue
			}
			fs.defrag.placed.Add(n)
			plan.runs = append(plan.runs, run{block, n})
			fresh := pagecache.Extent{Logical: next, Block: block, Len: uint32(n), Flags: layout.ExtentUnwritten}
			plan.parts = append(plan.parts, piece{Extent: fresh})
			if disp == dispWrite {
				fresh.Flags = 0
			}
			plan.put(fresh)
			next += n
		}
	}
	if next == lo && cause != nil {
		plan.end()
		return nil, lo, cause
	}
	plan.finish(next)
	return plan, next, nil
}
