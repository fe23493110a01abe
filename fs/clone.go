package fs

import (
	"math"
	"runtime"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/rangelock"
	"github.com/daxfsd/daxfsd/pagecache"
)

// CopyRange is copy_file_range(2): it copies n bytes of src from srcOff on to dst from dstOff on,
// and returns how many bytes it copied. That is fewer than n at the end of src, after an error, or
// when copyMax bytes were copied without sharing. If both offsets are at the same place within a
// block, whole blocks are shared: no data moves, and no space is taken until one side is written.
// Holes stay holes. All other bytes are copied. Each piece is atomic, to readers and to a crash;
// the whole is not.
//
// EISDIR and EINVAL if one is not a regular file, EINVAL also if the ranges overlap; EFBIG beyond
// the largest file; EINTR if the caller gave up before anything was done.
func (fs *FS) CopyRange(ctx *Caller, src uint64, srcOff int64, dst uint64, dstOff, n int64) (done int64, e syscall.Errno) {
	e = fs.retryNoSpace(ctx, func() syscall.Errno {
		done, e = fs.tryCopy(ctx, src, srcOff, dst, dstOff, n)
		return e
	})
	return done, e
}

// tryCopy is one attempt of CopyRange.
func (fs *FS) tryCopy(ctx *Caller, src uint64, srcOff int64, dst uint64, dstOff, n int64) (int64, syscall.Errno) {
	if e := fs.mayChange(); e != 0 {
		return 0, e
	}
	if srcOff < 0 || dstOff < 0 || n < 0 {
		return 0, syscall.EINVAL
	}
	srcInode, e := fs.get(src)
	if e != 0 {
		return 0, e
	}
	defer fs.put(srcInode, 1)
	dstInode, e := fs.get(dst)
	if e != 0 {
		return 0, e
	}
	defer fs.put(dstInode, 1)
	for _, in := range [2]*inode{srcInode, dstInode} {
		if e := in.mustBeFile(); e != 0 {
			return 0, e
		}
		if err := fs.extentsLoaded(ctx, in); err != nil {
			return 0, errno(err)
		}
	}
	if dstInode.immutableOrAppend() {
		return 0, syscall.EPERM
	}
	n = min(n, int64(srcInode.size.Load())-srcOff)
	if n <= 0 {
		return 0, 0
	}
	if dstOff > maxSize || n > maxSize-dstOff {
		return 0, syscall.EFBIG
	}
	if srcInode == dstInode && srcOff < dstOff+n && dstOff < srcOff+n {
		return 0, syscall.EINVAL
	}
	fs.accessed(ctx, srcInode)
	if e := fs.killCapability(ctx, dstInode); e != 0 {
		return 0, e
	}
	copier := copying{fs: fs, ctx: ctx, src: srcInode, dst: dstInode, srcOff: srcOff, dstOff: dstOff,
		share: (srcOff-dstOff)%layout.BlockSize == 0 && fs.sb.Incompat&layout.IncompatShared != 0}
	done, err := copier.run(n)
	if done > 0 {
		fs.touch(dstInode)
	}
	return done, errno(err)
}

// mustBeFile returns EISDIR for a directory, and EINVAL for any other inode that is not a regular
// file.
func (in *inode) mustBeFile() syscall.Errno {
	switch {
	case in.isDir():
		return syscall.EISDIR
	case !in.isReg():
		return syscall.EINVAL
	}
	return 0
}

// copyPiece bounds the bytes that copyBytes copies at once. copyMax bounds the bytes that CopyRange
// copies for one request, not counting shared blocks. A program that wants more asks again, as
// copy_file_range(2) demands, so that other requests have their turns in between.
const (
	copyPiece = 256 << 10
	copyMax   = 8 << 20
)

// copying is a CopyRange under way.
type copying struct {
	fs             *FS
	ctx            *Caller
	src, dst       *inode
	srcOff, dstOff int64 // of the rest, in bytes
	share          bool  // whole blocks may be shared
	copied         int64 // bytes that were copied instead of shared
}

// run copies up to n bytes, and returns how many. It returns an error only if it copied nothing.
func (c *copying) run(n int64) (done int64, err error) {
	for done < n && c.copied < copyMax {
		m, err := c.step(n - done)
		done += m
		c.srcOff, c.dstOff = c.srcOff+m, c.dstOff+m
		if err != nil && done == 0 {
			return 0, err
		}
		if err != nil || m == 0 {
			break
		}
	}
	return done, nil
}

// step copies some of the next n bytes, and returns how many.
func (c *copying) step(n int64) (m int64, err error) {
	if c.ctx.cancelled() {
		return 0, syscall.EINTR
	}
	within := c.srcOff % layout.BlockSize
	if c.share && within == 0 && n >= layout.BlockSize {
		if m, err = c.shareRange(n &^ (layout.BlockSize - 1)); m > 0 || err != nil {
			return m, err
		}
		m, err = c.copyBytes(0, n)
	} else {
		m, err = c.copyBytes(0, min(n, layout.BlockSize-within))
		if !c.share && err == nil && m > 0 {
			var k int64
			k, err = c.copyBytes(m, n-m)
			m += k
		}
	}
	c.copied += m
	return m, err
}

// copyBytes copies up to n bytes, by a read and a write, and returns how many. It begins skip bytes
// after srcOff and dstOff. It holds no lock of src while it waits for a lock of dst.
func (c *copying) copyBytes(skip, n int64) (int64, error) {
	fs := c.fs
	r := fs.NewPinnedRead()
	defer r.Free()
	c.src.refs.Add(1) // for the pinned read
	if e := fs.read(c.ctx, c.src, c.srcOff+skip, int(min(n, copyPiece)), r); e != 0 {
		fs.put(c.src, 1)
		return 0, e
	}
	b := make([]byte, r.Len())
	if _, e := r.Take(b); e != 0 {
		return 0, e
	}
	m, e := fs.write(c.ctx, c.dst, c.dstOff+skip, b)
	if e != 0 {
		return int64(m), e
	}
	return int64(m), nil
}

// lock locks n bytes of src for reading, the bytes of dst for writing as lockWrite does, and both
// io, in the order of inode numbers. In one file it locks everything from the first to the last
// byte for writing. Two locks would not do: after a truncation they can overlap, and the thread
// would wait for itself.
func (c *copying) lock(n int64) (unlock func()) {
	src, srcOff, dst, dstOff := c.src, c.srcOff, c.dst, c.dstOff
	for {
		from := min(dstOff, int64(dst.size.Load()))
		to := max(dstOff+n, from+1)
		var first, second *inode // second is nil if they are the same
		var a, b rangelock.Token
		switch {
		case src == dst:
			first = dst
			a = dst.rl.Lock(min(srcOff, from), max(srcOff+n, to), true)
		case src.ino < dst.ino:
			first, second = src, dst
			a, b = src.rl.Lock(srcOff, srcOff+n, false), dst.rl.Lock(from, to, true)
		default:
			first, second = dst, src
			a, b = dst.rl.Lock(from, to, true), src.rl.Lock(srcOff, srcOff+n, false)
		}
		first.io.Lock()
		if second != nil {
			second.io.Lock()
		}
		unlock = func() {
			if second != nil {
				second.io.Unlock()
				second.rl.Unlock(b)
			}
			first.io.Unlock()
			first.rl.Unlock(a)
		}
		if min(dstOff, int64(dst.size.Load())) >= from {
			return unlock
		}
		unlock() // dst was truncated meanwhile, see lockGrow
	}
}

// shareRange makes dst share the blocks of the next n bytes of src, as many as one transaction
// takes. n and both offsets are multiples of the block size. It returns how many bytes are shared;
// 0 if these cannot be shared.
//
// Persistence order:
//  1. NT-zero from dst's old end of file to the end of its block, if that precedes the range;
//     SFENCE
//  2. transaction: src's slots are marked as shared
//  3. transaction: dst's slots, and its size if it grows
//  4. only then are the blocks that dst had there free
func (c *copying) shareRange(n int64) (int64, error) {
	defer c.lock(n)()
	fs, ctx, src, srcOff, dst, dstOff := c.fs, c.ctx, c.src, c.srcOff, c.dst, c.dstOff
	n = min(n, int64(src.size.Load())-srcOff) &^ (layout.BlockSize - 1)
	if n <= 0 {
		return 0, nil
	}
	if size := int64(dst.size.Load()); dstOff > size {
		if err := fs.zeroFencedLocked(ctx, dst, span{size, min(dstOff, blockEnd(size))}); err != nil {
			return 0, err
		}
	}
	lo, hi := uint64(srcOff)>>layout.BlockShift, uint64(srcOff+n)>>layout.BlockShift
	at := uint64(dstOff) >> layout.BlockShift
	hi = c.readableLocked(lo, hi)
	// A program would go on to store to blocks that are shared, or replaced.
	hi = fs.direct.notLeased(src, lo, hi)
	if hi = fs.direct.notLeased(dst, at, at+hi-lo) - at + lo; hi == lo {
		return 0, nil
	}
	hi, err := c.markSharedLocked(lo, hi)
	if err != nil {
		return 0, err
	}
	m, hi := c.planShareLocked(lo, hi, at)
	if m == nil {
		return 0, nil // a block has as many owners as can be counted
	}
	end := uint64(dstOff) + (hi-lo)<<layout.BlockShift
	if err = fs.bypassLocked(ctx, dst, dstOff, int64(end)); err == nil {
		err = m.reserveSlots(ctx)
	}
	if err != nil {
		err = m.abort(ctx, err)
	} else {
		err = m.commit(ctx, end)
	}
	if err != nil {
		dst.bypassedLocked(ctx, dstOff)
		return 0, err
	}
	return int64(hi-lo) << layout.BlockShift, nil
}

// readableLocked returns the end of the readable part of src's file blocks [lo, hi). Bad blocks are
// not shared, so that copying them reports the error.
func (c *copying) readableLocked(lo, hi uint64) uint64 {
	fs := c.fs
	if fs.bad.Ranges() == nil {
		return hi
	}
	count := 0
	c.src.space.Ascend(lo, func(e pagecache.Extent) bool {
		if e.Logical >= hi {
			return false
		}
		if count++; count > remapMax { // markSharedLocked takes no more extents
			hi = e.Logical
			return false
		}
		if e.Flags&layout.ExtentUnwritten == 0 {
			b := max(lo, e.Logical)
			switch m, bad := fs.bad.SameState(e.BlockAt(b), e.End()-b); {
			case bad:
				hi = b
			case b+m < e.End():
				hi = min(hi, b+m)
			}
		}
		return true
	})
	return hi
}

// markSharedLocked marks src's written extents in file blocks [lo, hi) as shared, as many as one
// transaction takes, and returns the file block where it stopped. Called with the locks of lock
// held.
func (c *copying) markSharedLocked(lo, hi uint64) (stop uint64, err error) {
	from, end := lo, hi
	whole := !c.fs.direct.any() // else programs may store to the rest of an extent, which stays unshared
	if e, ok := c.src.space.Lookup(lo); ok && whole {
		from = e.Logical
	}
	m := c.fs.newRemapLocked(c.src, from)
	c.src.space.Ascend(lo, func(e pagecache.Extent) bool {
		if e.Logical >= hi {
			return false
		}
		if m.full() {
			hi, end = e.Logical, e.Logical
			return false
		}
		m.take(e)
		if whole {
			end = max(end, e.End())
		} else {
			e = part(e, max(lo, e.Logical), min(hi, e.End()))
		}
		if e.Flags&layout.ExtentUnwritten == 0 {
			e.Flags |= layout.ExtentShared
		}
		m.put(e)
		return true
	})
	m.finish(end)
	if err := m.reserveSlots(c.ctx); err != nil {
		return lo, m.abort(c.ctx, err)
	}
	return hi, m.commit(c.ctx, 0)
}

// planShareLocked plans the remap by which dst's file blocks from dstAt on share src's file blocks
// [lo, hi). It makes dst an owner of the blocks, and returns the file block of src where it
// stopped. The plan is nil if a block has as many owners as can be counted. Called with the locks
// of lock held.
func (c *copying) planShareLocked(lo, hi, dstAt uint64) (plan *remap, stop uint64) {
	fs, src, dst := c.fs, c.src, c.dst
	plan = fs.newRemapLocked(dst, dstAt)
	pos := lo
	for pos < hi && !plan.full() {
		srcExtent, ok := src.space.Lookup(pos)
		next := min(hi, srcExtent.End())
		if !ok {
			next = min(hi, srcExtent.Logical)
		}
		// dst gives up the blocks that it has there.
		full := false
		for dstPos := pos - lo + dstAt; dstPos < next-lo+dstAt; {
			old, ok := dst.space.Lookup(dstPos)
			if !ok {
				dstPos = min(next-lo+dstAt, old.Logical)
				continue
			}
			if plan.full() && dstPos > pos-lo+dstAt {
				next, full = dstPos+lo-dstAt, true
				break
			}
			plan.take(old)
			lost := part(old, dstPos, min(old.End(), next-lo+dstAt))
			plan.gone = append(plan.gone, run{lost.Block, uint64(lost.Len)})
			dstPos = lost.End()
		}
		if ok && srcExtent.Flags&layout.ExtentUnwritten == 0 {
			added := part(srcExtent, pos, next)
			if err := fs.table.Share(added.Block, uint64(added.Len)); err != nil {
				_ = plan.abort(c.ctx, err)
				return nil, lo
			}
			plan.shared = append(plan.shared, run{added.Block, uint64(added.Len)})
			added.Logical = pos - lo + dstAt
			plan.put(added)
		}
		if pos = next; full {
			break
		}
	}
	plan.finish(pos - lo + dstAt)
	return plan, pos
}

// hasOtherUsers reports whether blocks of x are in use through another file: by another owner, or
// by a reader or a program that found them through a file which no longer has them.
func (fs *FS) hasOtherUsers(x pagecache.Extent) bool {
	return x.Flags&layout.ExtentShared != 0 && (!fs.table.Sole(x.Block, uint64(x.Len)) || fs.direct.leased(x.Block, uint64(x.Len)))
}

// placeCopy allocates up to want blocks for a copy of a file's shared or bad blocks, of which the
// first is file block b. It returns the first block and their number n. Called with io held, within
// the plan.
func (fs *FS) placeCopy(ctx *Caller, plan *remap, b, want uint64) (block, n uint64, ok bool) {
	if want == 0 {
		return 0, 0, false
	}
	if ctx.Order > 0 { // the whole range is copied: it goes to one place
		return fs.placeLocked(ctx, plan, b, want)
	}
	o := fs.alloc.Orders()
	if want >= 1<<o.PMD>>sharePMD {
		off := b & (1<<o.PMD - 1)
		if base, n, ok := fs.alloc.Reservation(o.PMD, off, min(want, math.MaxUint32)); ok {
			return base + off, n, true
		}
	}
	return fs.alloc.AllocFrom(ctx.Lane, 0, min(want, 1<<o.PMD-b&(1<<o.PMD-1)))
}

// unshareLocked gives the file a copy of its own of the block at byte off, if that is shared, so
// that it can be overwritten. Called with io held, and no plan.
//
// Persistence order:
//  1. NT-store a copy of the block, SFENCE
//  2. transaction: the slots
func (fs *FS) unshareLocked(ctx *Caller, in *inode, off int64) (err error) {
	b := uint64(off) >> layout.BlockShift
	if e, ok := in.space.Lookup(b); !ok || e.Flags&layout.ExtentShared == 0 {
		return nil
	}
	for range extendTries {
		if err = fs.tryUnshareLocked(ctx, in, b); err != errBadBlocks {
			return err
		}
	}
	return err
}

// tryUnshareLocked is one attempt of unshareLocked, for file block b. errBadBlocks: the block of
// the copy was not known to be bad. Called with io held.
func (fs *FS) tryUnshareLocked(ctx *Caller, in *inode, b uint64) error {
	m, _, err := fs.planLocked(ctx, in, b, b+1, dispWrite)
	if err != nil {
		return err
	}
	err = m.reserveSlots(ctx)
	if err == nil {
		err = m.copyParts(m.parts)
	}
	if err != nil {
		err = m.abort(ctx, err)
	} else {
		err = m.commit(ctx, 0)
	}
	if err == errBadBlocks {
		e, _ := in.space.Lookup(b)
		if bad := fs.bad.Check(e.BlockAt(b), 1); bad != nil {
			err = bad // the source of the copy is bad
		}
	}
	return err
}

// copyParts stores copies of the blocks that the parts of a remap replace, to blocks that the remap
// allocated.
//
// Persistence order: NT-store, SFENCE.
func (m *remap) copyParts(parts []piece) error {
	fs := m.fs
	m.stored = true
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, p := range parts {
		if p.from == 0 {
			continue
		}
		if err := fs.bad.Check(p.from, uint64(p.Len)); err != nil {
			return err
		}
		size := int64(p.Len) << layout.BlockShift
		if err := fs.r.NTStore(int64(p.Block)<<layout.BlockShift, fs.r.Bytes(int64(p.from)<<layout.BlockShift, size)); err != nil {
			return err
		}
	}
	fs.r.Fence()
	return nil
}
