package fs

import (
	"math"
	"runtime"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/rangelock"
	"github.com/daxfsd/daxfsd/pagecache"
)

// CopyRange is copy_file_range(2): it makes n bytes of dst from dstOff on what n bytes of
// src from srcOff on are, and returns how many, fewer at src's end or after an error.
// Where both offsets lie at the same place within a block whole blocks are shared, so that
// no data moves and no space is taken until one side is written; holes stay holes. The
// rest is copied. It is not atomic, neither to readers nor to a crash: pieces of it are.
//
// It ends early when it has copied copyMax bytes.
//
// EISDIR and EINVAL if one is no regular file, or if the ranges overlap; EFBIG beyond the
// largest file; EINTR if the caller gave up before anything was done.
func (fs *FS) CopyRange(ctx *Caller, src uint64, srcOff int64, dst uint64, dstOff, n int64) (done int64, e syscall.Errno) {
	e = fs.retryNoSpace(ctx, func() syscall.Errno {
		done, e = fs.tryCopy(ctx, src, srcOff, dst, dstOff, n)
		return e
	})
	return done, e
}

func (fs *FS) tryCopy(ctx *Caller, src uint64, srcOff int64, dst uint64, dstOff, n int64) (int64, syscall.Errno) {
	if e := fs.mayChange(); e != 0 {
		return 0, e
	}
	if srcOff < 0 || dstOff < 0 || n < 0 {
		return 0, syscall.EINVAL
	}
	s, e := fs.get(src)
	if e != 0 {
		return 0, e
	}
	defer fs.put(s, 1)
	d, e := fs.get(dst)
	if e != 0 {
		return 0, e
	}
	defer fs.put(d, 1)
	for _, in := range [2]*inode{s, d} {
		if e := in.mustBeFile(); e != 0 {
			return 0, e
		}
		if err := fs.extentsLoaded(ctx, in); err != nil {
			return 0, errno(err)
		}
	}
	if d.immutableOrAppend() {
		return 0, syscall.EPERM
	}
	n = min(n, int64(s.size.Load())-srcOff)
	if n <= 0 {
		return 0, 0
	}
	if dstOff > maxSize || n > maxSize-dstOff {
		return 0, syscall.EFBIG
	}
	if s == d && srcOff < dstOff+n && dstOff < srcOff+n {
		return 0, syscall.EINVAL
	}
	fs.accessed(ctx, s)
	if e := fs.killCapability(ctx, d); e != 0 {
		return 0, e
	}
	defer d.breakLayout(uint64(dstOff)>>layout.BlockShift, blocksOf(dstOff+n))()
	c := copying{fs: fs, ctx: ctx, src: s, dst: d, srcOff: srcOff, dstOff: dstOff,
		share: (srcOff-dstOff)%layout.BlockSize == 0 && fs.sb.Incompat&layout.IncompatShared != 0}
	done, err := c.run(n)
	if done > 0 {
		fs.touch(d)
	}
	return done, errno(err)
}

// mustBeFile is EISDIR for a directory, and EINVAL for what else is no regular file.
func (in *inode) mustBeFile() syscall.Errno {
	switch {
	case in.isDir():
		return syscall.EISDIR
	case !in.isReg():
		return syscall.EINVAL
	}
	return 0
}

// copyPiece bounds what copyBytes copies at once, and copyMax what CopyRange does for one request,
// both in bytes: whoever wants more asks again, as copy_file_range(2) demands, and others have
// their turns between.
const (
	copyPiece = 256 << 10
	copyMax   = 8 << 20
)

// copying is a CopyRange under way.
type copying struct {
	fs             *FS
	ctx            *Caller
	src, dst       *inode
	srcOff, dstOff int64 // of what is left, in bytes
	share          bool  // whole blocks may be shared
	copied         int64 // bytes that were copied and not shared
}

// run copies up to n bytes. It fails only if it copied nothing.
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

// step copies some of the n bytes that are left.
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

// copyBytes copies up to n bytes, but skip more than where what is left begins, as a read and a
// write do. It holds no lock of src while it waits for one of dst.
func (c *copying) copyBytes(skip, n int64) (int64, error) {
	fs := c.fs
	r := fs.NewPinnedRead()
	defer r.Free()
	c.src.refs.Add(1) // the reply's
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

// lock locks n bytes of src for reading and those of dst for
// writing, as lockWrite does, and both io: in the order of inode numbers. In one file it
// locks all from the first to the last of them for writing: with two locks that a
// truncation makes overlap it would wait for itself.
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
		unlock() // truncated meanwhile, see lockGrow
	}
}

// shareRange lets dst share blocks of src: as many of the n bytes as one transaction
// takes. All are multiples of the block size. It returns how many bytes that is, 0 if they
// cannot be shared.
//
// Persistence order:
//  1. NT-zero from dst's old end of file to the end of its block, if that comes before
//     the range; SFENCE
//  2. transaction: src's slots say that their blocks may be shared
//  3. transaction: dst's slots, and its size if it grows
//  4. only then is what dst had there free
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
	if hi = c.readable(lo, hi); hi == lo {
		return 0, nil
	}
	hi, err := c.markShared(lo, hi)
	if err != nil {
		return 0, err
	}
	m, hi := c.planShare(lo, hi, at)
	if m == nil {
		return 0, nil // as many owners as can be counted
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

// readable is how far the file's blocks [lo, hi) can be read: bad blocks are not shared, so
// that copying them fails.
func (c *copying) readable(lo, hi uint64) uint64 {
	fs := c.fs
	if fs.bad.Ranges() == nil {
		return hi
	}
	count := 0
	c.src.space.Ascend(lo, func(e pagecache.Extent) bool {
		if e.Logical >= hi {
			return false
		}
		if count++; count > remapMax { // markShared takes no more
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

// markShared marks src's written extents in a range, as many as one transaction takes, and
// returns where it stopped.
//
// Persistence order: transaction: their slots.
func (c *copying) markShared(lo, hi uint64) (stop uint64, err error) {
	src := c.src
	var list []pagecache.Extent
	count := 0
	src.space.Ascend(lo, func(e pagecache.Extent) bool {
		if e.Logical >= hi {
			return false
		}
		if count++; count > remapMax {
			hi = e.Logical
			return false
		}
		if e.Flags&(layout.ExtentShared|layout.ExtentUnwritten) == 0 {
			e.Flags |= layout.ExtentShared
			list = append(list, e)
		}
		return true
	})
	if len(list) == 0 {
		return hi, nil
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	t := c.fs.journal.Begin(c.ctx.Lane)
	for _, e := range list {
		src.stageSlot(t, e.Slot, mediaExtent(e))
	}
	if err := t.Commit(); err != nil {
		return lo, err
	}
	src.space.BeginChange()
	for _, e := range list {
		src.space.Update(e.Logical, e)
	}
	src.space.EndChange()
	return hi, nil
}

// planShare is the remap by which dst's blocks from at on are src's [lo, hi), and makes dst their
// owner. It returns how far it came. If they have as many owners as can be counted there is none.
func (c *copying) planShare(lo, hi, at uint64) (m *remap, stop uint64) {
	fs, src, dst := c.fs, c.src, c.dst
	m = fs.newRemapLocked(dst, at)
	b := lo
	for b < hi && !m.full() {
		e, ok := src.space.Lookup(b)
		next := min(hi, e.End())
		if !ok {
			next = min(hi, e.Logical)
		}
		// What dst has there goes.
		full := false
		for d := b - lo + at; d < next-lo+at; {
			old, ok := dst.space.Lookup(d)
			if !ok {
				d = min(next-lo+at, old.Logical)
				continue
			}
			if m.full() && d > b-lo+at {
				next, full = d+lo-at, true
				break
			}
			m.take(old)
			x := part(old, d, min(old.End(), next-lo+at))
			m.gone = append(m.gone, run{x.Block, uint64(x.Len)})
			d = x.End()
		}
		if ok && e.Flags&layout.ExtentUnwritten == 0 {
			x := part(e, b, next)
			if err := fs.table.Share(x.Block, uint64(x.Len)); err != nil {
				_ = m.abort(c.ctx, err)
				return nil, lo
			}
			m.shared = append(m.shared, run{x.Block, uint64(x.Len)})
			x.Logical = b - lo + at
			m.put(x)
		}
		if b = next; full {
			break
		}
	}
	m.finish(b - lo + at)
	return m, b
}

// hasOtherUsers reports whether somebody has blocks of x through another file: an owner, or a
// reader who came by one that left meanwhile.
func (fs *FS) hasOtherUsers(x pagecache.Extent) bool {
	return x.Flags&layout.ExtentShared != 0 && !fs.table.Sole(x.Block, uint64(x.Len))
}

// placeCopy allocates blocks for a copy of up to want shared blocks, the first of them
// file block b: no more than what changes.
func (fs *FS) placeCopy(ctx *Caller, b, want uint64) (block, n uint64, ok bool) {
	if want == 0 {
		return 0, 0, false
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

// unshareLocked makes the block at byte off the file's own, if it is shared, so that it can be
// stored to. Called with io held, and no plan.
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
		if err = fs.tryUnshare(ctx, in, b); err != errBadBlocks {
			return err
		}
	}
	return err
}

// tryUnshare is unshareLocked of file block b; errBadBlocks: the block of the copy was bad, unknown
// till now.
func (fs *FS) tryUnshare(ctx *Caller, in *inode, b uint64) error {
	m, _, err := fs.planLocked(ctx, in, b, b+1, dispWrite)
	if err != nil {
		return err
	}
	err = m.reserveSlots(ctx)
	for _, p := range m.parts {
		if p.from != 0 && err == nil {
			err = m.copyBlocks(p.Block, p.from, uint64(p.Len))
		}
	}
	if err != nil {
		err = m.abort(ctx, err)
	} else {
		err = m.commit(ctx, 0)
	}
	if err == errBadBlocks {
		e, _ := in.space.Lookup(b)
		if bad := fs.bad.Check(e.BlockAt(b), 1); bad != nil {
			err = bad // what was to be copied
		}
	}
	return err
}

// copyBlocks copies n blocks within the region, to some that the remap brings.
//
// Persistence order: NT-store, SFENCE.
func (m *remap) copyBlocks(to, from, n uint64) error {
	fs := m.fs
	m.stored = true
	if err := fs.bad.Check(from, n); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	size := int64(n) << layout.BlockShift
	if err := fs.r.NTStore(int64(to)<<layout.BlockShift, fs.r.Bytes(int64(from)<<layout.BlockShift, size)); err != nil {
		return err
	}
	fs.r.Fence()
	return nil
}
